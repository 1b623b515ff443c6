"""Tickets and their comments, as the pages of the stand-in of Zendesk show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from connectors.sandbox.zendesk_rules import Json
from connectors.sandbox.zendesk_users import Users

#: A ticket's page runs no script, whatever a customer wrote.
POLICY = "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One comment."""

    author: str
    side: Literal["customer", "agent"]
    text: str
    public: bool
    #: ISO 8601, UTC.
    created_at: str

    @property
    def time(self) -> str:
        """The time for people to read."""
        return self.created_at[:16].replace("T", " ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """One ticket with its comments."""

    number: int
    subject: str
    status: str
    priority: str
    tags: tuple[str, ...]
    fields: tuple[tuple[int, str], ...]
    requester: str
    phone: str
    #: Tags of the requester's profile.
    requester_tags: tuple[str, ...]
    #: The closed ticket that this one follows up.
    follows: int | None
    lines: tuple[Line, ...]


def thread_of(ticket: Json, comments: Sequence[Json], *, users: Users) -> Thread:
    """Show *ticket* as the agent's workspace does."""
    requester = users[ticket["requester_id"]]
    return Thread(
        number=ticket["id"],
        subject=ticket["subject"] or "",
        status=ticket["status"],
        priority=ticket["priority"] or "",
        tags=tuple(ticket["tags"]),
        fields=tuple((each["id"], str(each["value"])) for each in ticket["custom_fields"]),
        requester=requester["name"],
        phone=requester["phone"] or "",
        requester_tags=tuple(requester["tags"]),
        follows=ticket["via"]["source"]["from"].get("ticket_id"),
        lines=tuple(_line(each, author=users[each["author_id"]]) for each in comments),
    )


def _line(comment: Json, *, author: Json) -> Line:
    return Line(
        author=author["name"],
        side="customer" if author["role"] == "end-user" else "agent",
        text=comment["body"],
        public=comment["public"],
        created_at=comment["created_at"],
    )
