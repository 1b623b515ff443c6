"""The private names of Granian that the receiver hangs on: a new minor version may move them."""

from __future__ import annotations

import inspect
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trustme
from fakes import NOON
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces, RuntimeModes, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.common import WORKERS_METHODS
from granian.server.mp import MPServer

from relay.config.certificates import Certificate, Identity
from relay.processes import granian
from relay.processes.listening import Listener


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of sockets are no files there")
def test_a_socket_is_shared_by_its_descriptor() -> None:
    with socket.create_server(("127.0.0.1", 0)) as ours:
        holder = SocketHolder(ours.detach(), False, 16)  # type: ignore[call-arg]  # its stub

    assert not holder.is_uds()
    assert socket.socket(fileno=holder.get_fd()).detach() == holder.get_fd()


def test_a_worker_is_given_what_it_gets_from_granians_own_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = trustme.CA().issue_cert("localhost")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    made.cert_chain_pems[0].write_to_path(str(cert))
    made.private_key_pem.write_to_path(str(key))
    theirs: Any = MPServer(
        "relay",
        interface=Interfaces.WSGI,
        blocking_threads=4,
        backpressure=granian.CONNECTIONS,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=granian.LONGEST_HEAD * 1000, max_buffer_size=granian.LARGEST_HEAD
        ),
        ssl_cert=cert,
        ssl_key=key,
        ssl_protocol_min=SSLProtocols.tls12,
    )
    given: list[Any] = []
    monkeypatch.setattr(granian, "WSGIWorker", lambda *every: given.extend(every))
    shown = Certificate(names=(), issuer="", begins_at=NOON, ends_at=NOON)
    identity = Identity(file=cert, shown=shown, cert=str(cert), key=str(key))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        granian._worker(Listener("", listening), 4, identity)

    assert given[3:] == [
        theirs.runtime_threads,
        theirs.runtime_blocking_threads,
        theirs.blocking_threads,
        theirs.blocking_threads_idle_timeout,
        theirs.backpressure,
        theirs.http,
        theirs.http1_settings,
        theirs.http2_settings,
        theirs.static_path,
        *theirs.ssl_ctx,
        (None, None),
    ]


def test_it_is_run_as_granians_own_server_runs_it() -> None:
    source = inspect.getsource(MPServer._spawn_wsgi_worker)

    assert WORKERS_METHODS[RuntimeModes.mt][False] == "serve_mtr"
    assert "shutdown_event.add_cb(shutdown_glue)" in source
    assert "serve(scheduler, loop, shutdown_event)" in source
