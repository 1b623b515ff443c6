"""A delivery in a process of its own that is killed on the way, as a power cut would end it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from connectors.base import Connector, DeliveryError, Event
from connectors.http import Http

#: Seconds that a delivery may take before the check gives up on its process.
PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of a connector that another process can make."""

    connector: type[Connector[Any]]
    options: Mapping[str, Any]
    allow: tuple[str, ...]
    event: Event
    key: str
    thread: str | None
    repeat: bool
    deadline: float

    def make(self) -> None:
        """Build the connector and deliver."""
        http = Http(allow=self.allow, default_deadline=self.deadline)
        connector = self.connector(self.connector.Options.model_validate(self.options), http=http)
        connector.deliver(
            self.event,
            key=self.key,
            thread=self.thread,
            repeat=self.repeat,
            deadline=self.deadline,
        )
        connector.close()


def start(call: Call, *, at_line: int = 0, files: Collection[str] = ()) -> BaseProcess:
    """Start *call* in a process of its own.

    With *at_line*, the process kills itself when it reaches that line of *files*. Lines are
    numbered in the order in which they first run.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([call.connector.__module__, "pytest", __name__])
    process = context.Process(target=_run, args=(call, at_line, tuple(files)), daemon=True)
    process.start()
    return process


def ended(process: BaseProcess) -> bool:
    """Wait for *process*, and say whether it ended by itself instead of being killed."""
    process.join(PATIENCE)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"the delivery was not over within {PATIENCE:.0f} s")
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError("the delivery failed in a process of its own; its error stands above")
    return process.exitcode == 0


def _run(call: Call, at_line: int, files: tuple[str, ...]) -> None:
    if at_line:
        sys.settrace(_Reaper(at_line, files))
    try:
        call.make()
    except DeliveryError:
        pass  # the repetition will show what it was worth
    finally:
        sys.settrace(None)


class _Reaper:
    """A trace function that kills its own process at a line."""

    def __init__(self, at_line: int, files: tuple[str, ...]) -> None:
        self._left = at_line
        self._files = frozenset(files)
        self._seen: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, happening: str, _: Any) -> _Reaper | None:
        place = (frame.f_code.co_filename, frame.f_lineno)
        if place[0] not in self._files:
            return None
        if happening == "line" and place not in self._seen:
            self._seen.add(place)
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
        return self
