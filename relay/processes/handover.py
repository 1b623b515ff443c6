"""What a supervisor keeps when another version takes its place in the same process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from relay import logs
from relay.config import environment
from relay.processes.process import ENDING

#: The variable that a supervisor finds what it was handed in.
VARIABLE = "GOFAX_RELAY_HANDOVER"
#: The option of ``serve``, ``web`` and ``work`` that tries a start and ends.
TRIAL = "--trial"
#: Seconds that a trial may take.
LONGEST_TRIAL = 60.0
#: Signals that wait while this process becomes another one.
HELD_BACK = (*ENDING, signal.SIGHUP)


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """What stays the same: sockets by their descriptors, children by their process ids."""

    #: ``server.listen`` as it was when the socket was made.
    wanted: str = ""
    listening: int | None = None
    is_passed: bool = False
    #: The same of the inner listener.
    inner_wanted: str = ""
    inner: int | None = None
    #: What was counted.
    counts: int | None = None
    control: int | None = None
    #: The connection of the caller who waits for the end of the reload.
    caller: int | None = None
    #: Roles and process ids.
    children: Sequence[tuple[str, int]]
    #: Children that end already.
    retired: Sequence[tuple[str, int]] = ()


def taken() -> Handover | None:
    """Take what was handed over to this process; None: it was started in the usual way."""
    said = environment.take(VARIABLE)
    return Handover(**json.loads(said)) if said else None


def installed() -> frozenset[str]:
    """Return what is installed now: its folders of metadata, named by distribution and version."""
    # To read what is in them took 70 ms of each start, where 170 of them are installed.
    return frozenset(str(each) for place in sys.path for each in Path(place).glob("*.*-info"))


def trial() -> str:
    """Try to start what is installed now with the file as it is; return what is wrong, or nothing.

    What is wrong must be found before this process is given up for it.
    """
    command = [sys.executable, *sys.orig_argv[1:], TRIAL]
    try:
        ended = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=LONGEST_TRIAL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"what is installed now cannot be run: {error}"
    return ended.stderr.strip() or "no reason given" if ended.returncode else ""


def execute_anew(handover: Handover) -> None:
    """Become what is installed now, as the same process. Returns only if that fails (OSError)."""
    kept = (handover.listening, handover.inner, handover.counts, handover.control, handover.caller)
    for descriptor in kept:
        if descriptor is not None:
            os.set_inheritable(descriptor, True)
    logs.flush()
    # Until what comes has its handlers, they would end it, and its children with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    environ = environment.with_variable(VARIABLE, json.dumps(asdict(handover)))
    try:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
