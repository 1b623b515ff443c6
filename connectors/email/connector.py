"""A shared inbox: an e-mail per event, threaded by conversation, handed to an SMTP server.

Every attempt sends the same message, down to its Message-ID, so mail systems that recognise a
repeated message keep one. SMTP itself has no way to ask what has arrived.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Iterable
from email.errors import HeaderParseError
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from connectors.base import Connector, Disclosure, Event, Options, Preview, Receipt
from connectors.email.smtp import Login, Security, Server
from connectors.http import Http
from connectors.oauth import AccessToken, ClientCredentials
from connectors.templates import Template, given_away, render

PORTS: dict[Security, int] = {"starttls": 587, "tls": 465, "none": 25}

SUBJECT = 'SMS conversation with {{ customer | default("an unknown number") }}'
BODY = """\
{{ text }}

{{ title }}
From: {{ sender }}
To: {{ recipient }}
Time: {{ time }}
{% if keyword %}
Keyword: {{ keyword }}
{% endif %}
{% if sentiment %}
Sentiment: {{ sentiment }}
{% endif %}
{% if url %}
{{ url }}
{% endif %}
"""
#: Longest subject; longer ones end with an ellipsis.
LONGEST_SUBJECT = 250

_ADDRESS = re.compile(r"[!-~]+@[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,200}>")


def _address(text: str) -> str:
    """Check a mailbox: ``desk@example.com``, or ``"The desk" <desk@example.com>``."""
    found = _parsed(text)
    if len(found) != 1 or not _ADDRESS.fullmatch(found[0].addr_spec):
        raise ValueError(
            'write one address such as desk@example.com or "The desk <desk@example.com>", its '
            "address in ASCII"
        )
    return text


Mailbox = Annotated[str, AfterValidator(_address)]


class EmailOptions(Options):
    """Options of the connector ``email``."""

    host: str = Field(
        pattern=r"^[A-Za-z0-9.:-]+$", description="The SMTP server, such as smtp.example.com."
    )
    port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Its port; 0 stands for 587 with `starttls`, 465 with `tls`, 25 with `none`.",
    )
    security: Security = Field(
        default="starttls",
        description="`starttls`, `tls` from the first byte, or `none`, which only addresses in "
        "`outbound.allow` may have.",
    )
    ca: str | None = Field(
        default=None,
        description="PEM certificates to trust instead of the system's: `file:ca.pem`.",
    )
    username: str | None = Field(
        default=None, description="User name; without it nobody signs in."
    )
    password: SecretStr | None = Field(default=None, description="Its password.")
    oauth: ClientCredentials | None = Field(
        default=None,
        description="Instead of a password: `token_url`, `client_id`, `client_secret` and `scope` "
        "of an application that may send as `username`.",
    )
    from_: Mailbox = Field(alias="from", description="The sender's address.")
    to: tuple[Mailbox, ...] = Field(min_length=1, description="The shared inbox, or several.")
    cc: tuple[Mailbox, ...] = Field(default=(), description="Addresses that get a copy.")
    subject: Template = Field(
        default=Template(SUBJECT),
        description="Template of the subject; Gmail threads only messages with one subject.",
    )
    body: Template = Field(default=Template(BODY), description="Template of the text.")

    @field_validator("ca")
    @classmethod
    def _certificates(cls, pem: str | None) -> str | None:
        try:
            ssl.create_default_context(cadata=pem or None)
        except (ssl.SSLError, ValueError):
            raise ValueError(
                "no PEM certificates; write file:ca.pem, a file beside this one"
            ) from None
        return pem

    @model_validator(mode="after")
    def _sign_in_whole(self) -> EmailOptions:
        if self.password and self.oauth:
            raise ValueError("password or oauth, not both")
        if (self.username is None) != (self.password is None and self.oauth is None):
            raise ValueError("username and password (or oauth) belong together")
        given = (self.username or "") + (self.password.get_secret_value() if self.password else "")
        if not given.isascii() or not given.isprintable():
            raise ValueError("username and password: SMTP takes printable ASCII only")
        return self


class Email(Connector[EmailOptions]):
    """Sends an e-mail per event; see docs/email.md."""

    Options = EmailOptions
    #: Microsoft 365's limit for one mailbox; other servers take more.
    default_rate = "30/1m"
    default_concurrency = 3

    def __init__(self, options: EmailOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._sender = _only(_parsed(options.from_))
        self._recipients = [
            _only(_parsed(each)).addr_spec for each in dict.fromkeys((*options.to, *options.cc))
        ]
        oauth = options.oauth
        self._token = AccessToken(oauth.token_url, oauth.grant, http=http) if oauth else None
        self._server = Server(
            options.host,
            options.port or PORTS[options.security],
            security=options.security,
            login=self._login(),
            authorities=options.ca,
            http=http,
        )

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        before = _MESSAGE_ID.findall(thread or "")[:2]
        message = self._message(event, id=self._id(key), before=before)
        content = message.as_bytes()

        with self.http.within(deadline):
            self._server.send(content, sender=self._sender.addr_spec, recipients=self._recipients)

        own = str(message["Message-ID"])
        return Receipt(reference=own, thread=f"{before[0] if before else own} {own}")

    @classmethod
    def discloses(cls, options: EmailOptions) -> Disclosure:
        return Disclosure(
            to=(options.host, *options.to, *options.cc),
            what=given_away(options.subject, options.body),
        )

    def preview(self, event: Event, *, key: str) -> list[Preview]:
        message = self._message(event, id=self._id(key), before=[])
        shown = [name for name in ("From", "To", "Cc", "Subject", "Date") if name in message]
        head = "".join(f"{name}: {message[name]}\n" for name in shown)
        text = f"{head}\n{message.get_content()}"
        return [Preview(kind="mail", content=message.as_bytes().decode(), text=text)]

    def check(self) -> str:
        with self.http.within(self.http.default_deadline):
            who = self._server.probe(sender=self._sender.addr_spec, recipients=self._recipients)
        return f"{who}, from {self._sender.addr_spec} to {', '.join(self._recipients)}"

    def close(self) -> None:
        if self._token:
            self._token.close()

    def _login(self) -> Login | None:
        username, password = self.options.username, self.options.password
        if username is None:
            return None
        if password is None:
            return Login(username=username, token=self._token)
        return Login(username=username, password=password.get_secret_value())

    def _message(self, event: Event, *, id: str, before: list[str]) -> EmailMessage:
        """Write the message; *before*: the first and the last one of its conversation."""
        options = self.options
        subject = render(options.subject, event, field="subject")
        body = render(options.body, event, field="body")
        message = EmailMessage(policy=SMTP)
        message["From"] = options.from_
        message["To"] = ", ".join(options.to)
        if options.cc:
            message["Cc"] = ", ".join(options.cc)
        message["Subject"] = _line(subject)
        # The time of acceptance is the same at every attempt.
        message["Date"] = event.received_at
        message["Message-ID"] = id
        # A root of the whole conversation, which is no message, ties messages together even when
        # the relay no longer knows the one before.
        root = self._id(f"conversation {event.conversation}")
        message["References"] = " ".join(dict.fromkeys([root, *before]))
        if before:
            message["In-Reply-To"] = before[-1]
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(body, cte="quoted-printable" if body.isascii() else "base64")
        return message

    def _id(self, name: str) -> str:
        """Make a Message-ID (RFC 5322, 3.6.4) that depends on *name* alone."""
        digest = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
        return f"<{digest}.sms@{self._sender.domain}>"


def _parsed(text: str) -> tuple[Address, ...]:
    """Read a header of addresses; return nothing if it is malformed."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        return ()
    try:
        header = HeaderRegistry()("To", text)
    except (HeaderParseError, IndexError):
        return ()
    # The registry builds the header's class at run time.
    return () if header.defects else tuple(header.addresses)  # type: ignore[attr-defined]


def _only(addresses: Iterable[Address]) -> Address:
    (address,) = addresses
    return address


def _line(words: str) -> str:
    """Make one line, because a header ends with its line."""
    line = " ".join(words.split())
    return line if len(line) <= LONGEST_SUBJECT else f"{line[: LONGEST_SUBJECT - 1]}…"
