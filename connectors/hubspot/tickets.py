"""One ticket per conversation in HubSpot: found, made, reopened or followed by a new one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from connectors.base import Refused, Transient, Unauthorized
from connectors.hubspot.answers import dicts, new_id, properties, record_id, text
from connectors.hubspot.api import Api
from connectors.hubspot.contacts import OWNER, Contact, Contacts
from connectors.hubspot.errors import Invalid, blamed
from connectors.hubspot.options import SETUP, TICKET_PROPERTY, TicketOptions
from connectors.hubspot.sms import Sms, entry_body, wants_answer
from connectors.hubspot.timeline import Timeline, associated
from connectors.plain import spoken

TICKETS = "/crm/objects/2026-09/tickets"
PIPELINES = "/crm/pipelines/2026-09/tickets"
ENTRY_TO_TICKET = (
    "/crm/objects/2026-09/communications/{entry}/associations/default/tickets/{ticket}"
)
#: HubSpot's ids of the associations from a new ticket to its contact and its first entry.
TICKET_TO_CONTACT, TICKET_TO_ENTRY = 16, 84
#: Seconds for which the stages of a pipeline are taken as known.
STAGES_KEPT = 600.0
#: What is wrong if HubSpot does not know a value that only the options fill in.
ADVICE = {
    "hs_pipeline": "is ticket.pipeline right?",
    "hs_pipeline_stage": "is ticket.stage right?",
    TICKET_PROPERTY: SETUP,
}

Json = dict[str, Any]


class Tickets:
    """Keeps the ticket of each conversation."""

    def __init__(
        self, api: Api, timeline: Timeline, options: TicketOptions, *, contacts: Contacts
    ) -> None:
        self.api = api
        self.timeline = timeline
        self.options = options
        self.contacts = contacts
        self._stages: dict[str, tuple[float, list[Json]]] = {}

    def attach(self, sms: Sms, *, entry: str, contact: Contact) -> str | None:
        """Put the SMS, logged as *entry*, on its conversation's ticket, and return the ticket.

        An SMS that wants an answer makes or reopens the ticket. Any other is put on the ticket as
        it is; None if there is none.
        """
        if sms.repeat:
            attached = next(self.timeline.linked("communications", entry, "tickets"), None)
            # An earlier attempt came so far: what was closed since then stays closed.
            if attached:
                return attached
        ticket = self._current(sms)
        if ticket is None and wants_answer(sms.event):
            made = self._made(sms, entry=entry, contact=contact)
            if made:
                return made
            found = self._read(sms.conversation)
            if found is None:
                raise Transient("another ticket has just taken the conversation")
            ticket = record_id(found)
        if ticket is not None:
            self._write("PUT", ENTRY_TO_TICKET, {"entry": entry, "ticket": ticket})
        return ticket

    def values(self, sms: Sms) -> dict[str, str]:
        """Return the properties of a new ticket, except its owner."""
        values = {
            TICKET_PROPERTY: sms.conversation,
            "hs_pipeline": self.options.pipeline,
            "hs_pipeline_stage": self.options.stage,
            "content": entry_body(spoken(sms.event), mark=sms.mark),
            **sms.ticket,
        }
        if self.options.priority:
            values["hs_ticket_priority"] = self.options.priority
        return values

    def stages(self, pipeline: str) -> list[Json]:
        """Return the stages of *pipeline* in their order; none if there is no such pipeline."""
        kept = self._stages.get(pipeline)
        if kept is None or kept[0] < time.monotonic():
            kept = (time.monotonic() + STAGES_KEPT, self._asked_stages(pipeline))
            self._stages[pipeline] = kept
        return kept[1]

    def _asked_stages(self, pipeline: str) -> list[Json]:
        try:
            answer = self.api.call("GET", PIPELINES + "/{id}", ids={"id": pipeline})
        except Refused as error:
            if error.status != 404:
                raise
            return []
        return sorted(dicts(answer, "stages"), key=_order)

    def _current(self, sms: Sms) -> str | None:
        """Return the conversation's ticket, reopened if the SMS wants an answer."""
        found = self._read(sms.conversation)
        if found is None:
            return None
        ticket = record_id(found)
        if not wants_answer(sms.event) or not self._is_closed(found):
            return ticket
        if self.options.when_closed == "reopen":
            self._reopen(found, sms)
            return ticket
        past = {TICKET_PROPERTY: f"{sms.conversation} (past: {ticket})"}
        self._update(ticket, past, sms)
        return None

    def _read(self, conversation: str) -> Json | None:
        query = {"idProperty": TICKET_PROPERTY, "properties": "hs_pipeline,hs_pipeline_stage"}
        try:
            row = self.api.call("GET", TICKETS + "/{id}", ids={"id": conversation}, query=query)
        except Refused as error:
            if error.status == 404:
                return None
            if error.status == 400 and self.api.lacks_unique("tickets", TICKET_PROPERTY):
                raise Unauthorized(f"{error} ({SETUP})", status=error.status) from error
            raise
        record_id(row)
        return dict(row)

    def _is_closed(self, ticket: Json) -> bool:
        stage = text(properties(ticket), "hs_pipeline_stage")
        stages = self.stages(text(properties(ticket), "hs_pipeline") or self.options.pipeline)
        return any(text(each, "id") == stage and not _is_open(each) for each in stages)

    def _reopen(self, ticket: Json, sms: Sms) -> None:
        """Move the ticket to the stage for new ones, or to the first of its own pipeline."""
        pipeline = text(properties(ticket), "hs_pipeline") or self.options.pipeline
        stage = self.options.stage
        if pipeline != self.options.pipeline:
            ids = [text(each, "id") for each in self.stages(pipeline) if _is_open(each)]
            stage = next(filter(None, ids), stage)
        values = {"hs_pipeline": pipeline, "hs_pipeline_stage": stage}
        try:
            self._update(record_id(ticket), values, sms)
        except Invalid as error:
            if pipeline == self.options.pipeline:
                raise blamed(error, ADVICE) from error
            if not error.wrong_of(*values):
                raise
            # HubSpot named that stage: it was changed since.
            self._stages.pop(pipeline, None)
            raise Transient(str(error), status=error.status) from error

    def _update(self, ticket: str, values: Mapping[str, str], sms: Sms) -> None:
        """Write *values*, and what a rule of the account then requires, if the options have it."""
        ids = {"id": ticket}
        try:
            self._write("PATCH", TICKETS + "/{id}", ids, body={"properties": dict(values)})
        except Invalid as error:
            lacking = {name: sms.ticket[name] for name in error.missing & sms.ticket.keys()}
            if not lacking:
                raise
            filled = {"properties": {**values, **lacking}}
            self._write("PATCH", TICKETS + "/{id}", ids, body=filled)

    def _write(
        self, method: str, path: str, ids: Mapping[str, str], *, body: Json | None = None
    ) -> None:
        """Change a ticket that was there a moment ago."""
        try:
            self.api.call(method, path, ids=ids, body=body)
        except Refused as error:
            if error.status != 404:
                raise
            raise Transient("the ticket or the entry disappeared", status=error.status) from error

    def _made(self, sms: Sms, *, entry: str, contact: Contact) -> str | None:
        """Make the ticket; None if another one has the conversation already."""
        values = self.values(sms)
        links = [associated(contact.id, TICKET_TO_CONTACT), associated(entry, TICKET_TO_ENTRY)]

        def make(owner: Mapping[str, str]) -> Any:
            # The unique property lets no second ticket be made: a lost answer may be repeated.
            body = {"properties": {**values, **owner}, "associations": links}
            return self.api.call("POST", TICKETS, body=body)

        try:
            answer = make({}) if OWNER in values else self.contacts.owned(contact, make)
        except Invalid as error:
            if error.is_taken(TICKET_PROPERTY):
                return None
            raise blamed(error, ADVICE) from error
        return new_id(answer)


def _is_open(stage: Json) -> bool:
    metadata = stage.get("metadata")
    return not (isinstance(metadata, dict) and metadata.get("ticketState") == "CLOSED")


def _order(stage: Json) -> int:
    order = stage.get("displayOrder")
    return order if isinstance(order, int) else 0
