"""Brings each SMS to the customer's contact in HubSpot: on its timeline, or into the inbox."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

import requests

from connectors.base import (
    Connector,
    DeliveryError,
    Disclosure,
    Event,
    Preview,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.http import Http
from connectors.hubspot.answers import is_id, parsed, text
from connectors.hubspot.api import Api
from connectors.hubspot.contacts import CONTACTS, OWNER, Contact, Contacts, e164
from connectors.hubspot.errors import Invalid, after_acting, blamed
from connectors.hubspot.inbox import Inbox
from connectors.hubspot.options import SETUP, HubSpotOptions, Properties
from connectors.hubspot.setup import Setup
from connectors.hubspot.sms import Sms, cleaned, is_from_customer, subject, wants_answer
from connectors.hubspot.tasks import Tasks
from connectors.hubspot.tickets import Tickets
from connectors.hubspot.timeline import Timeline
from connectors.oauth import AccessToken
from connectors.templates import given_away, render

ACCOUNT = "/account-info/2026-09/details"
TOKENS = "/oauth/2026-03/token"
#: Characters by which a quotation is known; shorter texts, such as "ok", stand everywhere.
QUOTE, SHORTEST_QUOTE = 8, 4
#: On what the effects of a preview depend.
NOBODY = "if no contact has the customer's number"
SOMEBODY = "if a contact has the customer's number"


class HubSpot(Connector[HubSpotOptions]):
    """Finds or creates the contact by phone number, and logs the SMS there once.

    The SMS is logged before anything else that HubSpot might refuse: what comes after it, a
    ticket, a task, an opt-out, is reported by an error that says so.
    """

    Options = HubSpotOptions
    # HubSpot counts requests, of which a delivery makes one to ten: see allowance.py.
    default_rate: ClassVar[str | None] = None
    looks_first = True

    def __init__(self, options: HubSpotOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._api = Api(
            base_url=options.base_url,
            token=_token(options, http=http),
            http=http,
            zone=ZoneInfo(options.time_zone) if options.time_zone else None,
        )
        self._contacts = Contacts(
            self._api,
            unique_property=options.unique_property,
            phones=options.phone_properties,
            owner=options.owner_id,
        )
        self._timeline = timeline = Timeline(self._api, owner=options.owner_id)
        self._tickets: Tickets | None = None
        self._tasks: Tasks | None = None
        self._inbox: Inbox | None = None
        if options.ticket:
            self._tickets = Tickets(self._api, timeline, options.ticket, contacts=self._contacts)
        if options.task:
            self._tasks = Tasks(timeline, options.task, contacts=self._contacts)
        if options.inbox:
            self._inbox = Inbox(self._api, options.inbox)

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        """Bring *event* once to its customer's contact; that contact is the thread."""
        sms = self._written(event, key=key, repeat=repeat)
        with self.http.within(deadline), _unquoted(event):
            if thread is not None and is_id(thread):
                receipt = self._bring(sms, Contact(thread))
                if receipt is not None:
                    return receipt
            return self._bring_to_found(sms)

    @classmethod
    def discloses(cls, options: HubSpotOptions) -> Disclosure:
        made = [options.text, options.contact.firstname, *options.contact.properties.values()]
        for each in (options.ticket, options.task):
            made += [each.subject, *each.properties.values()] if each else []
        # By the number contacts are found, and the customer's wish is kept with them.
        also = ["customer's number", *(["keyword"] if options.opt_out_property else [])]
        host = urlsplit(options.base_url).hostname or ""
        return Disclosure(to=(host,), what=given_away(*made, also=also))

    def preview(self, event: Event, *, key: str) -> list[Preview]:
        """Return what the event makes where nobody knows its conversation."""
        sms = self._written(event, key=key, repeat=False)
        number = self._number(event)
        return [] if number is None else list(self._previews(sms, number))

    def _previews(self, sms: Sms, number: str) -> Iterator[Preview]:
        options, event = self.options, sms.event
        when = ""
        if options.unknown_contact == "create":
            values = self._values_of(event, number) | {"phone": number}
            yield _previewed("contact", values | {options.unique_property: number}, when=NOBODY)
        else:
            when = SOMEBODY
        inbox = self._inbox if event.ours is not None else None
        if inbox is not None:
            yield Preview(kind="inbox message", content=inbox.message(sms), when=when)
        else:
            yield _previewed("timeline entry", self._timeline.entry(sms), when=when)
        if wish := self._opt_out_wish(event):
            yield _previewed("opt-out of the contact", wish, when=when)
        owner = {OWNER: options.owner_id} if options.owner_id else {}
        if self._tickets is not None and inbox is None and wants_answer(event):
            yield _previewed("ticket", owner | self._tickets.values(sms), when=when)
        if self._tasks is not None and wants_answer(event):
            yield _previewed("task", owner | self._tasks.values(sms), when=when)

    def check(self) -> str:
        """Read contacts, change nothing, and say which account answers and what it lacks."""
        setup = Setup(self._api, self.options, tickets=self._tickets, inbox=self._inbox)
        with self.http.within(self.http.default_deadline):
            try:
                self._api.rows("GET", CONTACTS, query={"limit": 1})
                faults = list(setup.faults())
                who = "the service key" if self.options.access_token else "the app"
                said = f"{self._account()}: {who} may read contacts{setup.caution()}"
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
        """Fill in the templates before the first request, so that a faulty one leaves nothing."""
        words = render(self.options.text, event, field="text")
        ticket: dict[str, str] = {}
        task: dict[str, str] = {}
        if (wanted := self.options.ticket) and wants_answer(event):
            ticket = _filled(wanted.properties, event, field="ticket.properties")
            ticket["subject"] = subject(render(wanted.subject, event, field="ticket.subject"))
        if (reminder := self.options.task) and wants_answer(event):
            task = _filled(reminder.properties, event, field="task.properties")
            task["hs_task_subject"] = subject(
                render(reminder.subject, event, field="task.subject")
            )
        return Sms(event=event, key=key, repeat=repeat, words=words, ticket=ticket, task=task)

    def _bring_to_found(self, sms: Sms) -> Receipt:
        number, may_create = self._number(sms.event), self.options.unknown_contact == "create"
        if number is None:
            return Receipt(reference="skipped: the event names no phone number of a customer")
        for contact in self._contacts.known(number):
            receipt = self._bring(sms, contact)
            if receipt is not None:
                return receipt
        if not may_create:
            return Receipt(reference="skipped: no contact has the customer's number")
        receipt = self._bring(sms, self._contacts.make(number, self._values_of(sms.event, number)))
        if receipt is None:
            raise Transient("the contact disappeared while the entry was made")
        return receipt

    def _number(self, event: Event) -> str | None:
        """Return the customer's number; None if there is none, and the event is skipped."""
        number = e164(event.customer)
        if number is None and self.options.unknown_contact == "create":
            raise Refused("the event names no international phone number to find a contact by")
        return number

    def _values_of(self, event: Event, number: str) -> dict[str, str]:
        """Fill in the templates of a new contact, which only new contacts need."""
        options = self.options.contact
        first = cleaned(render(options.firstname, event, field="contact.firstname")).strip()
        own = _filled(options.properties, event, field="contact.properties")
        return {"firstname": first or number, **own}

    def _bring(self, sms: Sms, contact: Contact) -> Receipt | None:
        """Bring the SMS to *contact*; None if there is no such contact (any more)."""
        # An inbox knows conversations of a number of ours, which status events do not name.
        inbox = self._inbox if sms.event.ours is not None else None
        try:
            if inbox is not None:
                receipt = Receipt(reference=inbox.publish(sms, contact=contact.id))
            else:
                receipt = self._logged(sms, contact)
        except Refused as error:
            gone = error.status in (400, 404) and not error.acted
            if not gone or self._contacts.exists(contact):
                raise
            return None
        with after_acting(f"the SMS is in HubSpot ({receipt.reference})"):
            note = self._adopted(sms, contact)
            self._follow_up(sms, contact, entry=None if inbox else receipt.reference)
        return Receipt(reference=f"{receipt.reference}{note}", url=receipt.url, thread=contact.id)

    def _logged(self, sms: Sms, contact: Contact) -> Receipt:
        """Log the SMS, unless an earlier attempt has done so."""
        row = None
        if sms.repeat:
            row = self._timeline.find(contact.id, mark=sms.mark, since=sms.event.received_at)
        if row is None:
            row = self._timeline.log(sms, contact=contact.id)
        return Receipt(reference=str(row["id"]), url=_link(row))

    def _follow_up(self, sms: Sms, contact: Contact, *, entry: str | None) -> None:
        """Do what comes after the log; a step that is refused keeps nobody from the next."""
        refusals: list[Refused] = []
        ticket = None
        with _collected(refusals):
            self._mark_opt_out(sms.event, contact)
        if self._tickets is not None and entry is not None:
            with _collected(refusals):
                ticket = self._tickets.attach(sms, entry=entry, contact=contact)
        if self._tasks is not None and wants_answer(sms.event):
            with _collected(refusals):
                self._tasks.remind(sms, contact=contact, ticket=ticket)
        if refusals:
            message = "; ".join(str(each) for each in refusals)
            raise Refused(message, status=refusals[0].status) from refusals[0]

    def _adopted(self, sms: Sms, contact: Contact) -> str:
        """Adopt a contact that was found by search, and return a note if HubSpot refuses that."""
        number = e164(sms.event.customer)
        if not contact.unkeyed or number is None:
            return ""
        refusal = self._contacts.adopt(contact, number)
        name = self.options.unique_property
        return f" (contact {contact.id} keeps an empty {name}: {refusal})" if refusal else ""

    def _mark_opt_out(self, event: Event, contact: Contact) -> None:
        """Say on every contact with the number whether its owner wants no more SMS."""
        values = self._opt_out_wish(event)
        if not values:
            return
        try:
            self._contacts.update(e164(event.customer), contact=contact.id, values=values)
        except Invalid as error:
            raise blamed(error, dict.fromkeys(values, SETUP)) from error

    def _opt_out_wish(self, event: Event) -> dict[str, str]:
        """Return the property that STOP or START writes; nothing for any other event."""
        name, keyword = self.options.opt_out_property, event.keyword
        if name is None or keyword not in ("STOP", "START") or not is_from_customer(event):
            return {}
        return {name: "true" if keyword == "STOP" else "false"}


def _previewed(kind: str, values: Mapping[str, str], *, when: str) -> Preview:
    return Preview(kind=kind, content={"properties": dict(values)}, when=when)


def _token(options: HubSpotOptions, *, http: Http) -> str | AccessToken:
    if options.access_token is not None:
        return options.access_token.get_secret_value()
    grant = {
        "grant_type": "refresh_token",
        "client_id": options.client_id,
        "client_secret": options.client_secret,
        "refresh_token": options.refresh_token,
    }
    url = options.base_url.rstrip("/") + TOKENS
    return AccessToken(url, grant, http=http, detail=_described_grant)


def _described_grant(response: requests.Response) -> str:
    """Name the code of a refused grant."""
    answer = parsed(response.content)
    code = text(answer, "error") or text(answer, "status") or ""
    return code if re.fullmatch(r"[A-Za-z_]{1,40}", code) else ""


def _filled(properties: Properties, event: Event, *, field: str) -> dict[str, str]:
    """Fill in the templates of properties; one that makes nothing leaves its property out."""
    made = {
        name: cleaned(render(template, event, field=f"{field}.{name}")).strip()
        for name, template in properties.items()
    }
    return {name: value for name, value in made.items() if value}


@contextmanager
def _collected(refusals: list[Refused]) -> Iterator[None]:
    try:
        yield
    except Refused as error:
        refusals.append(error)


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
