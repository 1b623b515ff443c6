"""What the tests of connectors have in common."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import hubspot_portal
import pytest
import trustme
from http_calls import LOOPBACK
from hubspot_portal import Open, Portal
from zendesk_account import Account, opened

from connectors.http import Http, Session
from connectors.suites.mailbox import Mailbox
from connectors.zendesk.connector import Zendesk

#: Checks that spoil or kill each request of a delivery in turn, or make fifty at once.
LONG = (
    "test_C03_lost_answers", "test_C04_garbage", "test_C05_refusals", "test_C10_fifty", "test_C17"
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Leave the long checks of our own connectors to CI."""
    for item in items:
        if item.name.startswith(LONG):
            item.add_marker(pytest.mark.slow)


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


@pytest.fixture
def open_portal() -> Iterator[Open]:
    """Start HubSpot stand-ins with special settings."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(hubspot_portal.opened(**settings))


@pytest.fixture
def portal(open_portal: Open) -> Portal:
    """A HubSpot account that is set up, on a socket of its own."""
    return open_portal()


@pytest.fixture
def http() -> Http:
    return Http(allow=LOOPBACK, default_deadline=10)


@pytest.fixture
def session(http: Http) -> Iterator[Session]:
    with http.session() as session:
        yield session


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        yield unheard.getsockname()[1]


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context
