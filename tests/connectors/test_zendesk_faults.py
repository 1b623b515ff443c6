"""What the connector makes of Zendesk's refusals, of broken answers and of none."""

from __future__ import annotations

import socket
import time
from datetime import timedelta
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
KNOWN, SEARCH = ("GET", "/show_many"), ("GET", "/users/search")

#: Ways to break the body of a 2xx.
BROKEN: dict[str, dict[str, Any]] = {
    "page of a proxy": {"body": "<html>"},
    "nothing": {"body": ""},
    "cut off": {"body": '{"ticket": ', "headers": {"Content-Length": "999"}},
    "wrongly compressed": {"body": "no gzip", "headers": {"Content-Encoding": "gzip"}},
}


def fails(zendesk: Zendesk, **how: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        deliver(zendesk, **how)
    return caught.value


@pytest.mark.parametrize("where", [READ, CREATE, PERSON])
def test_refusal_on_the_way_to_a_ticket_says_what_to_do(
    account: Account, zendesk: Zendesk, where: tuple[str, str]
) -> None:
    kinds: dict[int, type[DeliveryError]] = {302: Unauthorized, 400: Refused, 403: Unauthorized}
    kinds |= {404: Refused, 408: Transient, 409: Transient, 422: Refused, 425: Transient}
    kinds |= {429: Throttled, 500: Transient, 503: Transient}
    wrong = []

    for status, kind in kinds.items():
        account.troubles.clear()
        account.expect(*where, status=status, times=9)
        error = fails(zendesk)
        if not isinstance(error, kind) or error.status != status:
            wrong.append((status, error))

    assert wrong == []
    assert account.records.listing() == []


def test_refusal_of_a_comment_is_sent_once(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    wrong = []

    for status, kind in {400: Refused, 403: Unauthorized, 500: Ambiguous, 503: Ambiguous}.items():
        account.troubles.clear()
        account.calls.clear()
        account.expect("PUT", f"/{thread}", status=status, times=9)
        error = fails(zendesk, thread=thread)
        if type(error) is not kind or len(account.made("PUT")) != 1:
            wrong.append((status, error, account.paths()))

    assert wrong == []


def test_wait_that_a_failing_account_asks_for_is_kept(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    failing = {"status": 503, "headers": {"Retry-After": "120"}}

    account.expect("GET", f"/{thread}", **failing)
    read = fails(zendesk, thread=thread)
    account.expect("PUT", f"/{thread}", **failing)
    written = fails(zendesk, thread=thread)

    assert (type(read), type(written)) == (Transient, Ambiguous)
    assert read.retry_after == written.retry_after == timedelta(minutes=2)


def test_slow_comment_is_sent_once(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.expect("PUT", f"/{thread}", act=True, wait=0.8, times=9)

    error = fails(zendesk, thread=thread, deadline=0.3)

    assert type(error) is Ambiguous
    assert len(account.made("PUT")) == 1


def test_throttled_call_is_left_to_the_relay_and_not_slept_on(
    account: Account, zendesk: Zendesk
) -> None:
    body = '{"error": "APIRateLimitExceeded", "description": "Number of allowed requests"}'
    account.expect(*READ, status=429, headers={"Retry-After": "30"}, body=body, times=9)
    began = time.monotonic()

    error = fails(zendesk)

    assert isinstance(error, Throttled)
    assert error.retry_after == timedelta(seconds=30)
    assert time.monotonic() - began < 5
    assert len(account.made("GET")) == 1


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


def test_refusal_of_a_comment_says_nothing_of_a_full_ticket_that_has_room(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    body = '{"error": "RecordInvalid", "description": "Record validation errors"}'
    account.expect("PUT", f"/{thread}", status=422, body=body)

    error = fails(zendesk, thread=thread)

    assert type(error) is Refused
    assert len(account.stand_in.tickets()) == 1


def test_account_that_does_not_exist_is_a_matter_of_configuration(account: Account) -> None:
    body = '{"error": {"title": "No help desk at acme.zendesk.com", "message": "…"}}'
    account.expect(*READ, status=404, body=body)
    zendesk = account.connector(access_token=SECRET)

    assert isinstance(fails(zendesk), Unauthorized)
    zendesk.close()


@pytest.mark.parametrize("where", [READ, KNOWN, SEARCH, PERSON])
def test_broken_answer_before_anything_is_written_is_transient(
    account: Account, zendesk: Zendesk, where: tuple[str, str]
) -> None:
    wrong = []

    for name, how in BROKEN.items():
        account.troubles.clear()
        account.expect(*where, status=200, **how)
        error = fails(zendesk)
        if type(error) is not Transient:
            wrong.append((name, error))

    assert wrong == []
    assert account.records.listing() == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_broken_answer_after_writing_is_looked_past_in_the_same_attempt(
    account: Account, zendesk: Zendesk, method: str
) -> None:
    """The status says that it is done, and the reference in the text says where."""
    wrong = []

    for number, (name, how) in enumerate(BROKEN.items()):
        event = sample_event(customer=f"+6140000000{number}")
        thread = deliver(zendesk, event).thread if method == "PUT" else None
        path = f"/{thread}" if thread else "/tickets"
        account.expect(method, path, act=True, status=200, **how)
        receipt = deliver(zendesk, event, thread=thread)
        bodies = [each["body"] for each in account.comments(receipt.thread)]
        if len(bodies) != (2 if thread else 1) or (thread and receipt.thread != thread):
            wrong.append((name, receipt, bodies))

    assert wrong == []


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_broken_answer_is_ambiguous_if_nothing_of_ours_is_found(
    account: Account, zendesk: Zendesk, method: str
) -> None:
    thread = deliver(zendesk).thread if method == "PUT" else None
    account.expect(method, f"/{thread}" if thread else "/tickets", status=200, body="<html>")

    error = fails(zendesk, key="the-key", thread=thread)
    before = len(account.records.listing())
    deliver(zendesk, key="the-key", thread=thread, repeat=True)

    assert isinstance(error, Ambiguous)
    assert len(account.records.listing()) == before + 1


@pytest.mark.parametrize(
    "look_up", [{"status": 503}, {"status": 429}, {"status": 200, "body": "<html>"}]
)
def test_broken_answer_is_ambiguous_if_nobody_can_look(
    account: Account, zendesk: Zendesk, look_up: dict[str, Any]
) -> None:
    thread = deliver(zendesk).thread
    account.expect("PUT", f"/{thread}", act=True, status=200, body="<html>")
    account.expect("GET", f"/{thread}/comments", **look_up)

    error = fails(zendesk, key="the-key", thread=thread)
    deliver(zendesk, key="the-key", thread=thread, repeat=True)

    assert type(error) is Ambiguous
    assert len(account.comments(thread)) == 2


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


def test_deadline_is_kept_against_a_slow_account(account: Account, zendesk: Zendesk) -> None:
    wrong = []

    for where in (READ, KNOWN, PERSON, CREATE):
        account.troubles.clear()
        account.expect(*where, act=True, wait=2.0)
        began = time.monotonic()
        error = fails(zendesk, deadline=0.5)
        if not isinstance(error, Transient) or time.monotonic() - began > 1.7:
            wrong.append((where, error, time.monotonic() - began))

    assert wrong == []


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
