"""Microsoft Teams: a card per event, through a Workflow or by a bot that keeps threads."""

from connectors.teams.connector import Teams

__all__ = ["Teams"]
