"""What becomes of Zendesk's refusals, of bad answers, and of the credentials."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from pydantic import SecretStr
from zendesk_account import SECRET, Account, deliver, opened

from connectors import (
    Ambiguous,
    DeliveryError,
    Http,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk, ZendeskOptions

READ, CREATE, PERSON = ("GET", "/api/v2/tickets"), ("POST", "/tickets"), ("POST", "_or_update")
GARBAGE = ["", "<html>hello</html>", "[]", "{}", "null", "7", '"text"', "[" * 100_000]
GARBAGE += ['{"ticket": null}', '{"ticket": {"id": "x"}}', '{"tickets": [7]}', '{"ticket": 7}']
GARBAGE += ['{"ticket": {}, "audit": 7}', '{"job_status": 7}', '{"count": 3}', '{"user": {}}']


@pytest.fixture
def account() -> Iterator[Account]:
    with opened() as account:
        yield account


@pytest.fixture
def zendesk(account: Account) -> Iterator[Zendesk]:
    connector = account.connector()
    yield connector
    connector.close()


def fails(zendesk: Zendesk, **how: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        deliver(zendesk, **how)
    return caught.value


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, Unauthorized),
        (400, Refused),
        (403, Unauthorized),
        (404, Refused),
        (408, Transient),
        (409, Transient),
        (422, Refused),
        (425, Transient),
        (429, Throttled),
        (500, Transient),
        (503, Transient),
    ],
)
@pytest.mark.parametrize("where", [READ, CREATE, PERSON])
def test_refusal_on_the_way_to_a_ticket_says_what_to_do(
    account: Account,
    zendesk: Zendesk,
    where: tuple[str, str],
    status: int,
    kind: type[DeliveryError],
) -> None:
    account.expect(*where, status=status, times=9)

    error = fails(zendesk)

    assert isinstance(error, kind)
    assert error.status == status
    assert account.records.listing() == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Refused), (403, Unauthorized), (500, Ambiguous), (503, Ambiguous)],
)
def test_refusal_of_a_comment_is_sent_once(
    account: Account, zendesk: Zendesk, status: int, kind: type[DeliveryError]
) -> None:
    thread = deliver(zendesk).thread
    account.expect("PUT", f"/{thread}", status=status, times=9)

    error = fails(zendesk, thread=thread)

    assert type(error) is kind
    assert len(account.made("PUT")) == 1


def test_slow_comment_is_sent_once(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.expect("PUT", f"/{thread}", act=True, wait=0.8, times=9)

    error = fails(zendesk, thread=thread, deadline=0.3)

    assert type(error) is Ambiguous
    assert len(account.made("PUT")) == 1


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("30", 30, 30),
        ("in ten minutes", 300, 601),
        ("soon", None, None),
        (None, None, None),
        ("0", 0, 0),
    ],
)
def test_throttled_call_is_left_to_the_relay_and_not_slept_on(
    account: Account, zendesk: Zendesk, header: str | None, least: int | None, most: int | None
) -> None:
    if header == "in ten minutes":
        header = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    headers = {} if header is None else {"Retry-After": header}
    body = '{"error": "APIRateLimitExceeded", "description": "Number of allowed requests"}'
    account.expect(*READ, status=429, headers=headers, body=body, times=9)
    began = time.monotonic()

    error = fails(zendesk)

    assert isinstance(error, Throttled)
    assert time.monotonic() - began < 5
    assert len(account.made("GET")) == 1
    assert error.scope == "destination"
    if least is None or most is None:
        assert error.retry_after is None
    else:
        assert error.retry_after is not None
        assert least <= error.retry_after.total_seconds() <= most


@pytest.mark.parametrize(
    ("headers", "scope"),
    [({}, "conversation"), ({"X-Rate-Limit-Remaining": "350"}, "conversation")]
    + [({"X-Rate-Limit-Remaining": "0"}, "destination")],
)
def test_limit_on_updates_of_a_ticket_holds_up_its_conversation_only(
    account: Account, zendesk: Zendesk, headers: dict[str, str], scope: str
) -> None:
    thread = deliver(zendesk).thread
    headers = {"Retry-After": "120"} | headers
    account.expect("PUT", f"/{thread}", status=429, headers=headers)

    error = fails(zendesk, thread=thread)

    assert isinstance(error, Throttled)
    assert (error.scope, error.retry_after) == (scope, timedelta(seconds=120))


def test_comment_that_others_forestall_again_and_again_is_left_for_later(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    body = '{"error": "UpdateConflict", "description": "Safe Update prevented the update"}'
    account.expect("PUT", f"/{thread}", status=409, body=body, times=9)

    error = fails(zendesk, thread=thread)

    assert type(error) is Transient
    assert "UpdateConflict" in str(error)
    assert len(account.made("PUT")) == 3
    assert len(account.comments(thread)) == 1


def test_key_that_zendesk_remembers_with_other_fields_is_left_for_later(
    account: Account, zendesk: Zendesk
) -> None:
    deliver(zendesk, key="the-key")
    other = sample_event(customer="+61400000099", sender="+61400000099")

    error = fails(zendesk, event=other, key="the-key")

    assert type(error) is Transient
    assert "two hours" in str(error)
    account.stand_in.forget_keys()
    assert deliver(zendesk, other, key="the-key").thread is not None


def test_refusal_is_in_the_words_of_zendesk(account: Account, zendesk: Zendesk) -> None:
    body = (
        '{"error": "RecordInvalid", "description": "Record validation errors",'
        ' "details": {"requester": [{"description": "Requester is suspended"}]}}'
    )
    account.expect(*CREATE, status=422, body=body)

    error = fails(zendesk)

    assert str(error) == (
        "answered 422: RecordInvalid: Record validation errors: Requester is suspended"
    )


def test_account_that_does_not_exist_is_a_matter_of_configuration(account: Account) -> None:
    body = '{"error": {"title": "No help desk at acme.zendesk.com", "message": "…"}}'
    account.expect(*READ, status=404, body=body)
    zendesk = account.connector(access_token=SECRET)

    assert isinstance(fails(zendesk), Unauthorized)
    zendesk.close()


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_for_an_answer_to_a_read_is_transient(
    account: Account, zendesk: Zendesk, body: str
) -> None:
    thread = deliver(zendesk).thread
    account.expect("GET", f"/{thread}", status=200, body=body)

    assert type(fails(zendesk, thread=thread)) is Transient


@pytest.mark.parametrize("body", [each for each in GARBAGE if each != '{"tickets": [7]}'])
@pytest.mark.parametrize("where", [READ, ("GET", "/show_many"), ("GET", "/search"), PERSON])
def test_garbage_before_a_ticket_is_made_is_transient(
    account: Account, zendesk: Zendesk, where: tuple[str, str], body: str
) -> None:
    account.expect(*where, status=200, body=body)

    assert type(fails(zendesk)) is Transient
    assert account.records.listing() == []


@pytest.mark.parametrize("body", GARBAGE)
@pytest.mark.parametrize("status", [200, 201])
def test_garbage_after_a_ticket_was_made_is_ambiguous_and_does_not_double_it(
    account: Account, zendesk: Zendesk, status: int, body: str
) -> None:
    account.expect(*CREATE, status=status, body=body, act=True)

    error = fails(zendesk, key="the-key")
    deliver(zendesk, key="the-key", repeat=True)

    assert type(error) is Ambiguous
    assert len(account.records.listing()) == 1


@pytest.mark.parametrize("body", GARBAGE + ['{"ticket": {"id": 1}, "audit": {"events": []}}'])
def test_garbage_after_a_comment_is_ambiguous_and_does_not_double_it(
    account: Account, zendesk: Zendesk, body: str
) -> None:
    thread = deliver(zendesk).thread
    account.expect("PUT", f"/{thread}", status=200, body=body, act=True)

    error = fails(zendesk, key="the-key", thread=thread)
    deliver(zendesk, key="the-key", thread=thread, repeat=True)

    assert type(error) is Ambiguous
    assert len(account.records.listing()) == 2


def test_comments_that_cannot_be_read_hold_back_the_repeat(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.expect("GET", f"/{thread}/comments", status=200, body="<html>")

    assert type(fails(zendesk, thread=thread, repeat=True)) is Transient
    assert account.made("PUT") == []


def test_redirect_is_not_followed(account: Account, zendesk: Zendesk) -> None:
    with opened() as other:
        headers = {"Location": f"{other.url}/api/v2/tickets"}
        account.expect(*READ, status=307, headers=headers)

        assert isinstance(fails(zendesk), Unauthorized)
        assert other.calls == []


@pytest.mark.parametrize("where", [READ, ("GET", "/show_many"), PERSON, CREATE])
def test_deadline_is_kept_against_a_slow_account(
    account: Account, zendesk: Zendesk, where: tuple[str, str]
) -> None:
    account.expect(*where, act=True, wait=1.5)
    began = time.monotonic()

    error = fails(zendesk, deadline=0.5)

    assert isinstance(error, Transient)
    assert time.monotonic() - began < 1.4


def test_account_that_cannot_be_reached_is_transient() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        options = ZendeskOptions(
            subdomain="acme", access_token=SecretStr(SECRET), base_url=base_url
        )
        zendesk = Zendesk(options, http=Http(allow=["127.0.0.0/8"]))

        assert type(fails(zendesk)) is Transient
        with pytest.raises(Transient):
            zendesk.check()
        zendesk.close()


@pytest.mark.parametrize("requester", ["null", '"7"'])
def test_ticket_of_nobody_is_not_written_to_in_the_agents_name(
    account: Account, zendesk: Zendesk, requester: str
) -> None:
    thread = deliver(zendesk).thread
    conversation = account.stand_in.tickets()[0]["external_id"]
    stale = '{"ticket": {"id": %s, "status": "open", "external_id": "%s", "requester_id": %s}}'
    body = stale % (thread, conversation, requester)
    account.expect("GET", f"/{thread}", status=200, body=body)

    assert type(fails(zendesk, thread=thread)) is Transient
    assert account.made("PUT") == []
