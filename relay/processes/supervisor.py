"""The processes of one ``serve``: web and worker, started together, watched, stopped together."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from types import FrameType

import structlog

from relay.config.model import Config
from relay.processes.process import (
    CLOSE,
    ENDING,
    KILL_AFTER,
    RESTART_AFTER,
    close_store,
    end_with,
    write_no_core_files,
)
from relay.processes.web import run_web
from relay.processes.worker import run_worker
from relay.store import connect

log = structlog.get_logger()


def serve(config: Config) -> int:
    """Run web and worker as two processes of this one; return the exit code."""
    write_no_core_files()
    # Not connected to before the fork, and not before the children have ended.
    database = connect(config.store)
    roles = {"web": partial(run_web, config), "worker": partial(run_worker, config)}
    supervisor = Supervisor(roles)
    code = supervisor.run()
    # One that was killed left the log as it was. Nothing holds up our own end, though.
    closing = threading.Thread(target=close_store, args=(database,), daemon=True, name="close")
    closing.start()
    closing.join(max(CLOSE, supervisor.ends_at - time.monotonic()))
    return code


class Supervisor:
    """Keeps child processes running, by fork: they share the memory of what is imported."""

    def __init__(self, roles: Mapping[str, Callable[[], None]]) -> None:
        self._roles = roles
        self._children: dict[str, _Child] = {}
        self._stopping = False
        #: When a child that has not ended is killed.
        self.ends_at = 0.0

    def run(self) -> int:
        """Start the roles, restart what dies, and stop all on SIGTERM, SIGINT or SIGHUP."""
        for number in ENDING:
            signal.signal(number, self._stop)
        gc.freeze()
        for role in self._roles:
            self._start(role)
        while not self._stopping:
            wait([child.process.sentinel for child in self._children.values()], timeout=0.5)
            for role in self._dead():
                if self._stopping:
                    break
                if not self._restart(role):
                    self._stop_children()
                    return 1
        self._stop_children()
        return 0

    def _start(self, role: str) -> None:
        process = multiprocessing.get_context("fork").Process(
            target=_child, args=(self._roles[role], os.getpid()), name=role
        )
        process.start()
        self._children[role] = _Child(process, time.monotonic())

    def _dead(self) -> list[str]:
        return [role for role, child in self._children.items() if not child.process.is_alive()]

    def _restart(self, role: str) -> bool:
        """Start *role* again; False if it dies as soon as it starts, which no restart mends."""
        child = self._children[role]
        log.error("process.died", role=role, exit_code=child.process.exitcode)
        if time.monotonic() - child.started < RESTART_AFTER * 2 and child.process.exitcode == 1:
            return False
        time.sleep(RESTART_AFTER)
        self._start(role)
        return True

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _stop_children(self) -> None:
        for child in self._children.values():
            if child.process.is_alive():
                child.process.terminate()
        self.ends_at = time.monotonic() + KILL_AFTER
        for role, child in self._children.items():
            child.process.join(max(0.0, self.ends_at - time.monotonic()))
            if child.process.is_alive():
                log.warning("process.killed", role=role)
                child.process.kill()
                child.process.join()


@dataclass(frozen=True, slots=True)
class _Child:
    process: ForkProcess
    started: float


def _child(role: Callable[[], None], parent: int) -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    end_with(parent)
    role()
