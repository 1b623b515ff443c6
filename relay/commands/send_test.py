"""The command that sends one test to one destination, to see whether it works now."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from connectors.base import Event
from relay import attempts, destinations, logs
from relay.clock import wall
from relay.commands.options import FAILED, Number, Text, config_option, json_option, os_user
from relay.commands.output import print_json
from relay.commands.tables import failure, print_lines, shown_time
from relay.config.model import Config
from relay.destinations import Destination
from relay.rules.delivery import Outcome, OutcomeKind, Tries
from relay.store.ids import new_id
from relay.store.values import Claim

#: Numbers that Australia keeps for films and books: nobody has them.
CUSTOMER, OURS = "+61491570006", "+61755500001"


@click.command()
@click.argument("destination", type=Text())
@config_option
@click.option(
    "--from",
    "customer",
    type=Number(),
    default=CUSTOMER,
    show_default=True,
    help="The customer's number that it shows.",
)
@click.option(
    "--to",
    "ours",
    type=Number(),
    default=OURS,
    show_default=True,
    help="Your number that it shows.",
)
@json_option
def send_test(
    destination: str, config: Config, customer: str, ours: str, as_json: bool
) -> None:  # fmt: skip
    """Send one test to DESTINATION now, and say how that ended.

    Its text says that it is a test. It goes straight to the destination: it needs no running
    relay, asks no route, waits for no pause, and is kept nowhere. A running relay does not count
    it against its rate. What it makes there, such as a ticket, stays there.

    \b
    Examples: gofax-relay send-test front-desk
              gofax-relay send-test helpdesk --from 0491570006 --json
    """
    if destination not in config.destinations:
        have = ", ".join(config.destinations) or "none"
        raise failure(f'no destination named "{destination}" (have: {have})')
    logs.configure(level=config.logs.threshold, as_text=config.logs.as_text)
    event = sent(customer=customer, ours=ours, endpoint=config.endpoints[0].name, now=wall())
    built = destinations.build(config)
    try:
        outcome = attempts.attempt(built[destination], _claim(event, built[destination]))
    finally:
        for each in built.values():
            each.connector.close()
    if as_json:
        print_json(_json(destination, event, outcome))
    else:
        print_lines([_said(destination, event, outcome)])
    if outcome.kind is not OutcomeKind.DELIVERED:
        sys.exit(FAILED)


def sent(*, customer: str, ours: str, endpoint: str, now: datetime) -> Event:
    """Make the test: a reply of *customer* that says what it is."""
    body = (
        f"This is a test of gofax-relay, sent by {os_user()} at {shown_time(now)}. "
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


def _said(name: str, event: Event, outcome: Outcome) -> str:
    if outcome.kind is not OutcomeKind.DELIVERED:
        return f"✗ {name}: {outcome.kind}: {outcome.detail}"
    receipt = outcome.receipt
    where = f" ({receipt.url})" if receipt and receipt.url else ""
    what = receipt.reference if receipt else "delivered"
    return f"✓ {name}: {what}{where}; message {event.message_id}"


def _json(name: str, event: Event, outcome: Outcome) -> dict[str, Any]:
    receipt = outcome.receipt
    return {
        "destination": name,
        "message_id": event.message_id,
        "outcome": outcome.kind.value,
        "detail": outcome.detail or None,
        "status": outcome.status,
        "reference": receipt and receipt.reference,
        "url": receipt and receipt.url,
    }
