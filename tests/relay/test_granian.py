"""The private names of Granian that the receiver hangs on: a new minor version may move them."""

from __future__ import annotations

import inspect
import multiprocessing
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from fakes import NOON
from granian._granian import SocketHolder
from granian.constants import SSLProtocols
from granian.server.common import AbstractServer, AbstractWorker
from granian.server.mp import MPServer, WorkerProcess

from relay.config.certificates import Certificate, Identity
from relay.processes.listening import Listener
from relay.processes.web import GranianServer


def test_it_makes_its_socket_where_we_give_ours() -> None:
    source = inspect.getsource(AbstractServer._init_shared_socket)

    assert all(name in source for name in ("self._ssp", "self._shd", "self._sfd"))
    assert "self._sso" in inspect.getsource(MPServer._init_shared_socket)
    assert "((self._ssp, self._shd), self._sso)" in inspect.getsource(MPServer._spawn_worker)
    assert "self._init_shared_socket()" in inspect.getsource(AbstractServer.startup)


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of sockets are no files there")
def test_a_socket_is_shared_by_its_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        holder = SocketHolder(ours.detach(), False, 16)  # type: ignore[call-arg]  # its stub

    assert not holder.is_uds()
    assert socket.socket(fileno=holder.get_fd()).detach() == holder.get_fd()


def test_its_child_can_be_told_that_its_end_is_meant() -> None:
    assert "interrupt_by_parent" in inspect.getsource(AbstractWorker)
    assert "self.inner" in inspect.getsource(WorkerProcess._spawn)
    assert "self.inner.pid" in inspect.getsource(WorkerProcess._id)
    assert "self.interrupt_signal = True" in inspect.getsource(
        AbstractServer.signal_handler_interrupt
    )


def test_a_certificate_is_given_to_its_child_as_we_give_it(tmp_path: Path) -> None:
    made = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    itself: Any = MPServer(
        "relay", ssl_cert=cert, ssl_key=key, ssl_protocol_min=SSLProtocols.tls12
    )
    shown = Certificate(names=(), issuer="", begins_at=NOON, ends_at=NOON)
    identity = Identity(file=cert, shown=shown, cert=str(cert), key=str(key))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours: Any = GranianServer(Listener("", listening), threads=4, identity=identity)

    assert ours.ssl_ctx == itself.ssl_ctx


def test_its_child_is_a_fork_whatever_python_does_by_default() -> None:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            ours: Any = GranianServer(Listener("", listening), threads=4)
        child: Any = WorkerProcess(ours, 0, print, ())
    finally:
        multiprocessing.set_start_method(before, force=True)

    assert type(child.inner).__name__ == "ForkProcess"
