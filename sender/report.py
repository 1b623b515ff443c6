"""Lines about attempts, for people and for programs."""

from __future__ import annotations

import json
import time
from collections import Counter
from datetime import datetime, timedelta

from sender.attempt import Attempt, Target
from sender.delivery import Answer, shown
from sender.payload import Payload

#: Characters of an answer that a line shows.
_SHOWN = 200

_HINTS = {
    401: "401: not accepted: does the receiver have this secret (or, for forms, this password)?",
    404: "404: no endpoint there: check the path of the URL",
    415: "415: content type not accepted: JSON and forms have endpoints of their own (--form-url)",
}


class Tally:
    """Counts attempts by their answers."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._counts: Counter[int | None] = Counter()

    def add(self, attempt: Attempt) -> None:
        """Count one more."""
        self._counts[attempt.answer.status if attempt.answer else None] += 1

    @property
    def is_success(self) -> bool:
        """Whether all were answered 2xx."""
        return all(status is not None and 200 <= status < 300 for status in self._counts)

    def summary(self) -> str:
        """Say in one line how many were sent, and count the answers."""
        seconds = time.monotonic() - self._started
        answered = [
            f"{count} answered {status}"
            for status, count in sorted((s, n) for s, n in self._counts.items() if s is not None)
        ]
        unanswered = [f"{self._counts[None]} not answered"] if self._counts[None] else []
        parts = ", ".join(answered + unanswered)
        return f"{self._counts.total()} sent in {seconds:.1f} s: {parts}"

    def hints(self) -> list[str]:
        """Return advice on the answers, once for each status."""
        found = [_hint(status) for status in sorted(s for s in self._counts if s is not None)]
        return [each for each in found if each]


def line(attempt: Attempt, answer: Answer) -> str:
    """Describe an answered attempt in one line: profile, source, id, status, duration, answer."""
    said = one_line(answer.text) or "(empty answer)"
    through = f"{attempt.profile}  " if attempt.profile else ""
    label = f"{through}{label_of(attempt.payload)}  {answer.status}  {_ms(answer.duration)} ms"
    return f"{label}  {said}"


def plan(payload: Payload, target: Target) -> str:
    """Describe in one line what would be sent."""
    credentials = "with Basic auth" if payload.kind == "form" else "signed"
    given = target.basic if payload.kind == "form" else target.secret
    how = f"{payload.kind}, {credentials if given else 'without credentials'}"
    url = target.url_for(payload)
    where = f" → {shown(url)}" if url else ""
    return f"{label_of(payload)}  {len(payload.body)} bytes  {how}{where}"


def as_json(attempt: Attempt, *, entry_id: int | None) -> str:
    """Describe an attempt as a JSON object in one line."""
    answer = attempt.answer
    fields = {
        "id": entry_id,
        "message_id": attempt.payload.message_id,
        "profile": attempt.profile,
        "source": attempt.payload.source or None,
        "url": shown(attempt.url),
        "at": stamp(attempt.at),
        "try": attempt.number,
        "status": answer.status if answer else None,
        "duration_ms": _ms(answer.duration) if answer else None,
        "answer": answer.text if answer else None,
        "error": attempt.error,
    }
    return json.dumps(fields)


def stamp(moment: datetime) -> str:
    """Write a time for programs."""
    return moment.isoformat().replace("+00:00", "Z")


def label_of(payload: Payload) -> str:
    """Name *payload*: where it was read, and its id."""
    message_id = one_line(payload.message_id) if payload.message_id else "(no id)"
    return f"{one_line(payload.source)}  {message_id}" if payload.source else message_id


def one_line(text: str) -> str:
    """Make foreign text safe for a terminal: one line, nothing that steers it, not too long."""
    safe = harmless(" ".join(text[: 10 * _SHOWN].split()))
    return safe if len(safe) <= _SHOWN else safe[: _SHOWN - 1] + "…"


def clean(text: str) -> str:
    """Make a message of several lines safe for a terminal."""
    return "\n".join(map(harmless, text.split("\n")))


def harmless(text: str) -> str:
    """Spell out every character that a terminal or a line reader would obey instead of showing."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def _hint(status: int) -> str | None:
    if 300 <= status < 400:
        return f"{status}: a redirect, which is not followed: give the URL that it points to"
    return _HINTS.get(status)


def _ms(duration: timedelta) -> int:
    return round(duration / timedelta(milliseconds=1))
