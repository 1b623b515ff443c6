"""What goes wrong in one run, and when: all of it follows from a seed."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

SYSTEMS = ("hubspot", "zendesk", "teams")
CONVERSATIONS = 5
MESSAGES = 42
SENDERS = 6
#: Faults meet the first so many calls of each system; then it behaves, so that a run ends.
FAULTY_CALLS = 160
BLOWS = 6


class Fault(StrEnum):
    """What a system does to one call."""

    HANG_AFTER_ACTING = "acts, and never answers"
    RESET_AFTER_ACTING = "acts, and resets the connection"
    ERROR_AFTER_ACTING = "acts, and answers 500"
    CUT_AFTER_ACTING = "acts, and breaks off in the middle of the answer"
    SLOW = "acts, and answers slowly"
    HELD = "acts, and answers when a test lets it"
    RESET = "resets the connection"
    ERROR = "answers 500"
    THROTTLE = "answers 429"


#: How often each fault comes, in thousandths of the calls. What costs seconds is rare.
SHARES: Mapping[Fault, int] = {
    Fault.HANG_AFTER_ACTING: 10,
    Fault.RESET_AFTER_ACTING: 35,
    Fault.ERROR_AFTER_ACTING: 35,
    Fault.CUT_AFTER_ACTING: 20,
    Fault.SLOW: 30,
    Fault.RESET: 25,
    Fault.ERROR: 25,
    Fault.THROTTLE: 10,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Blow:
    """One signal to one process."""

    #: How many calls the systems have seen when it is dealt.
    after: int
    #: Seconds later.
    delay: float
    #: Which of our commands it meets.
    command: str
    #: Which process below that command, from 0.0 to 1.0 of those there are; None: the command's.
    below: float | None
    signal: signal.Signals
    #: Seconds until the command is started again.
    pause: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Posting:
    """One message, and what its sender does."""

    name: str
    conversation: int
    type: str
    #: Seconds that the sender waits before it posts.
    pause: float
    #: Post it again although it was acknowledged.
    again: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One run."""

    seed: int
    #: Names of the processes, each with its command.
    commands: Mapping[str, str]
    #: What each sender posts, one after the other.
    postings: Sequence[Sequence[Posting]]
    #: By system, which of its calls meets which fault.
    faults: Mapping[str, Mapping[int, Fault]]
    blows: Sequence[Blow]

    @classmethod
    def of(cls, seed: int) -> Plan:
        rng = Random(seed)
        commands = rng.choice(
            [
                {"serve": "serve", "work-1": "work"},
                {"web": "web", "work-1": "work", "work-2": "work"},
            ]
        )
        return cls(
            seed=seed,
            commands=commands,
            postings=_postings(seed, rng),
            faults={system: _faults(rng) for system in SYSTEMS},
            blows=_blows(list(commands), rng),
        )


def _postings(seed: int, rng: Random) -> Sequence[Sequence[Posting]]:
    senders: list[list[Posting]] = [[] for _ in range(SENDERS)]
    for number in range(MESSAGES):
        posting = Posting(
            name=f"m-{seed}-{number}",
            conversation=rng.randrange(CONVERSATIONS),
            # Teams takes four cards a second: only some of the messages go there.
            type="SMS_REPLY" if number % 3 == 0 else "SMS_RECEIVED",
            pause=rng.uniform(0, 1.2),
            again=rng.random() < 0.25,
        )
        rng.choice(senders).append(posting)
    return senders


def _faults(rng: Random) -> Mapping[int, Fault]:
    kinds: list[Fault | None] = [*SHARES, None]
    shares = [*SHARES.values(), 1000 - sum(SHARES.values())]
    drawn = rng.choices(kinds, shares, k=FAULTY_CALLS)
    return {call: fault for call, fault in enumerate(drawn, 1) if fault is not None}


def _blows(names: Sequence[str], rng: Random) -> Sequence[Blow]:
    moments = sorted(rng.randrange(5, 260) for _ in range(BLOWS))
    return [_blow(after, rng.choice(names), rng) for after in moments]


def _blow(after: int, name: str, rng: Random) -> Blow:
    # A worker has nothing below it. What is below the others is started again by them.
    below = rng.random() if not name.startswith("work") and rng.random() < 0.5 else None
    kind = signal.SIGTERM if below is None and rng.random() < 0.25 else signal.SIGKILL
    return Blow(
        after=after,
        delay=rng.uniform(0, 0.4),
        command=name,
        below=below,
        signal=kind,
        pause=rng.choice([0, 0, rng.uniform(0, 2)]),
    )
