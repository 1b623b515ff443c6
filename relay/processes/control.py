"""The socket by which another process on this machine asks a running relay to reload.

On Linux it is an abstract socket, which leaves no file behind and needs no folder that both sides
can write to; elsewhere a file in the folder for temporary files.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

#: How many commands may run with one config on one machine.
SOCKETS = 16
#: Seconds that a reload may take, and that a caller has to say what it wants.
LONGEST_RELOAD, LONGEST_QUESTION = 120.0, 2.0
_RELOAD = b"reload\n"


class NotTaken(Exception):
    """A config cannot be run; what ran before goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reloaded:
    """What became of a reload."""

    #: Whose: ``serve``, ``web`` or ``work``, and its process id.
    command: str
    pid: int
    #: The version of gofax-relay, and of the config, that runs now.
    version: str
    config: str
    #: Why the config was not taken, in lines for people; empty: it was.
    faults: str = ""


class Control:
    """The listening side."""

    def __init__(self, listening: socket.socket) -> None:
        listening.setblocking(False)
        self.listening = listening

    @classmethod
    def of(cls, descriptor: int) -> Control:
        """Take a socket over that this process had before it executed itself anew."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def callers(self) -> Iterator[Caller]:
        """Yield those who want a reload now."""
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            caller = Caller(connection)
            if caller.wants_reload():
                yield caller


class Caller:
    """A process that waits for the answer to what it asked for."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    @classmethod
    def of(cls, descriptor: int) -> Caller:
        """Take a caller over that this process had before it executed itself anew."""
        os.set_inheritable(descriptor, False)
        return cls(socket.socket(fileno=descriptor))

    def wants_reload(self) -> bool:
        """Read what the caller wants. Only our own user and root may want anything."""
        self.connection.settimeout(LONGEST_QUESTION)
        with suppress(OSError):
            if _user_of(self.connection) in (0, os.getuid(), None):
                return self.connection.recv(64) == _RELOAD
        self.connection.close()
        return False

    def answer(self, reloaded: Reloaded) -> None:
        with suppress(OSError), self.connection as connection:
            connection.sendall(json.dumps(asdict(reloaded)).encode())
            # Closing is not enough: children that were forked meanwhile have it too.
            connection.shutdown(socket.SHUT_RDWR)


def open_control(config: Path) -> Control | None:
    """Let others on this machine ask for a reload of *config*; None if all places are taken."""
    for address in _addresses(config):
        listening = socket.socket(socket.AF_UNIX)
        with suppress(OSError):
            _make_room(address)
            listening.bind(address)
            listening.listen(8)
            return Control(listening)
        listening.close()
    return None


def ask_for_reload(config: Path) -> Sequence[Reloaded]:
    """Ask every relay of this machine that runs with *config* to reload, one after the other.

    Returns what became of each. Raises OSError if one does not answer.
    """
    return [answer for address in _addresses(config) if (answer := _ask(address))]


def _ask(address: str) -> Reloaded | None:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address)
        except (ConnectionRefusedError, FileNotFoundError):
            return None
        connection.settimeout(LONGEST_RELOAD)
        connection.sendall(_RELOAD)
        said = b"".join(iter(lambda: connection.recv(4096), b""))
    if not said:
        raise ConnectionAbortedError("it ended, or this user may not ask it")
    return Reloaded(**json.loads(said))


def _addresses(config: Path) -> Iterator[str]:
    # Containers that share a network do not share processes.
    here = Path("/proc/self/ns/pid").stat().st_ino if sys.platform == "linux" else 0
    name = hashlib.sha256(f"{here} {config.resolve()}".encode()).hexdigest()[:16]
    for number in range(1, SOCKETS + 1):
        if sys.platform == "linux":
            yield f"\0gofax-relay/{name}/{number}"
        else:
            yield str(Path(tempfile.gettempdir()) / f"gofax-relay-{name}-{number}.socket")


def _make_room(address: str) -> None:
    """Remove the file of a socket that nobody listens at."""
    if not address.startswith("\0") and Path(address).exists():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(address)
            except ConnectionRefusedError:
                Path(address).unlink()


def _user_of(connection: socket.socket) -> int | None:
    """Return the user at the other side; None where the system does not say."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[1])
