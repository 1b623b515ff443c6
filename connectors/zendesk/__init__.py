"""Zendesk: one ticket for each conversation, in which every SMS is a comment of the customer."""

from connectors.zendesk.connector import Zendesk

__all__ = ["Zendesk"]
