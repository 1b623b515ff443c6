"""What a HubSpot account needs before deliveries: checked, and made where it is missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from connectors.base import DeliveryError, Refused, Unauthorized
from connectors.hubspot.answers import text
from connectors.hubspot.api import PROPERTIES, Api
from connectors.hubspot.inbox import Inbox, connected, is_usable
from connectors.hubspot.options import PHONES, SETUP, HubSpotOptions
from connectors.hubspot.tickets import Tickets

SCHEMA = "/crm-object-schemas/2026-09/schemas/{kind}"


class Setup:
    """Compares an account with what the options rely on."""

    def __init__(
        self, api: Api, options: HubSpotOptions, *, tickets: Tickets | None, inbox: Inbox | None
    ) -> None:
        self.api = api
        self.options = options
        self.tickets = tickets
        self.inbox = inbox

    def run(self) -> str:
        """Make what is missing, and say what was there and what was made."""
        said = [self._ensured(kind, each) for kind, each in self.options.relied_on()]
        return "; ".join([*said, *self._connected()])

    def caution(self) -> str:
        """Say what deliveries can do without, and at which price; empty if nothing is missing."""
        kind, wanted = self.options.relied_on()[0]
        fault = self._fault(kind, wanted)
        said = [f"{fault}, so one customer may get two contacts ({SETUP})"] if fault else []
        return "".join(f"; but {each}" for each in [*said, *self._rules()])

    def faults(self) -> Iterator[str]:
        """Say what is missing or wrong, so that deliveries cannot work."""
        for kind, wanted in self.options.relied_on()[1:]:
            fault = self._fault(kind, wanted)
            if fault:
                yield f"{fault} ({SETUP})"
        for name in self.options.phone_properties:
            # An account need not have all of the default ones.
            if name not in PHONES and self.api.property("contacts", name) is None:
                yield f"contact property {name} is missing (are phone_properties right?)"
        yield from self._unknown_properties()
        if self.tickets:
            yield from self._stage_faults(self.tickets)
        if self.inbox and not any(map(is_usable, self.inbox.accounts())):
            channel = self.inbox.options.channel_id
            yield f"channel {channel} has no account for any number of ours ({SETUP})"

    def _unknown_properties(self) -> Iterator[str]:
        """Name the further properties that the account lacks."""
        yield from self._missing("contact", self.options.contact.properties)
        if self.options.ticket:
            yield from self._missing("ticket", self.options.ticket.properties)
        if self.options.task:
            # HubSpot does not say which scope this look needs, and deliveries make none.
            with suppress(Unauthorized):
                yield from self._missing("task", self.options.task.properties)

    def _missing(self, one: str, properties: Iterable[str]) -> Iterator[str]:
        for name in properties:
            if self.api.property(f"{one}s", name) is None:
                yield f"{one} property {name} is missing (is {one}.properties right?)"

    def _fault(self, kind: str, wanted: dict[str, Any]) -> str:
        there = self.api.property(kind, wanted["name"])
        if there is None:
            return f"{_called(kind, wanted)} is missing"
        if wanted.get("hasUniqueValue") and there.get("hasUniqueValue") is False:
            return f"{_called(kind, wanted)} has no unique values"
        return ""

    def _rules(self) -> Iterator[str]:
        """Say which required properties the options do not fill in, as far as HubSpot shows it.

        It shows them with the scope crm.schemas.custom.read, and conditional logic never.
        """
        for kind, filled in self.options.filled_in().items():
            try:
                schema = self.api.call("GET", SCHEMA, ids={"kind": kind})
            except DeliveryError:
                continue
            names = schema.get("requiredProperties") if isinstance(schema, dict) else None
            missing = sorted(set(map(str, names)) - filled) if isinstance(names, list) else []
            if missing:
                one = kind.removesuffix("s")
                yield (
                    f"HubSpot refuses a new {one} without {', '.join(missing)}: "
                    f"give values in {one}.properties"
                )

    def _stage_faults(self, tickets: Tickets) -> Iterator[str]:
        pipeline, stage = tickets.options.pipeline, tickets.options.stage
        stages = {text(each, "id"): text(each, "label") for each in tickets.stages(pipeline)}
        if not stages:
            yield f"there is no ticket pipeline {pipeline}"
        elif stage not in stages:
            have = ", ".join(f"{id} {label}" for id, label in stages.items())
            yield f"ticket pipeline {pipeline} has no stage {stage} (have: {have})"

    def _ensured(self, kind: str, wanted: dict[str, Any]) -> str:
        there = self.api.property(kind, wanted["name"])
        if there is None:
            return self._made(kind, wanted)
        if wanted.get("hasUniqueValue") and there.get("hasUniqueValue") is False:
            raise Refused(
                f"{_called(kind, wanted)} is there, but without unique values, which HubSpot lets "
                "nobody change: delete it there, or name another one"
            )
        return f"{_called(kind, wanted)} is there"

    def _made(self, kind: str, wanted: dict[str, Any]) -> str:
        try:
            self.api.call("POST", PROPERTIES, ids={"kind": kind}, body=wanted)
        except Refused as error:
            # Somebody else may have been quicker, or our first answer was lost.
            if error.status != 409 or self.api.property(kind, wanted["name"]) is None:
                raise
            return f"{_called(kind, wanted)} is there"
        return f"{_called(kind, wanted)} made"

    def _connected(self) -> Iterator[str]:
        if not self.inbox:
            return
        there = {connected(each) for each in self.inbox.accounts() if is_usable(each)}
        for number in self.inbox.options.numbers:
            if number not in there:
                self.inbox.connect(number)
            yield f"{number} {'is' if number in there else 'was'} connected to the inbox"
        if not self.inbox.options.numbers and not there:
            raise Unauthorized(
                f"channel {self.inbox.options.channel_id} has no account: name our numbers and "
                "the inbox under inbox.numbers and inbox.inbox_id"
            )


def _called(kind: str, wanted: dict[str, Any]) -> str:
    return f"{kind.removesuffix('s')} property {wanted['name']}"
