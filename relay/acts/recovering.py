"""Resends, settles and replays of what a person names, done or only looked at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from relay.acts.person import Person
from relay.config.effective import version_if_complete
from relay.config.model import Config
from relay.rules import recovery, routing
from relay.rules.delivery import State
from relay.rules.recovery import (
    Change,
    ChangeKind,
    FoundDelivery,
    FoundEvent,
    Replay,
    ReplayStep,
)
from relay.shapes.recovery import (
    CHANGED,
    ChangeJson,
    ReplayJson,
    change_json,
    replay_json,
    says_of,
)
from relay.store import Recovery
from relay.store.search import Unknown
from relay.store.undo import Acts

T = TypeVar("T")

#: Whether something was done, and what it was or why not.
Done = tuple[bool, str]
#: How a person says that a delivery ended.
End = Literal[State.DELIVERED, State.DEAD]


@dataclass(frozen=True, kw_only=True, slots=True)
class Changed:
    """What became of a change to a delivery."""

    change: Change
    is_done: bool
    says: str

    @property
    def done(self) -> Sequence[Done]:
        return [(self.is_done, self.says)]

    @property
    def json(self) -> ChangeJson:
        return change_json(self.change, done=self.is_done, says=self.says)


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """What became of a replay of an event."""

    replay: Replay
    added: Sequence[ReplayStep]

    @property
    def done(self) -> Sequence[Done]:
        """Return what was done for each destination."""
        if self.replay.refused:
            return [(False, self.replay.refused)]
        return [(step in self.added, says_of(step, self.added)) for step in self.replay.steps]

    @property
    def json(self) -> ReplayJson:
        return replay_json(self.replay, added=self.added)


class UnknownNames(Exception):
    """Nothing has these names; a line says so of each."""


def resend(
    store: Recovery,
    names: Iterable[str],
    person: Person,
    *,
    again: bool = False,
    dry_run: bool = False,
) -> Sequence[Changed]:
    """Give the deliveries *names*, or the newest ones of events, a new series of attempts.

    *again* allows a second effect; *dry_run*: only say what would be done. Raises
    :class:`UnknownNames`.
    """
    found = find(store.deliveries_named, names)
    decide = resending(store, again=again)
    changes = [decide(each) for deliveries in found.values() for each in deliveries]
    return change(store, changes, person, dry_run=dry_run)


def settle(
    store: Recovery, names: Iterable[str], person: Person, *, end: End, dry_run: bool = False
) -> Sequence[Changed]:
    """Say how the deliveries *names* ended. Raises :class:`UnknownNames`."""
    found = find(partial(one_delivery, store), names)
    changes = [recovery.settle(each, end=end) for [each] in found.values()]
    return change(store, changes, person, dry_run=dry_run)


def replay(
    config: Config,
    store: Recovery,
    names: Iterable[str],
    person: Person,
    *,
    only: Collection[str] = (),
    again: bool = False,
    dry_run: bool = False,
) -> Sequence[Replayed]:
    """Send the events *names* through today's routes, and add the missing deliveries.

    *only*: the destinations to consider; *again*: also where it was delivered. Raises
    :class:`UnknownNames`.
    """
    decide = replaying(config, only=only, again=again)
    found = find(store.event_named, names)
    by_routes = replace(person, config=version_if_complete(config))
    return add(store, [decide(each) for each in found.values()], by_routes, dry_run=dry_run)


def resending(store: Recovery, *, again: bool) -> Callable[[FoundDelivery], Change]:
    """Return what decides about a resend now."""
    return partial(recovery.resend, again=again, now=store.clock())


def replaying(
    config: Config, *, only: Collection[str], again: bool
) -> Callable[[FoundEvent], Replay]:
    """Return what decides about a replay through today's routes."""
    hours = config.hours

    def decide(found: FoundEvent) -> Replay:
        today = routing.match(found.event, config.routes, hours=hours).destinations
        return recovery.replay(found, today, only=only, again=again)

    return decide


def change(
    store: Recovery, changes: Sequence[Change], person: Person, *, dry_run: bool = False
) -> Sequence[Changed]:
    """Make *changes* to deliveries, and return what was done, or would be."""
    asked = [each.kind is not ChangeKind.NOTHING for each in changes]
    did = asked if dry_run else store.do(changes, person.act(store.clock()))
    return [
        Changed(
            change=each,
            is_done=is_done,
            says=CHANGED if was_asked and not is_done else each.says,
        )
        for each, was_asked, is_done in zip(changes, asked, did, strict=True)
    ]


def serve_again(
    store: Recovery, acts: Acts, name: str, person: Person, *, dry_run: bool = False
) -> Sequence[str]:
    """Resume what the act *name* paused, if it is paused by it still; return the destinations."""
    paused = acts.pauses(name)
    for destination in () if dry_run else paused:
        store.resume(destination, person.act(store.clock()))
    return paused


def add(
    store: Recovery, replays: Sequence[Replay], person: Person, *, dry_run: bool = False
) -> Sequence[Replayed]:
    """Make *replays* of events, and return what was added, or would be."""
    planned = [[step for step in each.steps if step.adds] for each in replays]
    added = planned if dry_run else store.replay(replays, person.act(store.clock()))
    return [Replayed(replay=each, added=steps) for each, steps in zip(replays, added, strict=True)]


def find(look_up: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
    """Find everything that is named, or raise :class:`UnknownNames` with all that are unknown."""
    hits: dict[str, T] = {}
    faults = []
    for name in names:
        try:
            hits[name] = look_up(name)
        except Unknown as error:
            faults.append(str(error))
    if faults:
        raise UnknownNames("\n".join(faults))
    return hits


def one_delivery(store: Recovery, name: str) -> Sequence[FoundDelivery]:
    """Find the one delivery that *name* means."""
    found = store.deliveries_named(name)
    if len(found) > 1:
        which = ", ".join(f"{each.id} ({each.destination}, {each.state})" for each in found)
        raise Unknown(f'"{name}" has several deliveries, name one of {which}')
    return found
