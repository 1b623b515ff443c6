"""What goes wrong in one run, and when: all of it follows from a seed."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

SYSTEMS = ("hubspot", "zendesk", "teams")
CONVERSATIONS = 5
SENDERS = 6
#: Faults meet the first so many calls of each system; then it behaves, so that a run ends.
FAULTY_CALLS = 160
BLOWS = 6
#: How often a node of a fleet is cut off from a server, and how often a server goes away.
CUTS = 5
OUTAGES = 2
#: How long a node is cut off at most, in seconds: now and then its leases run out meanwhile.
SHORT, LONG = 8.0, 50.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """How much happens in a storm."""

    messages: int
    #: Seconds that a sender waits at most before it posts the next.
    pause: float
    #: Within how many calls of the systems all goes wrong.
    calls: int


ONE_MACHINE = Size(messages=42, pause=1.2, calls=260)
#: Long enough for nodes to be away and to come back while others are at work.
MANY = Size(messages=120, pause=2.5, calls=500)


class Kind(StrEnum):
    """What a storm hits."""

    SQLITE = "sqlite"
    #: Nodes with a worker of our own, on PostgreSQL.
    FLEET = "fleet"
    #: Nodes whose workers are Celery's, on PostgreSQL and RabbitMQ.
    CELERY = "celery"


#: The servers that the nodes of a fleet share.
STORE, BROKER = "store", "broker"
SERVERS: Mapping[Kind, Sequence[str]] = {
    Kind.SQLITE: (),
    Kind.FLEET: (STORE,),
    Kind.CELERY: (STORE, BROKER),
}
FLEET: Mapping[str, str] = {
    **{f"web-{number}": "web" for number in (1, 2, 3)},
    **{f"work-{number}": "work" for number in (1, 2, 3)},
}


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
class Cut:
    """A node that hears nothing of a server any more, nor the server of it; nobody is told."""

    after: int
    delay: float
    node: str
    server: str
    #: Seconds until they hear of each other again.
    pause: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Outage:
    """A server that stops and starts again."""

    after: int
    delay: float
    server: str
    #: It stops as if the power went.
    crash: bool
    #: Seconds until it is started again.
    pause: float


Misfortune = Blow | Cut | Outage


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
    #: Post it at two doors at the same moment.
    twice: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """One run."""

    seed: int
    kind: Kind
    #: Names of the processes, each with its command.
    commands: Mapping[str, str]
    #: What each sender posts, one after the other.
    postings: Sequence[Sequence[Posting]]
    #: By system, which of its calls meets which fault.
    faults: Mapping[str, Mapping[int, Fault]]
    #: In the order in which they come.
    misfortunes: Sequence[Misfortune]

    @classmethod
    def of(cls, seed: int, kind: Kind = Kind.SQLITE) -> Plan:
        return cls._of_one_machine(seed) if kind is Kind.SQLITE else cls._of_fleet(seed, kind)

    @classmethod
    def _of_one_machine(cls, seed: int) -> Plan:
        rng = Random(seed)
        commands = rng.choice(
            [
                {"serve": "serve", "work-1": "work"},
                {"web": "web", "work-1": "work", "work-2": "work"},
            ]
        )
        return cls(
            seed=seed,
            kind=Kind.SQLITE,
            commands=commands,
            postings=_postings(seed, ONE_MACHINE, rng),
            faults={system: _faults(rng) for system in SYSTEMS},
            misfortunes=_blows(list(commands), ONE_MACHINE, rng),
        )

    @classmethod
    def _of_fleet(cls, seed: int, kind: Kind) -> Plan:
        rng = Random(f"{seed} {kind}")
        postings = [
            [replace(each, twice=rng.random() < 0.3) for each in sent]
            for sent in _postings(seed, MANY, rng)
        ]
        misfortunes = [
            *_blows(list(FLEET), MANY, rng),
            *_cuts(list(FLEET), SERVERS[kind], rng),
            *_outages(SERVERS[kind], rng),
        ]
        return cls(
            seed=seed,
            kind=kind,
            commands=FLEET,
            postings=postings,
            faults={system: _faults(rng) for system in SYSTEMS},
            misfortunes=sorted(misfortunes, key=lambda each: each.after),
        )


def _postings(seed: int, size: Size, rng: Random) -> Sequence[Sequence[Posting]]:
    senders: list[list[Posting]] = [[] for _ in range(SENDERS)]
    for number in range(size.messages):
        posting = Posting(
            name=f"m-{seed}-{number}",
            conversation=rng.randrange(CONVERSATIONS),
            # Teams takes four cards a second: only some of the messages go there.
            type="SMS_REPLY" if number % 3 == 0 else "SMS_RECEIVED",
            pause=rng.uniform(0, size.pause),
            again=rng.random() < 0.25,
        )
        rng.choice(senders).append(posting)
    return senders


def _faults(rng: Random) -> Mapping[int, Fault]:
    kinds: list[Fault | None] = [*SHARES, None]
    shares = [*SHARES.values(), 1000 - sum(SHARES.values())]
    drawn = rng.choices(kinds, shares, k=FAULTY_CALLS)
    return {call: fault for call, fault in enumerate(drawn, 1) if fault is not None}


def _blows(names: Sequence[str], size: Size, rng: Random) -> Sequence[Blow]:
    return [_blow(after, rng.choice(names), rng) for after in _moments(BLOWS, size, rng)]


def _moments(number: int, size: Size, rng: Random) -> Sequence[int]:
    return sorted(rng.randrange(5, size.calls) for _ in range(number))


def _cuts(names: Sequence[str], servers: Sequence[str], rng: Random) -> Sequence[Cut]:
    return [
        Cut(
            after=after,
            delay=rng.uniform(0, 0.4),
            node=rng.choice(names),
            server=rng.choice(servers),
            pause=LONG if rng.random() < 0.1 else rng.uniform(0.5, SHORT),
        )
        for after in _moments(CUTS, MANY, rng)
    ]


def _outages(servers: Sequence[str], rng: Random) -> Sequence[Outage]:
    return [
        Outage(
            after=after,
            delay=rng.uniform(0, 0.4),
            server=rng.choice(servers),
            crash=rng.random() < 0.5,
            pause=rng.uniform(0, 2),
        )
        for after in _moments(OUTAGES, MANY, rng)
    ]


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
