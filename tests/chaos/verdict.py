"""Did the promises hold? Pure: what was acknowledged, stored and done, compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

#: Which system each destination is, and whether it can tell that it was asked before.
SYSTEMS = {"crm": "hubspot", "helpdesk": "zendesk", "front-desk": "teams"}
IDEMPOTENT = frozenset({"hubspot", "zendesk"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One event, as the store tells of it."""

    name: str
    conversation: str
    standing: str
    #: The state of its delivery to each destination.
    states: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What the sender of one message knows."""

    #: When it was first posted, and when first acknowledged, in seconds of one clock.
    posted_at: float
    acknowledged_at: float
    #: How often it was answered 200 with which status.
    statuses: Mapping[str, int]
    #: Some answer did not come, or was not 200: what became of that request is not known.
    doubtful: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """What is left after a run."""

    #: Every message to which the relay answered 2xx.
    acknowledged: frozenset[str]
    #: In the order of acceptance.
    stored: Sequence[Stored]
    #: By system, whose effects it has, in the order in which they came.
    effects: Mapping[str, Sequence[str]]
    #: By message, where that was written down.
    heard: Mapping[str, Heard] = field(default_factory=dict)


def violations(evidence: Evidence) -> list[str]:
    """Say which promises were broken; nothing if none was."""
    return [
        *_lost(evidence),
        *_answered_wrongly(evidence),
        *_unfinished(evidence),
        *_miscounted(evidence),
        *_disordered(evidence),
        *_overtaken(evidence),
    ]


def _lost(evidence: Evidence) -> Iterator[str]:
    names = Counter(event.name for event in evidence.stored)
    for name in sorted(evidence.acknowledged - names.keys()):
        yield f"{name} was acknowledged and is not in the store"
    for name, times in names.items():
        if times > 1:
            yield f"{name} is {times} events"
    for event in evidence.stored:
        if event.standing != "accepted":
            yield f"{event.name} is a {event.standing}"


def _answered_wrongly(evidence: Evidence) -> Iterator[str]:
    for name, heard in evidence.heard.items():
        accepted = heard.statuses.get("accepted", 0)
        if accepted > 1:
            yield f"{name} was accepted {accepted} times"
        if accepted == 0 and not heard.doubtful:
            yield f"{name} was a duplicate of nothing"
        for status in sorted(heard.statuses.keys() - {"accepted", "duplicate"}):
            yield f"{name} was answered {status}"


def _unfinished(evidence: Evidence) -> Iterator[str]:
    for event in evidence.stored:
        for destination, state in event.states.items():
            if state != "delivered":
                yield f"{event.name} to {destination} is {state}"


def _miscounted(evidence: Evidence) -> Iterator[str]:
    for destination, system in SYSTEMS.items():
        wanted = {event.name for event in evidence.stored if destination in event.states}
        found = Counter(evidence.effects[system])
        for name in sorted(wanted - found.keys()):
            yield f"{name} has no effect in {system}"
        for name in sorted(found.keys() - wanted):
            yield f"{name} has an effect in {system}, where it does not belong"
        if system in IDEMPOTENT:
            for name, times in found.items():
                if times > 1:
                    yield f"{name} has {times} effects in {system}"


def _disordered(evidence: Evidence) -> Iterator[str]:
    for destination, system in SYSTEMS.items():
        firsts = list(dict.fromkeys(evidence.effects[system]))
        lanes: dict[str, list[str]] = {}
        for event in evidence.stored:
            if destination in event.states and event.name in firsts:
                lanes.setdefault(event.conversation, []).append(event.name)
        for conversation, accepted in lanes.items():
            done = [name for name in firsts if name in accepted]
            if done != accepted:
                yield f"{conversation} in {system}: accepted {accepted}, done {done}"


def _overtaken(evidence: Evidence) -> Iterator[str]:
    """Find what was done before something that had been acknowledged when it was first posted."""
    conversations = {event.name: event.conversation for event in evidence.stored}
    for system, effects in evidence.effects.items():
        firsts = [name for name in dict.fromkeys(effects) if name in evidence.heard]
        for early, late in combinations(firsts, 2):
            posted_at = evidence.heard[early].posted_at
            if (
                conversations.get(early) == conversations.get(late)
                and evidence.heard[late].acknowledged_at < posted_at
            ):
                yield f"{late} in {system} was overtaken by {early}"
