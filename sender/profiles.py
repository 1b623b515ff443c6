"""Webhook profiles, as in GoFax's portal under My Account → Webhooks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sender.errors import SenderError
from sender.event import DIRECTIONS, STATUS
from sender.payload import Payload, without_body
from sender.store import Store

#: The two of the portal, and ours for the legacy notifications.
KNOWN_EVENTS = (*DIRECTIONS, STATUS)
#: What a new profile subscribes to.
BOTH = tuple(DIRECTIONS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """A webhook: which events go where, with or without their text."""

    name: str
    url: str
    events: tuple[str, ...] = BOTH
    #: Whether the text of the SMS is sent.
    include_message_body: bool = True
    secret: str | None = field(default=None, repr=False)
    #: ``user:password`` of legacy notifications.
    basic: str | None = field(default=None, repr=False)
    is_active: bool = True
    created_at: datetime
    updated_at: datetime

    def wants(self, payload: Payload) -> bool:
        """Whether *payload* is sent here: the profile is active and subscribes to its event."""
        return self.is_active and payload.event_type in self.events

    def trimmed(self, payload: Payload) -> Payload:
        """Return *payload* as this profile sends it."""
        return payload if self.include_message_body else without_body(payload)


class Profiles:
    """The profiles of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[Profile]:
        """Return every profile, by name."""
        with self._store.reading() as db:
            rows = db.execute("SELECT * FROM profiles ORDER BY name").fetchall()
        return [_profile(row) for row in rows]

    def find(self, name: str) -> Profile | None:
        """Return a profile, if there is one of that name."""
        with self._store.reading() as db:
            row = db.execute("SELECT * FROM profiles WHERE name = ?", [name]).fetchone()
        return _profile(row) if row else None

    def get(self, name: str) -> Profile:
        """Return a profile, or raise :class:`SenderError` with the names that there are."""
        found = self.find(name)
        if found is None:
            names = ", ".join(each.name for each in self.all()) or "none yet: webhooks add NAME …"
            raise SenderError(f'no webhook profile "{name}" (have: {names})')
        return found

    def wanting(self, payload: Payload) -> list[Profile]:
        """Return the profiles that *payload* is sent to."""
        return [each for each in self.all() if each.wants(payload)]

    def add(self, profile: Profile) -> None:
        """Keep a new profile, or raise :class:`SenderError` if its name is taken."""
        try:
            with self._store.transaction() as db:
                db.execute(_INSERT, _row(profile))
        except sqlite3.IntegrityError as error:
            raise SenderError(
                f'there is already a webhook profile "{profile.name}": edit it, or choose another'
            ) from error

    def edit(self, name: str, **changes: Any) -> Profile:
        """Change a profile and return what it is now."""
        edited = replace(self.get(name), **changes, updated_at=datetime.now(UTC))
        with self._store.transaction() as db:
            db.execute(_UPDATE, _row(edited))
        return edited

    def remove(self, name: str) -> None:
        """Forget a profile; what it sent stays in the log."""
        self.get(name)
        with self._store.transaction() as db:
            db.execute("DELETE FROM profiles WHERE name = ?", [name])


_COLUMNS: Sequence[str] = (
    *("name", "url", "events", "include_message_body", "secret", "basic"),
    *("is_active", "created_at", "updated_at"),
)
_INSERT = (
    f"INSERT INTO profiles ({', '.join(_COLUMNS)}) "  # noqa: S608
    f"VALUES ({', '.join(':' + each for each in _COLUMNS)})"
)
_UPDATE = (
    f"UPDATE profiles SET {', '.join(f'{each} = :{each}' for each in _COLUMNS[1:])} "  # noqa: S608
    "WHERE name = :name"
)


def _row(profile: Profile) -> dict[str, Any]:
    values = {name: getattr(profile, name) for name in _COLUMNS}
    return values | {
        "events": json.dumps(profile.events),
        "created_at": profile.created_at.isoformat(),
        "updated_at": profile.updated_at.isoformat(),
    }


def _profile(row: sqlite3.Row) -> Profile:
    values: dict[str, Any] = dict(row)
    return Profile(
        **values
        | {
            "events": tuple(json.loads(row["events"])),
            "include_message_body": bool(row["include_message_body"]),
            "is_active": bool(row["is_active"]),
            "created_at": datetime.fromisoformat(row["created_at"]),
            "updated_at": datetime.fromisoformat(row["updated_at"]),
        }
    )
