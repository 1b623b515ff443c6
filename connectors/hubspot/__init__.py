"""Brings each SMS to the customer's contact in HubSpot: on its timeline, or into the inbox."""

from connectors.hubspot.connector import HubSpot

__all__ = ["HubSpot"]
