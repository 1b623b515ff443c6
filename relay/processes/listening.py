"""The socket that the relay listens on: it outlives every process that accepts from it."""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass
from typing import Any

from relay.config import environment
from relay.config.model import Address, Admin, Server

#: Connections that wait, at the most, while no receiver accepts them.
BACKLOG = 1024
#: The first descriptor that systemd passes, and the variables that say so.
_FIRST, _FOR, _COUNT = 3, "LISTEN_PID", "LISTEN_FDS"


class PortTaken(Exception):
    """The address cannot be listened on."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening socket, and what the config said when it was made."""

    #: As the config has it; its port may be 0.
    wanted: str
    socket: socket.socket
    #: Whether systemd made it, and keeps it.
    is_passed: bool = False

    @property
    def host(self) -> str:
        return str(self.socket.getsockname()[0])

    @property
    def port(self) -> int:
        return int(self.socket.getsockname()[1])

    @property
    def address(self) -> str:
        """Return ``host:port``, with the port that was chosen if it was 0."""
        is_v6 = self.socket.family == socket.AF_INET6
        return f"[{self.host}]:{self.port}" if is_v6 else f"{self.host}:{self.port}"


def listen(server: Server) -> Listener:
    """Listen where *server* says, or take the socket that systemd made.

    Raises :class:`PortTaken`. The socket is made without SO_REUSEPORT: a second relay at the
    port must be refused, or it would take half of the calls.
    """
    passed = _passed()
    try:
        family, address = _resolved(server)
        made = passed or _made(family, address)
        listener = Listener(server.listen, made, is_passed=passed is not None)
    except OSError as error:
        raise PortTaken(f"server.listen: {server.listen}: {_why(error)}") from error
    if passed and passed.getsockname()[:2] != address[:2]:
        said = f"server.listen: {server.listen}, but systemd listens on {listener.address}"
        raise PortTaken(said)
    return listener


def listen_inside(admin: Admin) -> Listener:
    """Listen where *admin* says. Raises :class:`PortTaken`."""
    try:
        return Listener(admin.listen, _made(*_resolved(admin)))
    except OSError as error:
        raise PortTaken(f"admin.listen: {admin.listen}: {_why(error)}") from error


def _why(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            todo = "stop the process that listens there (another relay?), or name another port"
        case errno.EADDRNOTAVAIL:
            todo = "no network interface of this machine has this address"
        case errno.EACCES:
            todo = "ports below 1024 need root, CAP_NET_BIND_SERVICE or a socket of systemd"
        case _:
            return str(error.strerror)
    return f"{error.strerror}: {todo}"


def adopt(wanted: str, descriptor: int, *, is_passed: bool) -> Listener:
    """Take a socket over that this process had before it executed itself anew."""
    os.set_inheritable(descriptor, False)
    return Listener(wanted, socket.socket(fileno=descriptor), is_passed)


def _resolved(at: Address) -> tuple[int, tuple[Any, ...]]:
    """Return family and address. Names like localhost may have several: the first one counts."""
    found = socket.getaddrinfo(at.host, at.port, type=socket.SOCK_STREAM)
    return found[0][0], found[0][4]


def _made(family: int, address: tuple[Any, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except OSError:
        made.close()
        raise
    return made


def _passed() -> socket.socket | None:
    """Return the socket that systemd passes to this process; None: it passes none."""
    is_ours = environment.take(_FOR) == str(os.getpid())
    if environment.take(_COUNT) != "1" or not is_ours:
        return None
    os.set_inheritable(_FIRST, False)
    return socket.socket(fileno=_FIRST)
