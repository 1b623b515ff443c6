"""Messages in the tickets of their conversations."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from zendesk_account import OURS, Account, deliver, opened

from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk


@pytest.fixture
def tight_switching() -> Iterator[None]:
    """Change threads so often that what they share by mistake comes to light."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(usual)


def at_once(*tasks: Callable[[], Any]) -> list[Any]:
    """Run *tasks* in threads that start together."""
    gate = threading.Barrier(len(tasks))

    def run(task: Callable[[], Any]) -> Any:
        gate.wait(10)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


def test_ten_messages_of_a_conversation_are_one_ticket_in_order(
    account: Account, zendesk: Zendesk
) -> None:
    thread = None
    for number in range(10):
        thread = deliver(zendesk, sample_event(body=f"message {number}"), thread=thread).thread

    assert len(account.stand_in.tickets()) == 1
    bodies = [comment["body"] for comment in account.comments(thread)]
    assert all(f"message {number}" in body for number, body in enumerate(bodies))
    assert len(bodies) == 10
    assert [each["kind"] for each in account.records.listing()] == ["ticket"] + ["comment"] * 9


def test_first_message_is_a_ticket_in_the_name_of_the_customer(
    account: Account, zendesk: Zendesk
) -> None:
    receipt = deliver(zendesk, sample_event(body="Is it ready?"))

    (ticket,) = account.stand_in.tickets()
    (user,) = account.stand_in.users()
    (comment,) = account.comments(receipt.thread)
    assert user["external_id"] == "sms-61400000000"
    assert user["phone"] == user["name"] == "+61400000000"
    assert ticket["external_id"] == "sms-61400000000-61700000000"
    assert ticket["subject"] == "SMS reply from +61400000000"
    assert ticket["tags"] == ["gofax", "sms"]
    assert ticket["requester_id"] == comment["author_id"] == user["id"]
    assert comment["public"] is True
    assert comment["body"].splitlines()[0] == "+61400000000 → +61700000000"
    assert "Is it ready?" in comment["body"]
    assert receipt.reference == f"ticket {ticket['id']} comment {comment['id']}"
    assert receipt.url == f"{account.url}/agent/tickets/{ticket['id']}"


def test_records_name_conversation_and_ticket(account: Account, zendesk: Zendesk) -> None:
    receipt = deliver(zendesk)

    (record,) = account.records.listing()
    assert record["conversation"] == "+61400000000"
    assert record["reference"] == receipt.thread


def test_warm_delivery_costs_two_requests(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.calls.clear()

    deliver(zendesk, thread=thread)

    path = f"/api/v2/tickets/{thread}"
    assert account.paths() == [f"GET {path}", f"PUT {path}"]


def test_tags_that_agents_set_survive_a_message(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}", json={"ticket": {"tags": ["vip"]}})

    deliver(zendesk, thread=thread)

    assert account.stand_in.tickets()[0]["tags"] == ["gofax", "sms", "vip"]


def test_tags_that_are_missing_are_added_before_the_comment(
    account: Account, zendesk: Zendesk
) -> None:
    """Triggers look at the tags when a comment comes; each update may cost but one request."""
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}", json={"ticket": {"tags": ["vip"]}})
    account.calls.clear()

    deliver(zendesk, thread=thread)

    path = f"/api/v2/tickets/{thread}"
    assert account.paths() == [f"GET {path}", f"PUT {path}/tags", f"GET {path}", f"PUT {path}"]
    tags, comment = account.made("PUT")
    assert tags.body["tags"] == ["gofax", "sms"]
    assert tags.body["safe_update"] is True
    assert "additional_tags" not in comment.body["ticket"]
    assert account.stand_in.tickets()[0]["tags"] == ["gofax", "sms", "vip"]


def test_tag_that_zendesk_writes_in_another_way_is_added_once_a_delivery(
    account: Account,
) -> None:
    zendesk = account.connector(tags=["GoFax", "no#hash"])
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}", json={"ticket": {"tags": ["gofax", "no_hash"]}})

    deliver(zendesk, thread=thread)

    (tags,) = account.made("PUT", "/tags")
    assert tags.body["tags"] == ["no#hash"]
    assert len(account.comments(thread)) == 2
    zendesk.close()


def test_tags_that_came_in_between_do_no_harm(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}", json={"ticket": {"tags": ["vip"]}})
    conflict = '{"error": "UpdateConflict", "description": "Safe Update prevented the update"}'
    account.expect("PUT", "/tags", status=409, body=conflict)

    deliver(zendesk, thread=thread)

    assert len(account.made("PUT", "/tags")) == 2
    assert len(account.comments(thread)) == 2


def test_two_conversations_of_a_customer_at_once_are_two_tickets_of_one_user(
    account: Account, zendesk: Zendesk
) -> None:
    numbers = ["+61700000001", "+61700000002"]

    at_once(*(lambda n=n: deliver(zendesk, sample_event(ours=n, recipient=n)) for n in numbers))

    assert len(account.stand_in.users()) == 1
    ids = {ticket["external_id"] for ticket in account.stand_in.tickets()}
    assert ids == {"sms-61400000000-61700000001", "sms-61400000000-61700000002"}


def test_fifty_threads_share_a_connector_without_mixing_conversations(
    account: Account, zendesk: Zendesk, tight_switching: None
) -> None:
    def converse(number: str) -> None:
        thread = None
        for word in ("first", "second"):
            event = sample_event(customer=number, sender=number, body=f"{word} of {number}")
            thread = deliver(zendesk, event, thread=thread).thread

    deliver(zendesk, sample_event(body="of +61400000000"))
    numbers = [f"+614000001{n:02d}" for n in range(50)]
    at_once(*(lambda n=n: converse(n) for n in numbers))

    assert len(account.stand_in.tickets()) == len(account.stand_in.users()) == 51
    for record in account.records.listing():
        assert f"of {record['conversation']}" in record["text"]
    assert len(account.made("POST", "/oauth/tokens")) == 1


def test_message_opens_a_ticket_that_somebody_has_taken(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    assert thread is not None
    after = {}

    for before in ("new", "open", "pending", "hold", "solved"):
        account.set_status(thread, before)
        deliver(zendesk, thread=thread)
        after[before] = account.stand_in.tickets()[0]["status"]

    assert after.pop("new") == "new"
    assert set(after.values()) == {"open"}
    assert len(account.comments(thread)) == 6


@pytest.mark.parametrize("with_thread", [True, False])
def test_closed_ticket_gets_a_follow_up_that_inherits_its_tags(
    account: Account, zendesk: Zendesk, with_thread: bool
) -> None:
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}/tags", json={"tags": ["vip"]})
    account.stand_in.close_ticket(int(thread or 0))

    receipt = deliver(zendesk, thread=thread if with_thread else None)

    _, follow_up = account.stand_in.tickets()
    assert follow_up["via"]["source"]["from"]["ticket_id"] == int(thread or 0)
    assert follow_up["tags"] == ["gofax", "sms", "vip"]
    assert receipt.thread == str(follow_up["id"])
    assert len(account.stand_in.users()) == 1


def test_ticket_closed_between_reading_and_writing_gets_a_follow_up(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    details = '{"status":[{"description":"Status: closed prevents ticket update"}]}'
    body = '{"error":"RecordInvalid","description":"Record validation errors","details":%s}'
    account.expect("PUT", f"/{thread}", status=422, body=body % details)
    account.expect("GET", "/api/v2/tickets", act=True)
    listing = account.troubles[-1]
    account.stand_in.close_ticket(int(thread or 0))
    stale = '{"ticket": {"id": %s, "status": "open", "external_id": "%s", "requester_id": 1}}'
    conversation = account.stand_in.tickets()[0]["external_id"]
    account.expect("GET", f"/{thread}", status=200, body=stale % (thread, conversation))

    receipt = deliver(zendesk, thread=thread)

    assert listing.times == 0
    assert receipt.thread != thread
    assert len(account.stand_in.tickets()) == 2


@pytest.mark.parametrize("status", ["open", "closed"])
def test_full_ticket_gets_a_follow_up(account: Account, zendesk: Zendesk, status: str) -> None:
    """Zendesk links the follow-ups of closed tickets only; the others are named in the text."""
    full = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{full}/tags", json={"tags": ["vip"]})
    account.stand_in.fill_ticket(int(full or 0))
    account.set_status(full or "", status)

    receipt = deliver(zendesk, sample_event(body="number 5,001"), key="the-key", thread=full)
    repeated = deliver(zendesk, key="the-key", thread=full, repeat=True)
    deliver(zendesk, thread=receipt.thread)
    lost = deliver(zendesk, thread=full)

    _, new = account.stand_in.tickets()
    first, *others = account.comments(receipt.thread)
    linked = new["via"]["source"]["from"].get("ticket_id") == int(full or 0)
    assert receipt.thread == repeated.thread == lost.thread == str(new["id"]) != full
    assert new["tags"] == ["gofax", "sms", "vip"]
    assert "number 5,001" in first["body"]
    assert len(others) == 2
    assert linked is (status == "closed")
    assert (f"(continues #{full})" in first["body"]) is not linked


@pytest.mark.parametrize("with_thread", [True, False])
def test_merged_ticket_gets_a_follow_up_that_is_not_marked_as_merged(
    account: Account, zendesk: Zendesk, with_thread: bool
) -> None:
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}/tags", json={"tags": ["vip"]})
    account.stand_in.merge_ticket(int(thread or 0))

    receipt = deliver(zendesk, thread=thread if with_thread else None)

    new = account.stand_in.tickets()[-1]
    assert receipt.thread == str(new["id"]) != thread
    assert new["via"]["source"]["from"]["ticket_id"] == int(thread or 0)
    assert new["tags"] == ["gofax", "sms", "vip"]


def test_archived_ticket_gets_a_follow_up_although_no_list_names_it(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.stand_in.archive_ticket(int(thread or 0))

    receipt = deliver(zendesk, thread=thread)

    new = account.stand_in.tickets()[-1]
    assert receipt.thread == str(new["id"]) != thread
    assert new["via"]["source"]["from"]["ticket_id"] == int(thread or 0)


def test_archived_ticket_that_nobody_remembers_is_replaced(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.stand_in.archive_ticket(int(thread or 0))

    receipt = deliver(zendesk)

    assert receipt.thread != thread
    assert len(account.stand_in.tickets()) == 2


def test_solved_ticket_is_followed_by_a_new_one_if_asked_for(account: Account) -> None:
    zendesk = account.connector(when_solved="new_ticket")
    thread = deliver(zendesk, key="the-key").thread
    account.set_status(thread or "", "solved")

    receipt = deliver(zendesk, thread=thread)
    again = deliver(zendesk, thread=receipt.thread)
    repeated = deliver(zendesk, key="the-key", thread=receipt.thread, repeat=True)

    old, new = account.stand_in.tickets()
    assert (old["status"], new["status"]) == ("solved", "new")
    assert receipt.thread == again.thread == str(new["id"])
    assert repeated.thread == thread
    assert len(account.comments(thread)) == 1
    zendesk.close()


def test_agent_who_solves_at_this_moment_is_noticed(account: Account, zendesk: Zendesk) -> None:
    """A new ticket stays new; one that was solved since it was read is opened again."""
    thread = deliver(zendesk).thread
    now = account.ask("GET", f"tickets/{thread}")
    stale = now["ticket"] | {"updated_at": "2026-01-01T00:00:00Z"}
    account.set_status(thread or "", "solved")
    account.expect("GET", f"/{thread}", status=200, body=json.dumps({"ticket": stale}))

    deliver(zendesk, thread=thread)

    (ticket,) = account.stand_in.tickets()
    assert ticket["status"] == "open"
    assert len(account.made("PUT", f"/{thread}")) == 2
    assert len(account.comments(thread)) == 2


def test_what_the_customer_did_not_write_is_a_note_that_reopens_nothing(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.set_status(thread or "", "solved")
    sent = sample_event(
        type="SMS_SENT", direction="outbound", sender=OURS, recipient="+61400000000"
    )

    deliver(zendesk, sent, thread=thread)

    (ticket,) = account.stand_in.tickets()
    *_, note = account.comments(thread)
    assert ticket["status"] == "solved"
    assert note["public"] is False
    assert note["author_id"] != ticket["requester_id"]
    assert note["body"].splitlines()[0] == "+61700000000 → +61400000000"


def test_message_after_a_merge_goes_into_the_open_ticket_of_the_conversation(
    account: Account, zendesk: Zendesk
) -> None:
    merged = deliver(zendesk).thread
    account.stand_in.merge_ticket(int(merged or 0))
    current = deliver(zendesk, thread=merged).thread

    receipt = deliver(zendesk, thread=merged)

    assert receipt.thread == current
    assert len(account.stand_in.tickets()) == 2


def test_deleted_ticket_is_replaced(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.ask("DELETE", f"tickets/{thread}")

    receipt = deliver(zendesk, thread=thread)

    assert [str(each["id"]) for each in account.stand_in.tickets()] == [receipt.thread]


def test_restarted_account_is_filled_again(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.start_anew()

    receipt = deliver(zendesk, thread=thread)

    assert [str(each["id"]) for each in account.stand_in.tickets()] == [receipt.thread]
    assert len(account.made("POST", "/oauth/tokens")) == 2


def test_message_stays_out_of_a_strangers_ticket_that_has_the_same_id(
    account: Account, zendesk: Zendesk
) -> None:
    stranger = sample_event(customer="+61400000099", sender="+61400000099")
    other = deliver(zendesk, stranger).thread

    receipt = deliver(zendesk, thread=other)

    assert receipt.thread != other
    assert len(account.comments(other)) == 1


def test_thread_that_is_no_ticket_id_is_looked_past(account: Account, zendesk: Zendesk) -> None:
    first = deliver(zendesk)

    for thread in ("", "0", "-1", "abc", "9" * 25, "1/../2", "²"):
        assert deliver(zendesk, thread=thread).thread == first.thread

    assert len(account.stand_in.tickets()) == 1


def test_what_agents_did_meanwhile_is_seen(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    deliver(zendesk, thread=thread)
    account.set_status(thread or "", "solved")

    deliver(zendesk, thread=thread)

    assert account.stand_in.tickets()[0]["status"] == "open"


def test_environment_of_zenpy_changes_nothing(
    account: Account, zendesk: Zendesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZENPY_FORCE_NETLOC", "elsewhere.invalid")
    monkeypatch.setenv("ZENPY_FORCE_SCHEME", "ftp")

    thread = deliver(zendesk).thread
    deliver(zendesk, thread=thread)

    assert len(account.comments(thread)) == 2


def test_two_destinations_share_nothing(account: Account, zendesk: Zendesk) -> None:
    with opened() as other:
        second = other.connector()
        deliver(zendesk)
        deliver(second, sample_event(ours=OURS, body="for the other"))
        second.close()

        assert len(account.stand_in.tickets()) == len(other.stand_in.tickets()) == 1
        assert "for the other" in other.texts()[0]


def test_closed_connector_can_be_closed_again(zendesk: Zendesk) -> None:
    deliver(zendesk)
    zendesk.close()
    zendesk.close()
