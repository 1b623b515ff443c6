"""HubSpot passes the conformance suite with tickets and tasks, and with an inbox, too."""

from __future__ import annotations

from connectors.suites.hubspot import TestHubSpotInbox, TestHubSpotTickets

__all__ = ["TestHubSpotInbox", "TestHubSpotTickets"]
