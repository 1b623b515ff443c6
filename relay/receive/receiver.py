"""The endpoints: check, read, verify, parse, route, accept, and only then answer 200."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from flask import Blueprint, Response, request
from structlog.typing import FilteringBoundLogger

from relay.callers import Callers, Rates, TooMany
from relay.config.endpoints import Endpoint
from relay.config.model import Config
from relay.intake import Intake, NotGenuine, SeenProbes
from relay.receive.answers import Accepted, Probed, Refusal, too_often
from relay.receive.call import Call, is_json, kept
from relay.refused import Refusals
from relay.rules import addresses, sentiment
from relay.rules.payload import Unreadable
from relay.rules.probe import Probe
from relay.rules.units import RateLimit
from relay.store import Inbox, RowRefused, StoreUnavailable
from relay.store.refused import NEVER_ADMITTED
from relay.store.values import Arrival, Request
from relay.telling.metrics import Metrics
from relay.telling.watch import OldSecrets

CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
#: Seconds after which a sender may try again when the store is away.
RETRY_AFTER_STORE = 10
#: Seconds after which a sender may try again whose other requests are still being read.
RETRY_AFTER_READ = 5


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


def _same(given: str | None, wanted: str) -> bool:
    return hmac.compare_digest((given or "").encode("utf-8", "replace"), wanted.encode())


def _unavailable(error: Exception) -> Refusal:
    return Refusal(503, f"store: {error}", headers={"Retry-After": str(RETRY_AFTER_STORE)})
