"""The private names of Granian that the receiver hangs on: a new minor version may move them."""

from __future__ import annotations

import inspect
import socket
import sys

import pytest
from granian._granian import SocketHolder
from granian.server.common import AbstractServer, AbstractWorker
from granian.server.mp import MPServer, WorkerProcess


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
