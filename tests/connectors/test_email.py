"""The email connector: its messages, and what it makes of an SMTP server's words."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as MAIL
from typing import Any
from urllib.parse import parse_qs

import pytest
import trustme
from aiosmtpd.smtp import SMTP
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rawserver import Connection, RawServer, answer

from connectors.base import (
    Ambiguous,
    DeliveryError,
    Event,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.email.connector import PORTS, Email, EmailOptions
from connectors.email.smtp import Server
from connectors.http import Http
from connectors.plain import NO_BODY
from connectors.suites.mailbox import Mailbox, Verdict
from connectors.testing import sample_event

PASSWORD = "a pass-phrase, of some length"
KEY = "5" * 40
OAUTH = {"token_url": "https://example.com/token", "client_id": "relay", "client_secret": PASSWORD}
ADDRESSES = {"from": "SMS <sms@example.com>", "to": ["Desk <desk@example.com>"]}


def options(**given: Any) -> EmailOptions:
    plain = {"host": "127.0.0.1", "port": 25, "security": "none"}
    return EmailOptions.model_validate(plain | ADDRESSES | given)


def connector(port: int, *, allow: tuple[str, ...] = ("127.0.0.0/8",), **given: Any) -> Email:
    return Email(options(port=port, **given), http=Http(allow=allow))


def deliver(
    email: Email,
    event: Event | None = None,
    *,
    key: str = KEY,
    thread: str | None = None,
    repeat: bool = False,
    deadline: float = 10,
) -> Receipt:
    return email.deliver(
        event or sample_event(), key=key, thread=thread, repeat=repeat, deadline=deadline
    )


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as mailbox:
        yield mailbox


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def ca(authority: trustme.CA) -> str:
    return authority.cert_pem.bytes().decode()


@pytest.fixture(scope="module")
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def text_of(message: EmailMessage) -> str:
    content = message.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


class TestMessage:
    def test_it_says_what_happened(self, mailbox: Mailbox) -> None:
        event = sample_event(url="https://relay.example.com/console/events/1", keyword="HELP")

        receipt = deliver(connector(mailbox.port, cc=["boss@example.com"]), event)

        [message] = mailbox.messages
        assert message["From"] == "SMS <sms@example.com>"
        assert (message["To"], message["Cc"]) == ("Desk <desk@example.com>", "boss@example.com")
        assert mailbox.recipients == [["desk@example.com", "boss@example.com"]]
        assert message["Subject"] == "SMS conversation with +61400000000"
        assert message["Message-ID"] == receipt.reference
        assert message["Date"].datetime == event.received_at
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content_type() == "text/plain"
        assert text_of(message).splitlines() == [
            "Thanks for your message",
            "",
            "SMS reply from +61400000000",
            "From: +61400000000",
            "To: +61700000000",
            "Time: 2025-12-04 00:24:07 UTC",
            "Keyword: HELP",
            "https://relay.example.com/console/events/1",
        ]

    def test_templates_are_the_operators(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, subject="[{{ type }}]\nurgent", body="{{ text | upper }}")

        deliver(email)

        [message] = mailbox.messages
        assert message["Subject"] == "[SMS_REPLY] urgent"
        assert text_of(message) == "THANKS FOR YOUR MESSAGE\n"

    def test_a_missing_text_says_why(self, mailbox: Mailbox) -> None:
        deliver(connector(mailbox.port), sample_event(body=None))

        assert NO_BODY in text_of(mailbox.messages[0])

    def test_a_repetition_is_the_same_message_to_the_last_byte(self, mailbox: Mailbox) -> None:
        first = deliver(connector(mailbox.port))
        second = deliver(connector(mailbox.port), repeat=True)

        assert first == second
        assert mailbox.taken[0] == mailbox.taken[1]
        assert len(mailbox.messages) == 1

    def test_another_key_is_another_message(self, mailbox: Mailbox) -> None:
        ids = {deliver(connector(mailbox.port), key=key).reference for key in ("a", "b")}

        assert len(ids) == len(mailbox.messages) == 2

    def test_no_customer_writes_a_header(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, subject="{{ metadata.x }} {{ text }}")
        for injected in (
            "a\r\nBcc: x@example.net", "a\nBcc: x@example.net", "a\rBcc: x\r\n\r\nbody",
            "a\x0bb\x0c", "a\u2028Bcc: x", "a\x85Bcc: x@example.net",
        ):  # fmt: skip
            event = sample_event(body=injected, customer=injected, metadata={"x": injected})

            deliver(email, event, key=repr(injected))

            message = mailbox.messages[-1]
            assert message["Bcc"] is None, repr(injected)
            assert "\n" not in message["Subject"]
            assert mailbox.recipients[-1] == ["desk@example.com"]

    def test_texts_arrive_as_they_are(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, body="{{ body }}")
        bodies = [
            ".", "..\r\n.\r\n.", "a\r\n.\r\nQUIT\r\nMAIL FROM:<x@example.com>", ".a\n.b\n\n.",
            "x" * 5000, "👍🏽" * 700, "é" * 3000, "=20 =\n= =", "From me\nFrom: you",
        ]  # fmt: skip

        for body in bodies:
            deliver(email, sample_event(body=body), key=body)

        arrived = [text_of(message).removesuffix("\n") for message in mailbox.messages]
        assert arrived == [body.replace("\r\n", "\n").removesuffix("\n") for body in bodies]
        assert max(len(line) for each in mailbox.taken for line in each.split(b"\r\n")) <= 998
        assert all(each.isascii() for each in mailbox.taken)

    def test_a_long_subject_is_cut(self, mailbox: Mailbox) -> None:
        deliver(connector(mailbox.port, subject="{{ text }}"), sample_event(body="wörter " * 99))

        subject = str(mailbox.messages[0]["Subject"])
        assert len(subject) == 250 and subject.endswith("…")

    @pytest.mark.parametrize(
        ("field", "broken"), [("subject", "{{ 1 // 0 }}"), ("body", "{{ metadata.no }}")]
    )
    def test_a_template_that_does_not_work_is_refused(
        self, mailbox: Mailbox, field: str, broken: str
    ) -> None:
        with pytest.raises(Refused, match=f"^{field}: .*evt_0193a0000000sample"):
            deliver(connector(mailbox.port, **{field: broken}))

        assert mailbox.taken == []


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_makes_a_message_that_can_be_read(subject: str, body: str) -> None:
    email = connector(25, subject="{{ metadata.subject }}", body="{{ body }}")
    event = sample_event(body=body, metadata={"subject": subject})

    written = email._message(event, id="<1@example.com>", before=[]).as_bytes()

    read = message_from_bytes(written, policy=MAIL)
    assert set(read.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "References", "Auto-Submitted",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert read["Message-ID"] == "<1@example.com>"
    # A lone CR or LF could end a line for one server and not for the next.
    assert written.isascii() and not set(b"\r\n") & set(written.replace(b"\r\n", b""))


class TestThreads:
    def conversation(self, mailbox: Mailbox, number: int = 3) -> list[EmailMessage]:
        email, thread = connector(mailbox.port), None
        for each in range(number):
            thread = deliver(email, key=str(each), thread=thread).thread
        return mailbox.messages

    def test_each_message_points_to_the_one_before_and_to_the_first(
        self, mailbox: Mailbox
    ) -> None:
        first, second, third = self.conversation(mailbox)

        root = first["References"]
        assert first["In-Reply-To"] is None
        assert second["In-Reply-To"] == first["Message-ID"]
        assert second["References"].split() == [root, first["Message-ID"]]
        assert third["In-Reply-To"] == second["Message-ID"]
        assert third["References"].split() == [root, first["Message-ID"], second["Message-ID"]]
        assert len({each["Subject"] for each in (first, second, third)}) == 1

    def test_a_thread_does_not_grow(self, mailbox: Mailbox) -> None:
        last = self.conversation(mailbox, 12)[-1]

        assert len(last["References"].split()) == 3

    def test_a_thread_that_is_none_of_ours_is_left_out(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port)
        for thread in ("", "nonsense", "<a b>", "<x\r\nBcc: y@z>", "<" * 999):
            deliver(email, key=thread, thread=thread)

        for message in mailbox.messages:
            assert (message["In-Reply-To"], message["Bcc"]) == (None, None)
            assert len(message["References"].split()) == 1

    def test_conversations_have_roots_of_their_own(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port)
        deliver(email, key="1")
        deliver(email, sample_event(customer="+61400000002"), key="2")

        one, other = mailbox.messages
        assert one["References"] != other["References"]


class TestTls:
    def test_starttls_and_signing_in(self, tls: ssl.SSLContext, ca: str) -> None:
        login = {"username": "relay", "password": PASSWORD}
        with Mailbox(tls=tls, login=("relay", PASSWORD)) as mailbox:
            email = connector(mailbox.port, host="localhost", security="starttls", ca=ca, **login)

            deliver(email)

            assert len(mailbox.messages) == 1
            assert "localhost" in email.check() and "signed in as relay" in email.check()
            assert len(mailbox.messages) == 1

    def test_tls_from_the_first_byte(self, tls: ssl.SSLContext, ca: str) -> None:
        login = {"username": "relay", "password": PASSWORD}
        with Mailbox(tls=tls, from_the_start=True, login=("relay", PASSWORD)) as mailbox:
            deliver(connector(mailbox.port, host="localhost", security="tls", ca=ca, **login))

            assert len(mailbox.messages) == 1

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_a_certificate_must_be_trusted_and_name_the_host(
        self, tls: ssl.SSLContext, ca: str, security: str
    ) -> None:
        with Mailbox(tls=tls, from_the_start=security == "tls") as mailbox:
            for given in ({"host": "127.0.0.1", "ca": ca}, {"host": "localhost"}):
                with pytest.raises(Transient, match="certificate verify failed"):
                    deliver(connector(mailbox.port, security=security, **given))

            assert mailbox.taken == []

    def test_a_server_without_starttls_gets_nothing(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, security="starttls", username="relay", password=PASSWORD)

        with pytest.raises(Unauthorized, match="STARTTLS extension not supported"):
            deliver(email)

    def test_a_wrong_password_pauses_the_destination(self, tls: ssl.SSLContext, ca: str) -> None:
        with Mailbox(tls=tls, login=("relay", "another")) as mailbox:
            email = connector(
                mailbox.port, host="localhost", security="starttls", ca=ca, username="relay",
                password=PASSWORD,
            )  # fmt: skip
            for act in (lambda: deliver(email), email.check):
                with pytest.raises(Unauthorized, match="signing in: 535 5.7.8") as caught:
                    act()
                shown = "".join(traceback.format_exception(caught.value))
                assert PASSWORD not in shown

    def test_a_server_that_wants_no_sign_in_cannot_be_signed_in_to(self) -> None:
        with Mailbox(auth_exclude_mechanism=["LOGIN", "PLAIN"]) as mailbox:
            email = connector(mailbox.port, username="relay", password=PASSWORD)

            with pytest.raises(Unauthorized, match="no way to sign in: needs CRAM-MD5 or LOGIN"):
                deliver(email)


def token(value: str, **more: Any) -> bytes:
    body = {"access_token": value, "token_type": "Bearer", "expires_in": 3600, **more}
    return answer(200, body=json.dumps(body).encode())


class TestTokens:
    """Signing in by OAuth client credentials."""

    def connector(self, mailbox: Mailbox, tokens: RawServer) -> Email:
        oauth = {
            "token_url": f"{tokens.url}/token",
            "client_id": "relay",
            "client_secret": PASSWORD,
        }
        return connector(mailbox.port, username="sms@example.com", oauth=oauth)

    def test_a_token_is_fetched_once(self) -> None:
        with (
            RawServer(token("first-token")) as tokens,
            Mailbox(login=("sms@example.com", "first-token")) as mailbox,
        ):
            email = self.connector(mailbox, tokens)
            for key in ("1", "2"):
                deliver(email, key=key)
            email.close()

            assert len(mailbox.messages) == 2
            [asked] = tokens.requests
        form = parse_qs(asked.partition(b"\r\n\r\n")[2].decode())
        assert form == {
            "grant_type": ["client_credentials"],
            "client_id": ["relay"],
            "client_secret": [PASSWORD],
            "scope": ["https://outlook.office365.com/.default"],
        }

    def test_a_token_that_is_at_its_end_is_replaced(self) -> None:
        with (
            RawServer(token("a-token", expires_in="0.001")) as tokens,
            Mailbox(login=("sms@example.com", "a-token")) as mailbox,
        ):
            email = self.connector(mailbox, tokens)
            for key in ("1", "2"):
                deliver(email, key=key)
            email.close()

            assert len(tokens.requests) == 2

    def test_a_token_that_was_revoked_is_replaced_at_once(self) -> None:
        given = iter(["revoked", "fresh"])
        with (
            RawServer(lambda connection: connection.say(token(next(given))) or True) as tokens,
            Mailbox(login=("sms@example.com", "fresh")) as mailbox,
        ):
            email = self.connector(mailbox, tokens)
            deliver(email)
            email.close()

            assert (len(tokens.requests), len(mailbox.messages)) == (2, 1)

    def test_a_mailbox_that_takes_no_token_pauses_the_destination(self) -> None:
        with RawServer(token("some-token")) as tokens, Mailbox(login=("a", "b")) as mailbox:
            email = self.connector(mailbox, tokens)
            with pytest.raises(Unauthorized, match="signing in: 535") as caught:
                deliver(email)
            email.close()

        assert "some-token" not in "".join(traceback.format_exception(caught.value))

    def test_no_token_no_message(self) -> None:
        answers: list[tuple[bytes, type[DeliveryError]]] = [
            (answer(401, body=b"invalid_client"), Unauthorized),
            (answer(400, body=b"invalid_scope"), Unauthorized),
            (answer(503), Transient),
            (answer(429, Retry_After="7"), Throttled),
            (answer(200, body=b"<html>"), Transient),
            (answer(200, body=b"[1]"), Transient),
            (token("a b\r\n"), Transient),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Transient),
            (b"", Transient),
        ]
        for said, kind in answers:

            def end(connection: Connection, said: bytes = said) -> None:
                connection.say(said)

            with RawServer(end) as tokens, Mailbox() as mailbox:
                for act in (deliver, Email.check):
                    # A new one, because the server has closed the other's connection.
                    with closing(self.connector(mailbox, tokens)) as email:
                        with pytest.raises(DeliveryError) as caught:
                            act(email)
                        assert type(caught.value) is kind, said

                assert mailbox.taken == []

    def test_a_refused_token_names_what_to_mend(self) -> None:
        said = {"error": "invalid_client", "error_description": "AADSTS7000222: expired"}
        refusal = answer(401, body=json.dumps(said).encode())
        with RawServer(refusal) as tokens, Mailbox() as mailbox:
            email = self.connector(mailbox, tokens)
            with pytest.raises(Unauthorized, match="client_secret has expired"):
                deliver(email)
            email.close()


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


# Options that cannot work, and what their fault says.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"from": "no address"}, "from"),
    ({"from": "a@example.com, b@example.com"}, "from"),
    ({"from": "a@example.com\r\nBcc: x@example.com"}, "from"),
    ({"from": "Zoë <zoë@example.com>"}, "in ASCII"),
    ({"to": []}, "to"),
    ({"to": ["a@"]}, "write one address"),
    ({"to": ["<script>"]}, "write one address"),
    ({"to": ["a b@example.com"]}, "write one address"),
    ({"cc": ["x"]}, "cc"),
    ({"host": "smtp example"}, "host"),
    ({"host": "https://smtp.example.com"}, "host"),
    ({"port": 70000}, "port"),
    ({"security": "ssl"}, "security"),
    ({"username": "a"}, "belong together"),
    ({"password": "a"}, "belong together"),
    ({"oauth": OAUTH}, "belong together"),
    ({"username": "a", "password": "b", "oauth": OAUTH}, "not both"),
    ({"username": "a", "oauth": OAUTH | {"token_url": "x"}}, "token_url"),
    ({"username": "a", "password": "pässword"}, "printable ASCII only"),
    ({"username": "a", "password": "pass\nword"}, "printable ASCII only"),
    ({"ca": "no certificate"}, "no PEM certificates"),
    ({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}, "no PEM"),
    ({"subject": "{{ nothing_like_it }}"}, "subject"),
    ({"bdy": "x"}, "bdy"),
]


class TestOptions:
    def test_a_wrong_option_is_found(self) -> None:
        for wrong, fault in WRONG:
            with pytest.raises(ValidationError) as caught:
                options(**wrong)

            assert fault in str(caught.value), wrong
            assert "pässword" not in str(caught.value)

    def test_names_may_hold_anything(self, mailbox: Mailbox) -> None:
        deliver(connector(mailbox.port, **{"from": '"Zoë, SMS" <sms@example.com>'}))

        assert mailbox.messages[0]["From"].addresses[0].display_name == "Zoë, SMS"

    def test_the_port_is_the_usual_one(self) -> None:
        made = [Email(options(security=each, port=0), http=Http()) for each in PORTS]

        assert [each._server.port for each in made] == [587, 465, 25]

    def test_the_password_is_hidden(self) -> None:
        given = options(username="relay", password=PASSWORD)
        email = Email(given, http=Http())

        for shown in (repr(given), str(given), given.model_dump_json(), repr(email._server.login)):
            assert PASSWORD not in shown


def test_one_connector_serves_many_threads(mailbox: Mailbox) -> None:
    email = connector(mailbox.port)
    threads = [
        threading.Thread(target=deliver, args=(email,), kwargs={"key": str(number)})
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(mailbox.messages) == 20


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
