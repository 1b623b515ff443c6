"""Whatever is repeated leaves one effect in Zendesk."""

from __future__ import annotations

import pytest
from zendesk_account import Account, deliver

from connectors import Ambiguous, Transient
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk


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


def test_key_that_fits_no_header_is_sent_as_a_digest(account: Account, zendesk: Zendesk) -> None:
    for number, key in enumerate(["k" * 300, "ключ", "two words", "line\nbreak"]):
        deliver(zendesk, sample_event(ours=f"+6170000000{number}"), key=key)

    sent = [call.headers["Idempotency-Key"] for call in account.made("POST", "/tickets")]
    assert [len(key) for key in sent] == [64] * 4
    assert len(set(sent)) == 4


def test_success_with_an_odd_audit_is_a_success(account: Account, zendesk: Zendesk) -> None:
    thread = deliver(zendesk).thread

    for audit in ("{}", '{"events": 7}', '{"events": [7, {"type": "Comment"}]}'):
        body = f'{{"ticket": {{"id": {thread}}}, "audit": {audit}}}'
        account.expect("PUT", f"/{thread}", status=200, body=body, act=True)
        assert deliver(zendesk, thread=thread).thread == thread
