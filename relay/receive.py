"""The endpoints: check, read, verify, parse, route, accept, and only then answer 200."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from flask import Blueprint, Response, request
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from structlog.typing import FilteringBoundLogger

from connectors.base import Event
from relay.config.model import Config, Endpoint
from relay.ids import new_id
from relay.refused import Refusals
from relay.rules import payload, routing, sentiment, signature
from relay.rules.payload import Unreadable
from relay.rules.routing import Route
from relay.rules.sentiment import Judge
from relay.rules.units import RateLimit
from relay.store import Inbox, StoreUnavailable
from relay.store.values import Arrival, Request

CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
#: Headers that are never kept: credentials, and HTTP_PROXY, which a server that puts its own
#: environment into WSGI's would give us.
DROPPED = frozenset(
    {
        "HTTP_AUTHORIZATION",
        "HTTP_COOKIE",
        "HTTP_PROXY",
        "HTTP_PROXY_AUTHORIZATION",
        "HTTP_X_API_KEY",
    }
)
#: How much of a refused body is kept.
REFUSED_BODY = 4096
#: Seconds after which a sender may try again when the store is away.
RETRY_AFTER_STORE = 10


class Refusal(Exception):
    """The request is not accepted: what the caller is told, and what we know."""

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}
        self.body = body


#: What the caller is told; why exactly is in the request log.
TOLD = {
    400: "the body is not what this endpoint takes",
    401: "not authorized",
    408: "the body did not arrive whole",
    413: "the body is too long",
    415: "this content type or encoding is not taken here",
    429: "too many requests",
    503: "cannot be stored now; send it again",
}


def blueprint(
    config: Config, *, inbox: Inbox, refusals: Refusals, clock: Callable[[], datetime]
) -> Blueprint:
    """Make a view for each endpoint of *config*."""
    made = Blueprint("receive", __name__)
    rates = _Rates()
    judge = sentiment.vader() if config.sentiment else None
    for endpoint in config.endpoints:
        receiver = Receiver(
            endpoint=endpoint,
            routes=config.routes,
            max_body=config.server.max_body,
            rate_per_address=config.server.rate_per_address,
            dedupe_horizon=config.dedupe_horizon,
            inbox=inbox,
            refusals=refusals,
            rates=rates,
            judge=judge,
            secrets=tuple(s.get_secret_value().encode() for s in endpoint.signing_secrets),
            clock=clock,
            log=structlog.get_logger().bind(endpoint=endpoint.name),
        )
        made.add_url_rule(
            endpoint.path,
            endpoint=endpoint.path.replace(".", "_") or "root",
            view_func=receiver.receive,
            methods=["POST"],
            provide_automatic_options=False,
        )
    return made


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """One endpoint at work. It reads the WSGI environment itself: what it needs is not much."""

    endpoint: Endpoint
    routes: Sequence[Route]
    max_body: int
    rate_per_address: RateLimit | None
    dedupe_horizon: timedelta | None
    inbox: Inbox
    refusals: Refusals
    rates: _Rates
    judge: Judge | None
    secrets: Sequence[bytes]
    clock: Callable[[], datetime]
    log: FilteringBoundLogger

    def receive(self) -> Response:
        """Answer one request; 200 means that the event is on disk."""
        incoming = _Incoming(environ=request.environ, at=self.clock())
        started = time.monotonic()
        try:
            answer = self._accepted(incoming)
        except Refusal as refusal:
            return self._refused(incoming, refusal, started)
        self._log(incoming, 200, answer.status, started, event_id=answer.event_id)
        return _json(200, {"status": answer.status, "messageId": answer.message_id})

    def _accepted(self, incoming: _Incoming) -> _Answer:
        self._check_rate(incoming)
        self._check_head(incoming)
        raw = self._read_body(incoming)
        reason = self._check_genuine(incoming, raw)
        query = incoming.query if self._fields_in_url(incoming) else ""
        try:
            read = payload.read(raw, format=self.endpoint.format, query=query)
        except Unreadable as error:
            raise Refusal(400, str(error), body=raw) from error
        noted = self._noted(incoming, status=200, reason=reason, message_id=read.message_id)
        try:
            acceptance = self.inbox.accept(self._arrival(noted, read, raw, query))
        except StoreUnavailable as error:
            retry = {"Retry-After": str(RETRY_AFTER_STORE)}
            raise Refusal(503, f"store: {error}", headers=retry) from error
        return _Answer(acceptance.standing, acceptance.event_id, read.message_id)

    def _arrival(self, noted: Request, read: payload.Payload, raw: bytes, query: str) -> Arrival:
        endpoint = self.endpoint
        event = read.event(
            id=new_id("evt"), endpoint=endpoint.name, received_at=noted.at, judge=self.judge
        )
        key = payload.key(
            read, raw, endpoint=endpoint.name, dedupe_by=endpoint.dedupe_by, query=query
        )
        return Arrival(
            event=event,
            request=noted,
            raw=raw,
            query=query,
            format=endpoint.format,
            key=key,
            meaning=payload.meaning(read),
            match=routing.match(event, self.routes),
            standing="stale" if self._is_stale(event) else "accepted",
            on_duplicate=endpoint.on_duplicate,
        )

    def _is_stale(self, event: Event) -> bool:
        """Return whether *event* is so old that its key may have been forgotten."""
        if self.dedupe_horizon is None or event.occurred_at is None:
            return False
        return event.received_at - event.occurred_at > self.dedupe_horizon

    def _check_rate(self, incoming: _Incoming) -> None:
        for limit, who in (
            (self.rate_per_address, f"address {incoming.remote}"),
            (self.endpoint.rate, f"endpoint {self.endpoint.name}"),
        ):
            wait = self.rates.over(limit, who) if limit else 0
            if wait:
                retry = {"Retry-After": str(wait)}
                raise Refusal(429, f"{who}: more than {limit}", headers=retry)

    def _check_head(self, incoming: _Incoming) -> None:
        """Refuse what can be refused without reading the body."""
        wanted = CONTENT_TYPES[self.endpoint.format]
        if incoming.content_type != wanted and not self._fields_in_url(incoming):
            given = incoming.content_type[:80] or "missing"
            raise Refusal(415, f"content type {given}, not {wanted}")
        encoding = incoming.header("Content-Encoding") or "identity"
        if encoding.lower() != "identity":
            raise Refusal(415, f"content encoding {encoding[:40]}")
        if (incoming.content_length or 0) > self.max_body:
            raise Refusal(413, f"{incoming.content_length} bytes, more than {self.max_body}")
        signature_header = self.endpoint.signature.header
        if self.secrets and not incoming.header(signature_header):
            raise Refusal(401, f"no {signature_header} header")
        self._check_basic_auth()

    def _check_basic_auth(self) -> None:
        wanted = self.endpoint.basic_auth
        if wanted is None:
            return
        challenge = {"WWW-Authenticate": 'Basic realm="gofax-relay", charset="UTF-8"'}
        given = request.authorization
        if given is None or given.type != "basic":
            raise Refusal(401, "no Basic authentication", headers=challenge)
        # Both are compared in any case, so that the time tells nothing of the name.
        name = _same(given.username, wanted.username)
        password = _same(given.password, wanted.password.get_secret_value())
        if not (name and password):
            raise Refusal(401, "wrong name or password", headers=challenge)

    def _read_body(self, incoming: _Incoming) -> bytes:
        """Read the body up to the cap, however it is framed."""
        body = incoming.read(self.max_body + 1)
        if len(body) > self.max_body:
            raise Refusal(413, f"more than {self.max_body} bytes")
        announced = incoming.content_length
        if announced is not None and len(body) < announced:
            raise Refusal(408, f"{len(body)} of {announced} bytes came", body=body)
        return body

    def _check_genuine(self, incoming: _Incoming, raw: bytes) -> str:
        """Return why *raw* is genuine."""
        if not self.secrets:
            return "Basic authentication" if self.endpoint.basic_auth else "unsigned, as allowed"
        scheme = self.endpoint.signature
        header = incoming.header(scheme.header)
        verdict = signature.verify(raw, header, self.secrets, encoding=scheme.encoding)
        if not verdict.good:
            raise Refusal(401, f"signature {verdict.reason}", body=raw)
        return f"signature {verdict.reason}"

    def _fields_in_url(self, incoming: _Incoming) -> bool:
        """Return whether fields in the URL count: a signature would not cover them."""
        return self.endpoint.format == "form" and not self.secrets and bool(incoming.query)

    def _noted(
        self,
        incoming: _Incoming,
        *,
        status: int,
        reason: str,
        outcome: str = "",
        message_id: str | None = None,
        body: bytes | None = None,
    ) -> Request:
        return Request(
            id=incoming.id,
            at=incoming.at,
            endpoint=self.endpoint.name,
            method="POST",
            remote=incoming.remote,
            status=status,
            outcome=outcome,
            reason=reason,
            headers=incoming.kept_headers(),
            message_id=message_id,
            body=body,
        )

    def _refused(self, incoming: _Incoming, refusal: Refusal, started: float) -> Response:
        status, reason = refusal.status, refusal.reason
        body = refusal.body and refusal.body[:REFUSED_BODY]
        self.refusals.note(
            self._noted(incoming, status=status, reason=reason, outcome="refused", body=body)
        )
        self._log(incoming, status, "refused", started, reason=reason)
        answer = _json(status, {"error": TOLD[status]})
        answer.headers.update(refusal.headers)
        if not incoming.is_read:
            # The rest of the body is not worth waiting for.
            answer.headers["Connection"] = "close"
        return answer

    def _log(
        self, incoming: _Incoming, status: int, outcome: str, started: float, **fields: Any
    ) -> None:
        self.log.info(
            "request.received",
            request_id=incoming.id,
            remote=incoming.remote,
            status=status,
            outcome=outcome,
            ms=round((time.monotonic() - started) * 1000, 1),
            **fields,
        )


class _Incoming:
    """What an endpoint needs of a WSGI environment."""

    def __init__(self, *, environ: Mapping[str, Any], at: datetime) -> None:
        self._environ = environ
        self.at = at
        self.id = new_id("req")
        self.is_read = False
        self.remote: str | None = environ.get("REMOTE_ADDR")
        self.query: str = environ.get("QUERY_STRING", "")
        self.content_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        length = environ.get("CONTENT_LENGTH") or ""
        #: None if the body is chunked.
        self.content_length = int(length) if length.isascii() and length.isdigit() else None

    def header(self, name: str) -> str | None:
        return self._environ.get("HTTP_" + name.upper().replace("-", "_"))

    def read(self, limit: int) -> bytes:
        """Read up to *limit* bytes; fewer only if no more come."""
        stream = self._environ["wsgi.input"]
        body: bytes = stream.read(limit)
        while body and len(body) < limit and (piece := stream.read(limit - len(body))):
            body += piece
        self.is_read = len(body) < limit
        return body

    def kept_headers(self) -> dict[str, str]:
        """Return names and values, credentials removed."""
        headers = {
            key[5:].replace("_", "-").lower(): payload.clean(value)
            for key, value in self._environ.items()
            if key.startswith("HTTP_") and key not in DROPPED
        }
        return headers | {"content-type": self._environ.get("CONTENT_TYPE", "")}


@dataclass(frozen=True, slots=True)
class _Answer:
    status: str
    event_id: str
    message_id: str | None


class _Rates:
    """Moving windows over requests, in memory: a restart forgives."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def over(self, limit: RateLimit, who: str) -> int:
        """Count one request of *who*; return the seconds to wait if it is one too many."""
        item = RateLimitItemPerSecond(limit.count, max(1, round(limit.period.total_seconds())))
        if self._limiter.hit(item, who):
            return 0
        return max(1, round(self._limiter.get_window_stats(item, who).reset_time - time.time()))


def _same(given: str | None, wanted: str) -> bool:
    return hmac.compare_digest((given or "").encode("utf-8", "replace"), wanted.encode())


def _json(status: int, answer: dict[str, Any]) -> Response:
    return Response(json.dumps(answer) + "\n", status, content_type="application/json")
