"""How each destination stands, on both databases."""

from __future__ import annotations

from datetime import timedelta

from fakes import NOON, accept, accept_apart, failed, finish, take, take_one

from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queue
from relay.store.overview import Overview

ON_BOTH = True

MINUTE = timedelta(minutes=1)


def test_a_destination_shows_its_backlog_its_rate_and_what_happened_last(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept_apart(inbox, 3)
    accept(inbox, "m3", customer="+61400000009", at=NOON + MINUTE)
    first, second, *_ = take(queue, limit=2)
    finish(queue, first)
    finish(queue, second, failed(OutcomeKind.REFUSED, "no such contact"), now=NOON + MINUTE)

    crm, chat = Overview(database).destinations(["crm", "chat"], now=NOON + MINUTE)

    assert (crm.name, crm.state, crm.backlog, crm.dead) == ("crm", "served", 2, 1)
    assert (crm.oldest, crm.rate) == (NOON, 0.2)
    assert (crm.last_success, crm.last_error, crm.error) == (NOON, NOON, "no such contact")
    assert (chat.backlog, chat.oldest, chat.last_success, chat.error) == (0, None, None, None)


def test_a_rate_counts_the_last_minutes_only(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue))

    (crm,) = Overview(database).destinations(["crm"], now=NOON + 10 * MINUTE)

    assert (crm.rate, crm.last_success) == (0, NOON)


def test_a_paused_destination_says_why_and_a_removed_one_is_shown_while_it_has_work(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "m1", to=("crm", "gone"))
    finish(queue, take_one(queue), failed(OutcomeKind.UNAUTHORIZED, "token expired"))

    crm, gone = Overview(database).destinations(["crm"], now=NOON)

    assert (crm.state, crm.backlog) == ("paused", 1)
    assert crm.pause is not None and crm.pause.cause == "unauthorized"
    assert (gone.name, gone.state, gone.backlog) == ("gone", "removed", 1)
