"""The guarded HTTP client, over real sockets."""

from __future__ import annotations

import gc
import gzip
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from http_calls import LOOPBACK, SECRET, caught
from rawserver import Connection, RawServer, answer

from connectors.base import Ambiguous, Transient
from connectors.http import Http, Session


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost with its key, in one file, made for this run."""
    folder = tmp_path_factory.mktemp("tls")
    openssl = shutil.which("openssl")
    assert openssl, "these tests need the openssl command"
    options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "certificate.pem")]
    subprocess.run([openssl, *options.split(), *subject, *files], check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "certificate.pem").read_text() + (folder / "key.pem").read_text())
    return both


class TLSServer:
    """Answers every connection over TLS with fixed bytes."""

    def __init__(self, certificate: Path, said: bytes) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._said = said
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve_one)
        self.received = b""

    @property
    def url(self) -> str:
        return f"https://localhost:{self._listener.getsockname()[1]}"

    def __enter__(self) -> TLSServer:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve_one(self) -> None:
        self._listener.settimeout(10)
        sock, _ = self._listener.accept()
        sock.settimeout(10)
        try:
            with self._context.wrap_socket(sock, server_side=True) as secure:
                while b"\r\n\r\n" not in self.received:
                    self.received += secure.recv(65536)
                secure.sendall(self._said)
        except OSError:
            sock.close()


class TestNothingWasSent:
    def test_a_refused_connection_is_transient(self, session: Session, closed_port: int) -> None:
        error = caught(session, f"http://127.0.0.1:{closed_port}/")

        assert type(error) is Transient
        assert str(error) == f"127.0.0.1:{closed_port}: not reached: connection refused"

    def test_a_session_whose_paths_are_no_secret_names_them_without_the_query(
        self, http: Http, closed_port: int
    ) -> None:
        with http.session(names_paths=True) as session:
            error = caught(session, f"http://127.0.0.1:{closed_port}/crm/notes?q={SECRET}")

        place = f"127.0.0.1:{closed_port}/crm/notes"
        assert str(error) == f"{place}: not reached: connection refused"

    def test_a_name_that_does_not_resolve_is_transient(self, session: Session) -> None:
        error = caught(session, "https://nobody.invalid/")

        assert type(error) is Transient
        # The resolver's words depend on whether it reaches a server.
        assert str(error).startswith("nobody.invalid:443: not reached: ")

    def test_a_failed_handshake_is_transient(self, session: Session) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            refusal = threading.Thread(target=lambda: _refuse_tls(listener))
            refusal.start()
            error = caught(session, f"https://localhost:{listener.getsockname()[1]}/")
            refusal.join(10)

        assert type(error) is Transient

    def test_a_silent_handshake_ends_at_the_connect_timeout(self) -> None:
        http = Http(allow=LOOPBACK, connect_timeout=0.2)

        with socket.create_server(("127.0.0.1", 0)) as silent, http.session() as session:
            began = time.monotonic()
            error = caught(session, f"https://localhost:{silent.getsockname()[1]}/")

        assert type(error) is Transient
        assert time.monotonic() - began < 3

    def test_an_unknown_certificate_is_transient(
        self, session: Session, certificate: Path
    ) -> None:
        with TLSServer(certificate, answer(200)) as server:
            error = caught(session, f"{server.url}/")

        assert type(error) is Transient
        assert server.received == b""

    def test_a_deadline_in_the_past_sends_nothing(self, http: Http, session: Session) -> None:
        with RawServer(answer(200)) as server, http.within(0):
            error = caught(session, server.url)

        assert type(error) is Transient
        assert server.connections == 0


def _refuse_tls(listener: socket.socket) -> None:
    listener.settimeout(10)
    sock, _ = listener.accept()
    with sock:
        sock.settimeout(10)
        sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def hang(connection: Connection) -> None:
    connection.hang()


def close(connection: Connection) -> None:
    pass


def reset(connection: Connection) -> None:
    connection.reset()


def garbage(connection: Connection) -> None:
    connection.say(b"\x00\x01 this is no HTTP\r\n\r\n")


LOST = [hang, close, reset, garbage]


@pytest.mark.parametrize("lose", LOST, ids=lambda lose: lose.__name__)
def test_a_lost_answer_is_ambiguous_unless_the_request_may_be_repeated(
    http: Http, session: Session, lose: Callable[[Connection], None]
) -> None:
    with RawServer(lose) as server:
        with http.within(0.5):
            posted = caught(session, server.url)
        safe = []
        for method in ("GET", "HEAD", "OPTIONS"):
            with http.within(0.5):
                safe.append(type(caught(session, server.url, method=method)))
        with http.within(0.5), http.repeatable():
            safe.append(type(caught(session, server.url)))

    assert type(posted) is Ambiguous
    assert safe == [Transient] * 4
    assert len(server.requests) == 5


# What follows a status line, and whether the connection stays open and silent then.
BROKEN = {
    "body cut": (b"Content-Length: 100\r\n\r\nten bytes!", False),
    "body stalled": (b"Content-Length: 100\r\n\r\nten bytes!", True),
    "chunks cut": (b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", False),
    "chunks without a size": (b"Transfer-Encoding: chunked\r\n\r\nhello\r\n", False),
    "no gzip": (b"Content-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip", False),
    "two lengths": (b"Content-Length: 5, 6\r\n\r\nhello", False),
    "headers stalled": (b"Content-Le", True),
    "header without an end": (b"X: " + b"x" * 70_000, False),
    "too many headers": (b"X: x\r\n" * 200 + b"\r\n", False),
}


@pytest.mark.parametrize(("rest", "stays_open"), BROKEN.values(), ids=BROKEN)
# urllib3 leaves the socket of an answer with two lengths to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_known_status_decides_whatever_follows_it(
    http: Http, session: Session, rest: bytes, stays_open: bool
) -> None:
    statuses = iter([200, 422, 503, 404, 503, 200])

    def break_off(connection: Connection) -> None:
        # A connection kept in the pool could be closed while the next request is on its way.
        head = f"HTTP/1.1 {next(statuses)} Because\r\nConnection: close\r\n"
        connection.say(head.encode() + rest)
        if stays_open:
            connection.hang()

    answered = []
    with RawServer(break_off) as server:
        for method in ("POST", "POST", "POST", "GET", "GET"):
            with http.within(0.4):
                answered.append(session.request(method, server.url).status_code)
        with http.within(0.4):
            read = caught(session, server.url, method="GET")

    assert answered == [200, 422, 503, 404, 503]
    assert type(read) is Transient
    gc.collect()


def test_headers_of_a_broken_answer_are_kept(session: Session) -> None:
    cut = b"HTTP/1.1 429 Because\r\nRetry-After: 7\r\nContent-Length: 100\r\n\r\nten bytes!"
    with RawServer(lambda connection: connection.say(cut)) as server:
        response = session.post(server.url)

    assert (response.status_code, response.headers["retry-after"]) == (429, "7")


class TestInterimAnswers:
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_are_no_answers(self, session: Session, method: str) -> None:
        interim = b"".join(
            b"HTTP/1.1 %d Wait\r\nLink: </style.css>\r\n\r\n" % status
            for status in (100, 102, 103, 104, 199, 103)
        )
        with RawServer(interim + answer(201, body=b"made")) as server:
            found = [session.request(method, server.url) for _ in range(2)]

        assert [(each.status_code, each.content) for each in found] == [(201, b"made")] * 2
        assert server.connections == 1

    def test_alone_leave_a_doubt(self, session: Session) -> None:
        with RawServer(lambda each: each.say(b"HTTP/1.1 103 Early Hints\r\n\r\n")) as server:
            assert type(caught(session, server.url)) is Ambiguous
            assert type(caught(session, server.url, method="GET")) is Transient

    def test_another_protocol_is_an_answer_and_ends_the_connection(self, session: Session) -> None:
        with RawServer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n") as server:
            statuses = [session.post(server.url).status_code for _ in range(2)]

        assert statuses == [101, 101]
        assert server.connections == 2


class TestTheDeadline:
    @pytest.mark.parametrize(
        "slowly",
        [
            b"HTTP/1.1 200 OK\r\n" + b"X-Padding: and more of it\r\n" * 50,
            answer(200, body=b"x" * 1000),
            b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 500,
        ],
        ids=["headers", "body", "interim answers", "chunks"],
    )
    def test_ends_a_dribbled_answer(self, http: Http, session: Session, slowly: bytes) -> None:
        def dribble(connection: Connection) -> None:
            connection.dribble(slowly, pause=0.02)

        with RawServer(dribble) as server, http.within(0.6):
            began = time.monotonic()
            error = caught(session, server.url, method="GET")
            took = time.monotonic() - began

        assert type(error) is Transient
        assert "time-out" in str(error)
        assert 0.5 < took < 3

    def test_ends_interim_answers_that_come_without_end(
        self, http: Http, session: Session
    ) -> None:
        def flood(connection: Connection) -> None:
            while not connection.stop.is_set():
                connection.say(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)

        with RawServer(flood) as server, http.within(0.3):
            error = caught(session, server.url)

        assert type(error) is Ambiguous

    def test_ends_a_request_that_nobody_reads(self, http: Http, session: Session) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unread, http.within(0.4):
            began = time.monotonic()
            with pytest.raises(Ambiguous):
                url = f"http://127.0.0.1:{unread.getsockname()[1]}/"
                session.post(url, data=b"x" * (32 << 20))
            took = time.monotonic() - began

        assert took < 3

    def test_is_shared_by_all_calls_inside(self, http: Http, session: Session) -> None:
        def late(connection: Connection) -> bool:
            connection.stop.wait(0.25)
            connection.say(answer(200))
            return True

        with RawServer(late) as server, http.within(0.4):
            assert session.get(server.url).status_code == 200
            error = caught(session, server.url, method="GET")

        assert "time-out" in str(error)

    def test_is_not_renewed_by_a_repeatable_part(self, http: Http, session: Session) -> None:
        with RawServer(hang) as server, http.within(0.3):
            began = time.monotonic()
            with http.repeatable():
                caught(session, server.url)
            took = time.monotonic() - began

        assert took < 3

    def test_has_a_default(self) -> None:
        http = Http(allow=LOOPBACK, default_deadline=0.3)

        with RawServer(hang) as server, http.session() as session:
            error = caught(session, server.url)

        assert type(error) is Ambiguous


class TestLargeAnswers:
    def test_are_capped(self) -> None:
        http = Http(allow=LOOPBACK, max_answer=1000)

        with RawServer(answer(200, body=b"x" * 5_000_000)) as server, http.session() as session:
            response = session.post(server.url)

        assert response.content == b"x" * 1000

    def test_are_capped_after_decompression(self) -> None:
        http = Http(allow=LOOPBACK, max_answer=1000)
        bomb = gzip.compress(bytes(200_000_000), compresslevel=1)

        with (
            RawServer(answer(200, body=bomb, Content_Encoding="gzip")) as server,
            http.session() as session,
        ):
            response = session.post(server.url)

        assert response.content == bytes(1000)

    def test_are_capped_when_they_have_no_end(self, http: Http, session: Session) -> None:
        def pour(connection: Connection) -> None:
            connection.say(b"HTTP/1.1 200 OK\r\n\r\n")
            while not connection.stop.is_set():
                connection.say(b"x" * 65536)

        with RawServer(pour) as server:
            response = session.post(server.url)

        assert len(response.content) == http.max_answer

    def test_are_capped_when_they_redirect(self) -> None:
        http = Http(allow=LOOPBACK, max_answer=1000, default_deadline=5)

        def pour(connection: Connection) -> None:
            connection.say(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
            while not connection.stop.is_set():
                connection.say(b"x" * 65536)

        with RawServer(pour) as server, http.session() as session:
            response = session.post(server.url)

        assert len(response.content) == 1000

    def test_leave_the_session_usable(self) -> None:
        http = Http(allow=LOOPBACK, max_answer=10)

        with RawServer(answer(200, body=b"x" * 100)) as server, http.session() as session:
            bodies = [session.get(server.url).content for _ in range(3)]

        assert bodies == [b"x" * 10] * 3


class TestTheEnvironment:
    def test_redirects_are_returned_and_not_followed(self, session: Session) -> None:
        with RawServer(answer(204)) as target:
            moved = answer(302, Location=f"{target.url}/stolen")
            with RawServer(moved) as server:
                response = session.post(server.url, allow_redirects=True)

        assert response.status_code == 302
        assert target.requests == []

    def test_netrc_adds_no_credentials(
        self, session: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login someone password anything\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))

        with RawServer(answer(200)) as server:
            session.post(server.url)

        assert b"authorization" not in server.requests[0].lower()

    def test_netrc_would_have_been_used_by_plain_requests(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login someone password anything\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))

        with RawServer(answer(200)) as server:
            requests.post(server.url, timeout=5)

        assert b"authorization" in server.requests[0].lower()

    def test_proxies_are_ignored(
        self, session: Session, monkeypatch: pytest.MonkeyPatch, closed_port: int
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)

        with RawServer(answer(200)) as server:
            assert session.get(server.url).status_code == 200

    def test_cookies_are_not_kept(self, session: Session) -> None:
        with RawServer(answer(200, Set_Cookie="visitor=1; Path=/")) as server:
            session.get(server.url)
            session.get(server.url)

        assert b"cookie" not in server.requests[1].lower()

    def test_connections_are_used_again(self, session: Session) -> None:
        with RawServer(answer(200)) as server:
            for _ in range(5):
                session.post(server.url, data=b"{}")

        assert (server.connections, len(server.requests)) == (1, 5)

    def test_head_and_body_are_one_write(self, session: Session) -> None:
        received: list[bytes] = []

        def read_once(server: socket.socket) -> None:
            sock, _ = server.accept()
            with sock:
                received.append(sock.recv(65536))
                sock.sendall(answer(200))

        with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as threads:
            reading = threads.submit(read_once, server)
            session.post(f"http://127.0.0.1:{server.getsockname()[1]}", data=b'{"some": "body"}')
            reading.result()

        assert received[0].endswith(b'\r\n\r\n{"some": "body"}')

    def test_a_closed_session_connects_anew(self, session: Session) -> None:
        with RawServer(answer(200)) as server:
            session.post(server.url, data=b"{}")
            session.close()
            session.post(server.url, data=b"{}")

        assert (server.connections, len(server.requests)) == (2, 2)

    def test_more_hosts_than_are_kept_are_all_reached(self, session: Session) -> None:
        with ExitStack() as running:
            servers = [running.enter_context(RawServer(answer(200))) for _ in range(12)]
            for server in (*servers, *servers):
                assert session.post(server.url, data=b"{}").status_code == 200

        assert [len(server.requests) for server in servers] == [2] * 12

    def test_fifty_threads_share_one_session(self, http: Http, session: Session) -> None:
        def echo(connection: Connection) -> bool:
            connection.say(answer(200, body=connection.request.partition(b"\r\n\r\n")[2]))
            return True

        def ask(number: int) -> str:
            with http.within(20):
                return session.post(server.url, data=str(number)).text

        with RawServer(echo) as server, ThreadPoolExecutor(50) as threads:
            answers = list(threads.map(ask, range(200)))

        assert answers == [str(number) for number in range(200)]

    def test_a_deadline_of_one_thread_is_none_of_another(
        self, http: Http, session: Session
    ) -> None:
        def late(connection: Connection) -> None:
            connection.stop.wait(0.4)
            connection.say(answer(200))

        def ask(deadline: float) -> str:
            try:
                with http.within(deadline):
                    return str(session.post(server.url).status_code)
            except Ambiguous:
                return "ambiguous"

        with RawServer(late) as server, ThreadPoolExecutor(2) as threads:
            outcomes = list(threads.map(ask, [0.1, 20]))

        assert outcomes == ["ambiguous", "200"]


class TestTLS:
    def test_a_known_certificate_is_accepted(self, session: Session, certificate: Path) -> None:
        with TLSServer(certificate, answer(200, body=b"hello")) as server:
            response = session.get(f"{server.url}/path", verify=str(certificate))

        assert response.text == "hello"
        assert server.received.startswith(b"GET /path HTTP/1.1\r\n")

    def test_an_answer_lost_after_the_handshake_is_ambiguous(
        self, session: Session, certificate: Path
    ) -> None:
        with TLSServer(certificate, b"") as server, pytest.raises(Ambiguous):
            session.post(f"{server.url}/", data=b"{}", verify=str(certificate))
