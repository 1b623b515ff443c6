"""Profiles in Zendesk: found, adopted, created and tagged."""

from __future__ import annotations

import json
import string
from typing import Any

import pytest
from zendesk_account import OURS, Account, deliver

from connectors import DeliveryError, Refused, Throttled, Transient, Unauthorized
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk


def staffs(account: Account, name: str, **fields: Any) -> dict[str, Any]:
    """Let an agent make a profile."""
    made: dict[str, Any] = account.ask("POST", "users", json={"user": {"name": name, **fields}})
    return dict(made["user"])


def requester(account: Account) -> int:
    (ticket,) = account.stand_in.tickets()
    return int(ticket["requester_id"])


@pytest.mark.parametrize("written", ["+61 (400) 000-000", "0400 000 000", "61400000000"])
def test_profile_that_staff_made_for_the_number_is_adopted(
    account: Account, zendesk: Zendesk, written: str
) -> None:
    staffs(account, "A number that ends alike", phone="+64 400 000 000")
    made = staffs(account, "Jane Citizen", phone=written)

    deliver(zendesk)
    deliver(zendesk, sample_event(ours="+61700000009", recipient="+61700000009"))

    _, user = account.stand_in.users()
    assert user["id"] == made["id"]
    assert (user["name"], user["phone"]) == ("Jane Citizen", written)
    assert user["external_id"] == "sms-61400000000"
    assert {each["requester_id"] for each in account.stand_in.tickets()} == {made["id"]}
    (search,) = account.made("GET", "/users/search")
    assert search.query == {"query": "role:end-user phone:*400000000"}


def test_number_without_a_country_code_is_one_of_the_region(account: Account) -> None:
    zendesk = account.connector(region="NZ")
    staffs(account, "Jane Citizen", phone="0400 000 000")

    deliver(zendesk)

    assert account.stand_in.users()[-1]["external_id"] == "sms-61400000000"
    assert len(account.stand_in.users()) == 2
    zendesk.close()


def test_profile_with_an_id_of_the_companys_keeps_it(account: Account, zendesk: Zendesk) -> None:
    made = staffs(account, "Jane Citizen", phone="+61400000000", external_id="crm-7")

    deliver(zendesk)

    assert account.stand_in.users() == [made]
    assert requester(account) == made["id"]


def test_profile_that_may_not_be_changed_serves_all_the_same(
    account: Account, zendesk: Zendesk
) -> None:
    made = staffs(account, "Jane Citizen", phone="+61400000000")

    for number, status in enumerate((403, 404, 422)):
        body = '{"error": "Invalid"}'
        account.expect("PUT", f"/users/{made['id']}", status=status, body=body)
        deliver(zendesk, sample_event(ours=f"+6170000000{number}"))

    assert {each["requester_id"] for each in account.stand_in.tickets()} == {made["id"]}
    assert len(account.stand_in.tickets()) == 3


def test_number_among_the_identities_of_a_profile_is_found(
    account: Account, zendesk: Zendesk
) -> None:
    made = staffs(account, "Jane Citizen", phone="+61400000001")
    identity = {"type": "phone_number", "value": "0400 000 000"}
    account.ask("POST", f"users/{made['id']}/identities", json={"identity": identity})

    deliver(zendesk)

    assert requester(account) == made["id"]
    assert len(account.stand_in.users()) == 1


def test_of_several_profiles_with_the_number_the_direct_line_is_taken(
    account: Account, zendesk: Zendesk
) -> None:
    first, *others = (
        staffs(account, name, phone="+61400000000") for name in ("Jane", "John", "Jim")
    )
    assert [each["shared_phone_number"] for each in (first, *others)] == [False, True, True]
    account.search_finds(*others, first)

    deliver(zendesk)

    assert requester(account) == first["id"]


def test_of_several_profiles_that_share_the_number_the_oldest_is_taken(
    account: Account, zendesk: Zendesk
) -> None:
    made = [staffs(account, name, phone="+61400000000") for name in ("Jane", "John", "Jim")]
    shared = [each | {"shared_phone_number": True} for each in made]
    account.search_finds(shared[2], shared[0], shared[1])

    deliver(zendesk)

    assert requester(account) == made[0]["id"]


def test_profile_that_merely_contains_the_number_is_a_stranger(
    account: Account, zendesk: Zendesk
) -> None:
    staffs(account, "Calls from +61400000000 too", phone="+614000000001")

    deliver(zendesk)

    assert account.stand_in.users()[-1]["external_id"] == "sms-61400000000"


def test_search_that_lags_behind_makes_no_second_profile_of_ours(
    account: Account, zendesk: Zendesk
) -> None:
    account.stand_in.settings.search_lag = 60

    for ours in ("+61700000001", "+61700000002", "+61700000003"):
        deliver(zendesk, sample_event(ours=ours, recipient=ours))

    assert len(account.stand_in.users()) == 1
    assert len(account.stand_in.tickets()) == 3


def test_profile_made_at_the_same_moment_elsewhere_is_taken(
    account: Account, zendesk: Zendesk
) -> None:
    made = staffs(account, "+61400000000", external_id="sms-61400000000")
    account.expect("GET", "/show_many", status=200, body='{"users": [], "count": 0}')
    taken = '{"error": "RecordInvalid", "details": {"external_id": [{"description": "taken"}]}}'
    account.expect("POST", "/create_or_update", status=422, body=taken)

    deliver(zendesk)

    assert requester(account) == made["id"]
    assert len(account.stand_in.users()) == 1


def test_deleted_profile_is_nobody(account: Account, zendesk: Zendesk) -> None:
    made = staffs(account, "Jane Citizen", phone="+61400000000")
    account.search_finds(made | {"active": False})
    listed = {"users": [made | {"active": False}], "count": 1, "next_page": None}
    account.expect("GET", "/show_many", status=200, body=json.dumps(listed))

    deliver(zendesk)

    assert requester(account) != made["id"]


def test_unknown_customer_is_skipped_if_asked_for(account: Account) -> None:
    zendesk = account.connector(unknown_customer="skip")

    receipt = deliver(zendesk)
    made = staffs(account, "Jane Citizen", phone="+61400000000")
    deliver(zendesk)

    assert receipt.reference == "skipped: no end user has the customer's number"
    assert requester(account) == made["id"]
    zendesk.close()


def test_agents_own_number_does_not_make_the_agent_a_customer(
    account: Account, zendesk: Zendesk
) -> None:
    agent = {"name": "Agent", "phone": "+61400000000", "role": "agent"}
    account.ask("POST", "users", json={"user": agent})

    deliver(zendesk)

    (customer,) = account.stand_in.users()
    assert customer["external_id"] == "sms-61400000000"


def test_name_that_staff_gave_to_a_customer_stays(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk)
    renamed = {"external_id": "sms-61400000000", "name": "Jane Citizen"}
    account.ask("POST", "users/create_or_update", json={"user": renamed})

    deliver(zendesk, sample_event(ours="+61700000009"))

    assert [each["name"] for each in account.stand_in.users()] == ["Jane Citizen"]


def test_number_that_is_anothers_direct_line_does_not_stop_the_message(
    account: Account, zendesk: Zendesk
) -> None:
    taken = '{"error": "RecordInvalid", "details": {"phone": [{"description": "taken"}]}}'
    account.expect("POST", "/create_or_update", status=422, body=taken)

    deliver(zendesk)

    (customer,) = account.stand_in.users()
    assert (customer["external_id"], customer["phone"]) == ("sms-61400000000", None)


def test_event_without_a_customer_is_refused(account: Account, zendesk: Zendesk) -> None:
    with pytest.raises(Refused, match="no customer"):
        deliver(zendesk, sample_event(customer=None, sender=None))

    assert account.calls == []


def test_customer_that_is_a_name_keeps_one_ticket(account: Account, zendesk: Zendesk) -> None:
    names = [
        "Test Sender",
        "A&B=C?#/%20",
        "Ünïcode",
        "two--dashes",
        "+",
        "x" * 5000,
        "💬",
        "\ud800",
    ]
    wrong = []

    for name in names:
        event = sample_event(customer=name, sender=name)
        if deliver(zendesk, event).thread != deliver(zendesk, event).thread:
            wrong.append(name[:20])

    users = account.stand_in.users()
    allowed = set(string.ascii_letters + string.digits + "_-")
    assert wrong == []
    assert len(users) == len(account.stand_in.tickets()) == len(names)
    assert {user["phone"] for user in users} == {None}
    assert set().union(*(user["external_id"] for user in users)) <= allowed


def test_names_that_look_alike_are_different_customers(account: Account, zendesk: Zendesk) -> None:
    for name in ("Test Sender", "Test_Sender", "Test_20Sender", "Test-Sender"):
        deliver(zendesk, sample_event(customer=name, sender=name))

    assert len(account.stand_in.users()) == len(account.stand_in.tickets()) == 4


def test_answer_that_nobody_has_this_id_makes_a_profile(
    account: Account, zendesk: Zendesk
) -> None:
    body = '{"error": "RecordNotFound", "description": "Not found"}'
    account.expect("GET", "/show_many", status=404, body=body)

    deliver(zendesk)

    assert len(account.stand_in.users()) == 1


STOP = {"body": "STOP", "keyword": "STOP"}
START = {"body": "START", "keyword": "START"}


def tags_of(account: Account) -> list[list[str]]:
    return [user["tags"] for user in account.stand_in.users()]


def test_stop_tags_the_customer_and_makes_no_ticket(account: Account, zendesk: Zendesk) -> None:
    receipt = deliver(zendesk, sample_event(**STOP), thread="7")

    (user,) = account.stand_in.users()
    assert user["tags"] == ["sms_opt_out"]
    assert account.stand_in.tickets() == []
    assert receipt.reference == f"user {user['id']} tagged sms_opt_out"
    assert receipt.url == f"{account.url}/agent/users/{user['id']}"
    assert receipt.thread == "7"


def test_stop_is_seen_in_the_ticket_that_is_open(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread

    receipt = deliver(zendesk, sample_event(**STOP), thread=thread)

    assert receipt.thread == thread
    assert "STOP" in account.comments(thread)[-1]["body"]
    assert tags_of(account) == [["sms_opt_out"]]


@pytest.mark.parametrize("status", ["solved", "closed"])
def test_stop_reopens_nothing(account: Account, zendesk: Zendesk, status: str) -> None:
    thread = deliver(zendesk).thread
    account.set_status(thread or "", status)

    deliver(zendesk, sample_event(**STOP), thread=thread)

    assert [each["status"] for each in account.stand_in.tickets()] == [status]
    assert len(account.comments(thread)) == 1
    assert tags_of(account) == [["sms_opt_out"]]


@pytest.mark.parametrize(
    ("options", "tickets", "tags"),
    [
        ({"on_stop": "message"}, 1, ["sms_opt_out"]),
        ({"on_stop": "mark"}, 0, ["sms_opt_out"]),
        ({"on_stop": "message", "opt_out_tag": None}, 1, []),
        ({"opt_out_tag": "No_SMS"}, 0, ["no_sms"]),
    ],
)
def test_stop_does_what_the_options_say(
    account: Account, options: dict[str, Any], tickets: int, tags: list[str]
) -> None:
    zendesk = account.connector(**options)

    deliver(zendesk, sample_event(**STOP))

    assert len(account.stand_in.tickets()) == tickets
    assert tags_of(account) == [tags]
    zendesk.close()


def test_stop_without_anything_to_do_says_so(account: Account) -> None:
    zendesk = account.connector(opt_out_tag=None)

    receipt = deliver(zendesk, sample_event(**STOP))

    assert receipt.reference == "skipped: STOP, with no open ticket and nobody to tag"
    zendesk.close()


def test_start_removes_the_tag_and_is_a_message(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk, sample_event(**STOP))
    (user,) = account.stand_in.users()
    account.ask("PUT", f"users/{user['id']}/tags", json={"tags": ["vip"]})

    receipt = deliver(zendesk, sample_event(**START))

    assert tags_of(account) == [["vip"]]
    assert "START" in account.comments(receipt.thread)[0]["body"]


def test_start_of_a_stranger_is_a_message(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk, sample_event(**START))

    assert tags_of(account) == [[]]
    assert len(account.stand_in.tickets()) == 1


def test_stop_that_we_sent_tags_nobody(account: Account, zendesk: Zendesk) -> None:
    event = sample_event(type="SMS_SENT", sender=OURS, recipient="+61400000000", **STOP)

    deliver(zendesk, event)

    assert tags_of(account) == [[]]


def test_tag_that_cannot_be_set_is_refused_before_anything_is_written(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    person = account.stand_in.users()[0]["id"]

    for status in (400, 403, 422):
        path = f"/users/{person}/tags"
        account.expect("PUT", path, status=status, body='{"error": "Invalid"}')
        with pytest.raises(Refused, match="turn on tags on users"):
            deliver(zendesk, sample_event(**STOP), thread=thread)

    assert len(account.comments(thread)) == 1


@pytest.mark.parametrize("act", [True, False])
def test_tag_whose_answer_was_lost_is_set_again(
    account: Account, zendesk: Zendesk, act: bool
) -> None:
    thread = deliver(zendesk).thread
    person = account.stand_in.users()[0]["id"]
    account.expect("PUT", f"/users/{person}/tags", status=502, act=act)
    with pytest.raises(Transient):
        deliver(zendesk, sample_event(**STOP), key="the-key", thread=thread)

    deliver(zendesk, sample_event(**STOP), key="the-key", thread=thread)

    assert tags_of(account) == [["sms_opt_out"]]
    assert len(account.comments(thread)) == 2


def test_tag_that_fails_for_now_is_not_given_up(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    person = account.stand_in.users()[0]["id"]
    kinds: dict[int, type[DeliveryError]] = {401: Unauthorized, 404: Transient}
    wrong = []

    for status, kind in (kinds | {429: Throttled, 503: Transient}).items():
        account.troubles.clear()
        account.expect("PUT", f"/users/{person}/tags", status=status, times=2)
        with pytest.raises(DeliveryError) as caught:
            deliver(zendesk, sample_event(**STOP), thread=thread)
        if type(caught.value) is not kind:
            wrong.append((status, caught.value))

    assert wrong == []
    assert len(account.comments(thread)) == 1
