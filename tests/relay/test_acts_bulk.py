"""Acts on many, in threads: counted, paced, stopped, remembered."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest
from fakes import NOON, accept_apart, failed, finish, take

from relay.acts import bulk
from relay.acts.bulk import BulkAct, Runner, TooMany
from relay.acts.person import Person
from relay.acts.recovering import Done
from relay.rules.delivery import OutcomeKind
from relay.rules.units import RateLimit, rate
from relay.shapes.bulk import bulk_act_json
from relay.store import Inbox, Queue, Recovery, StoreUnavailable
from relay.store.actions import Actions
from relay.store.database import Database
from relay.store.search import STOPPED, Filter

ANN = Person(who="ann", origin="192.0.2.7")


class Gate:
    """Pages of numbers, the next of which is done when the test says so."""

    def __init__(self, *, pages: int = 3, limit: RateLimit | None = None) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.act = BulkAct(
            verb="counted",
            person=Person(who="ann"),
            total=2 * pages,
            pages=[[2 * page, 2 * page + 1] for page in range(pages)],
            do=self._do,
            rate=limit,
            dry_run=False,
            clock=lambda: NOON,
        )

    def _do(self, page: Sequence[int]) -> Sequence[Done]:
        self.begun.release()
        assert self.go.acquire(timeout=10)
        return [(number % 2 == 0, "odd" if number % 2 else "even") for number in page]

    def open(self, pages: int) -> None:
        for _ in range(pages):
            self.go.release()


@pytest.fixture
def runner() -> Iterator[Runner]:
    runner = Runner(most=2, remembered=2)
    yield runner
    runner.close(within=10)


def until_over(runner: Runner, act: BulkAct) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if act.is_over and not runner.stop(act.id):
            return
        pause.wait(0.01)
    raise AssertionError(act.progress)


def test_progress_is_seen_from_outside_while_an_act_runs(runner: Runner) -> None:
    gate = Gate()
    act = runner.start(gate.act)

    gate.open(1)
    for _ in range(2):
        assert gate.begun.acquire(timeout=10)
    half = act.progress
    gate.open(2)
    until_over(runner, act)

    assert (half.stage, half.seen, half.done, half.left) == ("running", 2, 1, {"odd": 1})
    assert (act.progress.stage, act.progress.seen, act.progress.total) == ("finished", 6, 6)
    assert act.progress.ended_at == NOON


def test_an_act_that_is_stopped_ends_after_its_page(runner: Runner) -> None:
    gate = Gate()
    act = runner.start(gate.act)
    assert gate.begun.acquire(timeout=10)

    assert runner.stop(act.id)
    gate.open(1)
    until_over(runner, act)

    assert (act.progress.stage, act.progress.seen) == ("stopped", 2)
    assert not runner.stop("act_unknown")


def test_a_stop_cuts_the_wait_that_a_rate_makes(runner: Runner) -> None:
    gate = Gate(limit=rate("1/1h"))
    gate.open(1)
    act = runner.start(gate.act)
    assert gate.begun.acquire(timeout=10)

    runner.stop(act.id)
    until_over(runner, act)

    assert act.progress.seen == 2


def test_only_so_many_acts_run_at_a_time(runner: Runner) -> None:
    gates = [Gate(pages=1) for _ in range(3)]
    for gate in gates[:2]:
        runner.start(gate.act)

    with pytest.raises(TooMany):
        runner.start(gates[2].act)
    gates[0].open(1)
    until_over(runner, gates[0].act)
    runner.start(gates[2].act)

    for gate in gates[1:]:
        gate.open(1)


def test_the_newest_acts_that_are_over_are_remembered(runner: Runner) -> None:
    gates = [Gate(pages=1) for _ in range(4)]
    for gate in gates:
        gate.open(1)
        until_over(runner, runner.start(gate.act))

    newest_first = [each.act.id for each in reversed(gates)]
    assert [each.id for each in runner.all()] == newest_first[:3]
    assert runner.get(gates[0].act.id) is None


def test_an_act_whose_store_went_away_says_so(runner: Runner) -> None:
    def fail(page: Sequence[int]) -> Sequence[Done]:
        raise StoreUnavailable("the disk is gone")

    act = BulkAct(
        verb="counted", person=ANN, total=1, pages=[[1]], do=fail, rate=None, dry_run=False,
        clock=lambda: NOON,
    )  # fmt: skip
    until_over(runner, runner.start(act))

    assert bulk_act_json(act)["stage"] == "failed"
    assert bulk_act_json(act)["fault"] == "the disk is gone"


def test_a_group_is_looked_at_and_resent_in_one_act(
    inbox: Inbox, queue: Queue, database: Database, runner: Runner
) -> None:
    accept_apart(inbox, 3)
    for claim in take(queue):
        finish(queue, claim, failed(OutcomeKind.REFUSED))
    store, which = Recovery(database), Filter(states=STOPPED)

    look = bulk.resend(store, which, ANN, dry_run=True)
    look.run()
    assert look.progress.done == store.count(which) == 3

    act = bulk.resend(store, which, Person(who="ann", origin="192.0.2.7"))
    until_over(runner, runner.start(act))

    assert (act.progress.done, store.count(which)) == (3, 0)
    (entry, *_) = Actions(database).newest(limit=1)
    assert (entry.act, entry.action.origin) == (act.id, "192.0.2.7")
