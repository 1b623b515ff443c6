"""The commands ``serve``, ``web`` and ``work`` as a process, before it has children."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog

from relay.config.model import Config
from relay.node import version
from relay.processes import handover, listening
from relay.processes.control import Control, open_control
from relay.processes.door import Door
from relay.processes.handover import Handover
from relay.processes.listening import Listener
from relay.processes.process import (
    CLOSE,
    ROLES,
    close_store,
    share_memory_among_threads,
    write_no_core_files,
)
from relay.processes.renewal import Renewal
from relay.store import connect
from relay.telling.counts import Counts

log = structlog.get_logger()


def run(
    command: str,
    path: Path,
    config: Config,
    *,
    reread: Callable[[Config], Config],
    prepare: Callable[[Config], AbstractContextManager[None]],
) -> int:
    """Run the processes of *command* with the *config* that *path* holds; return the exit code.

    *prepare* is called when the port is known to be free, and makes the store ready while we
    import what the children need. Raises
    :class:`~relay.processes.listening.PortTaken`, and
    :class:`~relay.config.certificates.Unfit` if the certificate cannot be served.
    """
    write_no_core_files()
    share_memory_among_threads()
    # Remembered as long as it is the one that was imported.
    version()
    before = handover.taken()
    listener = _listener(before, config) if "web" in ROLES[command] else None
    with prepare(config):
        supervisor = imported(command, config)
    renewal = Renewal()
    identity = renewal.identity(config.tls if listener else None)
    door = Door()
    inner = _inner(before, config, door) if "admin" in ROLES[command] else None
    counts = Counts(before.counts if before else None)
    control = _control(before, path)
    if control is None:
        log.warning("reload.not_reachable", reason="too many commands run with this config")
    # Not connected to before the fork, and not before the children have ended.
    database = connect(config.store)
    parent = supervisor.Supervisor(
        command,
        supervisor.Setup(config, listener, counts, inner, identity),
        reread=reread,
        control=control,
        before=before,
        door=door,
        renewal=renewal,
    )
    code: int = parent.run()
    # One that was killed left the log as it was. Nothing holds up our own end, though.
    closing = threading.Thread(target=close_store, args=(database,), daemon=True, name="close")
    closing.start()
    closing.join(max(CLOSE, parent.ends_at - time.monotonic()))
    return code


def imported(command: str, config: Config) -> Any:
    """Return the module of the supervisor, with everything imported that its children may need.

    Their files may be replaced while they run.
    """
    supervisor = import_module("relay.processes.supervisor")
    supervisor.import_extras(command, config)
    return supervisor


def _listener(before: Handover | None, config: Config) -> Listener:
    if before is not None and before.listening is not None:
        return listening.adopt(before.wanted, before.listening, is_passed=before.is_passed)
    return listening.listen(config.server)


def _inner(before: Handover | None, config: Config, door: Door) -> Listener | None:
    if before is not None and before.inner is not None:
        return listening.adopt(before.inner_wanted, before.inner, is_passed=False)
    return door.opened(config.admin)


def _control(before: Handover | None, path: Path) -> Control | None:
    if before is not None and before.control is not None:
        return Control.of(before.control)
    return open_control(path)
