"""The gateway of the kit passes everything on as it is, and spoils what it is told to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests
from rawserver import Connection, RawServer, answer

from connectors.testing import Asked, Fault, Gateway, lasting, once


@pytest.fixture
def upstream() -> Iterator[RawServer]:
    with RawServer(answer(201, body=b"made", X_Of="upstream")) as server:
        yield server


def test_requests_and_answers_pass_byte_for_byte(upstream: RawServer) -> None:
    with Gateway(f"{upstream.url}/base") as gateway:
        url = f"{gateway.url}/a%2Fb?x=1&y=%20"
        answered = requests.patch(url, data=b"\x00\xff", headers={"X-Own": "mine"}, timeout=5)

    assert (answered.status_code, answered.content) == (201, b"made")
    assert answered.headers["X-Of"] == "upstream"
    head, _, body = upstream.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"PATCH /base/a%2Fb?x=1&y=%20 HTTP/1.1\r\n")
    assert b"X-Own: mine" in head
    assert f"Host: {gateway.url.split('/')[2]}".encode() in head
    assert body == b"\x00\xff"
    (asked,) = gateway.requests
    assert (asked.number, asked.method, asked.body) == (1, "PATCH", b"\x00\xff")
    assert str(asked) == "request 1 (PATCH /base/a%2Fb)"


def test_a_body_in_chunks_arrives_whole(upstream: RawServer) -> None:
    with Gateway(upstream.url) as gateway:
        requests.post(gateway.url, data=iter([b"one, ", b"two"]), timeout=5)

    assert upstream.requests[0].endswith(b"\r\n\r\none, two")


def test_connections_are_kept(upstream: RawServer) -> None:
    with Gateway(upstream.url) as gateway, requests.Session() as session:
        for _ in range(3):
            session.get(gateway.url, timeout=5)

        assert (len(gateway.requests), gateway.connections) == (3, 1)


@pytest.mark.parametrize("acts", [False, True])
def test_a_fault_replaces_the_answer_whether_it_acts_or_not(
    upstream: RawServer, acts: bool
) -> None:
    fault = Fault(status=503, headers={"Retry-After": "1"}, body=b"no", acts=acts)

    with Gateway(upstream.url, plan=lasting(fault)) as gateway:
        answered = requests.get(gateway.url, timeout=5)

    assert (answered.status_code, answered.content) == (503, b"no")
    assert answered.headers["Retry-After"] == "1"
    assert len(upstream.requests) == (1 if acts else 0)


def test_plans_choose_requests(upstream: RawServer) -> None:
    def of_method(asked: Asked) -> Fault | None:
        return Fault(status=500) if asked.method == "POST" else None

    for plan, statuses in [
        (once(Fault(status=500), at=2), [201, 500, 201]),
        (lasting(Fault(status=500), since=2), [201, 500, 500]),
        (of_method, [201, 201, 201]),
    ]:
        with Gateway(upstream.url, plan=plan) as gateway:
            assert [requests.get(gateway.url, timeout=5).status_code for _ in range(3)] == statuses


@pytest.mark.parametrize("ends", ["reset", "close"])
def test_connections_break(upstream: RawServer, ends: str) -> None:
    fault = Fault(ends=ends)  # type: ignore[arg-type]  # both are ways to end

    with (
        Gateway(upstream.url, plan=lasting(fault)) as gateway,
        pytest.raises(requests.ConnectionError) as raised,
    ):
        requests.get(gateway.url, timeout=5)

    assert ("reset by peer" in str(raised.value)) == (ends == "reset")


def test_silence_ends_with_the_gateway(upstream: RawServer) -> None:
    began = time.monotonic()

    with (
        Gateway(upstream.url, plan=lasting(Fault(ends="hang"))) as gateway,
        pytest.raises(requests.ReadTimeout),
    ):
        requests.get(gateway.url, timeout=0.2)

    assert time.monotonic() - began < 10  # of 30 that it would be silent


def test_bytes_come_one_by_one(upstream: RawServer) -> None:
    fault = Fault(ends="dribble", status=202)

    with Gateway(upstream.url, plan=lasting(fault)) as gateway:
        host, _, port = gateway.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), 5) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            received = [client.recv(100) for _ in range(4)]

    assert b"".join(received)[:4] == b"HTTP"
    assert len(received[0]) == 1


def test_a_fault_may_do_something_meanwhile(upstream: RawServer) -> None:
    done = threading.Event()
    fault = Fault(acts=True, meanwhile=done.set)

    with Gateway(upstream.url, plan=lasting(fault)) as gateway:
        requests.get(gateway.url, timeout=5)

    assert done.is_set()


def test_a_stand_in_that_breaks_off_is_a_broken_connection() -> None:
    def vanish(connection: Connection) -> None:
        connection.reset()

    with (
        RawServer(vanish) as upstream,
        Gateway(upstream.url) as gateway,
        pytest.raises(requests.ConnectionError),
    ):
        requests.get(gateway.url, timeout=5)


def test_an_address_that_is_none_is_refused() -> None:
    rows: list[str] = ["https://127.0.0.1:1", "http://127.0.0.1", "/path", ""]
    for address in rows:
        with pytest.raises(ValueError, match="must be http://host:port"):
            Gateway(address)
