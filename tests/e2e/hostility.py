"""What a stranger may send: requests that are wrong, huge, cut, slow or of another protocol."""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

PATH = b"/webhooks/gofax"
START = b"POST " + PATH + b" HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
#: What makes the relay read a body before it can refuse it.
SIGNED = START + b"X-GoFax-Signature: " + b"0" * 64 + b"\r\n"
CHUNKED = SIGNED + b"Transfer-Encoding: chunked\r\n\r\n"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


def _headers(stream: int) -> bytes:
    """Return HTTP/2's HEADERS of a POST whose body is to come."""
    fields = b"\x83\x86" + b"".join(
        # Literal: an index of a name, or the name itself.
        (bytes([name]) if isinstance(name, int) else b"\x00" + _counted(name)) + _counted(value)
        for name, value in ((4, PATH), (1, b"a"), (b"x-gofax-signature", b"0" * 64))
    )
    head = struct.pack(">I", len(fields))[1:] + b"\x01\x04"
    return head + struct.pack(">I", stream) + fields


def _counted(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def _sized(body: bytes, *, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return SIGNED + b"Content-Length: %d\r\n\r\n" % size + body


#: HTTP/2 by prior knowledge, with a request that never ends.
ENDLESS = PREFACE + SETTINGS + _headers(1)


def _many_streams(_: random.Random) -> bytes:
    resets = (
        _headers(number) + b"\x00\x00\x04\x03\x00" + struct.pack(">II", number, 8)
        for number in range(1, 400, 2)
    )
    return PREFACE + SETTINGS + b"".join(resets)


Request = Callable[[random.Random], bytes]

REQUESTS: Mapping[str, Request] = {
    # HTTP/1, malformed.
    "noise": lambda rng: rng.randbytes(rng.randrange(1, 4000)),
    "text": lambda _: b"hello?\r\n\r\n",
    "no version": lambda _: b"POST " + PATH + b"\r\n\r\n",
    "another version": lambda _: START.replace(b"1.1", b"9.9") + b"\r\n",
    "no host": lambda _: b"POST " + PATH + b" HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": lambda _: _sized(b"{}").replace(b"\r\n", b"\n"),
    "a name without a value": lambda _: START + b"X-Alone\r\n\r\n",
    "NUL in a value": lambda _: START + b"X-A: \x00\r\n\r\n",
    "a blank before the colon": lambda _: START + b"Content-Length : 5\r\n\r\nhello",
    "a folded value": lambda _: START + b"X-A: a\r\n b\r\n\r\n",
    "two lengths": lambda _: SIGNED + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "length and chunks": lambda _: SIGNED + b"Content-Length: 5\r\n" + CHUNKED[len(SIGNED) :],
    "a negative length": lambda _: SIGNED + b"Content-Length: -1\r\n\r\n",
    "a length of 400 digits": lambda _: SIGNED + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n",
    "a length in hex": lambda _: SIGNED + b"Content-Length: 0x5\r\n\r\nhello",
    "chunks of another kind": lambda _: CHUNKED.replace(b"chunked", b"xchunked") + b"0\r\n\r\n",
    "a chunk without a size": lambda _: CHUNKED + b"zz\r\nhello\r\n",
    "a chunk of 16 EiB": lambda _: CHUNKED + b"ffffffffffffffff\r\nhello",
    "a chunk with a long extension": lambda _: CHUNKED + b"1;" + b"x" * 20_000 + b"\r\na\r\n",
    "endless trailers": lambda _: CHUNKED + b"0\r\n" + b"X-A: b\r\n" * 5000,
    "CONNECT": lambda _: b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS of all": lambda _: b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path that climbs": lambda _: b"GET /../../etc/passwd%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path of no UTF-8": lambda _: b"GET /\xff%ff%c0%af HTTP/1.1\r\nHost: a\r\n\r\n",
    # Other protocols.
    "HTTP/2 without an end": lambda _: ENDLESS,
    "HTTP/2 with resets": _many_streams,
    "HTTP/2 preface alone": lambda _: PREFACE,
    "h2c": lambda _: (
        START + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 2\r\n\r\n{}" + PREFACE
    ),
    "WebSocket": lambda _: (
        b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ),
    "TLS": lambda rng: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(508),
    # Huge.
    "a head of 40 KB": lambda _: START + b"X-A: " + b"a" * 40_000 + b"\r\n\r\n",
    "a head of 15 KB": lambda rng: (
        START + b"X-A: " + rng.randbytes(7500).hex().encode() + b"\r\nContent-Length: 2\r\n\r\n{}"
    ),
    "1,000 headers": lambda _: START + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + b"\r\n",
    "a path of 12 KB": lambda _: START.replace(PATH, b"/" + b"a" * 12_000) + b"\r\n",
    "a body of 3 MB": lambda _: _sized(b"x" * 3_000_000),
    "3 MB in chunks": lambda _: CHUNKED + b"10000\r\n%b\r\n" % (b"x" * 65_536) * 46,
    "a body of 60 KB": lambda rng: _sized(rng.randbytes(60_000)),
    "10 GB, announced": lambda _: _sized(b"{", length=10**10),
    "nested": lambda _: _sized(b"[" * 30_000 + b"]" * 30_000),
    "100 requests at once": lambda _: _sized(b"{}") * 100,
    # Cut and slow, whatever follows.
    "half a head": lambda _: START[:40],
    "a head without an end": lambda _: SIGNED,
    "half a body": lambda _: _sized(b'{"messageId":', length=400),
    "half a chunk": lambda _: CHUNKED + b'ff\r\n{"messageId":',
    "Expect, and nothing": lambda _: SIGNED + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "nothing": lambda _: b"",
    # Well-formed and not genuine.
    "a wrong signature": lambda rng: _sized(b'{"messageId": "%d"}' % rng.randrange(10**9)),
    "no signature": lambda _: START + b"Content-Length: 2\r\n\r\n{}",
    "gzip": lambda _: (
        SIGNED + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\0"
    ),
    "another's address": lambda rng: (
        SIGNED + b"X-Forwarded-For: 10.%d.0.1\r\n" % rng.randrange(255)
        + b"X-Forwarded_For: 127.0.0.1\r\nContent-Length: 2\r\n\r\n{}"
    ),
}  # fmt: skip

#: Seconds that one hostile request may take of the stranger.
STAY = 1.5


def attack(port: int, name: str, rng: random.Random) -> None:
    """Send one request to a port here, from one of fifty addresses, and leave in some way."""
    source = f"127.0.0.{rng.randrange(2, 52)}"
    made = socket.create_connection(("127.0.0.1", port), 5, (source, 0))
    made.settimeout(STAY)
    with made, suppress(OSError):
        made.sendall(REQUESTS[name](rng))
        rng.choice([_listen, _dribble, _reset, _end])(made)


def _listen(made: socket.socket) -> None:
    ends_at = time.monotonic() + STAY
    while time.monotonic() < ends_at and made.recv(65_536):
        pass


def _dribble(made: socket.socket) -> None:
    for _ in range(5):
        time.sleep(STAY / 5)
        made.sendall(b"a")


def _reset(made: socket.socket) -> None:
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _end(made: socket.socket) -> None:
    made.shutdown(socket.SHUT_WR)
    _listen(made)
