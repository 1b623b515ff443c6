"""What an endpoint makes of bytes, whether they come now or a person lets them in later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from connectors.base import Event
from relay.config.model import Config, Endpoint
from relay.rules import payload, routing
from relay.rules.routing import Route
from relay.rules.scheme import Header, Scheme
from relay.rules.sentiment import Judge
from relay.store.ids import new_id
from relay.store.values import Admission, Arrival, Request


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
    #: Secrets as bytes; none: the endpoint takes what is not signed.
    keys: Sequence[bytes]

    @classmethod
    def of(cls, config: Config, endpoint: Endpoint, *, judge: Judge | None) -> Intake:
        return cls(
            endpoint=endpoint,
            routes=config.routes,
            dedupe_horizon=config.dedupe_horizon,
            judge=judge,
            scheme=endpoint.signature.scheme,
            keys=endpoint.signing_keys,
        )

    def verify(self, header: Header, raw: bytes, *, now: datetime | None) -> str:
        """Return why *raw* is genuine. Raises :class:`NotGenuine`.

        *now*: when the age of a signed time is counted from; None: any age will do.
        """
        found = self.scheme.verify(header, raw, self.keys)
        if not found.good:
            raise NotGenuine(f"signature {found.reason}")
        if now is not None:
            self._check_age(header, now)
        return f"signature {found.reason}"

    def arrival(
        self,
        request: Request,
        raw: bytes,
        *,
        reason: str,
        query: str = "",
        charset: str | None,
        admission: Admission | None = None,
    ) -> Arrival:
        """Return what the store has to write for a genuine *request*.

        *reason*: why it is genuine; *query*: the query string, if its fields count. Raises
        :class:`~relay.rules.payload.Unreadable`.
        """
        endpoint = self.endpoint
        read = payload.read(raw, format=endpoint.format, query=query, charset=charset)
        event = read.event(
            id=new_id("evt"), endpoint=endpoint.name, received_at=request.at, judge=self.judge
        )
        key = payload.key(
            read, raw, endpoint=endpoint.name, dedupe_by=endpoint.dedupe_by, query=query
        )
        noted = replace(
            request, endpoint=endpoint.name, status=200, reason=reason, message_id=read.message_id
        )
        return Arrival(
            event=event,
            request=noted,
            raw=raw,
            query=query,
            format=endpoint.format,
            charset=charset,
            key=key,
            meaning=payload.meaning(read),
            match=routing.match(event, self.routes),
            standing="stale" if self._is_stale(event) else "accepted",
            on_duplicate=endpoint.on_duplicate,
            admission=admission,
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
