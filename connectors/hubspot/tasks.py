"""A task in HubSpot that tells a contact's owner that the customer wrote."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from connectors.base import Ambiguous
from connectors.hubspot.answers import properties, text
from connectors.hubspot.contacts import OWNER, Contact, Contacts
from connectors.hubspot.options import TaskOptions
from connectors.hubspot.sms import Sms, digest, entry_body, moment, stamp
from connectors.hubspot.timeline import TASK_TO_TICKET, TO_CONTACT, Timeline, associated
from connectors.plain import parties, spoken

FINISHED = "COMPLETED"


class Tasks:
    """Keeps at most one unfinished task per conversation."""

    def __init__(self, timeline: Timeline, options: TaskOptions, *, contacts: Contacts) -> None:
        self.timeline = timeline
        self.options = options
        self.contacts = contacts

    def remind(self, sms: Sms, *, contact: Contact, ticket: str | None) -> None:
        """Make a task for the SMS, unless its conversation has an unfinished one."""
        conversation = _conversation(sms)
        if self._is_there(contact, mark=sms.mark, conversation=conversation):
            return
        values = self.values(sms)
        links = [associated(contact.id, TO_CONTACT["tasks"])]
        links += [associated(ticket, TASK_TO_TICKET)] if ticket else []

        def make(owner: Mapping[str, str]) -> Any:
            return self.timeline.add("tasks", {**values, **owner}, links)

        made = make({}) if OWNER in values else self.contacts.owned(contact, make)
        if not made and not self._is_there(contact, mark=sms.mark, conversation=conversation):
            raise Ambiguous("a task was sent, but neither the answer nor a look-up names it")

    def values(self, sms: Sms) -> dict[str, str]:
        """Return the properties of the task, except its owner."""
        words = f"{parties(sms.event)}\n\n{spoken(sms.event)}"
        due = moment(sms.event) + timedelta(hours=self.options.due_in_hours)
        return {
            "hs_task_body": entry_body(words, mark=f"{sms.mark}, {_conversation(sms)}"),
            "hs_task_status": "NOT_STARTED",
            "hs_task_type": "TODO",  # HubSpot's name for a task that is no call and no mail
            "hs_timestamp": stamp(due),
            **sms.task,
        }

    def _is_there(self, contact: Contact, *, mark: str, conversation: str) -> bool:
        """Look at the contact's newest tasks; always, because only that makes one of them."""
        names = ["hs_task_body", "hs_task_status"]
        rows: list[dict[str, Any]] = next(
            self.timeline.newest("tasks", contact=contact.id, names=names), []
        )
        for row in map(properties, rows):
            body = text(row, "hs_task_body") or ""
            if mark in body or (conversation in body and text(row, "hs_task_status") != FINISHED):
                return True
        return False


def _conversation(sms: Sms) -> str:
    return f"conversation {digest(sms.event.conversation)}"
