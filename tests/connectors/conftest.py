"""What the tests of connectors have in common."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from zendesk_account import Account, opened

from connectors.zendesk.connector import Zendesk


@pytest.fixture
def account() -> Iterator[Account]:
    """A Zendesk account on a socket of its own."""
    with opened() as account:
        yield account


@pytest.fixture
def zendesk(account: Account) -> Iterator[Zendesk]:
    """A connector that reaches the account."""
    connector = account.connector()
    yield connector
    connector.close()
