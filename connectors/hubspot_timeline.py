"""The timeline of a contact in HubSpot: its communications and tasks, written once each."""

from __future__ import annotations

import hashlib
import html
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from typing import Any, Literal

from connectors.base import Ambiguous, Event
from connectors.hubspot_api import Api, dicts, is_id, properties, text

OBJECTS = "/crm/objects/2026-09"
ASSOCIATIONS = "/crm/associations/2026-09/contacts"
Kind = Literal["communications", "tasks"]

#: HubSpot's ids of the associations from an entry to its contact and its ticket.
TO_CONTACT: Mapping[Kind, int] = {"communications": 81, "tasks": 204}
TO_TICKET: Mapping[Kind, int] = {"communications": 83, "tasks": 230}
#: Longest text that HubSpot takes for an entry, mark-up included.
MAX_BODY = 65_536
LONGEST_SUBJECT = 255
#: Most records in one batch read.
BATCH = 100
#: How far HubSpot's clock and ours may differ while we look for an entry made since an event.
CLOCK_SLACK = timedelta(days=1)
CUT_NOTE = "… (shortened: HubSpot takes no more in one entry)"

_NOT_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


class Timeline:
    """Reads and writes what stands on contacts' timelines."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def find(self, contact: str, *, mark: str, since: datetime) -> dict[str, Any] | None:
        """Find the communication that an earlier attempt made, newest first."""
        names = ["hs_communication_body", "hs_timestamp"]
        for rows in self.newest("communications", contact=contact, names=names):
            for row in rows:
                if mark in (text(properties(row), "hs_communication_body") or ""):
                    return row
            if rows and all(_is_older(row, since - CLOCK_SLACK) for row in rows):
                break
        return None

    def newest(
        self, kind: Kind, *, contact: str, names: list[str]
    ) -> Iterator[list[dict[str, Any]]]:
        """Read the entries of *contact*, the newest hundred first."""
        ids = sorted(self._ids(kind, contact), key=int, reverse=True)
        for start in range(0, len(ids), BATCH):
            asked = {
                "inputs": [{"id": each} for each in ids[start : start + BATCH]],
                "properties": names,
                "propertiesWithHistory": [],
            }
            yield self.api.rows("POST", f"{OBJECTS}/{kind}/batch/read", body=asked)

    def add(
        self, kind: Kind, values: Mapping[str, str], *, contact: str, ticket: str | None
    ) -> dict[str, Any]:
        """Make an entry; who cannot bear two of them looks first."""
        links = [associated(contact, TO_CONTACT[kind])]
        links += [associated(ticket, TO_TICKET[kind])] if ticket else []
        body = {"properties": dict(values), "associations": links}
        row = self.api.call("POST", f"{OBJECTS}/{kind}", body=body, once=True)
        if not isinstance(row, dict) or text(row, "id") is None:
            raise Ambiguous(f"one of {kind} was sent, but the answer names none")
        return row

    def _ids(self, kind: Kind, contact: str) -> Iterator[str]:
        after: str | None = None
        while True:
            wanted = {"id": contact} | ({"after": after} if after else {})
            path = f"{ASSOCIATIONS}/{kind}/batch/read"
            rows = self.api.rows("POST", path, body={"inputs": [wanted]})
            for row in rows:
                found = (text(each, "toObjectId") for each in dicts(row, "to"))
                yield from (each for each in found if each and is_id(each))
            nexts = [row["paging"] for row in rows if isinstance(row.get("paging"), dict)]
            after = next((text(each.get("next"), "after") for each in nexts), None)
            if after is None:
                return


def associated(record: str, kind: int) -> dict[str, Any]:
    """Name a record to associate a new one with."""
    types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": kind}]
    return {"to": {"id": record}, "types": types}


def marker(key: str) -> str:
    """Return the words by which an entry is found again."""
    return f"gofax-relay {digest(key)}"


def digest(words: str) -> str:
    """Return a short word that stands for *words*."""
    return hashlib.sha256(words.encode("utf-8", "replace")).hexdigest()[:16]


def entry_body(words: str, *, mark: str) -> str:
    """Write *words*, or as many as HubSpot takes, and *mark* as HTML."""
    after = _html(f"\n\n{mark}")
    return _fitted(words, room=MAX_BODY - size(after)) + after


def subject(words: str) -> str:
    """Return *words* as one line that is not too long for a heading."""
    line = " ".join(_cleaned(words).split()) or "SMS"
    return line if len(line) <= LONGEST_SUBJECT else f"{line[: LONGEST_SUBJECT - 1]}…"


def moment(event: Event) -> datetime:
    """Return when it happened; a sender's clock that is plainly wrong does not count."""
    happened = event.occurred_at
    if happened is None or happened.year < 2000 or happened > event.received_at:
        happened = event.received_at
    return happened.astimezone(UTC)


def stamp(when: datetime) -> str:
    """Write a time as HubSpot does."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def size(words: str) -> int:
    """Return the length of *words* as HubSpot may count it."""
    # UTF-16 units: the count of most JVM systems, and never less than that of characters.
    return len(words.encode("utf-16-le", "replace")) // 2


def _fitted(words: str, *, room: int) -> str:
    """Write as many *words* as fit, and say so if these are not all."""
    written = _html(words)
    if size(written) <= room:
        return written
    words = _cleaned(words)
    sizes = list(accumulate(size(_html(character)) for character in words))
    return _html(words[: bisect_right(sizes, room - size(_html(CUT_NOTE)))] + CUT_NOTE)


def _html(words: str) -> str:
    return html.escape(_cleaned(words)).replace("\n", "<br>")


def _cleaned(words: str) -> str:
    words = words.replace("\r\n", "\n").replace("\r", "\n")
    return _NOT_IN_TEXT.sub("\N{REPLACEMENT CHARACTER}", words)


def _is_older(record: Mapping[str, Any], when: datetime) -> bool:
    try:
        return datetime.fromisoformat(text(record, "createdAt") or "") < when
    except (ValueError, TypeError):
        return False
