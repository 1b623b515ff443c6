"""Our own connectors pass the conformance suite that we give to others."""

from __future__ import annotations

from connectors.suites.hubspot import TestHubSpot
from connectors.suites.teams import TestTeams
from connectors.suites.zendesk import TestZendesk

__all__ = ["TestHubSpot", "TestTeams", "TestZendesk"]
