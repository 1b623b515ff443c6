"""Is everything as it has to be? Looks at a live store and around it, and changes nothing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

from relay.config import Config
from relay.delivery import State
from relay.store import Database, Ledger
from relay.store.checkup import Checkup

#: A lease that ran out so long ago should have been taken over.
LEASE_GRACE = timedelta(minutes=2)
#: What was due so long ago has no worker that serves it.
DUE_GRACE = timedelta(minutes=5)
#: By how much the newest event may be ahead of the clock.
CLOCK_GRACE = timedelta(seconds=10)
#: A write-ahead log grows past this only while a reader holds an old state open.
LARGEST_WAL = 256 << 20

Verdict = Literal["good", "notice", "broken"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check came to."""

    check: str
    verdict: Verdict
    #: What was seen, and what to do about it.
    said: str


def examine(config: Config, database: Database, *, now: datetime) -> Iterator[Finding]:
    """Yield what each check finds; only ``broken`` needs somebody to act now."""
    checkup, ledger = Checkup(database), Ledger(database)
    yield _none(
        "events",
        checkup.undelivered_events(),
        "every event that a route matched has its deliveries",
        "events matched a route and have no delivery: gofax-relay replay makes them",
    )
    yield _none(
        "leases",
        checkup.expired_leases(now - LEASE_GRACE),
        "no lease has run out without being taken over",
        "leases ran out and nobody took their work over: is a worker running?",
    )
    yield _none(
        "conversations",
        checkup.stuck_conversations(),
        "no conversation is stuck",
        "conversations wait behind nobody: please report this as a bug",
    )
    yield from _overdue(config, checkup, ledger, now=now)
    yield from _stopped(config, ledger)
    if database.is_sqlite:
        yield from _files(config, database.path)
    yield _clock(checkup.newest_event(), now=now)


def _none(check: str, count: int, good: str, broken: str) -> Finding:
    if count:
        return Finding(check=check, verdict="broken", said=f"{count} {broken}")
    return Finding(check=check, verdict="good", said=good)


def _overdue(
    config: Config, checkup: Checkup, ledger: Ledger, *, now: datetime
) -> Iterator[Finding]:
    pauses = ledger.pauses()
    overdue = checkup.overdue(now - DUE_GRACE)
    for name, count in sorted(overdue.items()):
        if pause := pauses.get(name):
            said = f"{count} deliveries wait while {name} is paused ({pause.cause})"
            yield Finding(check="work", verdict="notice", said=said)
        elif name not in config.destinations:
            said = f"{count} deliveries wait for {name}, which the config does not name any more"
            yield Finding(check="work", verdict="notice", said=said)
        elif checkup.is_served(name, since=now - DUE_GRACE):
            said = f"{count} deliveries to {name} are long due: it is slower than what comes in"
            yield Finding(check="work", verdict="notice", said=said)
        else:
            said = f"{count} deliveries to {name} are long due: is a worker running?"
            yield Finding(check="work", verdict="broken", said=said)
    if not overdue:
        yield Finding(check="work", verdict="good", said="nothing is long due")


def _stopped(config: Config, ledger: Ledger) -> Iterator[Finding]:
    for name, pause in sorted(ledger.pauses().items()):
        said = f"{name} is paused since {pause.since:%Y-%m-%d %H:%M:%SZ}: {pause.cause}"
        yield Finding(check="destinations", verdict="notice", said=f"{said}: {pause.reason}")
    for name, counts in sorted(ledger.backlog().items()):
        for state in (State.HELD, State.DEAD):
            if count := counts.get(state, 0):
                said = f"{count} deliveries to {name} are {state}: gofax-relay dead lists them"
                yield Finding(check="destinations", verdict="notice", said=said)


def _files(config: Config, path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent).free
    said = f"{free >> 20} MiB of disk are free; disk_reserve is {config.disk_reserve >> 20} MiB"
    yield Finding(
        check="disk", verdict="good" if free > config.disk_reserve else "broken", said=said
    )
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    said = f"the write-ahead log has {size >> 20} MiB"
    if size > LARGEST_WAL:
        said += ": a program holds an old state of the store open"
    yield Finding(check="wal", verdict="good" if size <= LARGEST_WAL else "broken", said=said)
    if path.stat().st_mode & 0o077:
        said = f"{path.name} can be read by others: chmod 600 it"
        yield Finding(check="files", verdict="broken", said=said)


def _clock(newest: datetime | None, *, now: datetime) -> Finding:
    if newest is not None and newest - now > CLOCK_GRACE:
        said = f"the newest event is from {newest - now} in the future: the clock was put back"
        return Finding(check="clock", verdict="broken", said=said)
    return Finding(check="clock", verdict="good", said="the clock is not behind the newest event")
