"""A virtual host on a RabbitMQ server, for tests: made when asked for, gone afterwards."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

#: Where the server is, and who may do anything there.
SERVER = os.environ.get("GOFAX_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672")


def address() -> tuple[str, int]:
    """Return where the server listens."""
    parts = urlsplit(SERVER)
    return parts.hostname or "127.0.0.1", parts.port or 5672


def unreachable() -> str:
    """Say why no virtual host can be made; nothing, if it can."""
    try:
        with socket.create_connection(address(), 3):
            _ctl("version")
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return ""


@contextmanager
def new_vhost() -> Iterator[str]:
    """Make a virtual host, give its name, and remove it with all that is in it."""
    name = f"gofax_test_{secrets.token_hex(6)}"
    _ctl("add_vhost", name)
    try:
        _ctl("set_permissions", "-p", name, urlsplit(SERVER).username or "guest", ".*", ".*", ".*")
        yield name
    finally:
        _ctl("delete_vhost", name)


def _ctl(*arguments: str) -> None:
    subprocess.run(["rabbitmqctl", "-q", *arguments], check=True, capture_output=True, timeout=60)
