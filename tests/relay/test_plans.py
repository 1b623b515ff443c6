"""Query plans: nothing that happens for every event reads more than it needs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import (
    LEASE,
    NOON,
    accept,
    accept_apart,
    arrival,
    customer,
    delivered,
    failed,
    finish,
    request,
    take,
    take_one,
)

from relay.rules import recovery
from relay.rules.delivery import OutcomeKind, Policy, State
from relay.rules.health import PROBE_EVERY
from relay.rules.units import RateLimit
from relay.store import Database, Inbox, Queries, Queue, Recovery
from relay.store.actions import Act
from relay.store.find import Finder
from relay.store.pages import Pages, RequestsPlace
from relay.store.prune import Pruning
from relay.store.search import Filter
from relay.store.traffic import Traffic
from relay.store.waiting import waiting

#: The tables that grow.
GROWING = ("events", "keys", "requests", "lanes", "deliveries", "attempts")
#: A table read from end to end; with an index, that is the index from end to end.
PARTIAL = "ix_deliveries_|ix_requests_refused"
SCAN = re.compile(rf"SCAN ({'|'.join(GROWING)})\b(?! USING (COVERING )?INDEX ({PARTIAL}))")
MINUTE = timedelta(minutes=1)


class Plans:
    """Keeps how SQLite would run each statement that the store has sent."""

    def __init__(self, database: Database) -> None:
        self._statements: list[str] = []
        self.database = database
        sa.event.listen(
            database.engine,
            "checkout",
            # What goes past SQLAlchemy is heard of, too.
            lambda driver, *_: driver.set_trace_callback(self._note),
        )

    @contextmanager
    def of(self) -> Iterator[dict[str, list[str]]]:
        """Fill the mapping with the plans of what is sent inside."""
        self._statements.clear()
        plans: dict[str, list[str]] = {}
        yield plans
        sent = list(self._statements)
        with self.database.engine.connect() as db:
            for statement in sent:
                explained = db.connection.cursor().execute(f"EXPLAIN QUERY PLAN {statement}")
                plans[statement] = [row[3] for row in explained.fetchall()]

    def _note(self, statement: str) -> None:
        if statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
            self._statements.append(statement)


@pytest.fixture
def plans(database: Database, inbox: Inbox, queue: Queue) -> Plans:
    return Plans(database)


def _steps(plans: dict[str, list[str]]) -> list[str]:
    return [step for plan in plans.values() for step in plan]


def _scans(plans: dict[str, list[str]]) -> list[tuple[str, Sequence[str]]]:
    # The plan of an INSERT shows checks of references that SQLite skips while none is broken.
    return [
        (statement, plan)
        for statement, plan in plans.items()
        if not statement.startswith("INSERT") and any(SCAN.search(step) for step in plan)
    ]


def test_accepting_reads_no_table_from_end_to_end(inbox: Inbox, plans: Plans) -> None:
    with plans.of() as seen:
        accept(inbox, "m1", "m2", "m1", to=("crm", "chat"))
        inbox.accept(arrival("m1", body="a conflict"))
        inbox.accept(arrival("m3", to=()))
        inbox.accept(arrival("m3", to=("crm",)))

    assert len(seen) > 8
    assert _scans(seen) == []


def test_recording_reads_no_lane_only_to_lock_it(inbox: Inbox, queue: Queue, plans: Plans) -> None:
    accept(inbox, "m1")
    claim = take_one(queue)

    with plans.of() as seen:
        finish(queue, claim)

    assert any("UPDATE deliveries" in each for each in seen)
    assert not any("ORDER BY lanes.id" in each for each in seen)


def test_lanes_are_found_by_name_and_their_line_by_its_partial_index(
    inbox: Inbox, plans: Plans
) -> None:
    with plans.of() as seen:
        accept(inbox, "m1")

    steps = " / ".join(_steps(seen))
    assert "lanes USING INDEX sqlite_autoindex_lanes_1 (id=?)" in steps
    assert "deliveries USING INDEX ix_deliveries_line (lane_id=?)" in steps
    assert _scans(seen) == []


def test_reviving_finds_deliveries_by_their_event(
    inbox: Inbox, queue: Queue, plans: Plans
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))

    with plans.of() as seen:
        accept(inbox, "m1")

    assert any("ix_deliveries_event_id" in step for step in _steps(seen))
    assert _scans(seen) == []


def test_removing_reads_no_deliveries_from_end_to_end(
    inbox: Inbox, queue: Queue, database: Database, plans: Plans
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue))
    accept(inbox, "m2")

    with plans.of() as seen:
        later = NOON + timedelta(days=1)
        list(Pruning(database).prune(before=NOON, types_before={"sms_x": NOON}))
        list(Pruning(database).prune(before=later, types_before={"SMS_REPLY": NOON}))
        list(Pruning(database).prune(before=later))
        list(Pruning(database).erase(customer(1)))

    assert any("DELETE FROM lanes" in statement for statement in seen)
    scans = [step for step in _steps(seen) if SCAN.search(step)]
    assert [step for step in scans if "deliveries" in step or "attempts" in step] == []


def test_what_is_due_is_read_in_the_order_of_its_partial_index(
    inbox: Inbox, queue: Queue, plans: Plans
) -> None:
    accept_apart(inbox, 3)

    with plans.of() as seen:
        queue.due(["crm"], NOON)
        take(queue, rate=RateLimit(100, MINUTE), limit=1)

    steps = _steps(seen)
    due = [step for step in steps if "ix_deliveries_due (destination=? AND due_at<?)" in step]
    assert len(due) == 2  # the look, and the oldest of the claim
    assert any("ix_attempts_started (destination=? AND started_at>?" in step for step in steps)
    assert _scans(seen) == []


def test_choosing_what_to_claim_sorts_nothing(inbox: Inbox, queue: Queue, plans: Plans) -> None:
    accept_apart(inbox, 3)

    with plans.of() as seen:
        take(queue)

    (choosing,) = [plan for statement, plan in seen.items() if statement.startswith("UPDATE")]
    assert not [step for step in choosing if "TEMP B-TREE FOR ORDER BY" in step]


@pytest.mark.parametrize(
    "result",
    [OutcomeKind.DELIVERED, OutcomeKind.REFUSED, OutcomeKind.TRANSIENT, OutcomeKind.UNAUTHORIZED],
)
def test_recording_reads_no_table_from_end_to_end(
    inbox: Inbox, queue: Queue, plans: Plans, result: OutcomeKind
) -> None:
    accept(inbox, "m1", "m2")
    (claim,) = take(queue)

    with plans.of() as seen:
        finish(queue, claim, failed(result))

    assert len(seen) >= 3
    assert _scans(seen) == []


def test_promoting_uses_the_partial_indexes_of_head_and_line(
    inbox: Inbox, queue: Queue, plans: Plans
) -> None:
    accept(inbox, "m1", "m2")
    (claim,) = take(queue)

    with plans.of() as seen:
        finish(queue, claim)

    steps = " / ".join(_steps(seen))
    assert "deliveries USING INDEX uq_deliveries_head (lane_id=?)" in steps
    assert "deliveries USING INDEX ix_deliveries_line (lane_id=?)" in steps
    assert "TEMP B-TREE" not in steps


def test_parking_and_late_success_read_no_table_from_end_to_end(
    inbox: Inbox, queue: Queue, plans: Plans
) -> None:
    accept(inbox, "m1", "m2")
    (claim,) = take(queue)

    with plans.of() as seen:
        finish(queue, claim, failed(OutcomeKind.REFUSED), policy=Policy(on_dead="hold"))
        finish(queue, claim)

    assert _scans(seen) == []


def test_leases_are_found_by_their_partial_index(inbox: Inbox, queue: Queue, plans: Plans) -> None:
    accept(inbox, "m1")
    (claim,) = take(queue)

    with plans.of() as seen:
        queue.lost(["crm"], NOON + 2 * LEASE)
        queue.abandoned(NOON)
        queue.renew([claim.delivery_id], lease=LEASE, now=NOON)

    steps = _steps(seen)
    assert any("ix_deliveries_lease (lease_until<?)" in step for step in steps)
    assert _scans(seen) == []


def test_pauses_and_probes_read_no_table_from_end_to_end(
    inbox: Inbox, queue: Queue, plans: Plans
) -> None:
    accept_apart(inbox, 2)
    finish(queue, take(queue, limit=1)[0], failed(OutcomeKind.UNAUTHORIZED))

    with plans.of() as seen:
        take(queue, now=NOON + PROBE_EVERY)

    assert _scans(seen) == []


def test_the_ring_of_refused_requests_is_kept_without_reading_the_accepted_ones(
    inbox: Inbox, plans: Plans
) -> None:
    with plans.of() as seen:
        inbox.refuse([request(outcome="refused", status=401)])

    steps = [step for step in _steps(seen) if "requests" in step]
    assert any("ix_requests_refused" in step for step in steps)
    assert _scans(seen) == []


def test_one_event_is_found_without_reading_the_others(
    inbox: Inbox, queries: Queries, plans: Plans
) -> None:
    accept(inbox, "m1")

    with plans.of() as seen:
        queries.event("m1")

    assert _scans(seen) == []


def test_people_find_what_stopped_by_its_partial_index(
    inbox: Inbox, queue: Queue, plans: Plans, database: Database
) -> None:
    accept(inbox, "m1", "m2", to=("crm", "chat"))
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))
    desk = Recovery(database)

    for destinations in ([], ["crm"], ["crm", "chat"]):
        wanted = Filter(states=[State.DEAD, State.HELD], destinations=destinations)
        with plans.of() as seen:
            desk.count(wanted)
            list(desk.pages(wanted))
            desk.groups(wanted)

        steps = [step for step in _steps(seen) if "deliveries" in step and "newer" not in step]
        # The newest number of all, and the three questions.
        assert len(steps) >= 4
        assert all("ix_deliveries_stopped" in step for step in steps if "SEARCH" not in step)
        assert _scans(seen) == []


def test_what_people_do_reads_no_table_from_end_to_end(
    inbox: Inbox, queue: Queue, plans: Plans, database: Database
) -> None:
    accept(inbox, "m1", "m2")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED), policy=Policy(on_dead="hold"))
    desk, act = Recovery(database), Act(who="anna", why=None, at=NOON)

    with plans.of() as seen:
        for end in (State.DEAD, State.DELIVERED):
            desk.do([recovery.settle(case, end=end) for case in desk.deliveries_named("m1")], act)
        desk.do(
            [recovery.resend(each, again=True, now=NOON) for each in desk.deliveries_named("m1")],
            act,
        )
        desk.replay([recovery.replay(desk.event_named("m2"), ["crm", "chat"])], act)
        desk.pause("crm", act)
        desk.resume("crm", act)

    assert any("ix_deliveries_late (lane_id=?)" in step for step in _steps(seen))
    assert _scans(seen) == []


@pytest.mark.parametrize(
    "typed",
    ["+61400000001", "000001", "#1013", "1013", "SMS-7", "m1", "evt_01", "dlv_01", "req_01"],
)
def test_the_search_box_reads_no_table_from_end_to_end(
    inbox: Inbox, queue: Queue, plans: Plans, typed: str
) -> None:
    accept_apart(inbox, 3)
    finish(queue, take(queue, limit=1)[0], delivered("ticket 1013", thread="1013"))

    with plans.of() as seen:
        Finder(plans.database).find(typed)

    assert seen
    assert _scans(seen) == []


@pytest.mark.parametrize(
    "ask",
    [
        lambda pages, seq, name: pages.events(limit=5, before=seq),
        lambda pages, seq, name: pages.conversation(customer(1), limit=5, before=seq),
        lambda pages, seq, name: pages.requests(
            limit=5, before=RequestsPlace(event=seq, request=seq)
        ),
        lambda pages, seq, name: pages.requests(Filter(standings=("refused",)), limit=5),
        lambda pages, seq, name: pages.stopped(limit=5, before=seq),
        lambda pages, seq, name: pages.attempts(name, limit=5, before=seq),
    ],
)
def test_a_page_reads_no_table_from_end_to_end(
    inbox: Inbox, queue: Queue, plans: Plans, ask: Callable[[Pages, int, str], Any]
) -> None:
    accept_apart(inbox, 5)
    inbox.refuse([request(status=401, outcome="refused")])
    (claim, *_) = take(queue)
    finish(queue, claim, failed(OutcomeKind.REFUSED))

    with plans.of() as seen:
        ask(Pages(plans.database), 4, claim.delivery_id)

    # What has a limit walks along an index to it, and sorts nothing.
    walks = {statement: plan for statement, plan in seen.items() if "LIMIT" in statement}
    assert [scan for scan in _scans(seen) if scan[0] not in walks] == []
    assert not [step for step in _steps(walks) if "TEMP B-TREE FOR ORDER BY" in step]


def test_who_waits_and_what_came_are_read_by_indexes(
    inbox: Inbox, queue: Queue, plans: Plans
) -> None:
    accept_apart(inbox, 3)
    finish(queue, take(queue, limit=1)[0])
    numbers = Traffic(plans.database)

    with plans.of() as seen:
        waiting(plans.database)
        numbers.count()
        numbers.series(since=NOON, until=NOON + MINUTE, size=MINUTE)

    scans = [scan for scan in _scans(seen) if "min(" not in scan[0]]
    assert scans == []


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(ending="100"), Filter(message_id="m1"), Filter(type="SMS_REPLY"),
        Filter(destinations=("crm",)), Filter(states=(State.DEAD,)), Filter(since=NOON),
        Filter(standings=("conflict",)),
    ],
)  # fmt: skip
def test_no_filter_reads_all_events(inbox: Inbox, plans: Plans, wanted: Filter) -> None:
    accept_apart(inbox, 10)
    with plans.of() as seen:
        list(Queries(plans.database).events(wanted, limit=5))

    scans = [scan for scan in _scans(seen) if "USING COVERING INDEX" not in str(scan)]
    assert scans == []
