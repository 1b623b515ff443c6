"""The endpoints: check, read, verify, parse, route, accept, and only then answer 200."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from flask import Blueprint, Response, request
from limits import RateLimitItemPerSecond
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

from relay import payload, routing, signature
from relay.config import Config, Endpoint
from relay.ids import new_id
from relay.payload import Unreadable
from relay.refusals import Refusals
from relay.routing import Route
from relay.store import Inbox, StoreUnavailable
from relay.store.records import Arrival, Request
from relay.units import RateLimit

log = structlog.get_logger()

CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
#: Headers that hold credentials: never kept.
CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
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


def blueprint(config: Config, *, inbox: Inbox, refusals: Refusals) -> Blueprint:
    """Make a view for each endpoint of *config*."""
    made = Blueprint("receive", __name__)
    rates = _Rates()
    for endpoint in config.endpoints:
        receiver = Receiver(
            endpoint=endpoint,
            routes=config.routes,
            max_body=config.server.max_body,
            rate_per_address=config.server.rate_per_address,
            inbox=inbox,
            refusals=refusals,
            rates=rates,
            secrets=tuple(s.get_secret_value().encode() for s in endpoint.signing_secrets),
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
    """One endpoint at work."""

    endpoint: Endpoint
    routes: Sequence[Route]
    max_body: int
    rate_per_address: RateLimit | None
    inbox: Inbox
    refusals: Refusals
    rates: _Rates
    secrets: Sequence[bytes]

    def receive(self) -> Response:
        """Answer one request; 200 means that the event is on disk."""
        started = time.monotonic()
        noted = self._noted()
        try:
            acceptance = self._accepted(noted)
        except Refusal as refusal:
            return self._refused(noted, refusal, started)
        _log(noted, 200, acceptance.status, started, event_id=acceptance.event_id)
        answer = {"status": acceptance.status, "messageId": acceptance.message_id}
        return _json(200, answer)

    def _accepted(self, noted: Request) -> _Answer:
        self._check_rate(noted)
        self._check_head()
        raw = self._read_body()
        reason = self._check_genuine(raw)
        query = self._query()
        try:
            read = payload.read(raw, format=self.endpoint.format, query=query)
        except Unreadable as error:
            raise Refusal(400, str(error), body=raw) from error
        arrival = self._arrival(replace(noted, reason=reason), read, raw, query)
        try:
            acceptance = self.inbox.accept(arrival)
        except StoreUnavailable as error:
            retry = {"Retry-After": str(RETRY_AFTER_STORE)}
            raise Refusal(503, f"store: {error}", headers=retry) from error
        return _Answer(acceptance.status, acceptance.event_id, read.message_id)

    def _arrival(self, noted: Request, read: payload.Payload, raw: bytes, query: str) -> Arrival:
        event = read.event(id=new_id("evt"), endpoint=self.endpoint.name, received_at=noted.at)
        return Arrival(
            event=event,
            request=replace(noted, message_id=read.message_id),
            raw=raw,
            query=query,
            format=self.endpoint.format,
            key=payload.key(
                read,
                raw,
                endpoint=self.endpoint.name,
                dedupe_by=self.endpoint.dedupe_by,
                query=query,
            ),
            meaning=payload.meaning(read),
            match=routing.match(event, self.routes),
            on_duplicate=self.endpoint.on_duplicate,
        )

    def _check_rate(self, noted: Request) -> None:
        for limit, who in (
            (self.rate_per_address, f"address {noted.remote}"),
            (self.endpoint.rate, f"endpoint {self.endpoint.name}"),
        ):
            wait = self.rates.over(limit, who) if limit else 0
            if wait:
                retry = {"Retry-After": str(wait)}
                raise Refusal(429, f"{who}: more than {limit}", headers=retry)

    def _check_head(self) -> None:
        """Refuse what can be refused without reading the body."""
        wanted = CONTENT_TYPES[self.endpoint.format]
        if request.mimetype != wanted and not self._fields_in_url():
            raise Refusal(415, f"content type {request.mimetype or 'missing'}, not {wanted}")
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise Refusal(415, f"content encoding {encoding[:40]}")
        if (request.content_length or 0) > self.max_body:
            raise Refusal(413, f"{request.content_length} bytes, more than {self.max_body}")
        if self.secrets and not request.headers.get(self.endpoint.signature.header):
            raise Refusal(401, f"no {self.endpoint.signature.header} header")
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

    def _read_body(self) -> bytes:
        """Read the body up to the cap, however it is framed."""
        announced = request.content_length
        stream = request.environ["wsgi.input"]
        body = bytearray()
        while len(body) <= self.max_body:
            piece = stream.read(self.max_body + 1 - len(body))
            if not piece:
                break
            body += piece
        if len(body) > self.max_body:
            raise Refusal(413, f"more than {self.max_body} bytes")
        if announced is not None and len(body) < announced:
            reason = f"{len(body)} of {announced} bytes came"
            raise Refusal(408, reason, body=bytes(body))
        return bytes(body)

    def _check_genuine(self, raw: bytes) -> str:
        """Return why *raw* is genuine."""
        if not self.secrets:
            return "Basic authentication" if self.endpoint.basic_auth else "unsigned, as allowed"
        header = request.headers.get(self.endpoint.signature.header)
        encoding = self.endpoint.signature.encoding
        verdict = signature.verify(raw, header, self.secrets, encoding=encoding)
        if not verdict.good:
            raise Refusal(401, f"signature: {verdict.reason}", body=raw)
        return f"signature {verdict.reason}"

    def _query(self) -> str:
        """Return the query string where its fields count: a signature does not cover it."""
        return request.query_string.decode("latin-1") if self._fields_in_url() else ""

    def _fields_in_url(self) -> bool:
        return self.endpoint.format == "form" and not self.secrets and bool(request.query_string)

    def _noted(self) -> Request:
        return Request(
            id=new_id("req"),
            at=datetime.now(UTC),
            endpoint=self.endpoint.name,
            method=request.method,
            remote=request.remote_addr,
            status=200,
            outcome="",
            reason="",
            headers=_kept_headers(request.environ),
        )

    def _refused(self, noted: Request, refusal: Refusal, started: float) -> Response:
        body = refusal.body and refusal.body[:REFUSED_BODY]
        self.refusals.note(
            replace(
                noted,
                status=refusal.status,
                outcome="refused",
                reason=refusal.reason,
                body=body,
            )
        )
        _log(noted, refusal.status, "refused", started, reason=refusal.reason)
        answer = _json(refusal.status, {"error": TOLD[refusal.status]})
        answer.headers.update(refusal.headers)
        if not _is_read(request.environ, refusal):
            # The rest of the body is not worth waiting for.
            answer.headers["Connection"] = "close"
        return answer


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


def _is_read(environ: dict[str, Any], refusal: Refusal) -> bool:
    return refusal.body is not None or environ.get("CONTENT_LENGTH") in (None, "", "0")


def _same(given: str | None, wanted: str) -> bool:
    return hmac.compare_digest((given or "").encode("utf-8", "replace"), wanted.encode())


def _kept_headers(environ: dict[str, Any]) -> dict[str, str]:
    names = {
        key: key.removeprefix("HTTP_").replace("_", "-").lower()
        for key in environ
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    }
    return {
        name: payload.clean(environ[key]) for key, name in names.items() if name not in CREDENTIALS
    }


def _json(status: int, answer: dict[str, Any]) -> Response:
    return Response(json.dumps(answer) + "\n", status, mimetype="application/json")


def _log(noted: Request, status: int, outcome: str, started: float, **fields: Any) -> None:
    log.info(
        "request.received",
        request_id=noted.id,
        endpoint=noted.endpoint,
        remote=noted.remote,
        status=status,
        outcome=outcome,
        ms=round((time.monotonic() - started) * 1000, 1),
        **fields,
    )
