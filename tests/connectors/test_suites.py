"""Our own connectors pass the conformance suite that we give to others."""

from __future__ import annotations

import pytest

from connectors.suites.archive import TestArchive
from connectors.suites.email import TestEmail
from connectors.suites.hubspot import TestHubSpot
from connectors.suites.teams import TestTeams
from connectors.suites.webhook import TestWebhook
from connectors.suites.zendesk import TestZendesk

pytestmark = pytest.mark.slow

__all__ = [
    "TestArchive",
    "TestEmail",
    "TestHubSpot",
    "TestTeams",
    "TestWebhook",
    "TestZendesk",
]
