"""What becomes of messages in Zendesk."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from zendesk_account import OURS, Account, deliver, opened

from connectors import Ambiguous, Refused, Transient
from connectors.testing import sample_event
from connectors.text import NO_BODY
from connectors.zendesk import Zendesk


@pytest.fixture
def account() -> Iterator[Account]:
    with opened() as account:
        yield account


@pytest.fixture
def zendesk(account: Account) -> Iterator[Zendesk]:
    connector = account.connector()
    yield connector
    connector.close()


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


def test_options_reach_the_ticket(account: Account) -> None:
    zendesk = account.connector(tags=["text"], public=False, group_id=360, priority="high")

    receipt = deliver(zendesk)
    deliver(zendesk, thread=receipt.thread)

    (ticket,) = account.stand_in.tickets()
    assert (ticket["tags"], ticket["group_id"], ticket["priority"]) == (["text"], 360, "high")
    assert [each["public"] for each in account.comments(receipt.thread)] == [False, False]
    zendesk.close()


def test_tags_that_agents_set_survive_a_message(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}", json={"ticket": {"tags": ["vip"]}})

    deliver(zendesk, thread=thread)

    assert account.stand_in.tickets()[0]["tags"] == ["gofax", "sms", "vip"]


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


@pytest.mark.parametrize(
    ("before", "after"),
    [("new", "new"), ("open", "open"), ("pending", "open"), ("hold", "open"), ("solved", "open")],
)
def test_message_opens_a_ticket_that_somebody_has_taken(
    account: Account, zendesk: Zendesk, before: str, after: str
) -> None:
    thread = deliver(zendesk).thread
    assert thread is not None
    account.set_status(thread, before)

    deliver(zendesk, thread=thread)

    (ticket,) = account.stand_in.tickets()
    assert ticket["status"] == after
    assert len(account.comments(thread)) == 2


@pytest.mark.parametrize("with_thread", [True, False])
def test_closed_ticket_gets_a_follow_up_that_inherits_its_tags(
    account: Account, zendesk: Zendesk, with_thread: bool
) -> None:
    thread = deliver(zendesk).thread
    account.ask("PUT", f"tickets/{thread}", json={"ticket": {"additional_tags": ["vip"]}})
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


def test_merged_ticket_is_not_followed_up(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    account.stand_in.merge_ticket(int(thread or 0))

    receipt = deliver(zendesk, thread=thread)

    new = account.stand_in.tickets()[-1]
    assert receipt.thread == str(new["id"]) != thread
    assert new["via"]["source"]["rel"] is None


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


@pytest.mark.parametrize("thread", ["", "0", "-1", "abc", "9" * 25, "1/../2", "²"])
def test_thread_that_is_no_ticket_id_is_looked_past(
    account: Account, zendesk: Zendesk, thread: str
) -> None:
    first = deliver(zendesk)

    again = deliver(zendesk, thread=thread)

    assert again.thread == first.thread
    assert len(account.stand_in.tickets()) == 1


def test_comment_whose_answer_was_lost_is_not_written_twice(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.expect("PUT", f"/{thread}", act=True, wait=1.0)
    with pytest.raises(Ambiguous):
        deliver(zendesk, key="the-key", thread=thread, deadline=0.4)

    receipt = deliver(zendesk, key="the-key", thread=thread, repeat=True)

    comments = account.comments(thread)
    assert len(comments) == 2
    assert receipt.reference == f"ticket {thread} comment {comments[-1]['id']}"


def test_comment_that_never_arrived_is_written_at_the_repeat(
    account: Account, zendesk: Zendesk
) -> None:
    thread = deliver(zendesk).thread
    account.expect("PUT", f"/{thread}", status=503)
    with pytest.raises(Ambiguous):
        deliver(zendesk, key="the-key", thread=thread)

    deliver(zendesk, key="the-key", thread=thread, repeat=True)

    assert len(account.comments(thread)) == 2


@pytest.mark.parametrize("closed", [True, False])
def test_lost_comment_is_found_although_the_thread_is_lost_or_closed(
    account: Account, zendesk: Zendesk, closed: bool
) -> None:
    thread = deliver(zendesk).thread
    deliver(zendesk, key="the-key", thread=thread)
    if closed:
        account.stand_in.close_ticket(int(thread or 0))

    deliver(zendesk, key="the-key", thread=thread if closed else None, repeat=True)

    assert len(account.comments(thread)) == 2
    assert len(account.stand_in.tickets()) == 1


def test_lost_comment_is_found_behind_the_first_page(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    for number in range(110):
        note = {"body": f"note {number}", "public": False}
        account.ask("PUT", f"tickets/{thread}", json={"ticket": {"comment": note}})
    deliver(zendesk, key="the-key", thread=thread)

    deliver(zendesk, key="the-key", thread=thread, repeat=True)

    assert len(account.comments(thread)) == 112


def test_lost_comment_is_found_by_metadata_when_its_text_was_redacted(
    account: Account, zendesk: Zendesk
) -> None:
    other = sample_event(customer="+61400000099", sender="+61400000099")
    elsewhere = deliver(zendesk, other, key="the-key").thread
    (comment,) = account.comments(elsewhere)
    thread = deliver(zendesk).thread
    redacted = {"comment": {"body": "▇▇▇"}, "metadata": comment["metadata"]}
    account.ask("PUT", f"tickets/{thread}", json={"ticket": redacted})

    deliver(zendesk, key="the-key", thread=thread, repeat=True)

    assert len(account.comments(thread)) == 2


@pytest.mark.parametrize("repeat", [True, False])
def test_ticket_whose_answer_was_lost_is_not_made_twice(
    account: Account, zendesk: Zendesk, repeat: bool
) -> None:
    account.expect("POST", "/tickets", act=True, wait=1.0)
    with pytest.raises(Transient):
        deliver(zendesk, key="the-key", deadline=0.6)

    receipt = deliver(zendesk, key="the-key", repeat=repeat)

    assert [str(each["id"]) for each in account.stand_in.tickets()] == [receipt.thread]
    assert len(account.comments(receipt.thread)) == 1


def test_ticket_whose_answer_was_lost_is_known_even_after_later_messages(
    account: Account, zendesk: Zendesk
) -> None:
    account.expect("POST", "/tickets", act=True, status=502)
    with pytest.raises(Transient):
        deliver(zendesk, key="the-key")
    later = deliver(zendesk, sample_event(body="later"))

    deliver(zendesk, key="the-key", thread=later.thread)

    assert len(account.comments(later.thread)) == 2


def test_lookup_that_lags_behind_is_made_good_by_the_idempotency_key(
    account: Account, zendesk: Zendesk
) -> None:
    first = deliver(zendesk, key="the-key")
    account.expect("GET", "/api/v2/tickets", status=200, body='{"tickets": [], "count": 0}')

    again = deliver(zendesk, key="the-key", repeat=True)

    assert again.thread == first.thread
    assert len(account.records.listing()) == 1


def test_creation_is_the_same_to_the_letter_at_every_attempt(
    account: Account, zendesk: Zendesk
) -> None:
    account.expect("POST", "/tickets", status=503, times=2)
    for _ in range(2):
        with pytest.raises(Transient):
            deliver(zendesk, key="the-key")

    deliver(zendesk, key="the-key")

    first, second, third = account.made("POST", "/tickets")
    assert first.body == second.body == third.body
    for call in (first, second, third):
        assert call.headers["Idempotency-Key"] == "the-key"


def test_only_the_creation_carries_the_idempotency_key(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    deliver(zendesk, thread=thread)

    keyed = [str(each) for each in account.calls if "Idempotency-Key" in each.headers]

    assert keyed == ["POST /api/v2/tickets"]


@pytest.mark.parametrize("key", ["k" * 300, "ключ", "two words", "line\nbreak"])
def test_key_that_fits_no_header_is_sent_as_a_digest(
    account: Account, zendesk: Zendesk, key: str
) -> None:
    deliver(zendesk, key=key)

    (call,) = account.made("POST", "/tickets")
    assert len(call.headers["Idempotency-Key"]) == 64


def test_what_agents_did_meanwhile_is_seen(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread
    deliver(zendesk, thread=thread)
    account.set_status(thread or "", "solved")

    deliver(zendesk, thread=thread)

    assert account.stand_in.tickets()[0]["status"] == "open"


def test_profile_that_staff_made_for_the_number_is_the_requester(
    account: Account, zendesk: Zendesk
) -> None:
    staffs = {"name": "Jane Citizen", "phone": "+61 400 000 000".replace(" ", "")}
    made = account.ask("POST", "users", json={"user": staffs})["user"]

    deliver(zendesk)

    assert account.stand_in.users() == [made]
    assert account.stand_in.tickets()[0]["requester_id"] == made["id"]


def test_number_on_several_profiles_gets_one_of_its_own(
    account: Account, zendesk: Zendesk
) -> None:
    for name in ("Jane Citizen", "John Citizen"):
        account.ask("POST", "users", json={"user": {"name": name, "phone": "+61400000000"}})

    deliver(zendesk)

    (*_, own) = account.stand_in.users()
    assert own["external_id"] == "sms-61400000000"
    assert account.stand_in.tickets()[0]["requester_id"] == own["id"]


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


@pytest.mark.parametrize(
    "name",
    ["Test Sender", "A&B=C?#/%20", "Ünïcode", "two--dashes", "+", "x" * 5000, "💬", "\ud800"],
)
def test_customer_that_is_a_name_keeps_one_ticket(
    account: Account, zendesk: Zendesk, name: str
) -> None:
    event = sample_event(customer=name, sender=name)

    first = deliver(zendesk, event)
    again = deliver(zendesk, event)

    assert first.thread == again.thread
    (user,) = account.stand_in.users()
    assert user["phone"] is None
    assert set(user["external_id"]) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
    )


def test_names_that_look_alike_are_different_customers(account: Account, zendesk: Zendesk) -> None:
    for name in ("Test Sender", "Test_Sender", "Test_20Sender", "Test-Sender"):
        deliver(zendesk, sample_event(customer=name, sender=name))

    assert len(account.stand_in.users()) == len(account.stand_in.tickets()) == 4


def test_status_event_without_our_number_gets_a_ticket(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk, sample_event(type="SMS_STATUS", ours=None, sender=None, body="Delivered"))

    (ticket,) = account.stand_in.tickets()
    assert ticket["external_id"] == "sms-61400000000-unknown"
    assert ticket["subject"] == "SMS status for +61400000000"


@pytest.mark.parametrize(
    "said", ["👍🏽 déjà vu", "<script>alert(1)</script> & <b>", "two\nlines", "{{ticket.id}} *x*"]
)
def test_text_arrives_as_it_was_written(account: Account, zendesk: Zendesk, said: str) -> None:
    receipt = deliver(zendesk, sample_event(body=said))

    (comment,) = account.comments(receipt.thread)
    assert f"\n\n{said}\n\n" in comment["body"]
    assert "<script>" not in comment["html_body"]


@pytest.mark.parametrize("said", ["a\0b", "a\ud800b"])
def test_what_is_no_text_is_replaced(account: Account, zendesk: Zendesk, said: str) -> None:
    deliver(zendesk, sample_event(body=said))

    (text,) = account.texts()
    assert "a\ufffdb" in text or "a?b" in text


@pytest.mark.parametrize("said", ["x" * 200_000, "💬" * 50_000])
def test_text_that_is_too_long_is_cut_and_says_so(
    account: Account, zendesk: Zendesk, said: str
) -> None:
    deliver(zendesk, sample_event(body=said))

    (text,) = account.texts()
    assert len(text.encode()) < 65_000
    assert "cut: too long for Zendesk" in text


@pytest.mark.parametrize("body", [None, ""])
def test_missing_text_is_named(account: Account, zendesk: Zendesk, body: str | None) -> None:
    deliver(zendesk, sample_event(body=body))

    assert NO_BODY in account.texts()[0]


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


def test_answer_that_nobody_has_this_id_makes_a_profile(
    account: Account, zendesk: Zendesk
) -> None:
    body = '{"error": "RecordNotFound", "description": "Not found"}'
    account.expect("GET", "/show_many", status=404, body=body)

    deliver(zendesk)

    assert len(account.stand_in.users()) == 1


@pytest.mark.parametrize("audit", ["{}", '{"events": 7}', '{"events": [7, {"type": "Comment"}]}'])
def test_success_with_an_odd_audit_is_a_success(
    account: Account, zendesk: Zendesk, audit: str
) -> None:
    thread = deliver(zendesk).thread
    body = '{"ticket": {"id": %s}, "audit": %s}' % (thread, audit)  # noqa: UP031
    account.expect("PUT", f"/{thread}", status=200, body=body, act=True)

    assert deliver(zendesk, thread=thread).thread == thread
