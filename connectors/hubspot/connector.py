"""Brings each SMS to the customer's contact in HubSpot: on its timeline, or into the inbox."""

from __future__ import annotations

import html
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar
from zoneinfo import ZoneInfo

from connectors.base import (
    Connector,
    DeliveryError,
    Event,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.http import Http
from connectors.hubspot.api import Api, is_id, text
from connectors.hubspot.contacts import CONTACTS, Contacts, e164
from connectors.hubspot.inbox import Inbox
from connectors.hubspot.options import HubSpotOptions, TaskOptions, TicketOptions
from connectors.hubspot.setup import Setup
from connectors.hubspot.sms import Sms, is_from_customer, subject, wants_answer
from connectors.hubspot.tasks import Tasks
from connectors.hubspot.tickets import Tickets
from connectors.hubspot.timeline import Timeline
from connectors.templates import render

ACCOUNT = "/account-info/2026-09/details"
#: Characters by which a quotation is known; shorter texts, such as "ok", stand everywhere.
QUOTE, SHORTEST_QUOTE = 8, 4


class HubSpot(Connector[HubSpotOptions]):
    """Finds or creates the contact by phone number, and logs the SMS there once."""

    Options = HubSpotOptions
    default_rate: ClassVar[str | None] = "100/10s"

    def __init__(self, options: HubSpotOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._api = Api(
            base_url=options.base_url,
            token=options.access_token.get_secret_value(),
            unique_property=options.unique_property,
            http=http,
            blame=options.blame(),
            zone=ZoneInfo(options.time_zone) if options.time_zone else None,
        )
        self._contacts = Contacts(
            self._api,
            unique_property=options.unique_property,
            phones=options.phone_properties,
            may_create=options.unknown_contact == "create",
            owner=options.owner_id,
        )
        self._timeline = Timeline(self._api, owner=options.owner_id)
        self._tickets: Tickets | None = None
        self._tasks: Tasks | None = None
        self._inbox: Inbox | None = None
        if options.ticket:
            self._tickets = Tickets(self._api, options.ticket, contacts=self._contacts)
        if options.task:
            self._tasks = Tasks(self._timeline, options.task, contacts=self._contacts)
        if options.inbox:
            self._inbox = Inbox(self._api, options.inbox)

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        """Bring *event* once to its customer's contact; that contact is the thread."""
        sms = self._written(event, key=key, repeat=repeat)
        with self.http.within(deadline), _unquoted(event):
            if thread is not None and is_id(thread):
                receipt = self._bring(sms, contact=thread)
                if receipt is not None:
                    return receipt
            return self._bring_to_found(sms)

    def check(self) -> str:
        """Read contacts, change nothing, and say which account answers and what it lacks."""
        setup = Setup(self._api, self.options, tickets=self._tickets, inbox=self._inbox)
        with self.http.within(self.http.default_deadline):
            try:
                self._api.rows("GET", CONTACTS, query={"limit": 1})
                faults = list(setup.faults())
                said = f"{self._account()}: the service key may read contacts{setup.caution()}"
            except Refused as error:
                raise Unauthorized(f"{error} (is base_url right?)", status=error.status) from error
            except Throttled as error:
                raise Transient(str(error), status=error.status) from error
        if faults:
            raise Unauthorized("; ".join(faults))
        return said

    def setup(self) -> str:
        """Make the properties that deliveries rely on, and connect our numbers to the inbox."""
        with self.http.within(self.http.default_deadline):
            setup = Setup(self._api, self.options, tickets=self._tickets, inbox=self._inbox)
            return setup.run()

    def close(self) -> None:
        """Release connections."""
        self._api.close()

    def _account(self) -> str:
        try:
            details = self._api.call("GET", ACCOUNT)
        except DeliveryError:
            return "HubSpot"
        zone = text(details, "timeZone")
        advice = ""
        if zone and zone != self.options.time_zone:
            advice = f" (its time_zone is {zone})"
        return f"HubSpot account {text(details, 'portalId') or '(unnamed)'}{advice}"

    def _written(self, event: Event, *, key: str, repeat: bool) -> Sms:
        """Fill in every template before the first request: one that fails leaves nothing."""
        ticket, task = self.options.ticket, self.options.task
        if not wants_answer(event):
            ticket = task = None
        return Sms(
            event=event,
            key=key,
            repeat=repeat,
            words=render(self.options.text, event, field="text"),
            ticket=_subject(ticket, event, field="ticket.subject"),
            task=_subject(task, event, field="task.subject"),
        )

    def _bring_to_found(self, sms: Sms) -> Receipt:
        number = e164(sms.event.customer)
        if number is None and self.options.unknown_contact == "skip":
            return Receipt(reference="skipped: the event names no phone number of a customer")
        if number is None:
            raise Refused("the event names no international phone number to find a contact by")
        contact = self._contacts.find(number)
        if contact is None:
            return Receipt(reference="skipped: no contact has the customer's number")
        receipt = self._bring(sms, contact=contact)
        if receipt is None:
            raise Transient(f"contact {contact} disappeared while the entry was made")
        return receipt

    def _bring(self, sms: Sms, *, contact: str) -> Receipt | None:
        """Bring the SMS to *contact*; None if there is no such contact (any more)."""
        try:
            # An inbox knows conversations of a number of ours, which status events do not name.
            if self._inbox is not None and sms.event.ours is not None:
                return self._published(self._inbox, sms, contact=contact)
            return self._logged(sms, contact=contact)
        except Refused as error:
            if error.status not in (400, 404) or self._contacts.exists(contact):
                raise
            return None

    def _published(self, inbox: Inbox, sms: Sms, *, contact: str) -> Receipt:
        self._mark_opt_out(sms.event, contact=contact)
        return Receipt(reference=inbox.publish(sms, contact=contact), thread=contact)

    def _logged(self, sms: Sms, *, contact: str) -> Receipt:
        """Log the SMS; last of all, so that who finds the entry knows that the rest was done."""
        row = None
        if sms.repeat:
            row = self._timeline.find(contact, mark=sms.mark, since=sms.event.received_at)
        if row is None:
            self._mark_opt_out(sms.event, contact=contact)
            ticket = self._ticket(sms, contact=contact)
            if self._tasks is not None and wants_answer(sms.event):
                self._tasks.remind(sms, contact=contact, ticket=ticket)
            row = self._timeline.log(sms, contact=contact, ticket=ticket)
        return Receipt(reference=str(row["id"]), url=_link(row), thread=contact)

    def _ticket(self, sms: Sms, *, contact: str) -> str | None:
        if self._tickets is None:
            return None
        if not wants_answer(sms.event):
            return self._tickets.current(sms)
        return self._tickets.open(sms, contact=contact)

    def _mark_opt_out(self, event: Event, *, contact: str) -> None:
        """Say on every contact with the number whether its owner wants no more SMS."""
        name, keyword = self.options.opt_out_property, event.keyword
        if name is None or keyword not in ("STOP", "START") or not is_from_customer(event):
            return
        values = {name: "true" if keyword == "STOP" else "false"}
        self._contacts.mark(e164(event.customer), contact=contact, values=values)


def _subject(options: TicketOptions | TaskOptions | None, event: Event, *, field: str) -> str:
    return subject(render(options.subject, event, field=field)) if options else ""


@contextmanager
def _unquoted(event: Event) -> Iterator[None]:
    """Take the customer's words out of errors: HubSpot's refusals quote what they refuse."""
    try:
        yield
    except DeliveryError as error:
        message = str(error)
        for words in (event.body or "", html.escape(event.body or "")):
            begin = words.strip()[:QUOTE]
            if len(begin) >= SHORTEST_QUOTE and begin in message:
                message = f"{message.partition(begin)[0]}(text)"
        error.args = (message,)
        raise


def _link(record: object) -> str | None:
    url = text(record, "url") or ""
    return url if url.startswith(("https://", "http://")) else None
