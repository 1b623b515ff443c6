"""The stand-in of Zendesk's tickets: comments, follow-ups, closing, merging, archiving."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Protocol

from connectors.sandbox.zendesk_rules import Json, Refusal, invalid, not_found, timestamp
from connectors.sandbox.zendesk_users import Users

STATUSES = frozenset({"new", "open", "pending", "hold", "solved", "closed"})
PRIORITIES = frozenset({"low", "normal", "high", "urgent", None})
#: Fields that a new ticket or an update sets without conversion.
PLAIN_FIELDS = (
    "subject",
    "priority",
    "group_id",
    "assignee_id",
    "external_id",
    "type",
    "brand_id",
    "ticket_form_id",
)
MERGED = "closed_by_merge"
#: Most comments in one ticket (developer.zendesk.com, "Ticket comments").
MOST_COMMENTS = 5000
#: Fields of a ticket that nothing here uses.
UNUSED: Json = {
    "allow_channelback": False,
    "collaborator_ids": [],
    "due_at": None,
    "email_cc_ids": [],
    "follower_ids": [],
    "from_messaging_channel": False,
    "has_incidents": False,
    "organization_id": None,
    "problem_id": None,
    "recipient": None,
    "satisfaction_rating": None,
    "sharing_agreement_ids": [],
}


class Note(Protocol):
    """Hears of each comment; *ours*: a connector wrote it as a delivery."""

    def __call__(self, ticket: Json, *, author: int, text: str, kind: str, ours: bool) -> None: ...


class Tickets:
    """The tickets of one account; *me* is the user who is signed in."""

    def __init__(self, users: Users, *, me: int, new_id: Callable[[], int], note: Note) -> None:
        self._users = users
        self._me = me
        self._new_id = new_id
        self._note = note
        self._tickets: dict[int, Json] = {}
        self._comments: dict[int, list[Json]] = {}
        self._archived: set[int] = set()
        self._creations: dict[str, tuple[str, Json]] = {}

    def __getitem__(self, number: int) -> Json:
        if number not in self._tickets:
            raise not_found()
        return self._tickets[number]

    def all(self) -> list[Json]:
        """Return every ticket that was not deleted, oldest first."""
        return list(self._tickets.values())

    def listed(self, external_id: str | None) -> list[Json]:
        """Return the tickets that a list shows: no archived ones."""
        found = [each for each in self.all() if each["id"] not in self._archived]
        return [each for each in found if external_id in (None, each["external_id"])]

    def comments(self, number: int) -> list[Json]:
        """Return what was said in a ticket, oldest first."""
        self[number]
        return self._comments[number]

    def create(self, asked: Json, *, key: str | None) -> tuple[Json, str | None]:
        """Create a ticket, or return the one that *key* created; and say ``miss`` or ``hit``."""
        fingerprint = sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        if key is not None and key in self._creations:
            first, made = self._creations[key]
            if fingerprint != first:
                raise Refusal(
                    400,
                    "IdempotentRequestError",
                    "Request parameters don't match the given idempotency key",
                )
            return made, "hit"
        made = self._make(asked)
        if key is None:
            return made, None
        self._creations[key] = (fingerprint, json.loads(json.dumps(made)))
        return made, "miss"

    def forget_keys(self) -> None:
        """Forget every idempotency key, as Zendesk does after two hours."""
        self._creations.clear()

    def update(self, number: int, asked: Json) -> Json:
        """Change a ticket as *asked*, and return it with the audit."""
        ticket = self[number]
        self._expect_open(ticket, asked)
        self._validate(asked)
        comment = asked.get("comment")
        if comment is not None:
            if len(self._comments[number]) >= MOST_COMMENTS:
                # The status is documented, the words are not.
                raise invalid("base", "Comment: the ticket has reached its limit of comments")
            self._expect_user(comment.get("author_id", self._me), field="author", name="Author")
        self._change(ticket, asked)
        audit = self._comment(ticket, comment, asked, kind="comment")
        return {"ticket": ticket, "audit": audit}

    def add_tags(self, number: int, asked: Json) -> list[str]:
        """Add tags to those of a ticket, and return them all."""
        ticket = self[number]
        self._expect_open(ticket, asked)
        ticket["tags"] = sorted({*ticket["tags"], *asked["tags"]})
        ticket["updated_at"] = timestamp()
        return list(ticket["tags"])

    def fill(self, number: int) -> None:
        """Comment on a ticket until it takes no more."""
        ticket = self[number]
        for _ in range(MOST_COMMENTS - len(self._comments[number])):
            self._comment(ticket, {"body": "A note", "public": False}, {}, kind="comment")

    def delete(self, number: int) -> None:
        """Delete a ticket."""
        self[number]
        del self._tickets[number]

    def close(self, number: int) -> None:
        """Close a ticket, as an automation does some weeks after it was solved."""
        self[number].update(status="closed", updated_at=timestamp())

    def archive(self, number: int) -> None:
        """Archive a ticket, as Zendesk does 120 days after it was closed: lists leave it out."""
        self.close(number)
        self._archived.add(number)

    def merge(self, source: int, target: int | None) -> None:
        """Close *source* as an agent's merge does, with a note in *target*."""
        ticket, into = self[source], None if target is None else self[target]
        self.close(source)
        ticket["tags"] = sorted({*ticket["tags"], MERGED})
        if into is not None:
            said = f'Request #{source} "{ticket["subject"]}" was closed and merged into this one.'
            note = {"body": said, "public": False}
            self._comment(into, note, {}, kind="comment")

    def _make(self, asked: Json) -> Json:
        comment = asked.get("comment") or {}
        if not (comment.get("body") or comment.get("html_body")):
            raise invalid("base", "Description: cannot be blank")
        self._validate(asked)
        requester = asked.get("requester_id", self._me)
        self._expect_user(requester, field="requester", name="Requester")
        source = self._source(asked.get("via_followup_source_id"))
        ticket = self._new(asked, requester=requester, source=source)
        self._tickets[ticket["id"]], self._comments[ticket["id"]] = ticket, []
        if source is not None:
            source["followup_ids"].append(ticket["id"])
        return {"ticket": ticket, "audit": self._comment(ticket, comment, asked, kind="ticket")}

    def _new(self, asked: Json, *, requester: int, source: Json | None) -> Json:
        comment, now = asked["comment"], timestamp()
        origin = {"ticket_id": source["id"], "subject": source["subject"]} if source else {}
        rel = "follow_up" if source else None
        tags = asked.get("tags") or (source["tags"] if source else [])
        ticket: Json = {name: asked.get(name) for name in PLAIN_FIELDS}
        return {
            **ticket,
            **UNUSED,
            "id": self._new_id(),
            "raw_subject": ticket["subject"],
            "via": {"channel": "api", "source": {"from": origin, "to": {}, "rel": rel}},
            "status": asked.get("status") or "new",
            "description": comment.get("body"),
            "requester_id": requester,
            "submitter_id": comment.get("author_id", requester),
            "is_public": comment.get("public", True),
            "tags": sorted(set(tags)),
            "custom_fields": _fields(asked),
            "followup_ids": [],
            "created_at": now,
            "updated_at": now,
        }

    def _source(self, number: int | None) -> Json | None:
        if number is None:
            return None
        ticket = self._tickets.get(number)
        # "It has no effect with other tickets", as the vendor's guide to tickets says.
        return ticket if ticket and ticket["status"] == "closed" else None

    def _change(self, ticket: Json, asked: Json) -> None:
        ticket |= {name: asked[name] for name in (*PLAIN_FIELDS, "status") if name in asked}
        # additional_tags and remove_tags are documented for update_many alone.
        ticket["tags"] = sorted(set(asked["tags"] if "tags" in asked else ticket["tags"]))
        given = _fields(asked)
        unchanged = {each["id"] for each in given}
        ticket["custom_fields"] = given + [
            each for each in ticket["custom_fields"] if each["id"] not in unchanged
        ]
        ticket["updated_at"] = timestamp()

    def _comment(self, ticket: Json, comment: Json | None, asked: Json, *, kind: str) -> Json:
        """Append *comment*, if there is one, and return the audit of the whole change."""
        number, now = self._new_id(), timestamp()
        custom = (asked.get("metadata") or {}).get("custom", {})
        metadata = {"system": {}, "custom": custom}
        audit: Json = {"id": number, "ticket_id": ticket["id"], "created_at": now}
        audit |= {"author_id": self._me, "metadata": metadata, "events": []}
        if not comment:
            return audit
        text = comment.get("body") or ""
        author = comment.get("author_id", self._me)
        said = {
            "id": self._new_id(),
            "type": "Comment",
            "author_id": author,
            "body": text,
            "plain_body": text,
            "html_body": f'<div class="zd-comment" dir="auto">{html.escape(text)}</div>',
            "public": comment.get("public", True),
            "attachments": [],
            "audit_id": number,
        }
        self._comments[ticket["id"]].append(said | {"metadata": metadata, "created_at": now})
        self._note(ticket, author=author, text=text, kind=kind, ours=bool(custom))
        return audit | {"events": [said]}

    def _expect_open(self, ticket: Json, asked: Json) -> None:
        if ticket["status"] == "closed":
            raise invalid("status", "Status: closed prevents ticket update")
        if asked.get("safe_update") and asked.get("updated_stamp") != ticket["updated_at"]:
            raise Refusal(
                409,
                "UpdateConflict",
                "Safe Update prevented the update due to outdated ticket data. Please fetch the "
                "latest ticket data and try again.",
            )

    def _validate(self, asked: Json) -> None:
        if asked.get("status", "open") not in STATUSES:
            raise invalid("status", "Status: is not valid")
        if asked.get("priority") not in PRIORITIES:
            raise invalid("priority", "Priority: is not properly set")

    def _expect_user(self, number: object, *, field: str, name: str) -> None:
        if number not in self._users:
            raise invalid(field, f"{name}: {name} is not valid")


def _fields(asked: Json) -> list[Json]:
    given: list[Any] = asked.get("custom_fields") or []
    return [{"id": each["id"], "value": each["value"]} for each in given]
