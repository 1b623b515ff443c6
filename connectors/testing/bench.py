"""A connector, its stand-in and the gateway between them, used as the relay would use them."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from connectors.base import (
    Ambiguous,
    Connector,
    DeliveryError,
    Event,
    Receipt,
    Throttled,
    Transient,
    checked_error,
    checked_receipt,
)
from connectors.http import Http
from connectors.testing.events import sample_event
from connectors.testing.gateway import Gateway, Plan
from connectors.testing.killing import Call

#: The networks in which stand-ins live.
LOOPBACK = ("127.0.0.0/8", "::1/128")
#: Seconds that a delivery may be tried again and again, as the relay would.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a person would find in the system."""

    #: ``ticket``, ``comment``, ``contact``, …
    kind: str
    #: What a person reads there.
    text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandIn:
    """What plays the system: where it answers, and what it was made to do so far."""

    #: For HTTP ``http://host:port/path``; otherwise whatever ``options`` makes use of.
    url: str
    #: Everything that deliveries left there, in any order.
    effects: Callable[[], Iterable[Effect]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """An event to deliver, and where its conversation stands."""

    #: ``first`` of its conversation, or ``next``.
    name: str
    event: Event
    thread: str | None = None

    @property
    def key(self) -> str:
        return hashlib.sha256(self.event.id.encode()).hexdigest()[:40]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A connector that reaches the stand-in through a gateway of its own."""

    connector: Connector[Any]
    gateway: Gateway | None


class Bench:
    """Makes cases and lines to one stand-in, and counts what deliveries leave in it."""

    def __init__(
        self,
        kind: type[Connector[Any]],
        options: Callable[[str], Mapping[str, Any]],
        stand_in: StandIn,
        *,
        over_http: bool,
        deadline: float,
    ) -> None:
        self.kind = kind
        self.options = options
        self.stand_in = stand_in
        self.over_http = over_http
        self.deadline = deadline
        self._numbers = itertools.count(1)

    @contextmanager
    def line(
        self,
        plan: Plan | None = None,
        *,
        allow: Iterable[str] = LOOPBACK,
        readdress: Callable[[str], str] = str,
    ) -> Iterator[Line]:
        """Open a line whose requests *plan* may spoil; *readdress* may change its address."""
        if not self.over_http:
            yield from self._connected(self.stand_in.url, None, allow)
            return
        with Gateway(self.stand_in.url, plan=plan) as gateway:
            yield from self._connected(readdress(gateway.url), gateway, allow)

    def _connected(
        self, url: str, gateway: Gateway | None, allow: Iterable[str]
    ) -> Iterator[Line]:
        options = self.kind.Options.model_validate(self.options(url))
        connector = self.kind(options, http=Http(allow=allow, default_deadline=self.deadline))
        try:
            yield Line(connector=connector, gateway=gateway)
        finally:
            connector.close()

    def event(self, **changes: Any) -> Event:
        """Make an event of a customer whom nobody has seen yet."""
        number = next(self._numbers)
        customer = f"+614{20_000_000 + number:08d}"
        fields = {
            "id": f"evt_{number:016d}",
            "message_id": f"message-{number}",
            "customer": customer,
            "sender": customer,
            "body": f"Message {number} of the kit",
        }
        return sample_event(**fields | changes)

    def first(self, **changes: Any) -> Case:
        """Make the first event of a conversation."""
        return Case(name="first", event=self.event(**changes))

    def next(self) -> Case:
        """Deliver the first event of a conversation, and make its next."""
        first = self.first()
        with self.line() as line:
            receipt = self.settle(line.connector, first)
        event = self.event(
            customer=first.event.customer,
            sender=first.event.sender,
            conversation=first.event.conversation,
        )
        return Case(name="next", event=event, thread=receipt.thread)

    def deliver(
        self,
        connector: Connector[Any],
        case: Case,
        *,
        repeat: bool = False,
        deadline: float | None = None,
    ) -> Receipt:
        """Make one attempt at *case*, and read what comes of it as the relay does."""
        try:
            receipt = connector.deliver(
                case.event,
                key=case.key,
                thread=case.thread,
                repeat=repeat,
                deadline=deadline or self.deadline,
            )
        except DeliveryError as error:
            checked_error(error)
            raise
        return checked_receipt(receipt)

    def attempt(self, connector: Connector[Any], case: Case, **how: Any) -> Receipt | Exception:
        """Make one attempt at *case*, and return what came of it, whatever that is."""
        try:
            return self.deliver(connector, case, **how)
        except Exception as error:
            return error

    def settle(self, connector: Connector[Any], case: Case, *, repeat: bool = False) -> Receipt:
        """Attempt *case* by the relay's rules until it is delivered.

        Raises what the connector raises when the relay would not try again by itself.
        """
        ends_at = time.monotonic() + PATIENCE
        while True:
            try:
                return self.deliver(connector, case, repeat=repeat)
            except Throttled as error:
                pause = error.retry_after.total_seconds() if error.retry_after else 0.2
                repeat = repeat or error.acted
            except (Transient, Ambiguous) as error:
                pause, repeat = 0.05, repeat or error.acted or isinstance(error, Ambiguous)
            if time.monotonic() + pause > ends_at:
                raise TimeoutError(f"the {case.name} event was not delivered in {PATIENCE:.0f} s")
            threading.Event().wait(pause)

    def call(self, url: str, case: Case) -> Call:
        """Make the call that delivers *case* from a process of its own."""
        return Call(
            connector=self.kind,
            options=self.options(url),
            allow=LOOPBACK,
            event=case.event,
            key=case.key,
            thread=case.thread,
            repeat=False,
            deadline=self.deadline,
        )

    def effects(self) -> Counter[str]:
        """Count the effects so far, by kind."""
        return Counter(effect.kind for effect in self.stand_in.effects())

    def usual(self, make: Callable[[], Case]) -> tuple[Counter[str], int]:
        """Say what an undisturbed delivery leaves, and in how many requests."""
        self.next()  # what only the very first delivery makes is none of its effects
        case = make()
        before = self.effects()
        with self.line() as line:
            self.settle(line.connector, case)
            requests = len(line.gateway.requests) if line.gateway else 0
        return self.effects() - before, requests
