"""The fixture ``gofax_sender`` for the tests of receivers.

Every pytest run of every project that has us installed imports this file: keep it light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sender.harness import GofaxSender


@pytest.fixture
def gofax_signing_secret() -> str:
    """The secret that ``gofax_sender`` signs with; define your own to use another."""
    return "a signing secret for tests"


@pytest.fixture
def gofax_previous_secret() -> str | None:
    """A second secret that the receiver still accepts; define your own if it has one."""
    return None


@pytest.fixture
def gofax_sender(gofax_signing_secret: str, gofax_previous_secret: str | None) -> GofaxSender:
    """GoFax: makes signed requests for a test client, delivers to a server, plays scenarios."""
    harness = importlib.import_module("sender.harness")
    sender: GofaxSender = harness.GofaxSender(
        secret=gofax_signing_secret, previous_secret=gofax_previous_secret
    )
    return sender
