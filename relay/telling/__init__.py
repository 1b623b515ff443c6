"""How people and machines hear of what goes on: problems, a heartbeat, and metrics."""
