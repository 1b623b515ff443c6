"""The endpoints: check, read, verify, parse, route, accept, and only then answer 200."""

from __future__ import annotations

import hmac
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import structlog
from flask import Blueprint, Response, request
from structlog.typing import FilteringBoundLogger

from relay.callers import Callers, Rates, TooMany
from relay.config.endpoints import DEFAULT_SCHEME, Endpoint
from relay.config.model import Config
from relay.intake import Intake, NotGenuine, SeenProbes, charset_of
from relay.refused import Refusals
from relay.rules import addresses, headers, paths, payload, scheme, sentiment
from relay.rules.payload import Unreadable
from relay.rules.probe import Probe
from relay.rules.told import TOLD
from relay.rules.units import RateLimit
from relay.store import Inbox, RowRefused, StoreUnavailable
from relay.store.ids import new_id
from relay.store.refused import NEVER_ADMITTED
from relay.store.values import Arrival, Request
from relay.telling.metrics import Metrics
from relay.telling.watch import OldSecrets

CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
#: Labels that say JSON too.
JSON_LIKE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json|text/json")
LOOPBACK = ("127.0.0.0/8", "::1/128")
#: How much of a refused body is kept.
REFUSED_BODY = 4096
#: Seconds after which a sender may try again when the store is away.
RETRY_AFTER_STORE = 10
#: Seconds after which a sender may try again whose other requests are still being read.
RETRY_AFTER_READ = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Accepted:
    """The answer to a request that the store took: its event is on disk."""

    #: The standing of the event: accepted, duplicate, conflict or stale.
    outcome: str
    event_id: str
    message_id: str | None
    status: int = 200

    @property
    def logged(self) -> dict[str, str | None]:
        return {"event_id": self.event_id, "message_id": self.message_id}

    def response(self, *, close: bool) -> Response:
        return _json(200, {"status": self.outcome, "messageId": self.message_id})


@dataclass(frozen=True, kw_only=True, slots=True)
class Probed:
    """The answer to a probe: an event could be written now, and none was."""

    request_id: str
    outcome: str = "probe"
    status: int = 200

    @property
    def logged(self) -> dict[str, str]:
        return {}

    def response(self, *, close: bool) -> Response:
        return _json(200, {"status": self.outcome, "request": self.request_id})


class Refusal(Exception):
    """The answer to a request that is not accepted; *reason* is for the request log alone."""

    outcome = "refused"

    def __init__(
        self,
        status: int,
        reason: str,
        *,
        headers: Mapping[str, str] | None = None,
        is_early: bool = False,
    ) -> None:
        """*is_early*: who calls is refused, whatever it brings: nothing of that is looked at."""
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers or {}
        self.is_early = is_early

    @property
    def logged(self) -> dict[str, str]:
        return {"reason": self.reason}

    def response(self, *, close: bool) -> Response:
        """Return it for the caller; *close*: the rest of the body is not worth waiting for."""
        answer = _json(self.status, {"error": TOLD[self.status]})
        answer.headers.update(self.headers)
        if close:
            answer.headers["Connection"] = "close"
        return answer


def blueprint(
    config: Config,
    *,
    inbox: Inbox,
    refusals: Refusals,
    callers: Callers,
    rates: Rates,
    clock: Callable[[], datetime],
    metrics: Metrics,
    old_secrets: OldSecrets,
) -> Blueprint:
    """Make a view for each endpoint of *config*."""
    made = Blueprint("receive", __name__)
    probes = SeenProbes()
    judge = sentiment.vader() if config.sentiment else None
    for endpoint in config.endpoints:
        receiver = Receiver(
            endpoint=endpoint,
            intake=Intake.of(config, endpoint, judge=judge),
            max_body=config.server.max_body,
            trusted_proxies=config.server.trusted_proxies,
            rate_per_address=config.server.rate_per_address,
            inbox=inbox,
            refusals=refusals,
            rates=rates,
            probes=probes,
            callers=callers,
            clock=clock,
            metrics=metrics,
            old_secrets=old_secrets,
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
    intake: Intake
    max_body: int
    trusted_proxies: int
    rate_per_address: RateLimit | None
    inbox: Inbox
    refusals: Refusals
    rates: Rates
    probes: SeenProbes
    callers: Callers
    clock: Callable[[], datetime]
    metrics: Metrics
    old_secrets: OldSecrets
    log: FilteringBoundLogger

    def receive(self) -> Response:
        """Answer one request; 200 means that the event is on disk."""
        with self.metrics.serving:
            started = time.monotonic()
            call = Call(
                request.environ,
                signature_header=self.intake.scheme.header or "",
                proxies=self.trusted_proxies,
                at=self.clock(),
            )
            answer: Accepted | Probed | Refusal
            is_logged = True
            try:
                answer = self._take(call)
            except Refusal as refusal:
                answer, is_logged = refusal, self._note(call, refusal)
            seconds = time.monotonic() - started
            self.metrics.answered(self.endpoint.name, answer.status, answer.outcome, seconds)
            if is_logged:
                self.log.info(
                    "request.received",
                    request_id=call.id,
                    remote=call.remote,
                    status=answer.status,
                    outcome=answer.outcome,
                    ms=round(seconds * 1000, 1),
                    **answer.logged,
                )
            return answer.response(close=not call.is_read)

    def _take(self, call: Call) -> Accepted | Probed:
        """Take what *call* brings, one step after the other. Raises :class:`Refusal`."""
        self._check_caller(call)
        self._check_rate()
        self._check_head(call)
        raw = self._read_body(call)
        if found := self._probe(call, raw):
            return self._take_probe(call, *found)
        reason = self._check_genuine(call, raw)
        return self._accept(self._arrival(call, raw, reason=reason))

    def _note(self, call: Call, refusal: Refusal) -> bool:
        """Have a refused request kept; return whether it gets a log line of its own."""
        what = {} if refusal.is_early else self._kept(call, refusal)
        headers = {} if refusal.is_early else call.headers
        noted = self._noted(
            call, status=refusal.status, outcome="refused", reason=refusal.reason,
            headers=headers, **what,
        )  # fmt: skip
        self.refusals.note(noted)
        return self.refusals.is_logged(noted)

    def _noted(self, call: Call, **what: Any) -> Request:
        return Request(
            id=call.id,
            at=call.at,
            endpoint=self.endpoint.name,
            method="POST",
            remote=call.remote,
            **what,
        )

    def _check_caller(self, call: Call) -> None:
        """Refuse who may not call, or calls too often, before anything else is looked at."""
        if refusal := too_often(self.rates, self.rate_per_address, call.remote):
            raise refusal
        networks = self.endpoint.allow_from
        if networks is not None and not addresses.is_within(call.remote, networks):
            reason = f"{call.remote or 'no address'} is in none of the networks of allow_from"
            raise Refusal(403, reason, is_early=True)

    def _check_rate(self) -> None:
        who, limit = f"endpoint {self.endpoint.name}", self.endpoint.rate
        if limit and (wait := self.rates.over(limit, who)):
            retry = {"Retry-After": str(wait)}
            raise Refusal(429, f"{who}: more than {limit}", headers=retry)

    def _check_head(self, call: Call) -> None:
        """Refuse what can be refused without reading the body."""
        keys, scheme = self.intake.keys, self.intake.scheme
        # Whether a field of the body has a signature is known when it was read.
        signed = bool(keys) and (scheme.header is None or bool(call.header(scheme.header)))
        # A label alone refuses nothing that a signature proves genuine.
        if not (signed or self._is_labelled(call) or self._fields_in_url(call)):
            given = call.content_type[:80] or "missing"
            wanted = CONTENT_TYPES[self.endpoint.format]
            raise Refusal(415, f"content type {given}, not {wanted}")
        encoding = call.header("Content-Encoding") or "identity"
        if encoding.lower() != "identity":
            raise Refusal(415, f"content encoding {encoding[:40]}")
        if (call.content_length or 0) > self.max_body:
            raise Refusal(413, f"{call.content_length} bytes, more than {self.max_body}")
        if keys and not signed:
            raise Refusal(401, f"no {scheme.place}")
        if not keys and call.is_chunked:
            # The server passes a chunked body that was cut off for a whole one.
            raise Refusal(411, "chunked, and no signature to tell whether it is whole")
        self._check_basic_auth()

    def _is_labelled(self, call: Call) -> bool:
        if self.endpoint.format == "json":
            return is_json(call.content_type)
        return call.content_type == CONTENT_TYPES["form"]

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

    def _read_body(self, call: Call) -> bytes:
        """Read the body up to the cap, however it is framed."""
        try:
            with self.callers.reading(addresses.holder(call.remote)):
                body = call.read(self.max_body + 1)
        except TooMany as error:
            retry = {"Retry-After": str(RETRY_AFTER_READ)}
            raise Refusal(429, str(error), headers=retry) from error
        if len(body) > self.max_body:
            raise Refusal(413, f"more than {self.max_body} bytes")
        announced = call.content_length
        if announced is not None and len(body) < announced:
            raise Refusal(408, f"{len(body)} of {announced} bytes came")
        return body

    def _check_genuine(self, call: Call, raw: bytes) -> str:
        """Return why *raw* is genuine."""
        if not self.intake.keys:
            return "Basic authentication" if self.endpoint.basic_auth else "unsigned, as allowed"
        try:
            found = self.intake.verify(call.header, raw, now=call.at)
        except NotGenuine as error:
            raise Refusal(401, str(error)) from error
        used = self.intake.keys[found.secret or 0]
        if found.secret or used.ends_soon(call.at):
            self.old_secrets.note(self.endpoint.name, used.key)
        return found.reason

    def _probe(self, call: Call, raw: bytes) -> tuple[Probe, str] | None:
        """Return the probe of ours that *raw* is, with the reason; None if it is none."""
        try:
            found = self.intake.probe(
                call.header, raw, now=call.at, otherwise=lambda: self.inbox.secret
            )
            if found is not None:
                self.probes.take(found[0], now=call.at)
        except NotGenuine as error:
            raise Refusal(401, str(error)) from error
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        return found

    def _take_probe(self, call: Call, probe: Probe, reason: str) -> Probed:
        """Note a probe, by its own id; an event that came in its place could have been written."""
        try:
            self.inbox.probe()
        except StoreUnavailable as error:
            raise _unavailable(error) from error
        call.id = probe.id
        headers = call.headers
        self.refusals.note(
            self._noted(call, status=200, outcome="probe", reason=reason, headers=headers)
        )
        return Probed(request_id=call.id)

    def _fields_in_url(self, call: Call) -> bool:
        """Return whether fields in the URL count: a signature would not cover them."""
        return self.endpoint.format == "form" and not self.intake.keys and bool(call.query)

    def _arrival(self, call: Call, raw: bytes, *, reason: str) -> Arrival:
        noted = self._noted(call, status=200, reason=reason, headers=call.headers)
        query = call.query if self._fields_in_url(call) else ""
        try:
            return self.intake.arrival(noted, raw, query=query, charset=call.charset)
        except Unreadable as error:
            raise Refusal(400, str(error)) from error

    def _kept(self, call: Call, refusal: Refusal) -> dict[str, Any]:
        """Return what is kept of a refused request's body: all of it, if it carries a signature.

        What was refused by its head is read now, if it may carry one: a person can let it in.
        """
        if not call.has_body and call.may_be_signed and refusal.status not in NEVER_ADMITTED:
            with suppress(Refusal):
                self._read_body(call)
        return kept(call, status=refusal.status)

    def _accept(self, arrival: Arrival) -> Accepted:
        try:
            acceptance = self.inbox.accept(arrival)
        except (StoreUnavailable, RowRefused) as error:
            raise _unavailable(error) from error
        return Accepted(
            outcome=acceptance.standing,
            event_id=acceptance.event_id,
            message_id=arrival.event.message_id,
        )


@dataclass(frozen=True, kw_only=True)
class Strays:
    """Notes calls that reach no endpoint, so that a wrong URL or method can be found out."""

    config: Config
    refusals: Refusals
    callers: Callers
    rates: Rates
    clock: Callable[[], datetime]

    def over(self, *, kind: str = "") -> Refusal | None:
        """Return why the current request is not looked at; None: it is.

        *kind*: counted apart, and not if it comes from this machine.
        """
        server = self.config.server
        if server.rate_per_address is None:
            return None
        remote = remote_of(request.environ, proxies=server.trusted_proxies)
        if kind and addresses.is_within(remote, LOOPBACK):
            return None
        return too_often(self.rates, server.rate_per_address, remote, kind=kind)

    def note(self, status: int) -> None:
        """Note the current request, which was answered *status*: 404 or 405."""
        method, path = request.method[:20], payload.clean(request.path)[:200]
        if status == 404 and method in ("GET", "HEAD", "OPTIONS"):
            return  # Whoever looks around; senders post.
        call = Call(
            request.environ,
            signature_header=DEFAULT_SCHEME.header or "",
            proxies=self.config.server.trusted_proxies,
            at=self.clock(),
        )
        most = self.config.server.max_body
        if status == 404 and call.may_be_signed and (call.content_length or 0) <= most:
            with suppress(TooMany), self.callers.reading(addresses.holder(call.remote)):
                call.read(most + 1)
        noted = Request(
            id=call.id,
            at=call.at,
            endpoint=path,
            method=method,
            remote=call.remote,
            headers=call.headers,
            status=status,
            outcome="refused",
            reason=self._reason(status, method, path),
            **kept(call, status=status),
        )
        self.refusals.note(noted)
        if self.refusals.is_logged(noted):
            structlog.get_logger().info(
                "request.received",
                request_id=noted.id,
                remote=noted.remote,
                status=status,
                outcome="refused",
                reason=noted.reason,
            )

    def _reason(self, status: int, method: str, path: str) -> str:
        if status == 405:
            return f"method {method}, not POST"
        known = [endpoint.path for endpoint in self.config.endpoints]
        meant = paths.meant(path, known)
        probably = f"; {meant} was probably meant" if meant else f", only {', '.join(known)}"
        return f"no endpoint has the path {path}{probably}"


def too_often(
    rates: Rates, limit: RateLimit | None, remote: str, *, kind: str = ""
) -> Refusal | None:
    """Count a request of *remote*; return a refusal if it is one too many."""
    who = f"address {addresses.holder(remote)}"
    wait = rates.over(limit, kind + who) if limit else 0
    if not wait:
        return None
    retry = {"Retry-After": str(wait)}
    return Refusal(429, f"{who}: more than {limit}", headers=retry, is_early=True)


class Call:
    """A request as its WSGI environment has it: only what an endpoint needs."""

    def __init__(
        self,
        environ: Mapping[str, Any],
        *,
        signature_header: str,
        proxies: int,
        at: datetime,
    ) -> None:
        """*at*: when it came."""
        self.id = new_id("req")
        self.at = at
        self._environ = environ
        self._signature_header = signature_header
        #: What was read of the body.
        self.body = b""
        #: Whether it was read, and whether to its end.
        self.has_body = False
        self.is_read = False
        self.remote = remote_of(environ, proxies=proxies)
        self.query: str = environ.get("QUERY_STRING", "")
        label = environ.get("CONTENT_TYPE", "")
        self.content_type: str = label.partition(";")[0].strip().lower()
        #: The charset that the content type states.
        self.charset = charset_of(label) if ";" in label else None
        length = environ.get("CONTENT_LENGTH") or ""
        #: None if the body is chunked.
        self.content_length = int(length) if length.isascii() and length.isdigit() else None

    @property
    def is_chunked(self) -> bool:
        return self.content_length is None and "HTTP_TRANSFER_ENCODING" in self._environ

    def header(self, name: str) -> str | None:
        return self._environ.get("HTTP_" + name.upper().replace("-", "_"))

    def read(self, limit: int) -> bytes:
        """Read up to *limit* bytes; fewer only if no more come."""
        stream = self._environ["wsgi.input"]
        body: bytes = stream.read(limit)
        while body and len(body) < limit and (piece := stream.read(limit - len(body))):
            body += piece
        self.body, self.has_body, self.is_read = body, True, len(body) < limit
        return body

    @property
    def may_be_signed(self) -> bool:
        """Return whether a signature may stand in a header, or in a field of the body."""
        return self._header_signed or self.content_type == "" or is_json(self.content_type)

    @property
    def is_signed(self) -> bool:
        """Return whether there is anything like a signature; the body has to be read before."""
        return self._header_signed or bool((scheme.members(self.body) or {}).get(scheme.FIELD))

    @property
    def _header_signed(self) -> bool:
        return headers.carries_signature(self.headers, signature=self._signature_header)

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers to keep, by lower-case name."""
        named = (
            (key[5:].replace("_", "-").lower(), value)
            for key, value in self._environ.items()
            if key.startswith("HTTP_")
        )
        kept = headers.kept(named, signature=self._signature_header)
        return kept | {"content-type": self._environ.get("CONTENT_TYPE", "")[:256]}


def remote_of(environ: Mapping[str, Any], *, proxies: int) -> str:
    """Return the address of who calls, as the last of our *proxies* saw it."""
    return addresses.caller(
        environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), proxies=proxies
    )


def is_json(content_type: str) -> bool:
    return bool(JSON_LIKE.fullmatch(content_type))


def kept(call: Call, *, status: int) -> dict[str, Any]:
    """Return what is kept of the body that *call* has read, as fields of a Request."""
    cut = call.content_length is not None and len(call.body) < call.content_length
    whole = call.has_body and call.is_read and not cut and status not in NEVER_ADMITTED
    signed = whole and call.is_signed
    body = call.body if signed else call.body[:REFUSED_BODY]
    return {
        "signed": signed,
        "whole": whole and (signed or len(call.body) <= REFUSED_BODY),
        "body": body if call.has_body else None,
        "query": call.query[:REFUSED_BODY],
    }


def _same(given: str | None, wanted: str) -> bool:
    return hmac.compare_digest((given or "").encode("utf-8", "replace"), wanted.encode())


def _unavailable(error: Exception) -> Refusal:
    return Refusal(503, f"store: {error}", headers={"Retry-After": str(RETRY_AFTER_STORE)})


def _json(status: int, answer: dict[str, Any]) -> Response:
    return Response(json.dumps(answer) + "\n", status, content_type="application/json")
