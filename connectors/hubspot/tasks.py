"""A task in HubSpot that tells a contact's owner that the customer wrote."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from connectors.hubspot.api import properties, text
from connectors.hubspot.contacts import Contacts
from connectors.hubspot.options import TaskOptions
from connectors.hubspot.sms import Sms, digest, entry_body, moment, stamp
from connectors.hubspot.timeline import Timeline
from connectors.plain import parties, spoken

FINISHED = "COMPLETED"


class Tasks:
    """Keeps at most one unfinished task per conversation."""

    def __init__(self, timeline: Timeline, options: TaskOptions, *, contacts: Contacts) -> None:
        self.timeline = timeline
        self.options = options
        self.contacts = contacts

    def remind(self, sms: Sms, *, contact: str, ticket: str | None) -> None:
        """Make a task for the SMS, unless an earlier one of its conversation still waits."""
        event = sms.event
        conversation = f"conversation {digest(event.conversation)}"
        if self._is_there(contact, mark=sms.mark, conversation=conversation):
            return
        words = f"{parties(event)}\n\n{spoken(event)}"
        due = moment(event) + timedelta(hours=self.options.due_in_hours)
        values = {
            "hs_task_subject": sms.task,
            "hs_task_body": entry_body(words, mark=f"{sms.mark}, {conversation}"),
            "hs_task_status": "NOT_STARTED",
            "hs_task_type": "TODO",
            "hs_timestamp": stamp(due),
        }
        self.contacts.owned(
            contact,
            lambda owner: self.timeline.add(
                "tasks", {**values, **owner}, contact=contact, ticket=ticket
            ),
        )

    def _is_there(self, contact: str, *, mark: str, conversation: str) -> bool:
        """Look at the contact's newest tasks; always, because only that makes one of them."""
        names = ["hs_task_body", "hs_task_status"]
        rows: list[dict[str, Any]] = next(
            self.timeline.newest("tasks", contact=contact, names=names), []
        )
        for row in map(properties, rows):
            body = text(row, "hs_task_body") or ""
            if mark in body or (conversation in body and text(row, "hs_task_status") != FINISHED):
                return True
        return False
