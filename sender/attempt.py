"""One try at one payload: where it went, when, and what came of it."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from sender.delivery import DEFAULT_TIMEOUT, Answer, deliver, request_headers
from sender.errors import SenderError
from sender.payload import CONTENT_TYPES, Payload
from sender.trust import PUBLIC, Trust

#: Longest wait before a retry, whatever the receiver asks for.
MAX_WAIT = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A place to post to, with its credentials: JSON is signed, forms have Basic auth."""

    url: str
    #: Where forms go instead, if they have an endpoint of their own.
    form_url: str | None = None
    secret: str | None = field(default=None, repr=False)
    #: ``user:password``
    basic: str | None = field(default=None, repr=False)
    timeout: float = DEFAULT_TIMEOUT
    trust: Trust = PUBLIC
    #: The name of the webhook profile, if it is one.
    profile: str | None = None

    def url_for(self, payload: Payload) -> str:
        """Return the URL that *payload* is posted to."""
        return self.form_url or self.url if payload.kind == "form" else self.url

    def headers_for(self, payload: Payload) -> dict[str, str]:
        """Return the headers that *payload* is posted with."""
        is_form = payload.kind == "form"
        own = {"Content-Type": CONTENT_TYPES[payload.kind]}
        if is_form and self.basic:
            own |= _basic_auth(self.basic)
        secret = None if is_form else self.secret
        return dict(request_headers(payload.body, secret=secret, headers=own))


@dataclass(frozen=True, kw_only=True, slots=True)
class Retries:
    """How failures are retried; by default not at all, since GoFax documents no retries."""

    #: Tries after the first.
    count: int = 0
    #: Seconds before the first retry; each further one waits twice as long.
    wait: float = 1.0

    def delay(self, attempt: Attempt) -> float | None:
        """Return the seconds from *attempt* to the next try, or None if there is none."""
        if attempt.number > self.count or not attempt.is_worth_a_retry:
            return None
        asked = attempt.retry_after or 0.0
        return float(min(MAX_WAIT, max(asked, self.wait * 2 ** (attempt.number - 1))))


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempt:
    """One post of *payload*, with its answer or error."""

    payload: Payload
    url: str
    at: datetime
    headers: Mapping[str, str]
    #: Number of the try, from 1.
    number: int = 1
    #: The name of the webhook profile that it went through.
    profile: str | None = None
    #: The log entry that this repeats.
    resend_of: int | None = None
    answer: Answer | None = None
    error: str | None = None

    @property
    def is_success(self) -> bool:
        """Whether it was answered 2xx."""
        return self.answer is not None and self.answer.is_success

    @property
    def is_worth_a_retry(self) -> bool:
        """Whether the same payload may do better later: no answer, 429, or 5xx."""
        return self.answer is None or self.answer.status == 429 or self.answer.status >= 500

    @property
    def retry_after(self) -> float | None:
        """The seconds that the receiver asks for, if it does."""
        asked = self.answer.headers.get("Retry-After", "") if self.answer else ""
        return float(asked) if asked.isascii() and asked.isdigit() else None


def attempt(
    payload: Payload, target: Target, *, number: int = 1, resend_of: int | None = None
) -> Attempt:
    """Post *payload* once; a failure is recorded, not raised."""
    at = datetime.now(UTC)
    url, headers = target.url_for(payload), target.headers_for(payload)
    answer = error = None
    try:
        answer = deliver(
            url, payload.body, headers=headers, timeout=target.timeout, trust=target.trust
        )
    except SenderError as failure:
        error = str(failure)
    return Attempt(
        payload=payload,
        url=url,
        at=at,
        headers=headers,
        number=number,
        profile=target.profile,
        resend_of=resend_of,
        answer=answer,
        error=error,
    )


def attempts(
    payload: Payload,
    target: Target,
    *,
    retries: Retries,
    resend_of: int | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Attempt]:
    """Post *payload* until it is answered well or no retry is left; yield each attempt."""
    for number in itertools.count(1):
        made = attempt(payload, target, number=number, resend_of=resend_of)
        yield made
        delay = retries.delay(made)
        if delay is None:
            return
        sleep(delay)


def _basic_auth(credentials: str) -> dict[str, str]:
    encoded = base64.b64encode(credentials.encode("utf-8", "surrogateescape"))
    return {"Authorization": f"Basic {encoded.decode('ascii')}"}
