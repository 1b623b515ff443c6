"""This process at the store: its name and entry there, and what it prunes, indexes and counts."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import structlog

from relay import every
from relay.config.effective import effective, version_of
from relay.config.model import Config
from relay.every import Every
from relay.store import Database, StoreUnavailable
from relay.store.nodes import Node, Nodes, Role
from relay.store.prune import Pruning, Removed
from relay.store.sqlite_file import private
from relay.store.texts import BATCH, Texts
from relay.store.traffic import STEP, Traffic

log = structlog.get_logger()

#: Seconds between two beats.
BEAT = 5.0
#: Seconds from the start to the first pruning, between two, and between two steps of one.
FIRST, EVERY, REST = 60.0, 3600.0, 0.05
#: Seconds between two looks for texts to index, and between two steps of one.
INDEX = 1.0
#: Seconds between two looks for minutes of traffic to count.
COUNT = 15.0
#: Seconds between two looks whether there is room, and bytes of the longest write-ahead log.
LOOK, LONGEST_LOG = 5.0, 64 << 20


class NodeSlot:
    """The first free number of its *role* beside a store on this machine, held until we die.

    Two running nodes never share a name. A node that is killed gives its name back at once,
    because its lock dies with it.
    """

    def __init__(self, store: Path, role: str = "worker") -> None:
        for number in itertools.count(1):
            self._path = store.with_name(f"{store.name}.{role}-{number}.lock")
            self._file = private(self._path)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(self._file)
                continue
            if not os.fstat(self._file).st_nlink:
                # Its bearer removed the file after we opened it, so our lock would bar nobody.
                os.close(self._file)
                continue
            self.name = f"{role}-{number}"
            return

    def close(self) -> None:
        """Give the number back before we die, and leave no file."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


@cache
def version() -> str:
    """Return the version that this process runs, also when another was installed meanwhile."""
    return metadata.version("gofax-relay")


def _of_config(config: Config | None) -> dict[str, Any]:
    if config is None:
        return {}
    said: dict[str, Any] = {
        "config": version_of(config),
        "effective": json.dumps(effective(config)),
    }
    if config.origin is not None:
        said["config_path"] = str(config.origin.path)
        said["config_changed_at"] = config.origin.changed_at
    return said


def _changed_at(file: str) -> datetime | None:
    """Return when *file* was changed; None while it is not there."""
    with suppress(OSError):
        return datetime.fromtimestamp(Path(file).stat().st_mtime, UTC) if file else None
    return None


def new_name() -> str:
    """Return a name that no node has had, for a store that many machines share.

    A node that restarts is a new one, and the leases of its earlier life run out.
    """
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Heartbeat:
    """Keeps this process on the list of nodes, in a thread that delays nothing else."""

    def __init__(
        self,
        database: Database,
        *,
        name: str,
        role: Role,
        config: Config | None = None,
        seconds: float = BEAT,
    ) -> None:
        """*name*: the name that the node claims under; *config*: what it runs."""
        self._nodes = Nodes(database)
        self._node = Node(
            name=name,
            role=role,
            version=version(),
            host=socket.gethostname(),
            pid=os.getpid(),
            **_of_config(config),
        )
        self._database = database
        self._loop = Every("heartbeat", seconds, self._beat, first=0.0, away=StoreUnavailable)

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        """Stop, and take the node off the list."""
        self._loop.close()
        leave(self._database, self._node.name)

    def _beat(self) -> None:
        faults = "\n".join(loop.fault or "" for loop in every.faulty())
        changed_at = _changed_at(self._node.config_path)
        now = replace(self._node, faults=faults, file_changed_at=changed_at)
        self._node = self._nodes.beat(now)


def leave(database: Database, name: str) -> None:
    """Take a node off the list; while the store is away it stays there, silent."""
    with suppress(Exception):
        Nodes(database).leave(name)


class Pruner:
    """Prunes the store every hour, in steps between which others write.

    In between it keeps the write-ahead log short, and lets refused requests go when the disk
    is. Several workers may each have one.
    """

    def __init__(
        self,
        pruning: Pruning,
        *,
        retention: timedelta,
        by_type: Mapping[str, timedelta] | None = None,
        backups: timedelta,
        horizon: timedelta | None,
        refused: timedelta | None = None,
        clock: Callable[[], datetime],
        first: float = FIRST,
    ) -> None:
        """*by_type*: how long events of these types are kept, instead of *retention*.

        *refused*: how long refused requests are kept, if that is less than *retention*.
        """
        self._pruning = pruning
        self._refused = refused
        self._retention = retention
        self._by_type = by_type or {}
        self._backups = backups
        self._horizon = horizon
        self._clock = clock
        #: Whether a reader kept removed texts in the write-ahead log.
        self._owes_log = False
        self._loop = Every("prune", EVERY, self._prune, first=first, away=StoreUnavailable)
        self._room = Every("room", LOOK, self._make_room, first=0.0, away=StoreUnavailable)

    def start(self) -> None:
        self._loop.start()
        self._room.start()

    def close(self) -> None:
        """Stop after the current step."""
        self._loop.close()
        self._room.close()

    def _make_room(self) -> None:
        """Let refused requests go while the disk is short, and shorten the log."""
        evicted = 0
        for number in self._pruning.make_room():
            evicted += number
            if self._room.pause(REST):
                break
        if evicted:
            log.warning("requests.evicted", count=evicted, reason="the disk is short")
        above = 0 if self._owes_log else LONGEST_LOG
        self._owes_log = bool(self._pruning.truncate_log(above=above)) and self._owes_log

    def _prune(self) -> None:
        now, total = self._clock(), Removed()
        keys_before = None if self._horizon is None else now - self._horizon
        refused_before = None if self._refused is None else now - self._refused
        for step in self._pruning.prune(
            before=now - self._retention,
            types_before={name: now - age for name, age in self._by_type.items()},
            refused_before=refused_before,
            keys_before=keys_before,
        ):
            total += step
            if self._loop.pause(REST):
                break
        with closing(self._pruning.rebuild_texts()) as steps:
            for _ in steps:
                if self._loop.pause(REST):
                    break
        for file in self._pruning.expire_backups(before=now - self._backups):
            log.info("backup.removed", file=str(file))
        if reason := self._pruning.truncate_log():
            log.warning("store.log_kept", reason=reason)
            self._owes_log = True
        if total != Removed():
            log.info("store.pruned", events=total.events, requests=total.requests, keys=total.keys)


class Indexer:
    """Keeps the full-text index up to what comes in, behind the accepts.

    Several workers may each have one: what one of them indexes, the others leave alone.
    """

    def __init__(self, texts: Texts, *, seconds: float = INDEX) -> None:
        self._texts = texts
        self._loop = Every("texts", seconds, self._index, first=0.0, away=StoreUnavailable)

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        """Stop after the current step."""
        self._loop.close()

    def _index(self) -> None:
        # What comes meanwhile waits for the next round: a commit for each would cost more.
        while self._texts.index() == BATCH and not self._loop.pause(REST):
            pass


class TrafficCounter:
    """Keeps the table of what came and arrived up to the minute.

    Several workers may each have one: a minute is counted once.
    """

    def __init__(self, traffic: Traffic, *, seconds: float = COUNT) -> None:
        self._traffic = traffic
        self._loop = Every("traffic", seconds, self._count, first=0.0, away=StoreUnavailable)

    def start(self) -> None:
        self._loop.start()

    def close(self) -> None:
        """Stop after the current step."""
        self._loop.close()

    def _count(self) -> None:
        while self._traffic.count() == STEP and not self._loop.pause(REST):
            pass
