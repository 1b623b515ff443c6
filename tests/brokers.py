"""Brokers for tests: a vhost on the RabbitMQ server, and servers of a test's own."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kombu import Connection

#: What Debian's command wraps, to run it as a user of its own.
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
#: Where the RabbitMQ server is, without a vhost.
RABBITMQ = os.environ.get("GOFAX_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672")


def no_rabbitmq() -> str:
    """Say why there can be no vhost; nothing, if there can."""
    if shutil.which("rabbitmqctl") is None:
        return "no rabbitmqctl"
    return _unreachable(f"{RABBITMQ}//")


def no_redis() -> str:
    """Say why there can be no Redis server; nothing, if there can."""
    return "" if shutil.which("redis-server") else "no redis-server"


def no_rabbit_node() -> str:
    """Say why there can be no RabbitMQ node of a test's own; nothing, if there can."""
    return "" if SERVER.exists() else f"no {SERVER}"


@contextmanager
def new_vhost() -> Iterator[str]:
    """Make a vhost, give its URL, and delete it."""
    name = f"gofax_test_{secrets.token_hex(6)}"
    user = RABBITMQ.partition("://")[2].partition(":")[0]
    _rabbitmqctl("add_vhost", name)
    try:
        _rabbitmqctl("set_permissions", "-p", name, user, ".*", ".*", ".*")
        yield f"{RABBITMQ}/{name}"
    finally:
        _rabbitmqctl("delete_vhost", name)


class Redis:
    """A Redis server on a port of its own, to be stopped and started; it keeps nothing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = _free_port()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = ["--port", str(self._port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", *options], cwd=self._folder, stdout=log, stderr=log
            )
        _await(self.url, seconds=20)

    def require(self, password: str) -> None:
        """Ask for a password from now on."""
        with Connection(self.url) as connection:
            connection.default_channel.client.config_set("requirepass", password)

    def stop(self) -> None:
        """Stop as if the power went."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)


class RabbitNode:
    """A RabbitMQ node of a test's own, beside the server that everybody uses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, distribution = _free_port(), _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        self._environ = os.environ | {
            "RABBITMQ_NODENAME": f"gofax{secrets.token_hex(4)}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -setcookie gofax",
            "RABBITMQ_CTL_ERL_ARGS": "-setcookie gofax",
            "HOME": str(folder),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "rabbit.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(SERVER)],
                env=self._environ,
                cwd=self._folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        _await(self.url, seconds=120)

    def stop(self) -> None:
        """Stop as if the power went."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, 9)
            self._process.wait(20)


def _rabbitmqctl(*arguments: str) -> None:
    subprocess.run(["rabbitmqctl", "-q", *arguments], check=True, capture_output=True, timeout=60)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _await(url: str, *, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while reason := _unreachable(url):
        assert time.monotonic() < ends_at, reason
        time.sleep(0.1)


def _unreachable(url: str) -> str:
    try:
        with Connection(url, connect_timeout=3) as connection:
            connection.connect()
    except Exception as error:  # each transport has errors of its own
        return f"{type(error).__name__}: {error}"
    return ""
