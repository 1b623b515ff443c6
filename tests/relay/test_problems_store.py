"""The store's problems and alerts: one node opens and sends each, and another takes over."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import NOON, Clock, accept, failed, finish, request, take_one

from relay.rules.delivery import OutcomeKind
from relay.rules.kinds import Change, Kind
from relay.rules.problems import Calls, Finding, Problem, Stopped
from relay.store import Database, Inbox, Queue, connect, schema
from relay.store.actions import Act, Actions
from relay.store.facts import WINDOW, gather
from relay.store.problems import GIVEN_UP_AFTER, LEASE, RETRIES, Alert, Problems

ON_BOTH = True


@pytest.fixture
def problems(database: Database, clock: Clock) -> Problems:
    return Problems(database, clock=clock)


def finding(**changes: Any) -> Finding:
    return Finding(**{"kind": Kind.FAILING, "subject": "crm", "said": "it fails", **changes})


def judge(problems: Problems, *found: Finding, channels: Sequence[str] = ("mail",)) -> list[Any]:
    def wanted(problem: Problem, change: Change) -> Sequence[str]:
        return channels

    return [each.told for each in problems.judge(found, channels=wanted)]


def open_and_claim(problems: Problems, node: str = "a") -> Alert:
    assert judge(problems, finding()) == ["opened"]
    (alert,) = problems.claim("mail", node=node)
    return alert


def sent(alert: Alert) -> dict[int, str | None]:
    return {alert.seq: None}


def test_a_problem_is_opened_once(problems: Problems) -> None:
    assert judge(problems, finding()) == ["opened"]
    assert judge(problems, finding()) == []

    (found,) = problems.unresolved()
    assert (found.kind, found.subject, found.said) == (Kind.FAILING, "crm", "it fails")


def test_nodes_that_judge_at_the_same_time_open_a_problem_once(
    database: Database, clock: Clock
) -> None:
    told: list[str] = []
    barrier = threading.Barrier(4)

    def one() -> None:
        barrier.wait()
        told.extend(judge(Problems(database, clock=clock), finding()))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert told == ["opened"]
    with database.reading() as db:
        assert db.scalar(sa.select(sa.func.count()).select_from(schema.alerts)) == 1


def test_a_problem_that_comes_back_is_another_one(problems: Problems, clock: Clock) -> None:
    judge(problems, finding())
    for _ in range(2):
        clock.advance(20)
        told = judge(problems)
    assert told == ["resolved"]

    assert judge(problems, finding()) == ["opened"]
    assert len(problems.resolved(limit=5)) == 1
    assert len(problems.unresolved()) == 1


def test_an_alert_is_sent_by_one_node_and_not_again(problems: Problems, clock: Clock) -> None:
    alert = open_and_claim(problems)
    assert not problems.claim("mail", node="b")
    assert not alert.repeat

    problems.record([alert], sent(alert))
    clock.advance(LEASE.total_seconds() + 1)

    assert not problems.claim("mail", node="b")


def test_an_alert_of_a_node_that_died_is_sent_by_another_that_says_so(
    problems: Problems, clock: Clock
) -> None:
    first = open_and_claim(problems)
    clock.advance(LEASE.total_seconds() + 1)

    (second,) = problems.claim("mail", node="b")

    assert (second.seq, second.repeat) == (first.seq, True)


def test_an_alert_that_failed_is_tried_again_later_and_is_no_repetition(
    problems: Problems, clock: Clock
) -> None:
    alert = open_and_claim(problems)
    problems.record([alert], {alert.seq: "no route to host"})

    clock.advance(RETRIES[0].total_seconds() - 1)
    assert not problems.claim("mail", node="a")
    clock.advance(1)
    (again,) = problems.claim("mail", node="a")

    assert (again.tries, again.repeat) == (2, False)


def test_an_alert_without_an_answer_is_repeated_and_says_so(
    problems: Problems, clock: Clock
) -> None:
    alert = open_and_claim(problems)
    problems.record([alert], {})

    clock.advance(RETRIES[0].total_seconds())
    (again,) = problems.claim("mail", node="a")

    assert again.repeat


def test_alerts_of_a_channel_keep_their_order(problems: Problems, clock: Clock) -> None:
    judge(problems, finding(), finding(subject="flow"))
    first, second = problems.claim("mail", node="a")
    problems.record([first, second], {first.seq: "busy"})

    assert not problems.claim("mail", node="a")
    clock.advance(RETRIES[0].total_seconds())

    again = problems.claim("mail", node="a")
    assert [(each.seq, each.tries, each.repeat) for each in again] == [
        (first.seq, 2, False), (second.seq, 1, False),
    ]  # fmt: skip


def test_an_alert_is_given_up_after_a_day(problems: Problems, clock: Clock) -> None:
    alert = open_and_claim(problems)
    clock.advance(GIVEN_UP_AFTER.total_seconds())

    problems.record([alert], {alert.seq: "no route to host"})
    clock.advance(GIVEN_UP_AFTER.total_seconds())

    assert not problems.claim("mail", node="a")


def test_who_acknowledged_first_is_kept(
    problems: Problems, clock: Clock, database: Database
) -> None:
    judge(problems, finding())
    problems.acknowledge(problems.unresolved(), Act(who="ann", why=None, at=NOON))
    clock.advance(60)
    problems.acknowledge(problems.unresolved(), Act(who="ben", why=None, at=NOON))

    (found,) = problems.unresolved()
    assert found.acknowledged_by == "ann"
    (entry,) = Actions(database).newest(limit=9)
    assert (entry.action.who, entry.action.what) == ("ann", "acknowledge")
    assert (entry.action.origin, entry.action.detail) == ("command line", found.said)


def test_resolved_problems_are_forgotten_with_their_alerts(
    problems: Problems, clock: Clock, database: Database
) -> None:
    judge(problems, finding())
    for _ in range(2):
        clock.advance(20)
        judge(problems)

    problems.forget(before=clock())
    assert len(problems.resolved(limit=5)) == 1
    problems.forget(before=clock() + timedelta(seconds=1))

    assert not problems.resolved(limit=5)
    with database.reading() as db:
        assert db.execute(sa.select(schema.alerts)).first() is None


def test_the_facts_are_what_the_store_holds(
    database: Database, inbox: Inbox, queue: Queue
) -> None:
    accept(inbox, "m1", to=("crm",))
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))

    facts = gather(database, destinations=["crm"], channels=["mail"], window=timedelta(days=9999))

    assert facts.stopped == {"crm": Stopped(dead=1)}
    assert list(facts.calls.values()) == [Calls(accepted=1)]
    assert facts.due_since == {}


def test_a_channel_that_fails_is_a_fact(
    problems: Problems, database: Database, clock: Clock
) -> None:
    alert = open_and_claim(problems)
    problems.record([alert], {alert.seq: "no route to host"})

    assert gather(database, destinations=[], channels=["mail"]).unsent == {
        "mail": "no route to host"
    }
    assert gather(database, destinations=[], channels=["chat"]).unsent == {}


def test_refused_signatures_and_stray_calls_are_counted_by_path(
    database: Database, inbox: Inbox
) -> None:
    now = database.clock()
    calls = [
        ("/hook", 401, True),
        ("/hook", 401, False),
        ("/hoook", 404, True),
        ("/hook", 413, True),
    ]
    inbox.refuse(
        [
            request(
                id=f"req_{number}",
                endpoint=path,
                status=status,
                outcome="refused",
                signed=signed,
                at=now,
            )
            for number, (path, status, signed) in enumerate(calls)
        ]
    )
    old = now - 2 * WINDOW
    inbox.refuse(
        [request(id="req_9", endpoint="/hook", status=401, outcome="refused", signed=True, at=old)]
    )

    assert gather(database, destinations=[]).calls == {
        "/hook": Calls(mismatched=1), "/hoook": Calls(strayed=1),
    }  # fmt: skip


def test_a_disk_at_its_reserve_is_a_fact(path: Path) -> None:
    with closing(connect(f"sqlite:///{path}", reserve=1 << 60)) as database:
        assert "reserve" in gather(database, destinations=[]).no_room
    with closing(connect(f"sqlite:///{path}")) as database:
        assert gather(database, destinations=[]).no_room == ""
