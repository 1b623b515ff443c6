"""Does an event find its way from `public_url` to here? A probe for each endpoint tries it."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from relay.commands.times import shown_time
from relay.config.certificates import Certificate, certificate_of
from relay.config.endpoints import Endpoint
from relay.config.model import Config
from relay.rules import probe
from relay.rules.probe import Probe, Signed
from relay.rules.problems import ENDS_SOON, ENDS_VERY_SOON
from relay.rules.told import TOLD
from relay.shapes.findings import Finding, Severity
from relay.shapes.words import count
from relay.store import Database, Queries
from relay.store.ids import new_id
from relay.store.search import Filter
from relay.store.secret import store_secret
from relay.store.values import Request
from relay.telling import public
from relay.telling.public import Answer, Obstacle, Place

#: Seconds after an answer within which a request is in the store, and newest ones to look among.
NOTED_WITHIN, AMONG = 2.0, 1000
#: The doctor's name for each step.
_CHECKS = {"dns": "dns", "tcp": "tcp", "tls": "tls", "certificate": "tls", "http": "probe"}
#: Characters of another server's words that are shown.
_SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tried:
    """A probe, its answer, and what the store knows of it."""

    endpoint: Endpoint
    sent: Signed
    id: str
    answer: Answer
    #: Its request, if it came here.
    arrived: Request | None

    @property
    def is_taken(self) -> bool:
        """Whether a relay answered it as a probe."""
        said = _json_of(self.answer)
        return said.get("status") == "probe" and said.get("request") == self.id

    @property
    def whose(self) -> str:
        """Say what answered, as far as that is known."""
        server = self.answer.headers.get("server", "")[:_SHOWN]
        return f" by {server}" if server.isprintable() and server else ""


def examine(config: Config, database: Database) -> Iterator[Finding]:
    """Yield what each step finds; the first that fails is the last."""
    assert config.public_url is not None
    place = Place.of(config.public_url)
    try:
        addresses = public.look_up(place)
        yield _good("dns", f"{place.host} has the address {', '.join(addresses)}")
        connection = public.connect(place, addresses)
        address = connection.getpeername()[0]
        yield _good("tcp", f"{address} takes connections at port {place.port}")
        with connection:
            yield _tls(place, connection, now=database.clock())
    except Obstacle as obstacle:
        yield _broken(_CHECKS[obstacle.step], str(obstacle))
        return
    for endpoint in config.endpoints:
        try:
            tried = _tried(endpoint, place, address, database)
        except Obstacle as obstacle:
            yield _broken(_CHECKS[obstacle.step], f"{endpoint.path}: {obstacle}")
        else:
            severity, said = _judged(tried, listen=config.server.listen)
            yield Finding(check="probe", severity=severity, said=f"{endpoint.path}: {said}")


def _tls(place: Place, connection: socket.socket, *, now: datetime) -> Finding:
    if not place.is_encrypted:
        said = "public_url is http, and GoFax calls https addresses only"
        return Finding(check="tls", severity="notice", said=said)
    with public.encrypt(place, connection) as encrypted:
        shown = certificate_of(encrypted)
    return Finding(check="tls", severity=_severity(shown, now=now), said=_said(shown, now=now))


def _severity(shown: Certificate, *, now: datetime) -> Severity:
    left = shown.ends_at - now
    return "degraded" if left < ENDS_VERY_SOON else "notice" if left < ENDS_SOON else "good"


def _said(shown: Certificate, *, now: datetime) -> str:
    left = shown.ends_at - now
    said = (
        f"a certificate by {shown.issuer} for {', '.join(shown.names[:5])}, trusted until "
        f"{shown_time(shown.ends_at)} ({count(left.days, 'day', 'days')})"
    )
    return f"{said}: renew it; does the renewal run?" if left < ENDS_SOON else said


def _tried(endpoint: Endpoint, place: Place, address: str, database: Database) -> _Tried:
    one = Probe(id=new_id("req"), at=database.clock())
    scheme = endpoint.signature.scheme
    secret = _secret(endpoint, database, now=one.at)
    sent = probe.made(one, scheme=scheme, secret=secret, format=endpoint.format)
    connection = public.connect(place, [address])
    if place.is_encrypted:
        connection = public.encrypt(place, connection)
    with closing(connection):
        headers = {**sent.headers, **_basic_auth(endpoint)}
        answer = public.post(place, connection, endpoint.path, headers=headers, body=sent.body)
    arrived = _arrived(Queries(database), one.id)
    return _Tried(endpoint=endpoint, sent=sent, id=one.id, answer=answer, arrived=arrived)


def _secret(endpoint: Endpoint, database: Database, *, now: datetime) -> bytes:
    """Return the first secret that *endpoint* accepts now, or any if it accepts none."""
    keys = endpoint.signing_keys
    if not keys:
        return store_secret(database)
    return next((each for each in keys if each.holds(now)), keys[0]).key


def _basic_auth(endpoint: Endpoint) -> Mapping[str, str]:
    agent = {"User-Agent": f"gofax-relay/{importlib.metadata.version('gofax-relay')}"}
    if endpoint.basic_auth is None:
        return agent
    given = endpoint.basic_auth
    both = f"{given.username}:{given.password.get_secret_value()}".encode()
    return {**agent, "Authorization": f"Basic {base64.b64encode(both).decode()}"}


def _arrived(queries: Queries, id_: str) -> Request | None:
    """Return the request of a probe as soon as the store has it; None if it does not come."""
    ends_at = time.monotonic() + NOTED_WITHIN
    while True:
        taken = queries.recent_requests(Filter(standings=("probe",)), among=AMONG)
        found = [each for each in taken if each.id == id_] or queries.refused_with(id_, limit=1)
        if found or time.monotonic() > ends_at:
            return found[0] if found else None
        time.sleep(0.1)


def _judged(tried: _Tried, *, listen: str) -> tuple[Severity, str]:
    """Return how good an answer is, what it means, and what to do."""
    answer, path = tried.answer, tried.endpoint.path
    took = f"{answer.seconds * 1000:.0f} ms"
    if tried.is_taken and tried.arrived:
        return "good", f"the probe came here, and was answered 200 in {took}"
    if tried.is_taken:
        return "notice", (
            f"a relay took the probe in {took}, and this store does not list it: does the proxy "
            "lead to another relay, with the same secret?"
        )
    if tried.arrived is not None:
        said = _refused(tried, tried.arrived)
        return "broken", f"the relay answered {answer.status} in {took}: {said}"
    if answer.status == 403 and _json_of(answer).get("error") == TOLD[403]:
        return "notice", (
            f"a relay answered 403 in {took}: allow_from does not list the address of this "
            "machine; what GoFax's calls meet after that cannot be tried from here"
        )
    lead = f"let the proxy pass POST {path} to {listen}"
    said = _before_us(tried, lead)
    return "broken", f"{answer.status}{tried.whose} in {took}, not from this relay: {said}"


def _refused(tried: _Tried, arrived: Request) -> str:
    """Say why the relay refused a probe that came to it."""
    path = tried.endpoint.path
    if arrived.status == 404:
        return (
            f"the proxy made {arrived.endpoint} of the path: let it pass {path} unchanged, or "
            "correct public_url"
        )
    if arrived.body != tried.sent.body:
        return (
            f"the body was changed on its way ({len(tried.sent.body)} bytes were sent, "
            f"{len(arrived.body or b'')} came): let the proxy pass bodies as they are"
        )
    if arrived.reason.startswith("signature "):
        return (
            f"{arrived.reason}: the secret of this config differs from that of the relay in "
            "front: gofax-relay reload takes it, variables (${…}) need a restart"
        )
    return f"{arrived.reason}: does the proxy change or drop headers?"


def _before_us(tried: _Tried, lead: str) -> str:
    """Say what an answer means that is not the relay's."""
    status = tried.answer.status
    is_ours = "error" in _json_of(tried.answer) and "retry-after" in tried.answer.headers
    if status == 503 and is_ours:
        return "a relay says that no event can be written now: gofax-relay doctor says why"
    if 200 <= status < 300:
        return f"something else says that all is well, and events would be lost: {lead}"
    if 300 <= status < 400:
        to = tried.answer.headers.get("location", "")[:200]
        to = f" to {to}" if to and to.isprintable() else ""
        return (
            f"a redirect{to}, which nobody follows with a POST: {lead}, and write the address "
            "that needs no redirect into GoFax and public_url"
        )
    if status in (502, 503, 504):
        return f"the proxy does not reach the relay: does it run? If so, {lead}"
    if status == 401:
        return (
            f"the proxy asks for credentials of its own, or leads to another relay, whose secret "
            f"differs: {lead}"
        )
    if status in (404, 405):
        return f"it knows no such path or method: {lead}"
    if status in (403, 406, 429):
        return f"a firewall or limit there turns it away: {lead} without looking into it"
    return f"{lead}; what does its log say?"


def _json_of(answer: Answer) -> Mapping[str, object]:
    try:
        found = json.loads(answer.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _good(check: str, said: str) -> Finding:
    return Finding(check=check, severity="good", said=said)


def _broken(check: str, said: str) -> Finding:
    return Finding(check=check, severity="broken", said=said)
