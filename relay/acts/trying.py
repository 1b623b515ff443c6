"""Does a destination work now? Sends it one test, or asks whether its credentials work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from connectors.base import Connector, DeliveryError, Event
from relay import attempts, destinations
from relay.clock import wall
from relay.config.model import Config
from relay.destinations import Destination
from relay.rules.delivery import Outcome, OutcomeKind, Tries
from relay.shapes.times import full_time
from relay.store.ids import new_id
from relay.store.values import Claim

#: Numbers that Australia keeps for films and books: nobody has them.
CUSTOMER, OURS = "+61491570006", "+61755500001"


class UnknownDestination(LookupError):
    """The config names no such destination."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SentTest:
    """A test, and how the attempt to deliver it ended."""

    destination: str
    event: Event
    outcome: Outcome

    @property
    def is_good(self) -> bool:
        return self.outcome.kind is OutcomeKind.DELIVERED


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a connector said when it was asked something."""

    destination: str
    is_good: bool
    said: str


def send_test(
    config: Config, name: str, *, who: str, customer: str = CUSTOMER, ours: str = OURS
) -> SentTest:
    """Send one test to the destination *name* now.

    It asks no route, waits for no pause, and is kept nowhere. Raises
    :class:`UnknownDestination`.
    """
    _require(config, name)
    now = wall()
    shown = full_time(now, zone=config.zone)
    endpoint = config.endpoints[0].name
    event = sent(customer=customer, ours=ours, endpoint=endpoint, now=now, by=f"{who} at {shown}")
    built = destinations.build(config)
    try:
        # It is kept nowhere, so no page shows it.
        destination = replace(built[name], console=None)
        outcome = attempts.attempt(destination, _claim(event, destination))
    finally:
        for each in built.values():
            each.connector.close()
    return SentTest(destination=name, event=event, outcome=outcome)


def check(config: Config, name: str) -> Answer:
    """Ask the destination *name* whether our credentials work now.

    Raises :class:`UnknownDestination`.
    """
    _require(config, name)
    built = destinations.build(config)
    try:
        return ask(name, built[name].connector, lambda connector: connector.check())
    finally:
        for each in built.values():
            each.connector.close()


def ask(name: str, connector: Connector[Any], question: Callable[[Connector[Any]], str]) -> Answer:
    """Ask the connector of a destination, and return what it said."""
    try:
        return Answer(destination=name, is_good=True, said=question(connector))
    except DeliveryError as error:
        said = f"{type(error).__name__.lower()}: {error}"
    except Exception as error:  # whatever somebody else's connector does
        said = f"it fails with {type(error).__name__}: {error}"
    return Answer(destination=name, is_good=False, said=said)


def sent(*, customer: str, ours: str, endpoint: str, now: datetime, by: str) -> Event:
    """Make the test: a reply of *customer* that says what it is, and *by* whom it was sent."""
    body = (
        f"This is a test of gofax-relay, sent by {by}. "
        "No customer wrote it; there is nothing to answer."
    )
    id = new_id("evt")
    message_id = f"test-{id.removeprefix('evt_')}"
    return Event(
        id=id,
        endpoint=endpoint,
        message_id=message_id,
        type="SMS_REPLY",
        direction="reply",
        customer=customer,
        ours=ours,
        sender=customer,
        recipient=ours,
        body=body,
        keyword=None,
        occurred_at=now,
        received_at=now,
        account_id=None,
        payload={
            "messageId": message_id,
            "eventType": "SMS_REPLY",
            "direction": "reply",
            "from": customer,
            "to": ours,
            "messageBody": body,
        },
        conversation=f"{customer}~{ours}",
        test=True,
    )


def _require(config: Config, name: str) -> None:
    if name not in config.destinations:
        have = ", ".join(config.destinations) or "none"
        raise UnknownDestination(f'no destination named "{name}" (have: {have})')


def _claim(event: Event, destination: Destination) -> Claim:
    """Make the claim of a delivery that no store knows."""
    now = event.received_at
    return Claim(
        delivery_id=new_id("dlv"),
        attempt_id="",
        destination=destination.name,
        lane_id="",
        number=1,
        # Another one each time: a system that knows a key would do nothing.
        key=event.id,
        thread=None,
        event=event,
        tries=Tries(attempts=1, repeat=False, failing_since=None),
        claimed_at=now,
        lease_until=now + destination.settings.deadline,
        trigger="manual",
    )
