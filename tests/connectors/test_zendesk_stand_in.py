"""The stand-in of Zendesk behaves as the account does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from zendesk_account import SECRET, Account, deliver, opened

from connectors import Http, Transient
from connectors.sandbox import serve
from connectors.testing import sample_event
from connectors.zendesk import Zendesk

GRANT = {"grant_type": "client_credentials", "client_id": "relay", "client_secret": SECRET}
TICKET = {"subject": "Hello", "comment": {"body": "Hello"}}


@pytest.fixture
def account() -> Iterator[Account]:
    with opened() as account:
        yield account


@pytest.fixture
def ticket(account: Account) -> Iterator[str]:
    connector = account.connector()
    yield str(deliver(connector, sample_event(body="<b>Hi</b> & bye")).thread)
    connector.close()


def call(account: Account, method: str, path: str, **options: Any) -> requests.Response:
    options = {"headers": {"Authorization": "Bearer somebody"}, "timeout": 5} | options
    return requests.request(method, f"{account.url}/{path}", **options)


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "revoked"}, 401, "invalid_client"),
        ({"client_id": None}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"expires_in": 10}, 400, "invalid_request"),
        ({"expires_in": "long"}, 400, "invalid_request"),
    ],
)
def test_token_endpoint_refuses(
    account: Account, changes: dict[str, Any], status: int, error: str
) -> None:
    answer = call(account, "POST", "oauth/tokens", json=GRANT | changes)

    assert (answer.status_code, answer.json()["error"]) == (status, error)


def test_granted_token_opens_the_api_until_it_expires(account: Account) -> None:
    granted = call(account, "POST", "oauth/tokens", json=GRANT).json()
    headers = {"Authorization": f"Bearer {granted['access_token']}"}

    before = call(account, "GET", "api/v2/tickets", headers=headers)
    account.stand_in.revoke_tokens()
    after = call(account, "GET", "api/v2/tickets", headers=headers)

    assert (granted["token_type"], granted["expires_in"]) == ("bearer", 1800)
    assert (before.status_code, after.status_code) == (200, 401)
    assert after.json()["error"] == "invalid_token"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"headers": {}}, 401),
        ({"headers": {"Authorization": "Bearer revoked"}}, 401),
        ({"headers": {"Authorization": "Bearer granted-by-nobody"}}, 401),
        ({"headers": {}, "auth": ("agent@example.com", "password")}, 401),
        ({"headers": {}, "auth": ("agent@example.com/token", "revoked")}, 401),
        ({"headers": {}, "auth": ("agent@example.com/token", SECRET)}, 200),
        ({}, 200),
    ],
)
def test_api_wants_credentials(account: Account, options: dict[str, Any], status: int) -> None:
    assert call(account, "GET", "api/v2/tickets.json", **options).status_code == status


def test_caller_without_credentials_is_the_anonymous_user(account: Account) -> None:
    answer = call(account, "GET", "api/v2/users/me.json", headers={})

    assert answer.json()["user"]["id"] is None


def test_user_is_created_once_and_then_updated(account: Account) -> None:
    def save(name: str) -> requests.Response:
        user = {"name": name, "external_id": "sms-1"}
        return call(account, "POST", "api/v2/users/create_or_update", json={"user": user})

    first, second = save("Jane"), save("Jane Citizen")

    assert (first.status_code, second.status_code) == (201, 200)
    assert [each["name"] for each in account.stand_in.users()] == ["Jane Citizen"]
    assert account.records.listing() == []


def test_same_key_gives_the_same_ticket_and_another_body_is_an_error(account: Account) -> None:
    headers = {"Authorization": "Bearer somebody", "Idempotency-Key": "one"}

    def create(**changes: Any) -> requests.Response:
        body = {"ticket": TICKET | changes}
        return call(account, "POST", "api/v2/tickets", json=body, headers=headers)

    first, again, other = create(), create(), create(subject="Another")

    assert (first.status_code, first.headers["x-idempotency-lookup"]) == (201, "miss")
    assert (again.status_code, again.headers["x-idempotency-lookup"]) == (201, "hit")
    assert first.json() == again.json()
    assert (other.status_code, other.json()["error"]) == (400, "IdempotentRequestError")
    assert len(account.stand_in.tickets()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"comment": {"body": ""}},
        {"requester_id": 7},
        {"via_followup_source_id": 7},
        {"comment": None},
    ],
)
def test_ticket_that_cannot_be_is_invalid(account: Account, changes: dict[str, Any]) -> None:
    answer = call(account, "POST", "api/v2/tickets", json={"ticket": TICKET | changes})

    assert (answer.status_code, answer.json()["error"]) == (422, "RecordInvalid")
    assert account.stand_in.tickets() == []


def test_open_ticket_cannot_be_followed_up(account: Account, ticket: str) -> None:
    body = {"ticket": TICKET | {"via_followup_source_id": int(ticket)}}

    assert call(account, "POST", "api/v2/tickets", json=body).status_code == 422


def test_closed_ticket_takes_no_update(account: Account, ticket: str) -> None:
    account.set_status(ticket, "closed")

    change = {"ticket": {"status": "open"}}
    answer = call(account, "PUT", f"api/v2/tickets/{ticket}", json=change)

    assert answer.status_code == 422
    assert "closed prevents" in answer.json()["details"]["status"][0]["description"]


def test_unknown_ticket_is_not_found(account: Account) -> None:
    for path in ("tickets/7", "tickets/7/comments.json"):
        answer = call(account, "GET", f"api/v2/{path}")

        assert answer.status_code == 404
        assert answer.json() == {"error": "RecordNotFound", "description": "Not found"}


def test_comments_come_in_pages(account: Account, ticket: str) -> None:
    account.ask("PUT", f"tickets/{ticket}", json={"ticket": {"comment": {"body": "2"}}})
    path = f"api/v2/tickets/{ticket}/comments.json?page[size]=1"

    first = call(account, "GET", path).json()
    headers = {"Authorization": "Bearer somebody"}
    second = requests.get(first["links"]["next"], headers=headers, timeout=5).json()

    assert first["meta"]["has_more"] is True
    assert [each["body"] for each in second["comments"]] == ["2"]
    assert second["meta"]["has_more"] is False


def test_what_agents_write_is_no_record(account: Account, ticket: str) -> None:
    account.ask("PUT", f"tickets/{ticket}", json={"ticket": {"comment": {"body": "Hello"}}})

    assert len(account.records.listing()) == 1


def test_page_shows_the_thread_and_escapes_it(account: Account, ticket: str) -> None:
    note = {"body": "Call him", "public": False}
    account.ask("PUT", f"tickets/{ticket}", json={"ticket": {"comment": note}})

    page = requests.get(f"{account.url}/agent/tickets/{ticket}", timeout=5)

    assert page.status_code == 200
    assert "&lt;b&gt;Hi&lt;/b&gt; &amp; bye" in page.text
    assert "<b>Hi" not in page.text
    assert page.text.index("bye") < page.text.index("internal note") < page.text.index("Call him")


def test_page_of_an_unknown_ticket_is_not_found(account: Account) -> None:
    assert requests.get(f"{account.url}/agent/tickets/7", timeout=5).status_code == 404


def test_sandbox_carries_the_account_and_its_faults() -> None:
    server = serve(port=0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}"
    options = {"subdomain": "acme", "base_url": f"{url}/zendesk", "access_token": SECRET}
    zendesk = Zendesk(Zendesk.Options(**options), http=Http(allow=["127.0.0.0/8"]))
    try:
        fault = {"system": "zendesk", "status": 503, "path": "/tickets"}
        requests.post(f"{url}/faults", json=fault, timeout=5)
        with pytest.raises(Transient):
            deliver(zendesk, key="the-key")
        deliver(zendesk, key="the-key")

        (record,) = requests.get(f"{url}/records", timeout=5).json()
        assert (record["system"], record["kind"]) == ("zendesk", "ticket")
    finally:
        zendesk.close()
        server.shutdown()
        thread.join()
        server.server_close()
