"""What has to wait when Zendesk says 429: the conversation, or everything."""

from __future__ import annotations

from datetime import timedelta

import pytest
import requests
from zendesk_account import Account, Clock, deliver

from connectors import Throttled
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk
from connectors.zendesk.limits import UpdateLimits

TICKETS, PROFILES = "Zendesk-RateLimit-tickets-update", "Zendesk-RateLimit-create-update-user"


def refusal(
    method: str = "PUT", path: str = "tickets/7.json", **headers: str
) -> requests.Response:
    response = requests.Response()
    response.status_code = 429
    response.headers.update({name.replace("_", "-"): said for name, said in headers.items()})
    url = f"https://acme.zendesk.com/api/v2/{path}"
    response.request = requests.Request(method, url).prepare()
    return response


def test_headers_say_which_limit_was_reached() -> None:
    save = "users/create_or_update"
    told = [
        (refusal(), "conversation"),
        (refusal(path="tickets/7/tags.json"), "conversation"),
        (refusal("DELETE", "users/9/tags.json"), "conversation"),
        (refusal("GET"), "destination"),
        (refusal("POST", "tickets.json"), "destination"),
        (refusal("POST", save), "destination"),
        # All requests of the account.
        (refusal(X_Rate_Limit_Remaining="0"), "destination"),
        (refusal(ratelimit_remaining="0"), "destination"),
        (refusal(X_Rate_Limit_Remaining="350"), "conversation"),
        # The limits of updates come in pairs, and one of the two is told.
        (refusal(**{TICKETS: "total=30; remaining=0; resets=400"}), "conversation"),
        (refusal(**{TICKETS: "total=30; remaining=12; resets=400"}), "destination"),
        (refusal(**{TICKETS: "total=100; remaining=0; resets=20"}), "destination"),
        (refusal(**{TICKETS: "total=100; remaining=7; resets=20"}), "conversation"),
        (refusal(**{TICKETS: "total=many"}), "conversation"),
        (refusal("PUT", "users/9.json", **{PROFILES: "total=5; remaining=0"}), "conversation"),
        (refusal("POST", save, **{PROFILES: "total=5; remaining=0"}), "conversation"),
        (refusal("POST", save, **{PROFILES: "total=1; remaining=0"}), "destination"),
    ]

    wrong = [
        (answer.request.method, answer.request.url, answer.headers, scope)
        for answer, scope in told
        if UpdateLimits().scope(answer) != scope
    ]

    assert wrong == []


def test_without_a_header_two_tickets_in_a_minute_mean_the_account() -> None:
    clock = Clock()
    limits = UpdateLimits(clock=clock)
    one, other = refusal(path="tickets/1.json"), refusal(path="tickets/2.json")

    scopes = [limits.scope(answer) for answer in (one, one, other, one)]
    clock.pass_by(timedelta(seconds=61))
    later = limits.scope(one)

    assert scopes == ["conversation", "conversation", "destination", "destination"]
    assert later == "conversation"


def test_wait_of_more_than_a_minute_is_no_wait_for_the_accounts_minute() -> None:
    limits = UpdateLimits()
    answers = [refusal(path=f"tickets/{each}.json", Retry_After="300") for each in range(9)]

    assert {limits.scope(answer) for answer in answers} == {"conversation"}


def test_burst_beyond_the_limit_of_a_ticket_waits_and_loses_nothing(
    account: Account, zendesk: Zendesk
) -> None:
    account.stand_in.settings.updates_per_ticket = 3
    account.stand_in.settings.limit_headers = False
    thread = deliver(zendesk, key="key-of-0").thread
    waited: list[Throttled] = []

    for number in range(1, 11):
        event, key = sample_event(body=f"message {number}"), f"key-of-{number}"
        try:
            deliver(zendesk, event, key=key, thread=thread)
        except Throttled as error:
            waited.append(error)
            account.clock.pass_by(error.retry_after)
            deliver(zendesk, event, key=key, thread=thread)

    bodies = [comment["body"] for comment in account.comments(thread)]
    assert [f"message {n}" in bodies[n] for n in range(1, 11)] == [True] * 10
    assert len(bodies) == 11
    assert {error.scope for error in waited} == {"conversation"}
    assert len(waited) == 3


@pytest.mark.parametrize("headers", [True, False])
def test_limit_on_updates_of_all_tickets_holds_up_the_destination(
    account: Account, zendesk: Zendesk, headers: bool
) -> None:
    events = [sample_event(customer=f"+6140000000{n}") for n in range(3)]
    threads = [deliver(zendesk, event).thread for event in events]
    account.stand_in.settings.updates_per_minute = 1
    account.stand_in.settings.requests_per_minute = 700
    account.stand_in.settings.limit_headers = headers
    deliver(zendesk, events[0], thread=threads[0])

    scopes = []
    for event, thread in zip(events, threads, strict=True):
        with pytest.raises(Throttled) as caught:
            deliver(zendesk, event, thread=thread)
        scopes.append(caught.value.scope)

    # Without the header it takes a second conversation to know.
    assert scopes == ["destination" if headers else "conversation", "destination", "destination"]


def test_limit_on_all_requests_holds_up_the_destination(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.stand_in.settings.requests_per_minute = 1
    account.clock.pass_by(timedelta(minutes=1))

    with pytest.raises(Throttled) as caught:
        deliver(zendesk, thread=thread)

    assert caught.value.scope == "destination"
    assert caught.value.retry_after == timedelta(seconds=60)
    assert "Number of allowed API requests per minute exceeded" in str(caught.value)
    assert len(account.records.listing()) == 1


def test_limit_on_updates_of_a_profile_holds_up_its_conversation(
    account: Account, zendesk: Zendesk
) -> None:
    account.stand_in.settings.updates_per_user = 5
    wishes = [sample_event(body=word, keyword=word) for word in ("STOP", "START") * 3]
    for event in wishes[:5]:
        deliver(zendesk, event)

    with pytest.raises(Throttled) as caught:
        deliver(zendesk, wishes[5])

    assert caught.value.scope == "conversation"
