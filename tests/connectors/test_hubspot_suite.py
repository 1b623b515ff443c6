"""HubSpot passes the conformance suite with tickets and tasks, and with an inbox, too."""

from __future__ import annotations

import pytest

from connectors.suites.hubspot import TestHubSpotInbox, TestHubSpotTickets

__all__ = ["TestHubSpotInbox", "TestHubSpotTickets"]

#: The timeline alone is in test_suites.py.
pytestmark = pytest.mark.slow
