"""What every process of the relay does for itself: how it runs, and what it dies with."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog

from relay.node import NodeSlot, new_name
from relay.store import Database, StoreUnavailable
from relay.store.nodes import Role

log = structlog.get_logger()

#: Seconds that running attempts and requests get after SIGTERM.
DRAIN = 8
#: Seconds after SIGTERM at which a worker ends whatever hangs, and at which a child is killed.
END, KILL_AFTER = 9.0, 9.5
#: Seconds that the store's log may then take, at least.
CLOSE = 0.4
#: Which roles a command has.
ROLES = {"serve": ("web", "worker", "admin"), "web": ("web", "admin"), "work": ("worker",)}
#: Seconds between the death of a child and its next start.
RESTART_AFTER = 1.0
#: Signals that end a process, after what runs has ended.
ENDING = (signal.SIGTERM, signal.SIGINT)
#: Tells a process that another one has taken over: it ends when what runs has ended.
RETIRE = signal.SIGUSR1
#: Seconds after which a waiting thread asks for the interpreter. Dozens of them wait under load,
#: each wakes up so often to ask, and with Python's 5 ms that cost more than the requests did;
#: no thread of the receiver computes for long.
SWITCH_INTERVAL = 0.05

#: Called by a process when it does its work.
Ready = Callable[[], None]

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_M_ARENA_MAX = -8


def end_with(parent: int) -> None:
    """Let this process die with *parent*, so that nothing holds the port after a kill -9."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    watch = threading.Thread(target=_watch, args=(parent,), daemon=True, name="parent")
    watch.start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def write_no_core_files() -> None:
    """Keep secrets and texts in memory out of the files that a crash leaves."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)


def share_memory_among_threads() -> None:
    """Let the threads of this process and its children take their memory from two places (glibc).

    Each of the first 8 for a processor would keep a place of its own, mostly free memory: 5 MiB
    more with 32 threads that deliver. Most of the time only one of them runs.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 2)


def allow_connections() -> None:
    """Let this process open as many files as the system allows: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def prefer_work_to_wake_ups() -> None:
    """Let dozens of threads take turns without each waking up to find the interpreter taken."""
    sys.setswitchinterval(SWITCH_INTERVAL)
    if hasattr(os, "SCHED_BATCH"):
        # A thread that is woken then waits its turn. Otherwise each caller of a commit, woken by
        # it, takes the processor only to find that the interpreter is not free.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def node_name(file: Path | None, role: Role) -> str:
    """Return the name of a node at the store in *file*; None: at a server."""
    return NodeSlot(file, role).name if file else new_name()


def close_store(database: Database) -> None:
    """Close the store, and leave no text in its write-ahead log."""
    try:
        if reason := database.truncate_log():
            log.info("store.log_kept", reason=reason)
    except StoreUnavailable as error:
        log.warning("store.unavailable", error=str(error))
    database.close()


def cluster() -> Any:
    """Return the fleet's module, which needs an extra."""
    return import_module("relay.cluster")


def inside() -> Any:
    """Return the module of the inner listener, with its pages a third of all that is imported."""
    return import_module("relay.processes.admin")


def run_until_stopped(run: Callable[[], None], stop: Callable[[], None]) -> None:
    """Call *run*, and *stop* from another thread on SIGTERM or SIGINT, which ends *run*."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=stop).start())
    run()
