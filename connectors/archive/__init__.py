"""An archive: every event as a line of JSON in the folder of its day, on disk before it counts."""

from connectors.archive.connector import Archive

__all__ = ["Archive"]
