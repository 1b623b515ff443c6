"""The texts of an SMS for HubSpot, in a form that HubSpot takes and that is found again."""

from __future__ import annotations

import hashlib
import html
import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import accumulate

from connectors.base import Event

#: Longest text that HubSpot takes for an entry, mark-up included.
MAX_BODY = 65_536
LONGEST_SUBJECT = 255
CUT_NOTE = "… (shortened: HubSpot takes no more in one entry)"

_NOT_IN_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

_NUMBERS = re.compile(r"\+[0-9]{7,15}~(\+[0-9]{7,15}|[A-Za-z0-9 ]{1,20})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sms:
    """One event on its way to HubSpot, with its templates filled in."""

    event: Event
    #: The same for every attempt at this event.
    key: str
    #: Whether an earlier attempt may have acted.
    repeat: bool
    #: What the timeline entry says.
    words: str
    #: Properties of its ticket and its task that templates make.
    ticket: Mapping[str, str] = field(default_factory=dict)
    task: Mapping[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The reference by which an entry is found again."""
        return f"gofax-relay {digest(self.key)}"

    @property
    def conversation(self) -> str:
        """The conversation's name in HubSpot: its numbers, or a digest of anything else."""
        said = self.event.conversation
        return said if _NUMBERS.fullmatch(said) else digest(said)


def wants_answer(event: Event) -> bool:
    """Return whether somebody should look: not at receipts, STOP and START, or our own texts."""
    if event.type == "SMS_STATUS" or event.keyword in ("STOP", "START"):
        return False
    return is_from_customer(event)


def is_from_customer(event: Event) -> bool:
    """Return whether the customer wrote it."""
    return event.customer is not None and event.sender == event.customer


def digest(words: str) -> str:
    """Return sixteen hexadecimal digits of the SHA-256 of *words*."""
    return hashlib.sha256(words.encode("utf-8", "replace")).hexdigest()[:16]


def entry_body(words: str, *, mark: str) -> str:
    """Write as many of *words* as HubSpot takes, and then *mark*, as HTML."""
    after = _html(f"\n\n{mark}")
    return _fitted(words, room=MAX_BODY - size(after)) + after


def subject(words: str) -> str:
    """Return *words* as one line that is not too long for a heading."""
    line = " ".join(cleaned(words).split()) or "SMS"
    return line if len(line) <= LONGEST_SUBJECT else f"{line[: LONGEST_SUBJECT - 1]}…"


def moment(event: Event) -> datetime:
    """Return when it happened, or when it came if the sender's clock cannot be right."""
    happened = event.occurred_at
    if happened is None or happened.year < 2000 or happened > event.received_at:
        happened = event.received_at
    return happened.astimezone(UTC)


def stamp(when: datetime) -> str:
    """Write a time in HubSpot's form."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def size(words: str) -> int:
    """Return the length of *words* as HubSpot may count it."""
    # UTF-16 units, as most JVM systems count: never less than the number of characters.
    return len(words.encode("utf-16-le", "replace")) // 2


def _fitted(words: str, *, room: int) -> str:
    """Write as many *words* as fit, with a note if some are left out."""
    written = _html(words)
    if size(written) <= room:
        return written
    words = cleaned(words)
    sizes = list(accumulate(size(_html(character)) for character in words))
    return _html(words[: bisect_right(sizes, room - size(_html(CUT_NOTE)))] + CUT_NOTE)


def _html(words: str) -> str:
    return html.escape(cleaned(words)).replace("\n", "<br>")


def cleaned(words: str) -> str:
    """Replace characters that HubSpot may not take."""
    words = words.replace("\r\n", "\n").replace("\r", "\n")
    return _NOT_IN_TEXT.sub("\N{REPLACEMENT CHARACTER}", words)
