"""The command that sends one test to one destination, to see whether it works now."""

from __future__ import annotations

import sys

import click

from relay import logs
from relay.acts import trying
from relay.acts.trying import CUSTOMER, OURS, SentTest, UnknownDestination
from relay.commands.options import FAILED, Number, Text, config_option, json_option, os_user
from relay.commands.output import print_json
from relay.commands.tables import failure, print_lines
from relay.config.model import Config
from relay.shapes.trying import sent_test_json


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
    """Send one test to DESTINATION now, and say how it ended.

    Its text says that it is a test. It goes straight to the destination: it needs no running
    relay, asks no route, waits for no pause, and is kept nowhere. A running relay does not count
    it against its rate. What it makes there, such as a ticket, stays there.

    \b
    Examples: gofax-relay send-test front-desk
              gofax-relay send-test helpdesk --from 0491570006 --json
    """
    logs.configure(level=config.logs.threshold, as_text=config.logs.as_text)
    try:
        sent = trying.send_test(config, destination, who=os_user(), customer=customer, ours=ours)
    except UnknownDestination as error:
        raise failure(str(error)) from error
    if as_json:
        print_json(sent_test_json(sent))
    else:
        print_lines([_said(sent)])
    if not sent.is_good:
        sys.exit(FAILED)


def _said(sent: SentTest) -> str:
    outcome, receipt = sent.outcome, sent.outcome.receipt
    if not sent.is_good:
        return f"✗ {sent.destination}: {outcome.kind}: {outcome.detail}"
    where = f" ({receipt.url})" if receipt and receipt.url else ""
    what = receipt.reference if receipt else "delivered"
    return f"✓ {sent.destination}: {what}{where}; message {sent.event.message_id}"
