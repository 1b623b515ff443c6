"""The delivery log: every attempt, as GoFax's Webhook Log shows it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

from sender.attempt import Attempt
from sender.errors import SenderError
from sender.payload import Kind, Payload
from sender.store import Store

#: Attempts that are kept; older ones make room for new ones.
KEPT = 10_000
#: Headers whose values are not kept.
CREDENTIALS = frozenset({"authorization"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One attempt, as stored."""

    id: int
    at: datetime
    profile: str | None
    url: str
    event_type: str | None
    message_id: str | None
    #: Number of the try at its payload, from 1.
    number: int
    resend_of: int | None
    kind: Kind
    body: bytes = field(repr=False)
    headers: Mapping[str, str]
    status: int | None
    duration_ms: float | None
    answer: str | None
    answer_headers: Mapping[str, str] | None
    error: str | None

    @property
    def payload(self) -> Payload:
        """What was sent, ready to be sent again."""
        return Payload(
            body=self.body,
            kind=self.kind,
            message_id=self.message_id,
            event_type=self.event_type,
        )

    @property
    def is_success(self) -> bool:
        """Whether it was answered 2xx."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Filter:
    """A choice of entries; by default all."""

    profile: str | None = None
    message_id: str | None = None
    #: First and last status of a range.
    statuses: tuple[int, int] | None = None
    #: Only what was not answered 2xx.
    failed: bool = False
    #: Only what was not answered at all.
    unanswered: bool = False
    since: datetime | None = None
    #: Number of the newest entries.
    limit: int | None = None

    def clause(self) -> tuple[str, list[Any]]:
        """Return the condition in SQL, and its values."""
        low, high = self.statuses or (None, None)
        conditions: list[tuple[str, list[Any]]] = [
            ("profile = ?", [self.profile] if self.profile is not None else []),
            ("message_id = ?", [self.message_id] if self.message_id is not None else []),
            ("status BETWEEN ? AND ?", [low, high] if self.statuses else []),
            ("at >= ?", [_stamp(self.since)] if self.since else []),
        ]
        wanted = [each for each in conditions if each[1]]
        if self.failed:
            wanted.append(("(status IS NULL OR status NOT BETWEEN 200 AND 299)", []))
        if self.unanswered:
            wanted.append(("status IS NULL", []))
        text = " AND ".join(each[0] for each in wanted) or "1"
        return text, [value for each in wanted for value in each[1]]


class Log:
    """The delivery log of a store."""

    def __init__(self, store: Store, *, kept: int = KEPT) -> None:
        self._store = store
        self._kept = kept

    def record(self, attempt: Attempt) -> int:
        """Keep *attempt* and return the id of its entry."""
        with self._store.transaction() as db:
            entry_id = cast(int, db.execute(_INSERT, _row(attempt)).lastrowid)
            db.execute("DELETE FROM log WHERE id <= ?", [entry_id - self._kept])
        return entry_id

    def entries(self, wanted: Filter) -> list[Entry]:
        """Return the newest entries that are *wanted*, oldest first."""
        clause, values = wanted.clause()
        # Only conditions of ours are in the text.
        statement = f"SELECT * FROM log WHERE {clause} ORDER BY id DESC LIMIT ?"  # noqa: S608
        limit = -1 if wanted.limit is None else wanted.limit
        with self._store.reading() as db:
            rows = db.execute(statement, [*values, limit]).fetchall()
        return [_entry(row) for row in reversed(rows)]

    def get(self, entry_id: int) -> Entry:
        """Return one entry, or raise :class:`SenderError`."""
        with self._store.reading() as db:
            row = db.execute("SELECT * FROM log WHERE id = ?", [entry_id]).fetchone()
        if row is None:
            raise SenderError(f"no log entry {entry_id}: gofax-sender log lists what there is")
        return _entry(row)


_INSERT = (
    "INSERT INTO log (at, profile, url, event_type, message_id, number, resend_of, kind, body, "
    "headers, status, duration_ms, answer, answer_headers, error) VALUES (:at, :profile, :url, "
    ":event_type, :message_id, :number, :resend_of, :kind, :body, :headers, :status, "
    ":duration_ms, :answer, :answer_headers, :error)"
)


def _row(attempt: Attempt) -> dict[str, Any]:
    answer, payload = attempt.answer, attempt.payload
    return {
        "at": _stamp(attempt.at),
        "profile": attempt.profile,
        "url": attempt.url,
        "event_type": payload.event_type and _storable(payload.event_type),
        "message_id": payload.message_id and _storable(payload.message_id),
        "number": attempt.number,
        "resend_of": attempt.resend_of,
        "kind": payload.kind,
        "body": payload.body,
        "headers": json.dumps(_without_credentials(attempt.headers)),
        "status": answer.status if answer else None,
        "duration_ms": answer.duration.total_seconds() * 1000 if answer else None,
        "answer": answer.text if answer else None,
        "answer_headers": json.dumps(dict(answer.headers)) if answer else None,
        "error": attempt.error,
    }


def _entry(row: sqlite3.Row) -> Entry:
    values: dict[str, Any] = dict(row)
    answered = row["answer_headers"]
    return Entry(
        **values
        | {
            "at": datetime.fromisoformat(row["at"]),
            "headers": json.loads(row["headers"]),
            "answer_headers": None if answered is None else json.loads(answered),
        }
    )


def _stamp(moment: datetime) -> str:
    # Of one length, so that texts sort as times do.
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def _storable(text: str) -> str:
    """SQLite holds UTF-8, which has no lone surrogates; JSON has."""
    return text.encode("utf-8", "backslashreplace").decode()


def _without_credentials(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: "(not kept)" if name.lower() in CREDENTIALS else value
        for name, value in headers.items()
    }
