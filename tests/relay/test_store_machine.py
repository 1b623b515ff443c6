"""The store under random hands: whatever is done to it, in any order, the promises hold.

Hypothesis accepts, claims, kills, hangs, records, resends, settles, replays, prunes and erases,
and holds the tables against what the world outside knows. To search for longer:

    pytest tests/relay/test_store_machine.py --hypothesis-profile=long
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
from fakes import LEASE, Clock, arrival, customer, delivered, failed, finish
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from world import Eyes, Message, Rows, Work, World, changed, facts, stored

from relay import migrations
from relay.rules import recovery, routing
from relay.rules.delivery import Outcome, OutcomeKind, Policy, State
from relay.rules.health import Health, granted
from relay.rules.recovery import Change, ChangeKind
from relay.rules.routing import Route
from relay.store import Inbox, Queue, Recovery, connect
from relay.store.actions import Act
from relay.store.checkup import Checkup
from relay.store.health import locked
from relay.store.prune import Pruning
from relay.store.values import Arrival, Claim

NODES = ("worker-1", "worker-2")
#: So short that a series can be exhausted within a few steps.
SCHEDULE = (timedelta(seconds=5), timedelta(seconds=60))
WINDOW = timedelta(minutes=5)
POLICIES = {
    "crm": Policy(schedule=SCHEDULE, window=WINDOW),
    "chat": Policy(schedule=SCHEDULE, window=WINDOW, on_ambiguous="hold"),
    "mail": Policy(schedule=SCHEDULE, window=WINDOW, on_dead="hold"),
}
CUSTOMERS = (customer(1), customer(2))
OPEN = ("waiting", "pending", "in_flight")
OVER = ("delivered", "dead")
DAY = timedelta(days=1)
LOST = failed(OutcomeKind.AMBIGUOUS, "lost", lost=True)

picks = st.integers(0, 60)
nodes = st.sampled_from(NODES)
customers = st.sampled_from(CUSTOMERS)
EVERYWHERE = list(POLICIES)
destinations = st.sampled_from(EVERYWHERE)
several = st.sampled_from([EVERYWHERE, EVERYWHERE, ["crm"], ["mail", "crm"], []])
often = st.sampled_from([True, True, True, False])
rarely = st.sampled_from([False, False, False, True])
outcomes = st.sampled_from(
    [
        delivered(thread="ticket 7"),
        delivered(),
        failed(OutcomeKind.TRANSIENT),
        failed(OutcomeKind.TRANSIENT),
        failed(OutcomeKind.REFUSED),
        failed(OutcomeKind.THROTTLED, scope="conversation"),
        failed(OutcomeKind.THROTTLED, scope="destination"),
        failed(OutcomeKind.AMBIGUOUS),
        failed(OutcomeKind.REFUSED),
        failed(OutcomeKind.UNAUTHORIZED),
    ]
)


Deed = tuple[str, dict[str, Any]]


def does(name: str, **arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Deed]:
    """Draw one act of the machine, with its arguments."""
    return st.tuples(st.just(name), st.fixed_dictionaries(arguments))


# Few rules with many acts: Hypothesis leaves out half of the rules in each story.
SENDERS = st.one_of(
    does("accept_new", who=customers, to=several),
    does("accept_duplicate", pick=picks, to=several),
    does("accept_conflict", pick=picks, text=st.sampled_from(["no", "never"])),
)
WORK: dict[str, st.SearchStrategy[Any]] = {
    "node": nodes,
    "lapse": rarely,
    "seconds": st.sampled_from([0, 7, 70, 400]),
    "ends": st.lists(st.tuples(picks, outcomes), max_size=4),
}
TROUBLE = st.one_of(
    does("finish_late", pick=picks, outcome=outcomes),
    does("let_leases_run_out", node=nodes),
    does("see_lost", node=nodes, at_once=often),
    does("settle_lost"),
    does("heartbeat", node=nodes),
    does("renew_what_seemed_lost", node=nodes),
    does("hang", pick=picks),
    does("kill", node=nodes),
    does("come_back", node=nodes),
    does("wait", seconds=st.sampled_from([1, 31, 4000])),
)
ENDS = st.sampled_from([State.DELIVERED, State.DEAD])
PEOPLE = st.one_of(
    does("plan_resend", pick=picks, again=st.booleans(), at_once=often),
    does("plan_settle", pick=picks, end=ENDS, at_once=often),
    does("do_plan", pick=picks),
    does("replay", pick=picks, to=several, again=st.booleans()),
    does("pause", destination=destinations),
    does("resume", destination=destinations),
)
HOUSEKEEPING = st.one_of(does("examine"), does("prune", age=st.sampled_from([0, 0, 60, 3600])))


@cache
def _empty_store() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "relay.db"
        database = connect(f"sqlite:///{path}")
        migrations.upgrade(database)
        database.close()
        return path.read_bytes()


class Store(RuleBasedStateMachine):
    """A store, and everybody who does something to it."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="store-machine-"))
        path = self.folder / "relay.db"
        path.write_bytes(_empty_store())
        self.database = connect(f"sqlite:///{path}")
        self.clock = Clock()
        self.inbox = Inbox(self.database)
        self.queues = {node: Queue(self.database, node=node) for node in NODES}
        self.desk = Recovery(self.database)
        self.upkeep = Pruning(self.database, clock=self.clock)
        self.checkup = Checkup(self.database)
        self.eyes = Eyes(path)
        self.world = World()
        #: Leases that somebody saw run out, and what people have decided; neither is done yet.
        self.seen_lost: list[tuple[str, Claim]] = []
        self.plans: list[tuple[Change, bool]] = []
        #: Keys, and claims of what was delivered: neither may become other ones.
        self.keys: set[bytes] = set()
        self.final: dict[str, int] = {}

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:
                self.everything_ends()
        finally:
            self.inbox.close()
            for queue in self.queues.values():
                queue.close()
            self.eyes.close()
            self.database.close()
            shutil.rmtree(self.folder)

    # Who does something.

    @initialize()
    def begin(self) -> None:
        for who in (CUSTOMERS[0], CUSTOMERS[0], CUSTOMERS[1], CUSTOMERS[0]):
            self.accept_new(who, EVERYWHERE)

    @rule(act=SENDERS)
    def a_sender(self, act: Deed) -> None:
        self._do(act)

    @rule(limit=st.just(1), **WORK)
    def a_worker(self, **arguments: Any) -> None:
        self.work(**arguments)

    @rule(limit=st.just(100), **WORK)
    def a_strong_worker(self, **arguments: Any) -> None:
        self.work(**arguments)

    @rule(act=TROUBLE)
    def trouble(self, act: Deed) -> None:
        self._do(act)

    @rule(act=PEOPLE)
    def somebody(self, act: Deed) -> None:
        self._do(act)

    @rule(act=HOUSEKEEPING)
    def the_housekeeper(self, act: Deed) -> None:
        self._do(act)

    @rule(who=customers, sure=rarely)
    def a_customer_who_wants_to_be_forgotten(self, who: str, sure: bool) -> None:
        if sure:
            self.erase(who)

    def _do(self, act: Deed) -> None:
        name, arguments = act
        getattr(self, name)(**arguments)

    # The sender.

    def accept_new(self, who: str, to: Sequence[str]) -> None:
        before, name = self.eyes.deliveries(), f"m{len(self.world.messages)}"

        acceptance = self.inbox.accept(self._arrival(name, who, to))

        assert acceptance.standing == "accepted"
        self.world.messages[name] = Message(name, acceptance.event_id, who, to)
        assert self._added(before, acceptance.event_id) == Counter(to)
        assert not changed(before, self.eyes.deliveries())

    def accept_duplicate(self, pick: int, to: Sequence[str]) -> None:
        message, before = self._message(pick), self.eyes.deliveries()
        finds_routes = not message.removed and not message.to

        acceptance = self.inbox.accept(self._arrival(message.name, message.customer, to))

        assert (acceptance.standing, acceptance.event_id) == ("duplicate", message.event_id)
        message.duplicates += 1
        message.to = to if finds_routes else message.to
        assert self._added(before, message.event_id) == Counter(to if finds_routes else ())
        after = self.eyes.deliveries()
        dead = {
            name
            for name, row in before.items()
            if (row["event_id"], row["state"]) == (message.event_id, "dead")
        }
        assert changed(before, after) == dead
        busy = {row["lane_id"] for row in before.values() if row["late"] and row["state"] in OPEN}
        for name in (each for each in before if each in dead):
            state = "waiting" if before[name]["lane_id"] in busy else "pending"
            assert (after[name]["state"], after[name]["late"]) == (state, 1)
            busy.add(before[name]["lane_id"])

    def accept_conflict(self, pick: int, text: str) -> None:
        message, before = self._message(pick), facts(self.eyes.deliveries())

        arrival = self._arrival(message.name, message.customer, EVERYWHERE, body=text)
        acceptance = self.inbox.accept(arrival)

        assert acceptance.standing == "conflict"
        assert facts(self.eyes.deliveries()) == before

    def _arrival(self, name: str, who: str, to: Sequence[str], **changes: Any) -> Arrival:
        come = arrival(name, customer=who, at=self.clock(), **changes)
        routes = [Route(name=f"to {name}", to=(name,)) for name in to]
        return replace(come, match=routing.match(come.event, routes))

    def _message(self, pick: int) -> Message:
        return list(self.world.messages.values())[pick % len(self.world.messages)]

    def _added(self, before: Rows, event_id: str) -> Counter[str]:
        """Note which deliveries got into line, and return for which destinations."""
        new = [row for name, row in self.eyes.deliveries().items() if name not in before]
        for row in new:
            assert (row["event_id"], row["late"]) == (event_id, 0)
            self.world.line[row["lane_id"]].append(event_id)
        return Counter(row["destination"] for row in new)

    # The workers.

    def work(
        self,
        node: str,
        lapse: bool,
        seconds: int,
        limit: int,
        ends: Sequence[tuple[int, Outcome]],
    ) -> None:
        """Take up what is due, and come to an end with some of what is under way."""
        if lapse:
            self.let_leases_run_out(node)
        self.clock.advance(seconds)
        if node not in self.world.down:
            self.claim(node, limit)
        for pick, outcome in ends:
            if self.world.at_work():
                self._finish(self._work(pick), outcome)

    def claim(self, node: str, limit: int) -> None:
        due = {row["destination"] for row in self._due()}
        for destination in sorted(due) or EVERYWHERE:
            self._claim(node, destination, limit)

    def _due(self) -> list[Any]:
        now = stored(self.clock())
        return [
            row
            for row in self.eyes.deliveries().values()
            if row["state"] == "pending" and row["due_at"] <= now
        ]

    def _claim(self, node: str, destination: str, limit: int) -> None:
        before, now = self.eyes.deliveries(), self.clock()
        health = self._health(destination)
        may_start, _ = granted(health, now=now)
        due = {row["id"] for row in self._due() if row["destination"] == destination}
        if health.pause is None and health.back_at is not None:
            due |= {
                row["id"]
                for row in before.values()
                if (row["destination"], row["state"]) == (destination, "pending")
                and row["hurry_from"] is not None
                and row["hurry_from"] <= stored(health.back_at)
            }

        claims = self.queues[node].claim(
            destination, limit=limit, rate=None, lease=LEASE, clock=lambda: now
        )

        assert {claim.delivery_id for claim in claims} <= due
        assert len(claims) == min(limit, len(due), limit if may_start is None else may_start)
        assert not claims or destination not in self.world.paused
        for claim in claims:
            self._begun(claim, before)
            self.world.work.append(Work(claim, node, now + LEASE))

    def _health(self, destination: str) -> Health:
        with self.database.reading() as db:
            return locked(db, destination)

    def _begun(self, claim: Claim, before: Rows) -> None:
        """Look whether an attempt at this delivery may begin now, and knows what it has to."""
        row, name = before[claim.delivery_id], claim.delivery_id
        assert claim.number == row["claims"] + 1
        assert claim.tries.repeat is (name in self.world.doubted)
        assert name not in self.world.arrived
        others = [
            each
            for each in before.values()
            if (each["event_id"], each["destination"]) == (row["event_id"], row["destination"])
        ]
        arrived = any(each["id"] in self.world.arrived for each in others)
        assert not arrived or name in self.world.again
        assert name not in {work.id for work in self.world.claimed()}
        if not row["late"]:
            ahead = [
                each["state"]
                for each in before.values()
                if (each["lane_id"], each["late"]) == (row["lane_id"], 0)
                and each["seq"] < row["seq"]
            ]
            assert set(ahead) <= {*OVER, "held"}

    def finish_late(self, pick: int, outcome: Outcome) -> None:
        if late := self.world.overdue():
            self._finish(late[pick % len(late)], outcome)

    def _finish(self, work: Work, outcome: Outcome) -> None:
        before = self.eyes.deliveries()

        self._record(work.node, work.claim, outcome)

        self.world.work.remove(work)
        after, row = self.eyes.deliveries(), before.get(work.id)
        arrives = outcome.kind is OutcomeKind.DELIVERED
        if row is None:
            assert facts(after) == facts(before)
            return
        if arrives or outcome.kind is OutcomeKind.AMBIGUOUS:
            self.world.doubted.add(work.id)
        if arrives and row["state"] != "delivered":
            self.world.arrived.add(work.id)
        self._ended_as_known(work, row["state"], outcome, before)

    def _ended_as_known(self, work: Work, was: str, outcome: Outcome, before: Rows) -> None:
        after = self.eyes.deliveries()
        touched = changed(before, after)
        if not work.given_up:
            assert work.id in touched
            assert was == "in_flight"
            assert after[work.id]["state"] != "in_flight"
            if work.id in self.world.arrived:
                assert after[work.id]["state"] == "delivered"
        elif outcome.kind is not OutcomeKind.DELIVERED:
            # It changes nothing, but may be the answer of a destination that is back.
            for name in touched:
                self._hurried(before[name], after[name])
            return
        elif was in ("waiting", "pending", "held", "dead"):
            assert after[work.id]["state"] == "delivered"
        else:
            assert after[work.id]["state"] == was
        self._went_on(touched - {work.id}, before, lane=work.claim.lane_id)

    def _went_on(self, names: Iterable[str], before: Rows, *, lane: str | None = None) -> None:
        """Look whether what changed by the way was let go because its turn came."""
        after = self.eyes.deliveries()
        for name in names:
            if before[name]["state"] == after[name]["state"]:
                self._hurried(before[name], after[name])
                continue
            assert lane in (None, after[name]["lane_id"])
            assert (before[name]["state"], after[name]["state"]) == ("waiting", "pending")
            assert after[name]["due_at"] == stored(self.clock())

    def _hurried(self, before: Any, after: Any) -> None:
        """Look whether the wait of a delivery ended because its destination came back."""
        back_at = self._health(before["destination"]).back_at
        assert back_at is not None
        assert (before["state"], after["state"]) == ("pending", "pending")
        assert before["hurry_from"] <= stored(back_at)
        assert (after["hurry_from"], after["due_at"]) == (None, after["created_at"])

    def _work(self, pick: int) -> Work:
        return self.world.at_work()[pick % len(self.world.at_work())]

    def _record(self, node: str, claim: Claim, outcome: Outcome) -> None:
        policy = POLICIES[claim.destination]
        finish(self.queues[node], claim, outcome, now=self.clock(), policy=policy)

    def heartbeat(self, node: str) -> None:
        mine = [w for w in self.world.at_work() if w.node == node and not w.hangs]
        if not mine:
            return
        now = self.clock()

        self.queues[node].renew([work.id for work in mine], lease=LEASE, now=now)

        # By its id a delivery is renewed that this node lost and has claimed again, too.
        renewed = {work.id for work in mine}
        for work in self.world.claimed(node):
            if work.id in renewed:
                work.lease_until = now + LEASE

    def hang(self, pick: int) -> None:
        if self.world.at_work():
            self._work(pick).hangs = True

    def kill(self, node: str) -> None:
        self.world.down.add(node)
        for work in self.world.work:
            work.alive = work.alive and work.node != node
        self.world.work = [w for w in self.world.work if w.alive or not w.given_up]

    def come_back(self, node: str) -> None:
        if node not in self.world.down:
            return

        claims = self.queues[node].abandoned(self.clock())

        mine = list(self.world.claimed(node))
        assert {c.attempt_id for c in claims} == {work.claim.attempt_id for work in mine}
        self.world.down.remove(node)
        for claim in claims:
            self._lose(node, claim)
        assert not list(self.world.claimed(node))

    def see_lost(self, node: str, at_once: bool) -> None:
        now = self.clock()

        claims = self.queues[node].lost(EVERYWHERE, now)

        expired = [work for work in self.world.claimed() if work.lease_until < now]
        assert {c.attempt_id for c in claims} == {work.claim.attempt_id for work in expired}
        self.seen_lost += [(node, claim) for claim in claims]
        if at_once:
            self.settle_lost()

    def settle_lost(self) -> None:
        for node, claim in self.seen_lost:
            self._lose(node, claim)
        self.seen_lost.clear()

    def _lose(self, node: str, claim: Claim) -> None:
        """Settle a claim that was seen lost; who renewed it since, or is done, has not lost it."""
        before = self.eyes.deliveries()
        lost = [
            work
            for work in self.world.claimed()
            if work.claim.attempt_id == claim.attempt_id and work.lease_until == claim.lease_until
        ]

        self._record(node, claim, LOST)

        touched = changed(before, self.eyes.deliveries())
        assert bool(touched) is bool(lost)
        for work in lost:
            self.world.give_up(work)
            self._went_on(touched - {work.id}, before, lane=claim.lane_id)

    def let_leases_run_out(self, node: str) -> None:
        self.clock.advance(2 * LEASE.total_seconds())
        self.see_lost(node, at_once=True)

    def renew_what_seemed_lost(self, node: str) -> None:
        self.clock.advance(2 * LEASE.total_seconds())
        self.see_lost(node, at_once=False)
        self.heartbeat(node)
        self.settle_lost()

    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    # People.

    def plan_resend(self, pick: int, again: bool, at_once: bool) -> None:
        if not self.eyes.deliveries():
            return
        (case,) = self.desk.deliveries_named(self._delivery(pick))
        self.plans.append((recovery.resend(case, again=again, now=self.clock()), again))
        if at_once:
            self.do_plan(-1)

    def plan_settle(
        self, pick: int, end: Literal[State.DELIVERED, State.DEAD], at_once: bool
    ) -> None:
        if not self.eyes.deliveries():
            return
        (case,) = self.desk.deliveries_named(self._delivery(pick))
        self.plans.append((recovery.settle(case, end=end), False))
        if at_once:
            self.do_plan(-1)

    def do_plan(self, pick: int) -> None:
        if not self.plans:
            return
        step, again = self.plans.pop(pick % len(self.plans))
        before = self.eyes.deliveries()

        (done,) = self.desk.do([step], self._act())

        after = self.eyes.deliveries()
        touched, new = changed(before, after), after.keys() - before.keys()
        assert done or not (touched or new)
        assert bool(new) is (done and step.kind is ChangeKind.COPY)
        assert not new or again
        self.world.again |= new
        if done and step.kind is not ChangeKind.COPY:
            assert step.delivery.id in touched
            assert before[step.delivery.id]["state"] != "delivered"
            self._went_on(touched - {step.delivery.id}, before, lane=step.delivery.lane_id)
        if done and step.state is State.DELIVERED:
            self.world.arrived.add(step.delivery.id)

    def replay(self, pick: int, to: Sequence[str], again: bool) -> None:
        message, before = self._message(pick), self.eyes.deliveries()
        if message.removed:
            return
        wanted = recovery.replay(self.desk.event_named(message.event_id), to, again=again)

        (turns,) = self.desk.replay([wanted], self._act())

        after = self.eyes.deliveries()
        new = {name: row for name, row in after.items() if name not in before}
        assert not changed(before, after)
        assert {row["destination"] for row in new.values()} == {t.destination for t in turns}
        assert {row["destination"] for row in new.values()} <= set(to)
        for name, row in new.items():
            known = row["destination"] in message.to
            assert again or not known
            self.world.again |= {name} if known else set()
        message.to = list(dict.fromkeys([*message.to, *(t.destination for t in turns)]))

    def pause(self, destination: str) -> None:
        assert self.desk.pause(destination, self._act()) is (destination not in self.world.paused)
        self.world.paused.add(destination)

    def resume(self, destination: str) -> None:
        cause = self.desk.resume(destination, self._act())
        assert (cause == "operator") is (destination in self.world.paused)
        self.world.paused.discard(destination)

    def prune(self, age: int) -> None:
        before, events = self.eyes.deliveries(), self.eyes.table("events")
        until = self.clock() - timedelta(seconds=age)
        unfinished = {r["event_id"] for r in before.values() if r["state"] not in OVER}
        old = {row["id"] for row in events if row["received_at"] < stored(until)}

        removed = sum(step.events for step in self.upkeep.prune(before=until))

        assert removed == len(old - unfinished)
        self._are_removed(old - unfinished, before)

    def erase(self, who: str) -> None:
        before, events = self.eyes.deliveries(), self.eyes.table("events")
        running = {r["event_id"] for r in before.values() if r["state"] == "in_flight"}
        theirs = {row["id"] for row in events if row["customer"] == who}

        removed = sum(step.events for step in self.upkeep.erase(who))

        assert removed == len(theirs - running)
        self._are_removed(theirs - running, before)

    def _are_removed(self, events: set[str], before: Rows) -> None:
        after = self.eyes.deliveries()
        gone = {name for name, row in before.items() if row["event_id"] in events}
        assert before.keys() - after.keys() == gone
        assert not {row["id"] for row in self.eyes.table("events")} & events
        self._went_on(changed(before, after) - gone, before)
        for message in self.world.messages.values():
            message.removed = message.removed or message.event_id in events

    def _delivery(self, pick: int) -> str:
        names = list(self.eyes.deliveries())
        return names[pick % len(names)]

    def _act(self) -> Act:
        return Act(who="anna", why=None, at=self.clock())

    # What holds at any time.

    @invariant()
    def every_accepted_event_has_its_deliveries(self) -> None:
        there: dict[str, set[str]] = {}
        for row in self.eyes.deliveries().values():
            there.setdefault(row["event_id"], set()).add(row["destination"])
        accepted = {m.event_id: set(m.to) for m in self.world.messages.values() if not m.removed}
        assert there == {event_id: to for event_id, to in accepted.items() if to}

    @invariant()
    def no_conversation_is_stuck_and_none_has_two_heads(self) -> None:
        rows = self.eyes.deliveries().values()
        # Late ones stand in a line of their own.
        heads = Counter(
            (row["lane_id"], row["late"])
            for row in rows
            if row["state"] in ("pending", "in_flight")
        )
        assert set(heads.values()) <= {1}
        parked = {(row["id"], 0) for row in self.eyes.table("lanes", "id") if row["parked_by"]}
        assert not parked & heads.keys()
        waiting = {(row["lane_id"], row["late"]) for row in rows if row["state"] == "waiting"}
        assert waiting <= heads.keys() | parked

    @invariant()
    def every_delivery_has_its_lane_and_no_lane_is_empty(self) -> None:
        used = {row["lane_id"] for row in self.eyes.deliveries().values()}
        assert {row["id"] for row in self.eyes.table("lanes", "id")} == used

    @invariant()
    def a_conversation_is_in_line_as_it_was_accepted(self) -> None:
        lines: dict[str, list[str]] = {}
        for row in self.eyes.deliveries().values():
            if row["id"] not in self.world.again:
                lines.setdefault(row["lane_id"], []).append(row["event_id"])
        for lane, events in lines.items():
            line = self.world.line[lane]
            assert [each for each in events if each in line] == [e for e in line if e in events]

    @invariant()
    def attempts_claims_and_leases_agree(self) -> None:
        made: dict[str, list[Any]] = {}
        for attempt in self.eyes.table("attempts"):
            made.setdefault(attempt["delivery_id"], []).append(attempt)
        holding = {work.id: work for work in self.world.claimed()}
        for name, row in self.eyes.deliveries().items():
            attempts = made.get(name, [])
            assert len(attempts) == row["claims"] >= row["attempts"] >= 0
            running = row["state"] == "in_flight"
            assert running is (name in holding)
            assert all(each["outcome"] for each in attempts[:-1])
            assert not attempts or (attempts[-1]["outcome"] is None) is running
            assert (row["due_at"] is not None) is (row["state"] in ("pending", "in_flight"))
            if running:
                work = holding[name]
                assert (row["node"], row["claims"]) == (work.node, work.claim.number)
                assert row["lease_until"] == stored(work.lease_until)
            else:
                assert (row["node"], row["lease_until"]) == (None, None)

    @invariant()
    def what_was_delivered_stays_so(self) -> None:
        rows = self.eyes.deliveries()
        for name, claims in self.final.items():
            if name in rows:
                assert (rows[name]["state"], rows[name]["claims"]) == ("delivered", claims)
        for name, row in rows.items():
            if row["state"] == "delivered":
                assert name in self.world.arrived
                self.final[name] = row["claims"]

    @invariant()
    def keys_stay_and_no_two_effects_share_one(self) -> None:
        kept = {row["key"]: row for row in self.eyes.table("keys", "key")}
        assert self.keys <= kept.keys()
        self.keys |= kept.keys()
        known = {row["event_id"]: row["duplicates"] for row in kept.values()}
        for message in self.world.messages.values():
            assert known[message.event_id] == message.duplicates
        assert (
            max(Counter(r["key"] for r in self.eyes.deliveries().values()).values(), default=1)
            == 1
        )

    def examine(self) -> None:
        assert self.checkup.undelivered_events() == 0
        assert self.checkup.stuck_conversations() == 0

    # The end of every story.

    def everything_ends(self) -> None:
        """Let nothing fail any more: then everything is delivered, in its order."""
        self.examine()
        for destination in POLICIES:
            self.resume(destination)
        for node in list(self.world.down):
            self.come_back(node)
        for _ in range(4 * len(self.eyes.deliveries()) + 8):
            if self._is_over():
                break
            self.clock.advance(DAY.total_seconds())
            self.see_lost(NODES[0], at_once=True)
            for row in self.eyes.deliveries().values():
                if row["state"] == "held":
                    (case,) = self.desk.deliveries_named(row["id"])
                    step = recovery.resend(case, again=False, now=self.clock())
                    assert self.desk.do([step], self._act()) == [True]
            self.claim(NODES[0], 100)
            for work in list(self.world.claimed()):
                self._deliver(work)
        assert self._is_over()
        self.examine()
        assert self.checkup.overdue(self.clock()) == {}
        assert self.checkup.expired_leases(self.clock()) == 0

    def _is_over(self) -> bool:
        return {row["state"] for row in self.eyes.deliveries().values()} <= set(OVER)

    def _deliver(self, work: Work) -> None:
        self._record(work.node, work.claim, delivered())
        self.world.work.remove(work)
        self.world.arrived.add(work.id)


# Shares of what the profile says, because one example is a long story.
_A_FEW = settings(
    max_examples=max(settings().max_examples // 25, 1), stateful_step_count=50, deadline=None
)
_MANY = settings(_A_FEW, max_examples=max(settings().max_examples // 5, 1))


class TestStore(Store.TestCase):
    settings = _A_FEW


@pytest.mark.slow
class TestStoreAtLength(Store.TestCase):
    settings = _MANY
