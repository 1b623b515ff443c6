"""What the email connector makes of an SMTP server's words, and of its silence."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
import traceback
from collections.abc import Callable

import pytest
from aiosmtpd.smtp import SMTP
from mails import PASSWORD, connector, deliver

from connectors.base import Ambiguous, DeliveryError, Refused, Throttled, Transient, Unauthorized
from connectors.email.smtp import Server
from connectors.http import Http
from connectors.suites.mailbox import Mailbox, Verdict


class TestGuard:
    def test_private_addresses_must_be_allowed(self, mailbox: Mailbox) -> None:
        for security in ("none", "starttls", "tls"):
            with pytest.raises(Unauthorized, match="is not in outbound.allow"):
                deliver(connector(mailbox.port, allow=(), security=security))

    def test_public_addresses_need_tls(self) -> None:
        email = connector(25, host="8.8.8.8", allow=("10.0.0.0/8",))

        with pytest.raises(Unauthorized, match="no TLS, or a private address"):
            deliver(email)

    def test_a_host_that_is_none(self) -> None:
        with pytest.raises(Transient, match=r"no-such-host\.invalid:25: not reached: "):
            deliver(connector(25, host="no-such-host.invalid"))

    def test_nobody_listens(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]

        with pytest.raises(Transient, match=f"127.0.0.1:{port}: not reached: connection refused"):
            deliver(connector(port))


def saying(at: str, answer: str) -> Verdict:
    return lambda stage, said, server: answer if stage == at else None


# What the server says at a step, what the relay learns, and its words.
REFUSALS: list[tuple[str, str, type[DeliveryError], str]] = [
    # Sender and recipients are the same for every event.
    ("MAIL", "550 5.7.60 may not send as this sender", Unauthorized, "sender sms@example.com"),
    ("MAIL", "530 5.7.0 sign in first", Unauthorized, "530 5.7.0 sign in first"),
    ("MAIL", "552 5.3.4 too large", Refused, "552 5.3.4"),
    ("MAIL", "451 4.3.0 later", Transient, "451"),
    ("RCPT", "550 5.1.1 no such user", Unauthorized, "recipient desk@example.com: 550 5.1.1"),
    ("RCPT", "450 4.2.0 greylisted", Transient, "450"),
    ("RCPT", "450 4.2.1 receiving mail too quickly: rate", Throttled, "450"),
    # The content is the event's.
    ("DATA", "554 5.7.1 spam: Thanks for your message", Refused, "the message: 554 5.7.1"),
    ("DATA", "552 5.3.4 too large", Refused, "552"),
    ("DATA", "451 4.3.0 disk trouble", Transient, "451"),
    ("DATA", "452 4.2.2 mailbox full", Transient, "452"),
    ("DATA", "432 4.3.2 concurrent connections", Throttled, "432"),
    ("DATA", "421 4.7.0 too many messages", Throttled, "421"),
    ("TAKEN", "354 more?", Ambiguous, "354"),
    ("TAKEN", "699 what?", Ambiguous, "699"),
]


def test_refusals_of_the_server() -> None:
    for stage, said, kind, words in REFUSALS:
        verdict = saying(stage, said)
        with Mailbox(verdict=verdict) as mailbox, pytest.raises(DeliveryError) as caught:
            deliver(connector(mailbox.port))

        assert type(caught.value) is kind, (stage, said)
        assert words in str(caught.value)
        assert "Thanks" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("stage", "said"),
    [("MAIL", "200 fine"), ("RCPT", "251 forwarded"), ("RCPT", "252 cannot verify"),
     ("TAKEN", "200 fine"), ("TAKEN", "251 forwarded"), ("TAKEN", "299 what?")],
)  # fmt: skip
def test_the_first_digit_tells_a_success(stage: str, said: str) -> None:
    with Mailbox(verdict=saying(stage, said)) as mailbox:
        deliver(connector(mailbox.port))

        assert len(mailbox.messages) == 1


def test_check_tries_the_addresses_and_sends_nothing() -> None:
    words = "desk@example.com: 550 5.1.1 no such user"
    with (
        Mailbox(verdict=saying("RCPT", "550 5.1.1 no such user")) as mailbox,
        pytest.raises(Unauthorized, match=words),
    ):
        connector(mailbox.port).check()
    with Mailbox() as mailbox:
        said = connector(mailbox.port).check()

    assert said == (
        f"127.0.0.1:{mailbox.port}: without signing in, from sms@example.com to desk@example.com"
    )
    assert mailbox.taken == []


def _cut(server: SMTP) -> str:
    assert isinstance(server.transport, asyncio.WriteTransport)
    server.transport.abort()
    return "451 which nobody hears"


def cutting(at: str) -> Verdict:
    return lambda stage, said, server: _cut(server) if stage == at else None


@pytest.mark.parametrize(
    ("stage", "kind"),
    [("MAIL", Transient), ("RCPT", Transient), ("DATA", Ambiguous), ("TAKEN", Ambiguous)],
)
def test_a_connection_that_is_lost(stage: str, kind: type[DeliveryError]) -> None:
    with Mailbox(verdict=cutting(stage)) as mailbox:
        with pytest.raises(DeliveryError) as caught:
            deliver(connector(mailbox.port))

        assert type(caught.value) is kind
        assert len(mailbox.taken) == (stage == "TAKEN")


class Script:
    """A server on a raw socket: says its lines, one after each line that it reads.

    After the last it may wait for a line and answer that.
    """

    def __init__(
        self, *lines: bytes, pause: float = 0, until: tuple[bytes, bytes] | None = None
    ) -> None:
        self._lines = lines
        self._until = until
        self._pause = pause
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Script:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        sock, _ = self._listener.accept()
        sock.settimeout(10)
        with sock, sock.makefile("rb") as read:
            try:
                for number, line in enumerate(self._lines):
                    if number:
                        read.readline()
                    self._say(sock, line)
                if self._until:
                    while read.readline() not in (self._until[0], b""):
                        pass
                    self._say(sock, self._until[1])
                self._stop.wait(10)
            except OSError:
                pass

    def _say(self, sock: socket.socket, line: bytes) -> None:
        if not self._pause:
            sock.sendall(line)
            return
        for byte in line:
            if self._stop.wait(self._pause):
                return
            sock.sendall(bytes([byte]))


EHLO = b"250 hello\r\n"
TO_CONTENT = (b"220 hi\r\n", EHLO, b"250 ok\r\n", b"250 ok\r\n")


# What an odd server says, what the relay learns, and its words.
ODD: list[tuple[tuple[bytes, ...], type[DeliveryError], str]] = [
    ((b"554 5.7.1 go away\r\n",), Unauthorized, "greeting: 554 5.7.1 go away"),
    ((b"421 4.3.0 shutting down\r\n",), Transient, "greeting: 421"),
    ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), Transient, "-1"),
    ((b"220 hi\r\n", b"500 what\r\n", b"500 what\r\n"), Unauthorized, "500"),
    ((b"\xff\xfe\x00\r\n",), Transient, ""),
    ((*TO_CONTENT, b"554 5.5.1 no\r\n"), Refused, "the message: 554 5.5.1"),
    ((*TO_CONTENT, b"250 odd\r\n"), Transient, "the message: 250"),
]


def test_odd_servers() -> None:
    for script, kind, words in ODD:
        with Script(*script) as server, pytest.raises(DeliveryError) as caught:
            deliver(connector(server.port))

        assert type(caught.value) is kind, script
        assert words in str(caught.value)


def test_blank_lines_and_codes_of_their_own_do_no_harm() -> None:
    login = {"username": "relay", "password": PASSWORD}
    said = ["\n221 hi", "250-hi\r\n250 AUTH PLAIN", "200 welcome", "250 ok", "251 ok", "350 go"]
    lines = [f"\r\n{each}\r\n".encode() for each in said]
    with Script(*lines, until=(b".\r\n", b"\r\n200 taken\r\n")) as server:
        deliver(connector(server.port, **login))


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        (lambda: Script(b""), Transient),  # silent from the start
        (lambda: Script(b"220 hi\r\n", b""), Transient),  # silent later
        (lambda: Script(b"220-" + b"x" * 500, pause=0.02), Transient),  # a byte now and then
        (lambda: Script(*TO_CONTENT, b"354 go\r\n", b""), Ambiguous),  # silent at the end
    ],
    ids=["silence", "later silence", "dribble", "silence after the content"],
)
def test_the_deadline_holds_for_the_whole_dialogue(
    script: Callable[[], Script], kind: type[DeliveryError]
) -> None:
    with script() as server:
        began = time.monotonic()
        with pytest.raises(DeliveryError, match="time-out") as caught:
            deliver(connector(server.port), deadline=0.6)
        took = time.monotonic() - began

    assert type(caught.value) is kind
    assert took < 3


def test_a_server_that_talks_without_end_is_left() -> None:
    endless = b"220-more\r\n" * 400_000
    with Script(endless) as server, pytest.raises(Transient, match="not reached"):
        deliver(connector(server.port))


def test_injected_answers_before_starttls_are_not_believed(ca: str) -> None:
    # What was said in clear text before TLS began must not count afterwards.
    greeting = b"250-hello\r\n250 STARTTLS\r\n"
    with Script(b"220 hi\r\n", greeting, b"220 go\r\n250 injected\r\n") as server:
        email = connector(server.port, host="localhost", security="starttls", ca=ca)
        with pytest.raises(Transient):
            deliver(email, deadline=0.6)


def test_server_is_a_part_of_its_own() -> None:
    with Mailbox() as mailbox:
        http = Http(allow=["127.0.0.0/8"])
        server = Server(
            "127.0.0.1", mailbox.port, security="none", login=None, authorities=None, http=http
        )
        server.send(
            b"Subject: x\r\n\r\nhello", sender="a@example.com", recipients=["b@example.com"]
        )

        assert mailbox.taken == [b"Subject: x\r\n\r\nhello\r\n"]
