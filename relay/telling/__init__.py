"""How people and machines hear of what goes on: problems by Apprise, and a heartbeat."""
