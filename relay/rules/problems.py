"""What should a person know now? Findings, and the life of problems. Pure.

A finding holds at one moment. A problem has a life: it is suspected, opened once it has lasted,
escalated, acknowledged by a person, and resolved once it has been gone for a while.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from relay.rules import signature
from relay.rules.health import BACK_AFTER, Health
from relay.rules.hours import Silence, open_time
from relay.rules.kinds import Change, Kind, Level

#: How long a finding must last before its problem is opened. The others are opened at once.
SUSPECTED_FOR: Mapping[Kind, timedelta] = {
    # A worker that restarts is off the list for seconds.
    Kind.NO_WORKER: timedelta(seconds=20),
    # Whoever edits it may not be ready.
    Kind.CONFIG: timedelta(minutes=10),
    # Most failures of a network are over at the next try.
    Kind.ALERTS: timedelta(seconds=30),
    # Whoever changes a secret here has yet to change it at GoFax.
    Kind.OLD_SECRET: timedelta(hours=1),
}
#: How long a finding must be gone before its problem is resolved.
GONE_FOR = timedelta(seconds=15)
#: After this time an error that nobody acknowledged is told again.
ESCALATES_AFTER = timedelta(hours=1)
#: A problem that has grown by this factor since it was last told is told again.
GROWTH = 10

#: How long a destination may ask us to wait before a person should know.
LONGEST_THROTTLE = timedelta(minutes=5)
#: A delivery that has been due for longer is a backlog.
LONGEST_DUE = timedelta(minutes=15)
#: No silence is counted further back.
_LONGEST_COUNTED = timedelta(days=60)
#: So many deliveries are counted at the most, for each destination.
MOST_COUNTED = 1000
#: How long before its end a certificate should have been renewed, and must be.
ENDS_SOON, ENDS_VERY_SOON = timedelta(days=14), timedelta(days=3)
#: For how long it matters that an old secret was used.
SECRET_MATTERS_FOR = timedelta(days=1)
#: Signed requests that must be refused, and their share of all, before the secret is suspected.
REFUSED_AT_LEAST, REFUSED_SHARE = 3, 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something wrong at this moment."""

    kind: Kind
    #: The destination, endpoint, node or channel concerned; empty: the relay.
    subject: str = ""
    level: Level = "error"
    #: What is wrong and what to do about it. Never a customer's number or words.
    said: str
    #: How many are concerned, where that can grow.
    number: int = 1

    @property
    def key(self) -> tuple[Kind, str]:
        return self.kind, self.subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """A finding over time."""

    id: str
    kind: Kind
    subject: str
    level: Level
    #: What was found last.
    said: str
    #: How many it concerned when it was last told.
    number: int
    #: When it was first found.
    since: datetime
    #: When it was opened; None while it is only suspected.
    opened_at: datetime | None = None
    #: Since when it is no longer found.
    gone_since: datetime | None = None
    escalated_at: datetime | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None
    resolved_at: datetime | None = None

    @property
    def key(self) -> tuple[Kind, str]:
        return self.kind, self.subject


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """The next state of a problem, and what to tell about it."""

    problem: Problem
    #: What is told; None: nothing.
    told: Change | None = None
    #: Whether the suspicion was wrong, so that nothing need be kept.
    dropped: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """Deliveries of a destination that wait for a person."""

    dead: int = 0
    held: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Process:
    """A node as it was last heard of."""

    name: str
    role: str
    host: str
    started_at: datetime
    beat_at: datetime
    is_alive: bool
    #: Whether the file of its config is newer than what it runs.
    is_outdated: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """Requests to one path within the last minutes."""

    accepted: int = 0
    #: Refused requests that carried a signature, at an endpoint.
    mismatched: int = 0
    #: The same, where there is no endpoint.
    strayed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """That of the public address, as a node saw it last, or one that a receiver shows."""

    #: The address; or the file, and the host that it is on.
    url: str
    #: When it ends; None: it could not be looked at.
    ends_at: datetime | None = None
    #: Why it is not trusted, and what to do; empty: it is.
    fault: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class OldSecret:
    """A secret in use that is not the first of its endpoint, or has an end, by its position."""

    position: int
    of: int
    used_at: datetime
    #: From when on what it signs is refused; None: it has no end.
    ends_at: datetime | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """The state of things, as the store tells it."""

    #: By destination: those that have something to say.
    health: Mapping[str, Health] = field(default_factory=dict)
    stopped: Mapping[str, Stopped] = field(default_factory=dict)
    #: By destination: since when its oldest delivery is due.
    due_since: Mapping[str, datetime] = field(default_factory=dict)
    nodes: Sequence[Process] = ()
    #: By path.
    calls: Mapping[str, Calls] = field(default_factory=dict)
    #: Why nothing can be accepted; empty if it can.
    no_room: str = ""
    #: By channel: why alerts could not be sent there.
    unsent: Mapping[str, str] = field(default_factory=dict)
    certificate: Certificate | None = None
    #: Those that receivers show by themselves.
    served: Sequence[Certificate] = ()
    #: By endpoint.
    old_secrets: Mapping[str, Sequence[OldSecret]] = field(default_factory=dict)
    #: When the newest event came; None: none ever did.
    newest_event_at: datetime | None = None


def findings(facts: Facts, *, now: datetime, silence: Silence | None = None) -> list[Finding]:
    """Return everything that is wrong *now*; *silence*: how long one may be, if that matters."""
    return [
        *_destinations(facts, now=now),
        *_stopped(facts.stopped),
        *_nodes(facts.nodes, now=now),
        *_requests(facts.calls),
        *_store(facts),
        *_public(facts, now=now),
        *(_silence(facts, silence, now=now) if silence else ()),
    ]


def _destinations(facts: Facts, *, now: datetime) -> Iterator[Finding]:
    for name in sorted({*facts.health, *facts.due_since}):
        found = _unwell(name, facts.health.get(name, Health()), now=now)
        if found is not None:
            yield found
            continue
        due_since = facts.due_since.get(name)
        if due_since is not None and now - due_since > LONGEST_DUE:
            yield Finding(
                kind=Kind.BACKLOG,
                subject=name,
                said=f"deliveries to {name} are due since {_time(due_since)}: it is slower than "
                "events arrive, or its worker hangs: gofax-relay doctor says more",
            )


def _unwell(name: str, health: Health, *, now: datetime) -> Finding | None:
    """Return what keeps a destination from being served."""
    pause = health.pause
    if pause is not None and pause.cause == "unauthorized":
        return Finding(
            kind=Kind.UNAUTHORIZED,
            subject=name,
            said=f"{name} has refused our credentials since {_time(pause.since)}: "
            f"renew them, then gofax-relay resume {name}; everything waits and nothing is lost",
        )
    if (pause is not None and pause.cause == "failing") or health.failures >= BACK_AFTER:
        return Finding(
            kind=Kind.FAILING,
            subject=name,
            said=f"{name} fails again and again: the relay keeps trying, and "
            "gofax-relay destinations shows the last error",
        )
    if pause is not None and pause.cause == "operator":
        return Finding(
            kind=Kind.PAUSED,
            subject=name,
            level="warning",
            said=f"{name} was paused by a person at {_time(pause.since)}: "
            f"gofax-relay resume {name} ends that",
        )
    if pause is not None and now - pause.since > LONGEST_THROTTLE:
        return Finding(
            kind=Kind.PAUSED,
            subject=name,
            level="warning",
            said=f"{name} has asked us to wait since {_time(pause.since)}: perhaps its rate in "
            "the config is too high",
        )
    return None


def _stopped(stopped: Mapping[str, Stopped]) -> Iterator[Finding]:
    for name, counts in sorted(stopped.items()):
        for kind, number in ((Kind.DEAD, counts.dead), (Kind.HELD, counts.held)):
            if number:
                subject = "1 delivery" if number == 1 else f"{number} deliveries"
                verb = "is" if number == 1 else "are"
                least = "at least " if counts.dead + counts.held >= MOST_COUNTED else ""
                said = f"{least}{subject} to {name} {verb} {kind}: gofax-relay dead lists them"
                yield Finding(kind=kind, subject=name, said=said, number=number)


def _nodes(nodes: Sequence[Process], *, now: datetime) -> Iterator[Finding]:
    if not any(node.role == "worker" and node.is_alive for node in nodes):
        yield Finding(
            kind=Kind.NO_WORKER,
            said="no worker is running, so nothing is delivered: start gofax-relay serve or work",
        )
    for node in nodes:
        if not node.is_alive and not _is_replaced(node, nodes):
            yield Finding(
                kind=Kind.SILENT_NODE,
                subject=node.name,
                said=f"{node.role} {node.name} on {node.host} was last heard of at "
                f"{_time(node.beat_at)}: start it again, or look at its machine",
            )

    for host in sorted({node.host for node in nodes if node.is_alive and node.is_outdated}):
        yield Finding(
            kind=Kind.CONFIG,
            subject=host,
            level="warning",
            said=f"the config on {host} is newer than what runs: gofax-relay check --diff shows "
            "what changes, gofax-relay reload takes it",
        )


def _is_replaced(node: Process, nodes: Sequence[Process]) -> bool:
    """Return whether another process does the same on this machine since *node* went silent."""
    return any(
        each.is_alive
        and (each.role, each.host) == (node.role, node.host)
        and each.started_at >= node.beat_at
        for each in nodes
    )


def _requests(calls: Mapping[str, Calls]) -> Iterator[Finding]:
    for path, each in sorted(calls.items()):
        total = each.accepted + each.mismatched
        if each.mismatched >= REFUSED_AT_LEAST and each.mismatched >= REFUSED_SHARE * total:
            yield Finding(
                kind=Kind.SIGNATURES,
                subject=path,
                said=f"signed requests to {path} are refused: probably the secret differs from "
                "GoFax's; gofax-relay requests diagnose says what does, and gofax-relay requests "
                "admit lets them in afterwards",
                number=each.mismatched,
            )
        if each.strayed:
            yield Finding(
                kind=Kind.UNKNOWN_PATH,
                subject=path,
                level="warning",
                said=f"signed requests come to {path}, which is no endpoint: correct the URL in "
                "GoFax, or add the endpoint",
                number=each.strayed,
            )


def _store(facts: Facts) -> Iterator[Finding]:
    if facts.no_room:
        said = f"no event can be accepted: {facts.no_room}"
        yield Finding(kind=Kind.STORE, said=said)
    for channel, reason in sorted(facts.unsent.items()):
        said = f"alerts to {channel} cannot be sent: {reason}; gofax-relay alerts test tries it"
        yield Finding(kind=Kind.ALERTS, subject=channel, said=said)


def _public(facts: Facts, *, now: datetime) -> Iterator[Finding]:
    """Yield what is wrong between GoFax and us, apart from requests that were refused."""
    known = {facts.certificate.ends_at} if facts.certificate else set()
    public = [facts.certificate] if facts.certificate else []
    # The same one is told of once.
    for shown in (*public, *(each for each in facts.served if each.ends_at not in known)):
        if shown.fault:
            yield Finding(kind=Kind.CERTIFICATE, subject=shown.url, said=shown.fault)
        elif shown.ends_at is not None and shown.ends_at - now < ENDS_SOON:
            is_near = shown.ends_at - now < ENDS_VERY_SOON
            yield Finding(
                kind=Kind.CERTIFICATE,
                subject=shown.url,
                level="error" if is_near else "warning",
                said=f"the certificate of {shown.url} ends at {_time(shown.ends_at)}, and GoFax "
                "cannot post then: renew it, and find out why that does not happen by itself",
            )

    for endpoint, used in sorted(facts.old_secrets.items()):
        late = [each for each in used if now - each.used_at <= SECRET_MATTERS_FOR]
        yield from _ending(endpoint, late, now=now) or _old(endpoint, late)


def _ending(endpoint: str, used: Sequence[OldSecret], *, now: datetime) -> list[Finding]:
    """Return what to know of the secret in use that ends first, if it ends soon."""
    ends = [(each.ends_at, each) for each in used if each.ends_at and each.ends_at > now]
    if not ends:
        return []
    ends_at, first = min(ends, key=lambda each: each[0])
    if ends_at - now > signature.ENDS_SOON:
        return []
    finding = Finding(
        kind=Kind.OLD_SECRET,
        subject=endpoint,
        level="error" if ends_at - now < ENDS_VERY_SOON else "warning",
        said=f"requests to {endpoint} are signed with secret {first.position} of {first.of} in "
        f"the config, and will be refused after its not_after, {ends_at:%Y-%m-%d} (UTC): set "
        "another in GoFax, or move that date",
    )
    return [finding]


def _old(endpoint: str, used: Sequence[OldSecret]) -> list[Finding]:
    """Return what to know of the secret in use that is not the first."""
    old = [each for each in used if each.position > 1]
    if not old:
        return []
    finding = Finding(
        kind=Kind.OLD_SECRET,
        subject=endpoint,
        level="warning",
        said=f"requests to {endpoint} are still signed with secret {old[-1].position} of "
        f"{old[-1].of} in the config: set the first one in GoFax, and remove this one a day later",
    )
    return [finding]


def _silence(facts: Facts, silence: Silence, *, now: datetime) -> Iterator[Finding]:
    starts = [node.started_at for node in facts.nodes if node.is_alive]
    since = facts.newest_event_at or min(starts, default=now)
    since = max(since, now - _LONGEST_COUNTED)
    quiet = open_time(silence.hours, since=since, until=now) if silence.hours else now - since
    if quiet < silence.longest:
        return
    came = facts.newest_event_at
    said = f"no event since {_time(came)}" if came else "no event has ever come"
    hours = " within business hours" if silence.hours else ""
    yield Finding(
        kind=Kind.SILENCE,
        said=f"{said}, which is long{hours}: is the webhook in GoFax active, and does its URL "
        "lead here? gofax-relay requests lists what was refused, gofax-relay doctor --public-url "
        "tries the way",
    )


def steps(
    known: Sequence[Problem],
    found: Sequence[Finding],
    *,
    now: datetime,
    new_id: Callable[[], str],
) -> list[Step]:
    """Return how the unresolved problems *known* go on, and those that begin."""
    current = {finding.key: finding for finding in found}
    by_key = {problem.key for problem in known}
    new = [each for key, each in current.items() if key not in by_key]
    gone_on = (_gone_on(each, current.get(each.key), now=now) for each in known)
    return [
        *(_begun(each, now=now, id_=new_id()) for each in new),
        *(step for step in gone_on if step is not None),
    ]


def _begun(finding: Finding, *, now: datetime, id_: str) -> Step:
    problem = Problem(
        id=id_,
        kind=finding.kind,
        subject=finding.subject,
        level=finding.level,
        said=finding.said,
        number=finding.number,
        since=now,
    )
    if finding.kind in SUSPECTED_FOR:
        return Step(problem=problem)
    return Step(problem=replace(problem, opened_at=now), told="opened")


def _gone_on(problem: Problem, finding: Finding | None, *, now: datetime) -> Step | None:
    """Return the next step of a problem; None if it stays as it is."""
    if finding is None:
        return _without_finding(problem, now=now)
    seen = replace(problem, said=finding.said, level=finding.level, gone_since=None)
    if problem.opened_at is None:
        if now - problem.since < SUSPECTED_FOR.get(problem.kind, timedelta()):
            return None
        return Step(problem=replace(seen, opened_at=now), told="opened")
    if _escalates(problem, finding, now=now):
        seen = replace(seen, escalated_at=now, number=max(finding.number, problem.number))
        return Step(problem=seen, told="escalated")
    return None if seen == problem else Step(problem=seen)


def _without_finding(problem: Problem, *, now: datetime) -> Step | None:
    if problem.opened_at is None:
        return Step(problem=problem, dropped=True)
    if problem.gone_since is None:
        return Step(problem=replace(problem, gone_since=now))
    if now - problem.gone_since < GONE_FOR:
        return None
    return Step(problem=replace(problem, resolved_at=now), told="resolved")


def _escalates(problem: Problem, finding: Finding, *, now: datetime) -> bool:
    if finding.number >= problem.number * GROWTH:
        return True
    if (problem.level, finding.level) == ("warning", "error"):
        return True
    is_forgotten = problem.acknowledged_at is None and problem.escalated_at is None
    opened_at = problem.opened_at or now
    return finding.level == "error" and is_forgotten and now - opened_at >= ESCALATES_AFTER


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%SZ}"
