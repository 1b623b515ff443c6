"""How the connector signs in at Zendesk, and what its options are."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from pydantic import ValidationError
from zendesk_account import SECRET, Account, deliver, opened

from connectors import (
    DeliveryError,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk, ZendeskOptions

READ = ("GET", "/api/v2/tickets")
SIGN_IN = {"client_id": "relay", "client_secret": SECRET}


def fails(zendesk: Zendesk, **how: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as caught:
        deliver(zendesk, **how)
    return caught.value


def test_link_of_an_answer_cannot_lead_the_credentials_away(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    with opened() as other:
        link = f"{other.url}/api/v2/tickets/{thread}/comments.json?page[after]=7"
        body = '{"comments": [], "meta": {"has_more": true}, "links": {"next": "%s"}}'
        account.expect("GET", "/comments", status=200, body=body.replace("%s", link))

        deliver(zendesk, thread=thread, repeat=True)

        assert other.calls == []
    (call,) = [each for each in account.made("GET", "/comments") if "page[after]" in each.query]
    assert call.headers["Authorization"].startswith("Bearer granted-")


def test_client_credentials_are_asked_for_what_we_need(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk)

    (grant,) = account.made("POST", "/oauth/tokens")
    assert grant.body == {
        "grant_type": "client_credentials",
        "client_id": "relay",
        "client_secret": SECRET,
        "scope": "tickets:read tickets:write users:read users:write",
        "expires_in": 7200,
    }
    assert "Authorization" not in grant.headers


def test_access_token_is_renewed_before_its_end(account: Account, zendesk: Zendesk) -> None:
    account.stand_in.settings.token_life = 2.0
    thread = deliver(zendesk).thread
    account.calls.clear()
    until, deliveries = time.monotonic() + 10, 0

    while not account.made("POST", "/oauth/tokens") and time.monotonic() < until:
        deliver(zendesk, thread=thread)
        deliveries += 1

    assert len(account.made("POST", "/oauth/tokens")) == 1
    # Two calls each: none was made again after a 401.
    assert len(account.paths()) == 2 * deliveries
    tokens = {each.headers.get("Authorization") for each in account.calls}
    assert len(tokens - {None}) == 2


def test_revoked_access_token_is_replaced_once_and_the_call_repeated(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.stand_in.revoke_tokens()

    deliver(zendesk, thread=thread)

    assert len(account.made("POST", "/oauth/tokens")) == 2
    assert len(account.made("GET", f"/{thread}")) == 2
    assert len(account.comments(thread)) == 2


def test_token_refused_to_many_threads_is_replaced_once(
    account: Account, zendesk: Zendesk
) -> None:
    deliver(zendesk)
    account.stand_in.revoke_tokens()

    with ThreadPoolExecutor(8) as pool:
        # Of as many conversations: the relay has no two of one under way.
        others = [sample_event(customer=f"+6140000{n:04}") for n in range(16)]
        list(pool.map(partial(deliver, zendesk), others))

    assert len(account.made("POST", "/oauth/tokens")) == 2
    assert len(account.records.listing()) == 17


@pytest.mark.parametrize(("sign_in", "tries"), [("client", 2), ("token", 1), ("email", 1)])
def test_lasting_401_is_unauthorized(account: Account, sign_in: str, tries: int) -> None:
    options: dict[str, Any] = {
        "client": {},
        "token": {"access_token": SECRET},
        "email": {"email": "agent@example.com", "api_token": SECRET},
    }[sign_in]
    zendesk = account.connector(**options)
    body = '{"error": "Couldn\'t authenticate you"}'
    account.expect(*READ, status=401, body=body, times=9)

    error = fails(zendesk)

    assert isinstance(error, Unauthorized)
    assert "Couldn't authenticate you" in str(error)
    assert len(account.made("GET")) == tries
    zendesk.close()


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({"access_token": SECRET}, "Bearer"),
        ({"email": "agent@example.com", "api_token": SECRET}, "Basic"),
    ],
)
def test_standing_credentials_sign_in_without_a_grant(
    account: Account, options: dict[str, str], scheme: str
) -> None:
    zendesk = account.connector(**options)

    deliver(zendesk)

    assert account.made("POST", "/oauth/tokens") == []
    assert {each.headers["Authorization"].split()[0] for each in account.calls} == {scheme}
    zendesk.close()


def test_token_that_is_not_granted_says_why(account: Account, zendesk: Zendesk) -> None:
    answers: list[tuple[dict[str, Any], type[DeliveryError]]] = [
        ({"status": 401, "body": '{"error": "invalid_client"}'}, Unauthorized),
        ({"status": 400}, Unauthorized),
        ({"status": 404}, Unauthorized),
        ({"status": 302}, Unauthorized),
        ({"status": 429, "headers": {"Retry-After": "9"}}, Throttled),
        ({"status": 503}, Transient),
        ({"status": 200, "body": "<html>"}, Transient),
        ({"status": 200, "body": '{"access_token": null}'}, Transient),
        ({"status": 200, "body": '{"access_token": "two words"}'}, Transient),
    ]
    wrong = []

    for trouble, kind in answers:
        account.expect("POST", "/oauth/tokens", **trouble)
        error = fails(zendesk)
        if type(error) is not kind:
            wrong.append((trouble, error))

    assert wrong == []
    assert account.paths() == []


def test_token_without_an_end_is_kept(account: Account) -> None:
    wrong = []

    for expires_in in ("null", '"soon"', "0", "-5"):
        account.calls.clear()
        zendesk = account.connector()
        body = f'{{"access_token": "a-standing-one", "expires_in": {expires_in}}}'
        account.expect("POST", "/oauth/tokens", status=200, body=body)
        deliver(zendesk)
        deliver(zendesk)
        zendesk.close()
        if len(account.made("POST", "/oauth/tokens")) != 1:
            wrong.append(expires_in)

    assert wrong == []


def test_deadline_is_kept_while_another_thread_waits_for_the_token(
    account: Account, zendesk: Zendesk
) -> None:
    account.expect("POST", "/oauth/tokens", wait=2.0, act=True)
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(deliver, zendesk)
        until = time.monotonic() + 5
        while not account.calls and time.monotonic() < until:
            time.sleep(0.01)
        began = time.monotonic()

        error = fails(zendesk, deadline=0.3)

        assert time.monotonic() - began < 1.5
        assert isinstance(error, Transient)
        assert patient.result(10).thread is not None


def test_check_names_the_agent(account: Account, zendesk: Zendesk) -> None:
    assert zendesk.check() == f"signed in at {account.url} as Sandbox agent (admin)"


def test_check_tells_trouble_of_the_moment_from_wrong_credentials(
    account: Account, zendesk: Zendesk
) -> None:
    answers: list[tuple[dict[str, Any], type[DeliveryError]]] = [
        ({"status": 200, "body": '{"user": {"id": null, "name": "Anonymous"}}'}, Unauthorized),
        ({"status": 200, "body": '{"user": {"id": 7, "role": "end-user"}}'}, Unauthorized),
        ({"status": 403}, Unauthorized),
        ({"status": 404}, Unauthorized),
        ({"status": 301}, Unauthorized),
        ({"status": 200}, Transient),
        ({"status": 429}, Transient),
        ({"status": 503}, Transient),
    ]
    wrong = []

    for trouble, kind in answers:
        account.expect("GET", "/users/me", **trouble)
        with pytest.raises(DeliveryError) as caught:
            zendesk.check()
        if type(caught.value) is not kind:
            wrong.append((trouble, caught.value))

    assert wrong == []


def test_check_changes_nothing(account: Account, zendesk: Zendesk) -> None:
    zendesk.check()

    assert account.paths() == ["GET /api/v2/users/me"]


def test_secrets_and_texts_are_in_no_error_no_repr_and_no_log(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[object] = []
    for sign_in in ({}, {"access_token": SECRET}, {"email": "a@b.example", "api_token": SECRET}):
        zendesk = account.connector(**sign_in)
        shown += [zendesk.options, deliver(zendesk, sample_event(body="rosebud"))]
        for trouble in ({"status": 401}, {"status": 200, "body": f'"{SECRET}"'}, {"status": 500}):
            account.expect("GET", "/users/me", times=2, **trouble)
            with pytest.raises(DeliveryError) as caught:
                zendesk.check()
            shown.append(caught.value)
            account.troubles.clear()
        zendesk.close()

    everything = "".join([*map(repr, shown), *map(str, shown), caplog.text])
    assert SECRET not in everything
    assert "granted-" not in everything
    assert "rosebud" not in everything


def test_options_that_cannot_work_say_why() -> None:
    faults: list[tuple[dict[str, Any], str]] = [
        ({}, "exactly one way"),
        ({"client_id": "relay"}, "exactly one way"),
        ({"client_secret": SECRET}, "exactly one way"),
        ({"email": "agent@example.com"}, "exactly one way"),
        (SIGN_IN | {"access_token": SECRET}, "exactly one way"),
        ({"email": "a@b.example", "api_token": SECRET, "client_id": "relay"}, "exactly one way"),
        ({"access_token": ""}, "is empty"),
        ({"access_token": "line\nbreak"}, "is empty or holds"),
        (SIGN_IN | {"subdomain": "acme.zendesk.com"}, "subdomain"),
        (SIGN_IN | {"base_url": "ftp://example.com"}, "base_url"),
        (SIGN_IN | {"base_url": "https://user@example.com"}, "base_url"),
        (SIGN_IN | {"tags": ["two words"]}, "tags"),
        (SIGN_IN | {"priority": "highest"}, "priority"),
        (SIGN_IN | {"colour": "red"}, "colour"),
        (SIGN_IN | {"status": "closed"}, "status"),
        (SIGN_IN | {"group_id": 0}, "group_id"),
        (SIGN_IN | {"subject": "{{ custmer }}"}, "did you mean customer"),
        (SIGN_IN | {"custom_fields": {"abc": 1}}, "custom_fields.abc"),
        (SIGN_IN | {"custom_fields": {7: None}}, "write a text, a number, true or false, or a"),
        (SIGN_IN | {"custom_fields": {7: "{{ text"}}, "custom_fields.7.text"),
        (SIGN_IN | {"region": "Australia"}, "is no region"),
        (SIGN_IN | {"on_stop": "mark", "opt_out_tag": None}, "needs an opt_out_tag"),
    ]
    wrong = []

    for options, word in faults:
        with pytest.raises(ValidationError) as caught:
            ZendeskOptions(**({"subdomain": "acme"} | options))
        if word not in str(caught.value) or SECRET in str(caught.value):
            wrong.append((options, caught.value))

    assert wrong == []


def test_line_break_after_a_secret_from_a_file_does_no_harm(account: Account) -> None:
    zendesk = account.connector(access_token=f"{SECRET}\n")

    deliver(zendesk)

    assert account.calls[0].headers["Authorization"] == f"Bearer {SECRET}"
    zendesk.close()


def test_address_comes_from_the_subdomain() -> None:
    options = ZendeskOptions(subdomain="acme", **SIGN_IN)

    assert options.address == "https://acme.zendesk.com"


def test_every_option_is_described() -> None:
    described = {name: each.description for name, each in ZendeskOptions.model_fields.items()}

    assert all(described.values())
