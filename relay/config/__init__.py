"""The config file: its model, its reading, and its faults."""
