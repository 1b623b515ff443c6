"""Keeps the processes of a command running; replaces them when its config or code changes."""

from __future__ import annotations

import gc
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType

import structlog

from relay import logs
from relay.config.certificates import Identity, Unfit
from relay.config.effective import version_of
from relay.config.model import Config
from relay.node import new_name, version
from relay.processes import granian, handover, web, worker
from relay.processes.child import Child, fork
from relay.processes.control import Caller, Control, NotTaken, Reloaded
from relay.processes.door import Door
from relay.processes.handover import Handover
from relay.processes.listening import Listener, PortTaken, listen
from relay.processes.process import (
    ENDING,
    KILL_AFTER,
    RESTART_AFTER,
    RETIRE,
    ROLES,
    Ready,
    cluster,
    inside,
)
from relay.processes.renewal import Renewal
from relay.rules import text
from relay.telling.counts import Counts

log = structlog.get_logger()

#: Seconds that new processes may take until they work.
LONGEST_START = 30.0
#: Seconds between looks at the children, at what starts, and a life that was long enough.
LOOK, LOOK_AT_START, LIVED = 0.5, 0.05, 10.0
#: Seconds within which exit code 1 says that another start cannot help. We may learn of it late,
#: by as much as a receiver's answer may take.
HOPELESS = 2.0 + web.LONGEST_ANSWER


def import_extras(command: str, config: Config) -> None:
    """Import what children of *command* may need besides what this module imports."""
    text.phones()
    if config.engine.celery:
        cluster()
    if config.admin and "admin" in ROLES[command]:
        inside()


@dataclass(frozen=True, slots=True)
class Setup:
    """What children are started with."""

    config: Config
    #: None where nothing receives.
    listener: Listener | None
    #: What all children count.
    counts: Counts
    #: Of the inner listener; None while there is none.
    inner: Listener | None = None
    #: What the receiver shows; None: it serves plain HTTP.
    identity: Identity | None = None

    @property
    def listeners(self) -> Sequence[Listener]:
        return [each for each in (self.listener, self.inner) if each is not None]

    def close(self, *, but: Setup | None = None) -> None:
        """Close here what no other setup has, too."""
        for each in self.listeners:
            if but is None or each not in but.listeners:
                each.socket.close()
        if self.identity and (but is None or but.identity is not self.identity):
            self.identity.close()

    def count(self, role: str) -> int:
        """Return how many processes do the work of *role*."""
        if role == "web":
            return self.config.server.workers
        return int(role != "admin" or self.inner is not None)

    def run(self, role: str, name: str, ready: Ready) -> None:
        """Do the work of *role* in this process, as a node called *name*."""
        logs.configure(level=self.config.logs.threshold, as_text=self.config.logs.as_text)
        wanted = {"web": self.listener, "admin": self.inner}.get(role)
        for each in self.listeners:
            if each is not wanted:
                each.socket.close()
        if self.identity and role != "web":
            self.identity.close()
        if role == "web" and self.listener is not None:
            web.run_web(self.config, self.listener, self.identity, self.counts, name, ready)
        if role == "worker":
            worker.run_worker(self.config, self.counts, ready)
        if role == "admin" and self.inner is not None:
            inside().run_admin(self.config, self.inner, self.counts, ready)

    def retired_within(self, role: str) -> float:
        """Return how many seconds a child has to end when another one has taken over."""
        if role in ("web", "admin"):
            return granian.RETIRED_WITHIN + KILL_AFTER
        return worker.retired_within(self.config) + KILL_AFTER


class Supervisor:
    """The parent of the processes of one command."""

    def __init__(
        self,
        command: str,
        setup: Setup,
        *,
        reread: Callable[[Config], Config],
        control: Control | None,
        before: Handover | None = None,
        door: Door,
        renewal: Renewal,
    ) -> None:
        """*reread* reads the config again, given the one that runs, and raises :class:`NotTaken`.

        *before*: what this process was before it executed itself anew. *door*: where the socket
        of the inner listener comes from. *renewal*: what read the certificate of *setup*.
        """
        self._command = command
        self._setup = setup
        self._reread = reread
        self._control = control
        self._before = before
        self._door = door
        self._renewal = renewal
        self._installed = handover.installed()
        self._children: list[Child] = []
        #: Children that end, each with the time at which it is killed.
        self._retired: list[tuple[Child, float]] = []
        #: Children that died, each with the time at which another one takes its place.
        self._due: list[tuple[Child, float]] = []
        self._watch = web.ReceiverWatch()
        self._is_stopping = self._is_asked = False
        #: The connection of the caller who waits for the reload that is under way.
        self._caller: socket.socket | None = None
        self._terminal = _Terminal()
        #: When a child that has not ended is killed.
        self.ends_at = 0.0

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; SIGHUP and callers reload. Returns the exit code."""
        self._listen_to_signals()
        gc.freeze()
        code = 0
        if self._before is not None:
            self._succeed(self._before)
        else:
            self._children = self._started(self._setup)
            self._announce()
        while not (self._is_stopping or code):
            self._wait(LOOK)
            code = self._look_after_children()
            self._look_at_receivers()
            self._open_inside()
            self._reload_if_asked()
            self._renew_if_changed()
        self._stop_children()
        return code

    def _listen_to_signals(self) -> None:
        self._woken, self._waker = os.pipe()
        for descriptor in (self._woken, self._waker):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in ENDING:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._hang_up)
        # With a handler of its own, the end of a child wakes us up.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, handover.HELD_BACK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        if self._control is not None:
            self._selector.register(self._control.listening, selectors.EVENT_READ)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopping = True

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        if self._terminal.is_gone:
            self._is_stopping = True
        self._is_asked = True

    def _wait(self, seconds: float) -> None:
        """Wait for a signal, the end of a child, or a caller."""
        self._selector.select(seconds)
        with suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def _started(self, setup: Setup, only: Collection[str] | None = None) -> list[Child]:
        roles = [each for each in ROLES[self._command] if only is None or each in only]
        return [self._fork(role, setup) for role in roles for _ in range(setup.count(role))]

    def _fork(self, role: str, setup: Setup, *, name: str = "") -> Child:
        name = name or new_name()
        run, forget = partial(setup.run, role, name), partial(self._forget, setup)
        return fork(role, run, name=name, forget=forget)

    def _announce(self) -> None:
        """Log once what all receivers serve; a receiver that replaces a dead one logs nothing."""
        if self._setup.listener is not None:
            web.announce(self._setup.config, self._setup.listener, self._setup.identity)

    def _forget(self, setup: Setup) -> None:
        """Close in a child with *setup* what only the supervisor needs."""
        self._selector.close()
        os.close(self._woken)
        os.close(self._waker)
        if self._control is not None:
            self._control.listening.close()
        if self._caller is not None:
            self._caller.close()
        self._setup.close(but=setup)

    def _look_after_children(self) -> int:
        """Start again what died; return an exit code if that cannot help."""
        for child in [each for each in self._children if not each.is_alive]:
            log.error("process.died", role=child.role, exit_code=child.exit_code)
            self._children.remove(child)
            lived = time.monotonic() - child.started
            is_hopeless = child.exit_code == 1 and lived < HOPELESS
            # Events come in and go out without the inner listener.
            if is_hopeless and child.role != "admin":
                return 1
            fell = child.exit_code != 0 and lived < LIVED
            self._due.append((child, time.monotonic() + (RESTART_AFTER if fell else 0)))
        for child, due in list(self._due):
            if time.monotonic() >= due and not self._is_stopping:
                self._due.remove((child, due))
                self._children.append(self._fork(child.role, self._setup, name=child.name))
        self._retired = [each for each in self._retired if not _has_ended(*each)]
        return 0

    def _look_at_receivers(self) -> None:
        setup = self._setup
        if setup.listener is not None:
            alive = [each.pid for each in self._children if each.role == "web" and each.is_alive]
            encrypted = setup.identity is not None
            self._watch.look(setup.listener.address, alive, is_encrypted=encrypted)

    def _open_inside(self) -> None:
        """Start the inner listener if it is missing and its port is free by now."""
        setup = self._setup
        if setup.inner is not None or "admin" not in ROLES[self._command]:
            return
        if inner := self._door.opened(setup.config.admin):
            self._setup = replace(setup, inner=inner)
            self._children.append(self._fork("admin", self._setup))

    def _reload_if_asked(self) -> None:
        if self._is_asked and not self._is_stopping:
            self._is_asked = False
            self._reload(None)
        for caller in self._control.callers() if self._control else ():
            self._caller = caller.connection
            self._reload(caller)
            self._caller = None

    def _reload(self, caller: Caller | None) -> None:
        """Run the file as it is now with what is installed now, or go on as before."""
        try:
            if handover.installed() != self._installed:
                self._become_new(caller)
            config = self._reread(self._setup.config)
            self._swap(self._setup_for(config))
        except NotTaken as error:
            log.error("config.not_taken", reason=str(error))
            self._answer(caller, faults=str(error))
        else:
            given = config.logs
            logs.configure(level=given.threshold, as_text=given.as_text, is_final=False)
            log.info("config.reloaded", config=version_of(config))
            self._announce()
            self._answer(caller)

    def _setup_for(self, config: Config) -> Setup:
        import_extras(self._command, config)
        setup = replace(self._setup, config=config, listener=self._listener_for(config))
        try:
            setup = replace(setup, inner=self._inner_for(config))
            tls = config.tls if setup.listener else None
            return replace(setup, identity=self._renewal.identity(tls))
        except (PortTaken, Unfit) as error:
            setup.close(but=self._setup)
            raise NotTaken(str(error)) from error

    def _renew_if_changed(self) -> None:
        """Let another receiver take over when the certificate was renewed."""
        setup = self._setup
        if self._is_stopping or not (setup.listener and self._renewal.is_due(setup.config.tls)):
            return
        try:
            identity = self._renewal.identity(setup.config.tls)
            self._swap(replace(setup, identity=identity), only=("web",))
        except Unfit as error:
            log.error("tls.not_renewed", reason=str(error))
        except NotTaken as error:
            self._renewal.try_again()
            log.error("tls.not_renewed", reason=str(error))
        else:
            log.info("tls.renewed")
            if identity is not None:
                web.announce_certificate(identity)

    def _inner_for(self, config: Config) -> Listener | None:
        have, wanted = self._setup.inner, config.admin
        if wanted is None or "admin" not in ROLES[self._command]:
            return None
        return have if have and have.wanted == wanted.listen else self._door.opened(wanted)

    def _listener_for(self, config: Config) -> Listener | None:
        have = self._setup.listener
        if have is None or have.wanted == config.server.listen:
            return have
        if have.is_passed:
            raise NotTaken("server.listen: systemd holds the socket; restart it and its service")
        try:
            return listen(config.server)
        except PortTaken as error:
            raise NotTaken(str(error)) from error

    def _swap(self, setup: Setup, *, only: Collection[str] | None = None) -> None:
        """Start children with *setup*, and let those that run end when the new ones work.

        *only*: the roles of those; default: all. Raises :class:`NotTaken` if the new ones do not
        come to work; the others are untouched.
        """
        new = self._started(setup, only)
        try:
            self._await_ready(new, setup)
        except NotTaken:
            _end(new)
            setup.close(but=self._setup)
            raise
        kept = [each for each in self._children if only is not None and each.role not in only]
        for child in self._children:
            if child not in kept:
                child.tell(RETIRE)
                ends_at = time.monotonic() + self._setup.retired_within(child.role)
                self._retired.append((child, ends_at))
        self._setup.close(but=setup)
        self._children, self._setup = [*kept, *new], setup
        self._due = [each for each in self._due if only is not None and each[0].role not in only]

    def _await_ready(self, new: Sequence[Child], setup: Setup) -> None:
        ends_at = time.monotonic() + LONGEST_START
        # A receiver is ready when it answers; which one a call comes to is chance, so one will do.
        while waited_for := _roles(new) - _roles(each for each in new if each.is_ready):
            for child in new:
                if not child.is_alive:
                    raise NotTaken(f"the new {child.role} ended: its log says why")
            if self._is_stopping:
                raise NotTaken("it was told to end meanwhile")
            if time.monotonic() > ends_at:
                raise NotTaken(f"the new {min(waited_for)} does not work: its log says why")
            if setup.listener is not None:
                web.answers(setup.listener.address, is_encrypted=bool(setup.identity))
            self._wait(LOOK_AT_START)

    def _become_new(self, caller: Caller | None) -> None:
        """Execute what is installed now in our place. Raises :class:`NotTaken`."""
        if faults := handover.trial():
            raise NotTaken(faults)
        log.info("process.replaced", pid=os.getpid(), before=version())
        listener, inner, control = self._setup.listener, self._setup.inner, self._control
        try:
            handover.execute_anew(
                Handover(
                    wanted=listener.wanted if listener else "",
                    listening=listener.socket.fileno() if listener else None,
                    is_passed=bool(listener and listener.is_passed),
                    inner_wanted=inner.wanted if inner else "",
                    inner=inner.socket.fileno() if inner else None,
                    counts=self._setup.counts.descriptor,
                    control=control.listening.fileno() if control else None,
                    caller=caller.connection.fileno() if caller else None,
                    children=[(child.role, child.pid) for child in self._children],
                    retired=[(child.role, child.pid) for child, _ in self._retired],
                )
            )
        except OSError as error:
            raise NotTaken(f"what is installed now cannot be run: {error}") from error

    def _succeed(self, before: Handover) -> None:
        """Take over the children of what this process was, and replace them."""
        self._children = [Child(role, pid) for role, pid in before.children]
        for role, pid in before.retired:
            ends_at = time.monotonic() + self._setup.retired_within(role)
            self._retired.append((Child(role, pid), ends_at))
        caller = None if before.caller is None else Caller.of(before.caller)
        self._caller = None if caller is None else caller.connection
        try:
            self._swap(self._setup_for(self._setup.config))
        except NotTaken as error:
            log.error("config.not_taken", reason=str(error))
            self._answer(caller, faults=str(error))
        else:
            log.info("config.reloaded", config=version_of(self._setup.config))
            self._announce()
            self._answer(caller)
        self._caller = None

    def _answer(self, caller: Caller | None, *, faults: str = "") -> None:
        if caller is not None:
            caller.answer(
                Reloaded(
                    command=self._command,
                    pid=os.getpid(),
                    version=version(),
                    config=version_of(self._setup.config),
                    faults=faults,
                )
            )

    def _stop_children(self) -> None:
        self._setup.close()
        self.ends_at = time.monotonic() + KILL_AFTER
        _end([*self._children, *(child for child, _ in self._retired)], self.ends_at)


class _Terminal:
    """The terminal that a command was started from, if that ends the command when it closes."""

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        self._counts = not ignored and _has_terminal()

    @property
    def is_gone(self) -> bool:
        return self._counts and not _has_terminal()


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _roles(children: Iterable[Child]) -> set[str]:
    return {each.role for each in children}


def _has_ended(child: Child, ends_at: float) -> bool:
    if child.is_alive and time.monotonic() > ends_at:
        log.warning("process.killed", role=child.role)
        child.tell(signal.SIGKILL)
    return not child.is_alive


def _end(children: Sequence[Child], ends_at: float | None = None) -> None:
    """Let children end, and kill those that have not at *ends_at*."""
    ends_at = ends_at or time.monotonic() + KILL_AFTER
    for child in children:
        child.tell(signal.SIGTERM)
    for child in children:
        if not child.join(ends_at):
            log.warning("process.killed", role=child.role)
            child.tell(signal.SIGKILL)
            child.join(float("inf"))
