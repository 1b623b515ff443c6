"""What an endpoint makes of bytes, whether they come now or a person lets them in later."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from connectors.base import Event
from relay.config.effective import version_if_complete
from relay.config.endpoints import Endpoint
from relay.config.model import Config
from relay.rules import paths, payload, probe, routing
from relay.rules.hours import Hours
from relay.rules.payload import Unreadable
from relay.rules.probe import Probe
from relay.rules.routing import Route
from relay.rules.scheme import Header, Scheme
from relay.rules.sentiment import Judge
from relay.rules.signature import SigningKey, Verification
from relay.rules.tests import EventPattern, is_test
from relay.store.ids import new_id
from relay.store.refused import NEVER_ADMITTED
from relay.store.values import COMMAND_LINE, Admission, Arrival, Request


class NotGenuine(Exception):
    """The signature does not show that the endpoint's sender sent this; the words say why."""


@dataclass(frozen=True, kw_only=True)
class Intake:
    """One endpoint's settings and the routes, made ready once."""

    endpoint: Endpoint
    routes: Sequence[Route]
    dedupe_horizon: timedelta | None
    judge: Judge | None
    scheme: Scheme
    #: When the business is open.
    hours: Hours | None
    #: What is a test.
    tests: Sequence[EventPattern]
    #: None: the endpoint takes what is not signed.
    keys: Sequence[SigningKey]
    #: The version of the config.
    config: str | None = None

    @classmethod
    def of(cls, config: Config, endpoint: Endpoint, *, judge: Judge | None) -> Intake:
        return cls(
            endpoint=endpoint,
            routes=config.routes,
            dedupe_horizon=config.dedupe_horizon,
            judge=judge,
            scheme=endpoint.signature.scheme,
            hours=config.hours,
            tests=config.tests,
            keys=endpoint.signing_keys,
            config=version_if_complete(config),
        )

    @property
    def names(self) -> set[str]:
        return {self.endpoint.name, self.endpoint.path}

    def verify(
        self, header: Header, raw: bytes, *, now: datetime, any_age: bool = False
    ) -> Verification:
        """Return why *raw* is genuine, and by which secret. Raises :class:`NotGenuine`.

        *any_age*: a signed time may be long ago.
        """
        holding = [each for each in self.keys if each.holds(now)]
        found = self.scheme.verify(header, raw, [each.key for each in holding])
        if found.secret is None:
            ended = [each for each in self.keys if each not in holding]
            raise NotGenuine(f"signature {self._ended(header, raw, ended) or found.reason}")
        if not any_age:
            self._check_age(header, now)
        position = self.keys.index(holding[found.secret])
        return Verification(
            good=True, secret=position, reason=f"signature matches secret {position + 1}"
        )

    def probe(
        self, header: Header, raw: bytes, *, now: datetime, otherwise: Callable[[], bytes]
    ) -> tuple[Probe, str] | None:
        """Return the probe that *raw* is, and why it is genuine; None if it is none.

        *otherwise*: the secret for endpoints that have none. Raises :class:`NotGenuine` if it
        claims to be a probe at such an endpoint, and is none of ours: as an event it would have
        effects.
        """
        claimed = probe.read(raw, format=self.endpoint.format)
        if claimed is None:
            return None
        secrets = [each.key for each in self.keys if each.holds(now)]
        if not self.keys:
            secrets = [otherwise()]
        found = self.scheme.verify(header, raw, [probe.key(secret) for secret in secrets])
        if found.good:
            return claimed, f"signature {found.reason}" if self.keys else "signed by this store"
        if not self.keys:
            raise NotGenuine("a probe that is not signed with this store's secret")
        return None

    def arrival(
        self,
        request: Request,
        raw: bytes,
        *,
        query: str = "",
        charset: str | None,
        admission: Admission | None = None,
    ) -> Arrival:
        """Return what the store has to write for a genuine *request*, which says why it is that.

        *query*: the query string, if its fields count. Raises
        :class:`~relay.rules.payload.Unreadable`.
        """
        endpoint = self.endpoint
        read = payload.read(raw, format=endpoint.format, query=query, charset=charset)
        event = read.event(
            id=new_id("evt"), endpoint=endpoint.name, received_at=request.at, judge=self.judge
        )
        if is_test(event, self.tests):
            event = replace(event, test=True)
        key = payload.key(
            read, raw, endpoint=endpoint.name, dedupe_by=endpoint.dedupe_by, query=query
        )
        return Arrival(
            event=event,
            request=request,
            raw=raw,
            query=query,
            format=endpoint.format,
            charset=charset,
            key=key,
            meaning=payload.meaning(read),
            match=routing.match(event, self.routes, hours=self.hours),
            standing="stale" if self._is_stale(event) else "accepted",
            on_duplicate=endpoint.on_duplicate,
            admission=admission,
            config=self.config,
        )

    def _ended(self, header: Header, raw: bytes, keys: Sequence[SigningKey]) -> str:
        """Say which of *keys*, whose time is over, signed this; nothing if none did."""
        if not keys:
            return ""
        found = self.scheme.verify(header, raw, [each.key for each in keys])
        if found.secret is None:
            return ""
        used = keys[found.secret]
        return (
            f"matches secret {self.keys.index(used) + 1}, "
            f"which was accepted until {used.not_after} (UTC)"
        )

    def _check_age(self, header: Header, now: datetime) -> None:
        tolerance = self.endpoint.signature.tolerance
        if tolerance is None:
            return
        age = self.scheme.age(header, now=now)
        if age is None:
            raise NotGenuine(f"{self.scheme.timestamp_header} is no time")
        if abs(age) > tolerance:
            raise NotGenuine(
                f"signed {age.total_seconds():.0f} s ago, and tolerance is "
                f"{tolerance.total_seconds():.0f} s"
            )

    def _is_stale(self, event: Event) -> bool:
        """Return whether *event* is so old that its key may have been forgotten."""
        if self.dedupe_horizon is None or event.occurred_at is None:
            return False
        return event.received_at - event.occurred_at > self.dedupe_horizon


class SeenProbes:
    """The probes that this process has taken and that still hold: each is taken once."""

    def __init__(self) -> None:
        self._seen: dict[str, datetime] = {}
        self._lock = threading.Lock()

    def take(self, one: Probe, *, now: datetime) -> None:
        """Raise :class:`NotGenuine` if *one* no longer holds, or was here before."""
        if fault := one.fault(now=now):
            raise NotGenuine(fault)
        with self._lock:
            # Only who has a secret adds to it, so it stays small.
            self._seen = {
                id_: at for id_, at in self._seen.items() if now - at <= 2 * probe.HOLDS_FOR
            }
            if one.id in self._seen:
                raise NotGenuine("a probe that was here before")
            self._seen[one.id] = now


@dataclass(frozen=True, kw_only=True, slots=True)
class Examined:
    """What became of a refused request when it was looked at again."""

    request: Request
    #: Why it may come in, or why not.
    reason: str
    #: What the store would write; None: it stays out.
    arrival: Arrival | None = None

    @property
    def endpoint(self) -> str:
        return self.arrival.event.endpoint if self.arrival else self.request.endpoint


def examine(
    request: Request,
    intakes: Sequence[Intake],
    *,
    now: datetime,
    who: str,
    why: str | None,
    origin: str = COMMAND_LINE,
) -> Examined:
    """Verify a refused request with the secrets and settings of *now*, whatever its age.

    A call to an unknown path is tried at every endpoint, the one that was probably meant first.
    """
    tried = ""
    admission = Admission(who=who, why=why, was=_was(request), origin=origin)
    for intake in _candidates(request, intakes):
        try:
            return _verified(request, intake, admission, now=now)
        except (NotGenuine, Unreadable) as error:
            tried = tried or f"{intake.endpoint.name}: {error}"
    return Examined(request=request, reason=tried or f"there is no endpoint {request.endpoint}")


def trusted(
    request: Request,
    intakes: Sequence[Intake],
    *,
    who: str,
    why: str,
    origin: str = COMMAND_LINE,
) -> Examined:
    """Take a person's word for a refused request that no signature proves."""
    if not request.whole or request.status in NEVER_ADMITTED:
        return Examined(request=request, reason="its body is not here whole")
    if any(probe.read(request.body or b"", format=each.endpoint.format) for each in intakes):
        return Examined(request=request, reason="it is a probe, and has no effect")
    path = paths.meant(request.endpoint, [each.endpoint.path for each in intakes])
    meant = {request.endpoint, path}
    intake = next((each for each in intakes if each.names & meant), None)
    if intake is None:
        return Examined(request=request, reason=f"there is no endpoint {request.endpoint}")
    admission = Admission(who=who, why=why, was=_was(request), origin=origin)
    said = f"unverified, on the word of {who}"
    try:
        return _examined(request, intake, admission, reason=said)
    except Unreadable as error:
        return Examined(request=request, reason=str(error))


def _verified(
    request: Request, intake: Intake, admission: Admission, *, now: datetime
) -> Examined:
    if not intake.keys:
        raise NotGenuine("this endpoint asks for no signature, so none can prove it genuine")
    header = request.headers.get
    verified = intake.verify(
        lambda name: header(name.lower()), request.body or b"", now=now, any_age=True
    )
    return _examined(request, intake, admission, reason=verified.reason)


def _examined(request: Request, intake: Intake, admission: Admission, *, reason: str) -> Examined:
    said = f"{reason}; let in later by {admission.who}"
    unsigned = not intake.keys and intake.endpoint.format == "form"
    arrival = intake.arrival(
        replace(request, endpoint=intake.endpoint.name, status=200, reason=said),
        request.body or b"",
        query=request.query if unsigned else "",
        charset=charset_of(request.headers.get("content-type", "")),
        admission=admission,
    )
    return Examined(request=request, reason=reason, arrival=arrival)


def _candidates(request: Request, intakes: Sequence[Intake]) -> Sequence[Intake]:
    """Return the endpoints that *request* may have been for."""
    named = [intake for intake in intakes if request.endpoint in intake.names]
    if named or request.status != 404:
        return named
    meant = paths.meant(request.endpoint, [intake.endpoint.path for intake in intakes])
    return sorted(intakes, key=lambda intake: intake.endpoint.path != meant)


def _was(request: Request) -> str:
    return f"{request.status}: {request.reason}"


def charset_of(content_type: str) -> str | None:
    """Return the charset that a content type states."""
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"').lower() or None
    return None
