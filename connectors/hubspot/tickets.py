"""One ticket per conversation in HubSpot: found, made, reopened or followed by a new one."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from connectors.base import Ambiguous, Refused, Transient
from connectors.hubspot.api import Api, Conflict, dicts, properties, record_id, text
from connectors.hubspot.contacts import Contacts
from connectors.hubspot.options import TICKET_PROPERTY, TicketOptions
from connectors.hubspot.sms import Sms, entry_body
from connectors.hubspot.timeline import associated
from connectors.plain import spoken

TICKETS = "/crm/objects/2026-09/tickets"
PIPELINES = "/crm/pipelines/2026-09/tickets"
TICKET_TO_CONTACT = 16
#: Seconds for which the stages of a pipeline are taken as known.
STAGES_KEPT = 600.0

Json = dict[str, Any]


class Tickets:
    """Keeps the ticket of each conversation."""

    def __init__(self, api: Api, options: TicketOptions, *, contacts: Contacts) -> None:
        self.api = api
        self.options = options
        self.contacts = contacts
        self._stages: dict[str, tuple[float, list[Json]]] = {}

    def current(self, sms: Sms) -> str | None:
        """Return the ticket of the conversation, open or closed; None without one."""
        found = self._read(sms.conversation)
        return record_id(found) if found else None

    def open(self, sms: Sms, *, contact: str) -> str:
        """Return an open ticket of the conversation; a new one is about *contact*."""
        found = self._read(sms.conversation)
        if found is not None and self._is_closed(found):
            if self.options.when_closed == "reopen":
                return self._reopened(found)
            self._let_go(record_id(found), sms.conversation)
            found = None
        if found is not None:
            return record_id(found)
        return self._made(sms, contact=contact)

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

    def _read(self, conversation: str) -> Json | None:
        query = {"idProperty": TICKET_PROPERTY, "properties": "hs_pipeline,hs_pipeline_stage"}
        try:
            row = self.api.call("GET", TICKETS + "/{id}", ids={"id": conversation}, query=query)
        except Refused as error:
            if error.status != 404:
                raise
            return None
        record_id(row)
        return dict(row)

    def _is_closed(self, ticket: Json) -> bool:
        stage = text(properties(ticket), "hs_pipeline_stage")
        stages = self.stages(text(properties(ticket), "hs_pipeline") or self.options.pipeline)
        return any(text(each, "id") == stage and not _is_open(each) for each in stages)

    def _reopened(self, ticket: Json) -> str:
        """Move the ticket to the stage for new ones, or to the first of its own pipeline."""
        pipeline = text(properties(ticket), "hs_pipeline") or self.options.pipeline
        stage = self.options.stage
        if pipeline != self.options.pipeline:
            ids = [text(each, "id") for each in self.stages(pipeline) if _is_open(each)]
            stage = next(filter(None, ids), stage)
        values = {"hs_pipeline": pipeline, "hs_pipeline_stage": stage}
        self._write(record_id(ticket), values)
        return record_id(ticket)

    def _let_go(self, ticket: str, conversation: str) -> None:
        """Let a closed ticket be one of the conversation's past ones."""
        self._write(ticket, {TICKET_PROPERTY: f"{conversation} (past: {ticket})"})

    def _write(self, ticket: str, values: dict[str, str]) -> None:
        body = {"properties": values}
        self.api.call("PATCH", TICKETS + "/{id}", ids={"id": ticket}, body=body)

    def _made(self, sms: Sms, *, contact: str) -> str:
        values = {
            TICKET_PROPERTY: sms.conversation,
            "hs_pipeline": self.options.pipeline,
            "hs_pipeline_stage": self.options.stage,
            "subject": sms.ticket,
            "content": entry_body(spoken(sms.event), mark=sms.mark),
        }
        if self.options.priority:
            values["hs_ticket_priority"] = self.options.priority
        links = [associated(contact, TICKET_TO_CONTACT)]

        def make(owner: Mapping[str, str]) -> Any:
            # The unique property lets no second ticket be made: a lost answer may be repeated.
            body = {"properties": {**values, **owner}, "associations": links}
            return self.api.call("POST", TICKETS, body=body)

        try:
            made = self.contacts.owned(contact, make)
        except Conflict as conflict:
            found = self._read(sms.conversation)
            if found is None:
                raise Transient("another ticket has just taken the conversation") from conflict
            return record_id(found)
        if text(made, "id") is None:
            raise Ambiguous("a ticket was sent, but the answer names none")
        return record_id(made)


def _is_open(stage: Json) -> bool:
    metadata = stage.get("metadata")
    return not (isinstance(metadata, dict) and metadata.get("ticketState") == "CLOSED")


def _order(stage: Json) -> int:
    order = stage.get("displayOrder")
    return order if isinstance(order, int) else 0
