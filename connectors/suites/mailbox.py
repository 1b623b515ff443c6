"""A real SMTP server with one mailbox that keeps a repeated message once."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import threading
from collections.abc import Callable
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as MAIL
from functools import lru_cache
from types import TracebackType
from typing import Any

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

#: Chooses the server's answer at ``MAIL``, ``RCPT`` or ``DATA``; None: as usual. Its arguments are
#: the stage, the address or content, and the server, whose connection it may end.
Verdict = Callable[[str, str, SMTP], str | None]


class Mailbox:
    """Listens on a free port of 127.0.0.1 until the end; a context manager."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        from_the_start: bool = False,
        login: tuple[str, str] | None = None,
        verdict: Verdict = lambda stage, said, server: None,
        **settings: Any,
    ) -> None:
        """*tls*: for STARTTLS, or *from_the_start*. *settings*: those of aiosmtpd's SMTP."""
        self._tls = tls
        self._from_the_start = from_the_start
        self._login = login
        self._verdict = verdict
        self._settings = settings
        #: Every content that was taken, repetitions included.
        self.taken: list[bytes] = []
        #: The envelopes' recipients.
        self.recipients: list[list[str]] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    @property
    def messages(self) -> list[EmailMessage]:
        """The messages in the mailbox: each Message-ID once, however often it came."""
        read = [_read(each) for each in list(self.taken)]
        return list({name: message for name, message in reversed(read)}.values())[::-1]

    def __enter__(self) -> Mailbox:
        # It logs every line that it reads.
        logging.getLogger("mail.log").setLevel(logging.CRITICAL)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        implicit = self._tls if self._from_the_start else None
        self._server = await self._loop.create_server(self._smtp, "127.0.0.1", 0, ssl=implicit)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._loop.shutdown_default_executor()

    def _smtp(self) -> SMTP:
        # aiosmtpd does not see TLS that was there before it.
        protected = self._tls is not None and not self._from_the_start
        offers: dict[str, Any] = {"tls_context": self._tls, "require_starttls": True}
        return SMTP(
            self,
            loop=self._loop,
            hostname="mail.test",
            auth_required=self._login is not None and protected,
            auth_require_tls=protected,
            authenticator=self._authenticate,
            **(offers if protected else {}),
            **self._settings,
        )

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, given: Any
    ) -> AuthResult:
        known = isinstance(given, LoginPassword) and self._login == (
            given.login.decode(),
            given.password.decode(),
        )
        return AuthResult(success=known, handled=False)

    async def auth_XOAUTH2(self, server: SMTP, args: list[str]) -> AuthResult:
        """Take the access token *login* names as its password."""
        said = base64.b64decode(args[1]).decode()
        known = self._login is not None and said == "user={}\1auth=Bearer {}\1\1".format(
            *self._login
        )
        if not known:
            # A challenge with the reason comes before the refusal.
            await server.challenge_auth('{"status": "401"}')
        return AuthResult(success=known, handled=False)

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self._verdict("MAIL", address, server) or "250 2.1.0 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self._verdict("RCPT", address, server) or "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        content = envelope.content or b""
        assert isinstance(content, bytes)
        if answer := self._verdict("DATA", content.decode("utf-8", "replace"), server):
            return answer
        self.taken.append(content)
        self.recipients.append(list(envelope.rcpt_tos))
        return self._verdict("TAKEN", "", server) or "250 2.0.0 OK"


# The suite asks for all messages after every delivery.
@lru_cache(maxsize=4096)
def _read(content: bytes) -> tuple[str, EmailMessage]:
    """Return a message with its Message-ID."""
    message = message_from_bytes(content, policy=MAIL)
    return str(message["Message-ID"]), message
