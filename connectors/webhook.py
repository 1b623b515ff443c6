"""Signed POSTs to any receiver: approval flows, Power Automate, n8n, Zapier.

Signatures follow Standard Webhooks 1.0.0. ``webhook-id`` is the same at every attempt, so a
receiver that remembers ids acts once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
import re
import time
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

import requests
from pydantic import AfterValidator, Field, SecretStr

from connectors import plain
from connectors.base import (
    Connector,
    Disclosure,
    Event,
    Options,
    Preview,
    Receipt,
    Refused,
    Unauthorized,
)
from connectors.filters import in_json
from connectors.http import Http, error_for, with_body
from connectors.templates import WHOLE, Escape, Template, given_away, render

#: Bytes of a secret by the standard.
SHORTEST, LONGEST = 24, 64
#: The address names the receiver and nothing of the event, so these hold for every event.
GONE = (404, 410)

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: Headers that the relay writes itself.
_OURS = re.compile(
    r"content-(length|type|encoding)|host|connection|transfer-encoding|webhook-.*|expect|te"
)


def _address(url: SecretStr) -> SecretStr:
    """Check an address; the error never repeats it."""
    given = url.get_secret_value()
    if not re.fullmatch(r"[!-~]+", given):
        raise ValueError(
            "contains spaces, control characters or letters outside ASCII; copy it again"
        )
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("must be an http(s) address")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user name; write a header: {Authorization: …}")
    return url


def _signing(secret: SecretStr) -> SecretStr:
    try:
        size = len(_key(secret))
    except ValueError:
        size = 0
    if not SHORTEST <= size <= LONGEST:
        raise ValueError(
            f"write whsec_ and {SHORTEST} to {LONGEST} random bytes in base64, such as "
            'echo "whsec_$(openssl rand -base64 32)" makes'
        )
    return secret


def _headers(headers: Mapping[str, SecretStr]) -> Mapping[str, SecretStr]:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name):
            raise ValueError(f"{name[:40]!r} is no name of a header")
        if _OURS.fullmatch(name.lower()):
            raise ValueError(f"{name} is written by the relay")
        if not re.fullmatch(r"[!-~]([ -~]*[!-~])?", value.get_secret_value()):
            raise ValueError(f"{name}: values are printable ASCII, not empty")
    return headers


Address = Annotated[SecretStr, AfterValidator(_address)]
SigningSecret = Annotated[SecretStr, AfterValidator(_signing)]


class WebhookOptions(Options):
    """Options of the connector ``webhook``."""

    url: Address = Field(
        description="Where to post, whole and unchanged; many such addresses are credentials."
    )
    method: Literal["POST", "PUT"] = Field(default="POST", description="`POST` or `PUT`.")
    secrets: tuple[SigningSecret, ...] = Field(
        default=(),
        description="Secrets `whsec_…`; each adds a signature, so that they can be changed one "
        "side at a time. Nothing is signed without.",
    )
    headers: Annotated[Mapping[str, SecretStr], AfterValidator(_headers)] = Field(
        default={}, description="Further headers; their values are secrets."
    )
    body: Template | None = Field(
        default=None, description="Template of the body; the event as JSON if not given."
    )
    content_type: str = Field(
        default="application/json",
        pattern=r"^[a-z]+/[a-z0-9.+-]+(; ?charset=utf-8)?$",
        description="What the body is; values in the template are escaped for it.",
    )


class Webhook(Connector[WebhookOptions]):
    """Posts each event to one address; see docs/webhook.md."""

    Options = WebhookOptions
    #: Below Zapier's limit for one address (20,000 in 5 min, 30/s).
    default_rate = "20/1s"
    default_concurrency = 8

    def __init__(self, options: WebhookOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._session = http.session()

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        id = f"msg_{key}"
        request = self._request(self._body(event), id=id)

        with self.http.within(deadline):
            response = self._session.send(request)

        status = response.status_code
        if status in GONE:
            raise Unauthorized(f"answered {status}: nobody takes events there", status=status)
        if error := error_for(status, headers=response.headers):
            raise error
        return Receipt(reference=id)

    @classmethod
    def discloses(cls, options: WebhookOptions) -> Disclosure:
        host = urlsplit(options.url.get_secret_value()).hostname or ""
        return Disclosure(to=(host,), what=given_away(options.body) if options.body else WHOLE)

    def preview(self, event: Event, *, key: str) -> list[Preview]:
        return [Preview(kind="body", content=self._body(event).decode())]

    def check(self) -> str:
        host = urlsplit(self.options.url.get_secret_value()).hostname
        signed = "signed" if self.options.secrets else "unsigned"
        return (
            f"{host}: nothing was posted, for a webhook has no harmless call; events will be "
            f"{signed}; send a test event"
        )

    def close(self) -> None:
        self._session.close()

    def _request(self, body: bytes, *, id: str) -> requests.PreparedRequest:
        return with_body(self._same_for_all, body, self._signed(body, id=id))

    @cached_property
    def _same_for_all(self) -> requests.PreparedRequest:
        """The common part of all requests."""
        url = self.options.url.get_secret_value()
        given = {name: value.get_secret_value() for name, value in self.options.headers.items()}
        ours = {"Content-Type": self.options.content_type}
        request = self._session.prepare_request(
            requests.Request(self.options.method, url, headers={**given, **ours})
        )
        # Preparing normalises the address, but the address may be signed.
        request.url = url
        return request

    def _signed(self, body: bytes, *, id: str) -> dict[str, str]:
        timestamp = str(int(time.time()))
        content = f"{id}.{timestamp}.".encode() + body
        headers = {"webhook-id": id, "webhook-timestamp": timestamp}
        if self.options.secrets:
            signatures = [_signature(_key(secret), content) for secret in self.options.secrets]
            headers["webhook-signature"] = " ".join(signatures)
        return headers

    def _body(self, event: Event) -> bytes:
        template, kind = self.options.body, self.options.content_type
        if template is None:
            return default_body(event)
        body = render(template, event, field="body", escape=_escape(kind))
        if _is_json(kind) and (fault := _json_fault(body)):
            raise Refused(
                f"body: the template makes no JSON for event {event.id}: {fault}; write "
                "{{ … | tojson }} for what is no text"
            )
        return body.encode()


def default_body(event: Event) -> bytes:
    """Write the default body: the standard's envelope around the event."""
    moment = event.occurred_at or event.received_at
    words = {"title": plain.title(event), "text": plain.spoken(event)}
    return plain.encode(
        {
            "type": event.type,
            "timestamp": moment.isoformat(),
            "data": plain.values(event) | words,
        }
    )


def _key(secret: SecretStr) -> bytes:
    """Return the bytes of a secret; none if it is malformed."""
    prefix, _, encoded = secret.get_secret_value().partition("_")
    if prefix != "whsec":
        return b""
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except ValueError:
        return b""


def _signature(key: bytes, content: bytes) -> str:
    digest = hmac.digest(key, content, hashlib.sha256)
    return f"v1,{base64.b64encode(digest).decode()}"


def _escape(content_type: str) -> Escape | None:
    """Return the escape that keeps customers' words inert in a body of this type."""
    if _is_json(content_type):
        return in_json
    if "form-urlencoded" in content_type:
        return lambda words: quote(words, safe="")
    return html.escape if "html" in content_type or "xml" in content_type else None


def _is_json(content_type: str) -> bool:
    return content_type.partition(";")[0].endswith(("/json", "+json"))


def _json_fault(body: str) -> str | None:
    try:
        json.loads(body, parse_constant=_no_json)
    except json.JSONDecodeError as error:
        return f"{error.msg.lower()} in line {error.lineno}"
    except (ValueError, RecursionError):
        return "a number or a nesting that JSON does not have"
    return None


def _no_json(name: str) -> Any:
    raise ValueError(name)
