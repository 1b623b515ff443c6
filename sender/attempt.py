"""One try at one payload: where it went, when, and what came of it."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sender.delivery import DEFAULT_TIMEOUT, Answer, deliver
from sender.errors import SenderError
from sender.payload import CONTENT_TYPES, Payload


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where payloads go, and with what credentials: JSON is signed, forms have Basic auth."""

    url: str
    #: Where forms go instead, if they have an endpoint of their own.
    form_url: str | None = None
    secret: str | None = field(default=None, repr=False)
    #: ``user:password``
    basic: str | None = field(default=None, repr=False)
    timeout: float = DEFAULT_TIMEOUT

    def url_for(self, payload: Payload) -> str:
        """Return the URL that *payload* is posted to."""
        return self.form_url or self.url if payload.kind == "form" else self.url


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """What came of posting *payload* once: an answer, or an error."""

    payload: Payload
    url: str
    at: datetime
    answer: Answer | None = None
    error: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether it was answered 2xx."""
        return self.answer is not None and self.answer.is_success


def attempt(payload: Payload, target: Target) -> Attempt:
    """Post *payload* once; a failure is recorded, not raised."""
    at = datetime.now(UTC)
    url = target.url_for(payload)
    is_form = payload.kind == "form"
    try:
        answer = deliver(
            url,
            payload.body,
            secret=None if is_form else target.secret,
            headers={"Content-Type": CONTENT_TYPES[payload.kind]}
            | (_basic_auth(target.basic) if is_form and target.basic else {}),
            timeout=target.timeout,
        )
    except SenderError as error:
        return Attempt(payload=payload, url=url, at=at, error=str(error))
    return Attempt(payload=payload, url=url, at=at, answer=answer)


def _basic_auth(credentials: str) -> dict[str, str]:
    encoded = base64.b64encode(credentials.encode("utf-8", "surrogateescape"))
    return {"Authorization": f"Basic {encoded.decode('ascii')}"}
