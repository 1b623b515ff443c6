"""One message handed to an SMTP server, under the guard and the deadline of connectors.http.

Replies before the content concern credentials and addresses, which are the same for every event:
a lasting refusal there is Unauthorized. Replies to the content concern the event. Until the dot
that ends the content is sent, nothing can have happened.

A reply counts by the first digit of its code (RFC 5321, 4.2.1), because servers invent codes.
"""

from __future__ import annotations

import binascii
import io
import re
import smtplib
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from connectors.base import Ambiguous, DeliveryError, Refused, Throttled, Transient, Unauthorized
from connectors.http import Http, failure_of
from connectors.oauth import AccessToken
from connectors.wire import Blocked, DeadlineReader, connect, current

Security = Literal["starttls", "tls", "none"]
Reply = tuple[int, bytes]

#: Temporary refusals that mean "too fast" (RFC 3463: 4.7.x policy, 4.3.2 not accepting now).
_TOO_FAST = re.compile(rb"\b4\.7\.\d|\b4\.3\.2\b|too (many|fast)|rate|throttl|limit", re.I)
_ENHANCED = re.compile(rb"[245]\.\d{1,3}\.\d{1,3}")
_TOO_LARGE = 552
_LINE_START_DOT = re.compile(rb"(?m)^\.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Login:
    """Name and password, or a token instead of one."""

    username: str
    password: str | None = field(default=None, repr=False)
    token: AccessToken | None = None


class Server:
    """An SMTP server with its security and login; shared by threads."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        security: Security,
        login: Login | None,
        authorities: str | None,
        http: Http,
    ) -> None:
        """*authorities*: PEM certificates to trust instead of the system's."""
        self.host = host
        self.port = port
        self.security = security
        self.login = login
        self.http = http
        self._tls = None if security == "none" else ssl.create_default_context(cadata=authorities)

    def send(self, content: bytes, *, sender: str, recipients: Sequence[str]) -> None:
        """Hand over a message with CRLF line ends, within the caller's deadline.

        Raises :class:`DeliveryError`.
        """
        with self._session() as session:
            self._address(session, sender, recipients, size=len(content))
            self._hand_over(session, content)

    def probe(self, *, sender: str, recipients: Sequence[str]) -> str:
        """Go as far as the addresses, send nothing, and say who signed in.

        Raises :class:`DeliveryError`.
        """
        with self._session() as session:
            self._address(session, sender, recipients, size=0)
            session.rset()
        who = f"signed in as {self.login.username}" if self.login else "without signing in"
        return f"{self.host}:{self.port}: {who}"

    @contextmanager
    def _session(self) -> Iterator[_Dialogue]:
        """Connect, secure and sign in; failures become the contract's errors."""
        session = _Dialogue(self, tls=self._tls)
        try:
            with self._told(session):
                session.start()
                yield session
            # The message is handed over: a farewell that fails changes nothing.
            with suppress(smtplib.SMTPException, OSError):
                session.putcmd("QUIT")
        finally:
            session.close()

    def _address(
        self, session: _Dialogue, sender: str, recipients: Sequence[str], *, size: int
    ) -> None:
        options = [f"SIZE={size}"] if size and session.has_extn("size") else []
        if not _is_good(reply := session.mail(sender, options)):
            raise self._turned_down(reply, f"sender {sender}")
        for recipient in recipients:
            if not _is_good(reply := session.rcpt(recipient)):
                raise self._turned_down(reply, f"recipient {recipient}")

    def _hand_over(self, session: _Dialogue, content: bytes) -> None:
        reply = session.content(content)
        # Without the server's words, which may quote the text.
        words = f"{self.host}: the message: {_coded(reply)}"
        if _is_lasting(reply):
            raise Refused(words, status=_status(reply))
        if _is_temporary(reply) or not session.is_sent:
            raise _not_now(reply, words)
        if not _is_good(reply):
            raise Ambiguous(words, status=_status(reply))

    def _turned_down(self, reply: Reply, what: str) -> DeliveryError:
        """Read a refusal that would meet every event."""
        words = f"{self.host}: {what}: {_coded(reply)} {_quoted(reply[1])}".rstrip()
        if not _is_lasting(reply):
            return _not_now(reply, words)
        kind = Refused if reply[0] == _TOO_LARGE else Unauthorized
        return kind(words, status=_status(reply))

    @contextmanager
    def _told(self, session: _Dialogue) -> Iterator[None]:
        """Turn errors of smtplib and sockets into the contract's."""
        try:
            yield
        except Blocked as error:
            raise Unauthorized(str(error)) from error
        except smtplib.SMTPAuthenticationError as error:
            # Without its cause: a server may quote what it was given.
            failure = self._sign_in_failed(error)
        except smtplib.SMTPNotSupportedError as error:
            raise Unauthorized(f"{self.host}: {error}") from error
        except (smtplib.SMTPException, OSError, binascii.Error) as error:
            if session.is_sent:
                words = f"{self.host}:{self.port}: sent, but no usable answer: {_reason(error)}"
                raise Ambiguous(words) from error
            if isinstance(error, smtplib.SMTPResponseException):
                reply = error.smtp_code, _bytes(error.smtp_error)
                raise self._turned_down(reply, "greeting") from error
            raise Transient(f"{self.host}:{self.port}: not reached: {_reason(error)}") from error
        else:
            return
        raise failure

    def _sign_in_failed(self, error: smtplib.SMTPAuthenticationError) -> DeliveryError:
        reply = error.smtp_code, _bytes(error.smtp_error)
        words = f"{self.host}: signing in: {_coded(reply)}"
        if not _is_lasting(reply):
            return _not_now(reply, words)
        return Unauthorized(words, status=_status(reply))


class _Dialogue(smtplib.SMTP):
    """An SMTP session over a guarded connection, each wait bounded by the whole call."""

    def __init__(self, server: Server, *, tls: ssl.SSLContext | None) -> None:
        # Without a host smtplib does not connect yet; with a name it looks ours up nowhere.
        super().__init__(local_hostname="localhost")
        self._host = server.host  # what a certificate is checked against after STARTTLS
        self._server = server
        self._tls = tls
        #: True as soon as the end of the content may have left.
        self.is_sent = False

    def start(self) -> None:
        """Connect, secure the connection, and sign in."""
        reply = self.connect(self._server.host, self._server.port)
        if not _is_good(reply):
            raise smtplib.SMTPConnectError(*reply)
        if self._server.security == "starttls":
            self.ehlo_or_helo_if_needed()
            self.starttls(context=self._tls)
        self.ehlo_or_helo_if_needed()
        if self._server.login:
            self._sign_in(self._server.login)

    def content(self, content: bytes) -> Reply:
        """Send the content; the server cannot take it before its last line is sent."""
        reply = self.docmd("DATA")
        if not 300 <= reply[0] < 400:
            return reply
        self.send(_LINE_START_DOT.sub(b"..", content.removesuffix(b"\r\n")) + b"\r\n")
        self.is_sent = True
        self.send(b".\r\n")
        return self.getreply()

    def getreply(self) -> Reply:
        if self.file is None and self.sock is not None:
            reader = _CappedReader(self.sock, limit=self._server.http.max_answer)
            self.file = io.BufferedReader(reader)
        # Some servers send a blank line first; smtplib would take it for a reply without a code.
        while self.file is not None and self.file.peek(1)[:1] in (b"\r", b"\n"):
            self.file.readline()
        return super().getreply()

    def auth(self, *how: Any, **more: Any) -> Reply:
        try:
            return super().auth(*how, **more)
        except smtplib.SMTPAuthenticationError as error:
            reply = error.smtp_code, _bytes(error.smtp_error)
            if not _is_good(reply):
                raise
            return 235, reply[1]  # the one code that smtplib takes for success

    def send(self, s: bytes | str) -> None:  # type: ignore[override]  # of buffers we send bytes
        call = current.get()
        if call is not None and self.sock is not None:
            self.sock.settimeout(call.remaining())
        super().send(s)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        guard = self._server.http
        opened = connect(
            host,
            port,
            addresses=guard.addresses,
            tls=self._tls is not None,
            timeout=guard.connect_timeout,
        )
        self.local_hostname = _literal(opened)
        if self._server.security != "tls":
            return opened
        assert self._tls is not None
        call = current.get()
        opened.settimeout(call.remaining() if call else guard.default_deadline)
        try:
            return self._tls.wrap_socket(opened, server_hostname=host)
        except BaseException:
            opened.close()
            raise

    def _sign_in(self, login: Login) -> None:
        known = {"XOAUTH2"} if login.token else {"CRAM-MD5", "PLAIN", "LOGIN"}
        offered = self.esmtp_features.get("auth", "").upper().split()
        if not known & set(offered):
            have = ", ".join(sorted(set(offered))) or "none"
            needed = " or ".join(sorted(known))
            raise smtplib.SMTPNotSupportedError(f"no way to sign in: needs {needed} (has: {have})")
        if login.token is None:
            self.login(login.username, login.password or "", initial_response_ok=True)
            return
        token = login.token.get()
        try:
            self._show(login.username, token)
        except smtplib.SMTPAuthenticationError:
            # It may have been revoked before its time.
            self._show(login.username, login.token.get(refused=token))

    def _show(self, username: str, token: str) -> None:
        """Sign in by a token, as Google and Microsoft have it (XOAUTH2)."""
        said = f"user={username}\1auth=Bearer {token}\1\1"
        # A challenge means failure, and wants an empty answer.
        self.auth("XOAUTH2", lambda challenge=None: "" if challenge else said)


class _CappedReader(DeadlineReader):
    """Reads up to a limit, because a reply may have any number of lines."""

    def __init__(self, sock: socket.socket, *, limit: int) -> None:
        super().__init__(sock)
        self._left = limit

    def readinto(self, buffer: Any) -> int | None:
        size = super().readinto(buffer)
        self._left -= size or 0
        if self._left < 0:
            raise ConnectionAbortedError("it says too much")
        return size


def _literal(connected: socket.socket) -> str:
    """Return our address literal, the name of a host without a public one (RFC 5321, 4.1.3)."""
    address = str(connected.getsockname()[0]).partition("%")[0]
    return f"[IPv6:{address}]" if ":" in address else f"[{address}]"


def _is_good(reply: Reply) -> bool:
    return 200 <= reply[0] < 300


def _is_lasting(reply: Reply) -> bool:
    return 500 <= reply[0] < 600


def _is_temporary(reply: Reply) -> bool:
    return 400 <= reply[0] < 500


def _not_now(reply: Reply, words: str) -> DeliveryError:
    if _TOO_FAST.search(reply[1]):
        return Throttled(words, status=_status(reply))
    return Transient(words, status=_status(reply))


def _status(reply: Reply) -> int | None:
    """Return the code, unless it is smtplib's -1 for an answer without one."""
    return reply[0] if reply[0] >= 100 else None


def _coded(reply: Reply) -> str:
    """Return the code and, if there is one, the enhanced code (RFC 3463)."""
    enhanced = _ENHANCED.search(reply[1])
    return f"{reply[0]} {enhanced[0].decode()}" if enhanced else str(reply[0])


def _quoted(said: bytes) -> str:
    """Return the beginning of what the server said, for a line of text."""
    words = _ENHANCED.sub(b"", said).decode("ascii", "replace")
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())[:200]


def _reason(error: BaseException) -> str:
    # smtplib wraps what the socket raised.
    cause = error if isinstance(error, OSError) and error.errno else error.__context__ or error
    if isinstance(cause, TimeoutError) or isinstance(error, TimeoutError):
        return "time-out"
    return failure_of(cause)


def _bytes(said: bytes | str) -> bytes:
    return said.encode("utf-8", "replace") if isinstance(said, str) else said
