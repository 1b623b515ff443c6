"""The stand-in of Zendesk behaves as the account does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from zendesk_account import SECRET, Account, deliver

from connectors import Http, Transient, Unauthorized
from connectors.sandbox import serve
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk

GRANT = {"grant_type": "client_credentials", "client_id": "relay", "client_secret": SECRET}
TICKET = {"subject": "Hello", "comment": {"body": "Hello"}}


@pytest.fixture
def ticket(account: Account) -> Iterator[str]:
    connector = account.connector()
    yield str(deliver(connector, sample_event(body="<b>Hi</b> & bye")).thread)
    connector.close()


def call(account: Account, method: str, path: str, **options: Any) -> requests.Response:
    options = {"headers": {"Authorization": "Bearer somebody"}, "timeout": 5} | options
    return requests.request(method, f"{account.url}/{path}", **options)


def test_token_endpoint_refuses(account: Account) -> None:
    refused: list[tuple[dict[str, Any], int, str]] = [
        ({"client_secret": "revoked"}, 401, "invalid_client"),
        ({"client_id": None}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"expires_in": 10}, 400, "invalid_request"),
        ({"expires_in": "long"}, 400, "invalid_request"),
    ]

    for changes, status, error in refused:
        answer = call(account, "POST", "oauth/tokens", json=GRANT | changes)
        assert (answer.status_code, answer.json()["error"]) == (status, error), changes


def test_granted_token_opens_the_api_until_it_expires(account: Account) -> None:
    granted = call(account, "POST", "oauth/tokens", json=GRANT).json()
    headers = {"Authorization": f"Bearer {granted['access_token']}"}

    before = call(account, "GET", "api/v2/tickets", headers=headers)
    account.stand_in.revoke_tokens()
    after = call(account, "GET", "api/v2/tickets", headers=headers)

    assert (granted["token_type"], granted["expires_in"]) == ("bearer", 1800)
    assert (before.status_code, after.status_code) == (200, 401)
    assert after.json()["error"] == "invalid_token"


def test_api_wants_credentials(account: Account) -> None:
    given: list[tuple[dict[str, Any], int]] = [
        ({"headers": {}}, 401),
        ({"headers": {"Authorization": "Bearer revoked"}}, 401),
        ({"headers": {"Authorization": "Bearer granted-by-nobody"}}, 401),
        ({"headers": {}, "auth": ("agent@example.com", "password")}, 401),
        ({"headers": {}, "auth": ("agent@example.com/token", "revoked")}, 401),
        ({"headers": {}, "auth": ("agent@example.com/token", SECRET)}, 200),
        ({}, 200),
    ]

    for options, status in given:
        answer = call(account, "GET", "api/v2/tickets.json", **options)
        assert answer.status_code == status, options


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


def test_ticket_that_cannot_be_is_invalid(account: Account) -> None:
    for changes in ({"comment": {"body": ""}}, {"requester_id": 7}, {"comment": None}):
        answer = call(account, "POST", "api/v2/tickets", json={"ticket": TICKET | changes})
        assert (answer.status_code, answer.json()["error"]) == (422, "RecordInvalid"), changes

    assert account.stand_in.tickets() == []


def test_follow_up_of_what_is_not_closed_is_a_ticket_like_any_other(
    account: Account, ticket: str
) -> None:
    for number in (int(ticket), 7):
        body = {"ticket": TICKET | {"via_followup_source_id": number}}
        made = call(account, "POST", "api/v2/tickets", json=body).json()["ticket"]
        assert made["via"]["source"] == {"from": {}, "to": {}, "rel": None}
        assert made["tags"] == []


def test_closed_ticket_takes_no_update(account: Account, ticket: str) -> None:
    account.set_status(ticket, "closed")

    change = {"ticket": {"status": "open"}}
    answer = call(account, "PUT", f"api/v2/tickets/{ticket}", json=change)

    assert answer.status_code == 422
    assert "closed prevents" in answer.json()["details"]["status"][0]["description"]


def test_full_ticket_takes_other_updates_but_no_comment(account: Account, ticket: str) -> None:
    assert play(account, ticket, "fill").status_code == 204

    path = f"api/v2/tickets/{ticket}"
    commented = call(account, "PUT", path, json={"ticket": {"comment": {"body": "one more"}}})
    solved = call(account, "PUT", path, json={"ticket": {"status": "solved"}})
    counted = call(account, "GET", f"{path}/comments/count").json()

    assert (commented.status_code, commented.json()["error"]) == (422, "RecordInvalid")
    assert solved.status_code == 200
    assert counted["count"]["value"] == 5000


def test_tags_are_added_by_their_own_endpoint_only(account: Account, ticket: str) -> None:
    path = f"api/v2/tickets/{ticket}"
    call(account, "PUT", path, json={"ticket": {"additional_tags": ["vip"]}})
    before = account.ask("GET", f"tickets/{ticket}")["ticket"]
    stale = {"tags": ["vip"], "safe_update": True, "updated_stamp": "2026-01-01T00:00:00Z"}

    conflict = call(account, "PUT", f"{path}/tags", json=stale)
    added = call(
        account, "PUT", f"{path}/tags", json=stale | {"updated_stamp": before["updated_at"]}
    )

    assert before["tags"] == ["gofax", "sms"]
    assert (conflict.status_code, conflict.json()["error"]) == (409, "UpdateConflict")
    assert added.json() == {"tags": ["gofax", "sms", "vip"]}


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


def settings(account: Account, **changed: Any) -> requests.Response:
    return call(account, "PUT", "sandbox/settings", json=changed)


def play(account: Account, ticket: str, act: str) -> requests.Response:
    return call(account, "POST", f"sandbox/tickets/{ticket}/{act}")


@pytest.mark.parametrize("act", ["close", "archive", "fill", "delete", "merge"])
def test_nothing_can_be_played_on_an_unknown_ticket(account: Account, act: str) -> None:
    assert play(account, "7", act).status_code == 404


def test_a_merge_into_an_unknown_ticket_does_nothing(account: Account, ticket: str) -> None:
    assert play(account, ticket, "merge?into=7").status_code == 404

    assert account.ask("GET", f"tickets/{ticket}")["ticket"]["status"] != "closed"


def test_limit_of_the_account_is_told_before_and_after_it_is_reached(account: Account) -> None:
    settings(account, requests_per_minute=2)

    first, second, third = (call(account, "GET", "api/v2/tickets") for _ in range(3))
    account.clock.pass_by(timedelta(seconds=60))
    later = call(account, "GET", "api/v2/tickets")

    assert [each.status_code for each in (first, second, third, later)] == [200, 200, 429, 200]
    left = [each.headers["X-Rate-Limit-Remaining"] for each in (first, second, third, later)]
    assert left == ["1", "0", "0", "1"]
    assert third.headers["X-Rate-Limit"] == "2"
    assert third.headers["Retry-After"] == "60"
    assert third.json() == {
        "error": "APIRateLimitExceeded",
        "description": "Number of allowed API requests per minute exceeded",
    }


def test_limit_of_a_ticket_is_its_own(account: Account, ticket: str) -> None:
    settings(account, updates_per_ticket=1, requests_per_minute=700)
    other = account.ask("POST", "tickets", json={"ticket": TICKET})["ticket"]["id"]
    change = {"ticket": {"priority": "high"}}

    answers = [
        call(account, "PUT", f"api/v2/tickets/{number}", json=change)
        for number in (ticket, ticket, other)
    ]

    assert [each.status_code for each in answers] == [200, 429, 200]
    assert answers[1].json()["error"] == "TooManyRequests"
    assert answers[1].headers["Retry-After"] == "600"
    assert answers[1].headers["X-Rate-Limit-Remaining"] != "0"


def test_limits_of_updates_say_which_of_them_was_reached(account: Account, ticket: str) -> None:
    limits: list[tuple[dict[str, Any], str | None]] = [
        ({"updates_per_minute": 1}, "total=1; remaining=0; resets=60"),
        ({"updates_per_ticket": 1}, "total=1; remaining=0; resets=600"),
        ({"updates_per_minute": 1, "limit_headers": False}, None),
    ]
    path = f"api/v2/tickets/{ticket}"

    for changed, told in limits:
        account.clock.pass_by(timedelta(minutes=10))
        plain = {"updates_per_minute": None, "updates_per_ticket": None, "limit_headers": True}
        settings(account, requests_per_minute=700, **plain | changed)
        call(account, "PUT", f"{path}/tags", json={"tags": ["vip"]})
        answer = call(account, "PUT", path, json={"ticket": {"priority": "high"}})
        assert answer.status_code == 429
        assert answer.headers.get("Zendesk-RateLimit-tickets-update") == told
        assert answer.headers["X-Rate-Limit-Remaining"] != "0"


def test_settings_that_make_no_sense_are_refused(account: Account) -> None:
    for wrong in ({"search_lag": -1}, {"colour": "red"}, {"token_life": "long"}):
        assert settings(account, **wrong).status_code == 400

    assert settings(account).json()["search_lag"] == 0


def test_new_user_reaches_the_index_later(account: Account) -> None:
    settings(account, search_lag=120)
    account.ask("POST", "users", json={"user": {"name": "Jane", "phone": "+61400000000"}})

    def found() -> list[str]:
        answer = call(account, "GET", "api/v2/users/search?query=phone:*400000000")
        return [each["name"] for each in answer.json()["users"]]

    before = found()
    account.clock.pass_by(timedelta(seconds=120))

    assert (before, found()) == ([], ["Jane"])


def test_search_finds_numbers_as_the_vendors_guide_says(account: Account) -> None:
    written = {"plain": "15135557611", "plus": "+15135557611", "dots": "+1 513.555.7611"}
    written |= {"brackets": "(513) 555-7611", "spaces": "513 555 7611", "other": "513 555 7612"}
    for name, phone in written.items():
        account.stand_in.add_user({"name": name, "phone": phone})
    finds: list[tuple[str, list[str]]] = [
        # The guide's own example: digits with a star find every way to write a number.
        ("role:end-user phone:*5135557611", ["plain", "plus", "dots", "brackets", "spaces"]),
        ("role:end-user phone:*15135557611", ["plain", "plus", "dots"]),
        ("phone:15135557611", ["plain", "plus"]),
        ("phone:5135557611", []),
        ("phone:+15135557611", []),
        ("phone:*+15135557611", []),
        ("+15135557611", []),
        ("role:agent phone:*5135557611", []),
        ("dot", ["dots"]),
        ("nobody:at-all", []),
        ("", []),
    ]

    for query, names in finds:
        answer = call(account, "GET", "api/v2/users/search", params={"query": query})
        assert [each["name"] for each in answer.json()["users"]] == names, query


def test_archived_ticket_can_be_read_but_is_in_no_list(account: Account, ticket: str) -> None:
    assert play(account, ticket, "archive").status_code == 204

    assert call(account, "GET", "api/v2/tickets").json()["tickets"] == []
    assert call(account, "GET", f"api/v2/tickets/{ticket}").json()["ticket"]["status"] == "closed"
    assert len(account.comments(ticket)) == 1


def test_merged_ticket_is_closed_and_the_other_one_says_so(account: Account, ticket: str) -> None:
    target = account.ask("POST", "tickets", json={"ticket": TICKET})["ticket"]["id"]

    account.ask("POST", f"tickets/{target}/merge", json={"ids": [int(ticket)]})

    merged = account.ask("GET", f"tickets/{ticket}")["ticket"]
    assert merged["status"] == "closed"
    assert "closed_by_merge" in merged["tags"]
    *_, note = account.comments(str(target))
    assert (f"#{ticket}" in note["body"], note["public"]) == (True, False)


def test_acts_upon_a_ticket(account: Account, ticket: str) -> None:
    assert play(account, ticket, "close").status_code == 204
    assert play(account, ticket, "burn").status_code == 404
    assert play(account, ticket, "delete").status_code == 204
    assert play(account, ticket, "close").status_code == 404


def test_update_of_what_has_changed_meanwhile_is_a_conflict(account: Account, ticket: str) -> None:
    stamp = account.ask("GET", f"tickets/{ticket}")["ticket"]["updated_at"]
    safe = {"comment": {"body": "mine"}, "safe_update": True}

    stale = safe | {"updated_stamp": "2026-01-01T00:00:00Z"}
    conflict = call(account, "PUT", f"api/v2/tickets/{ticket}", json={"ticket": stale})
    fresh = safe | {"updated_stamp": stamp}
    success = call(account, "PUT", f"api/v2/tickets/{ticket}", json={"ticket": fresh})

    assert (conflict.status_code, conflict.json()["error"]) == (409, "UpdateConflict")
    assert success.status_code == 200
    assert [each["body"] for each in account.comments(ticket)][1:] == ["mine"]


def test_token_without_the_scope_is_forbidden(account: Account) -> None:
    settings(account, allowed_scopes="users:write")
    granted = call(account, "POST", "oauth/tokens", json=GRANT | {"scope": "users:write"}).json()
    headers = {"Authorization": f"Bearer {granted['access_token']}"}
    asked = {"tickets:read": ("GET", "tickets"), "tickets:write": ("POST", "tickets")}
    asked["users:read"] = ("GET", "users/search?query=x")

    assert granted["scope"] == "users:write"
    for missing, (method, path) in asked.items():
        body = {"ticket": TICKET}
        answer = call(account, method, f"api/v2/{path}", headers=headers, json=body)
        assert answer.status_code == 403
        assert missing in answer.json()["description"]


def test_scope_that_the_client_lacks_is_named_to_the_operator(account: Account) -> None:
    settings(account, allowed_scopes="tickets:read tickets:write users:read")
    zendesk = account.connector()

    with pytest.raises(Unauthorized, match="users:write"):
        deliver(zendesk)
    zendesk.close()


def test_tokens_are_revoked_and_keys_forgotten_on_demand(account: Account) -> None:
    granted = call(account, "POST", "oauth/tokens", json=GRANT).json()
    headers = {"Authorization": f"Bearer {granted['access_token']}"}
    keyed = {"headers": {"Authorization": "Bearer x", "Idempotency-Key": "one"}}
    call(account, "POST", "api/v2/tickets", json={"ticket": TICKET}, **keyed)

    assert call(account, "POST", "sandbox/revoke").status_code == 204
    assert call(account, "POST", "sandbox/forget").status_code == 204

    assert call(account, "GET", "api/v2/tickets", headers=headers).status_code == 401
    again = call(account, "POST", "api/v2/tickets", json={"ticket": TICKET}, **keyed)
    assert again.headers["x-idempotency-lookup"] == "miss"
    assert len(account.stand_in.tickets()) == 2


def test_tags_of_users_are_a_set_and_a_record(account: Account, ticket: str) -> None:
    (user,) = account.stand_in.users()
    path = f"api/v2/users/{user['id']}/tags.json"

    added = [call(account, "PUT", path, json={"tags": ["No_SMS"]}).json() for _ in range(2)]
    removed = call(account, "DELETE", path, json={"tags": ["no_sms"]}).json()

    assert (added, removed) == ([{"tags": ["no_sms"]}] * 2, {"tags": []})
    assert account.texts()[1:] == ["+no_sms", "-no_sms"]


def test_tags_of_users_can_be_turned_off(account: Account, ticket: str) -> None:
    settings(account, user_tags=False)
    (user,) = account.stand_in.users()

    answer = call(account, "PUT", f"api/v2/users/{user['id']}/tags", json={"tags": ["x"]})

    assert answer.status_code == 403


def test_second_profile_with_a_number_shares_it(account: Account) -> None:
    for name in ("Jane", "John"):
        account.ask("POST", "users", json={"user": {"name": name, "phone": "+61400000000"}})

    jane, john = account.stand_in.users()
    identities = [
        account.ask("GET", f"users/{each['id']}/identities")["identities"] for each in (jane, john)
    ]
    assert [each["shared_phone_number"] for each in (jane, john)] == [False, True]
    assert [len(each) for each in identities] == [1, 0]


def test_external_id_belongs_to_one_user(account: Account) -> None:
    user = {"user": {"name": "Jane", "external_id": "crm-7"}}
    account.ask("POST", "users", json=user)

    assert call(account, "POST", "api/v2/users", json=user).status_code == 422


def test_page_of_a_ticket_says_what_agents_need(account: Account) -> None:
    zendesk = account.connector(custom_fields={360002: "{{ ours }}"}, priority="high")
    first = deliver(zendesk, sample_event(body="<img src=x onerror=alert(1)>"))
    account.stand_in.close_ticket(int(first.thread or 0))
    second = deliver(zendesk, thread=first.thread)
    deliver(zendesk, sample_event(body="STOP", keyword="STOP"), thread=second.thread)
    zendesk.close()

    page = requests.get(f"{account.url}/agent/tickets/{second.thread}", timeout=5)
    older = requests.get(f"{account.url}/agent/tickets/{first.thread}", timeout=5)

    assert f"follows up #{first.thread}" in page.text
    for fact in ("+61400000000", "sms_opt_out", "360002", "high", "+61700000000"):
        assert fact in page.text
    assert "<img" not in older.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]


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
