"""Witnesses of effects: the relay's store, and the records of a sandbox or of any receiver."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import requests

from sender.deadline import DeadlineAdapter
from sender.errors import SenderError

Kind = Literal["load", "scenario"]

#: An id of a run. The kinds are spelled out: a search for any word would be quadratic in the text.
_ID = re.compile(r"(?:load|scenario)-[0-9a-f]{10}-[0-9]{5,}")

#: Final states of a delivery.
SETTLED = frozenset({"delivered", "dead", "held"})
#: Seconds for one look when patience has run out.
LAST_LOOK = 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sighting:
    """What one witness knows of one event."""

    #: How often it took effect.
    count: int
    #: Whether more is to come.
    is_pending: bool
    #: The same for people.
    said: str


class Witness(Protocol):
    """Somewhere the effects of events can be seen."""

    name: str
    #: Whether it sees only events that have a text.
    needs_text: bool
    #: Whether it sees an event as soon as the receiver has answered.
    is_prompt: bool

    def look(self, ids: Iterable[str], *, timeout: float) -> dict[str, Sighting]:
        """Return what is known of each of *ids*, within *timeout* seconds.

        Raises :class:`SenderError` if the witness gives no answer.
        """


class Relay:
    """The store of a gofax-relay, by its command ``events --json``."""

    name = "gofax-relay's store"
    needs_text = False
    is_prompt = True

    def __init__(self, config: Path) -> None:
        self._command = [*_relay_command(), "events", "--json", "--config", str(config)]

    def look(self, ids: Iterable[str], *, timeout: float) -> dict[str, Sighting]:
        found: dict[str, list[dict[str, Any]]] = {each: [] for each in ids}
        for event in self.events(timeout=timeout):
            if event["message_id"] in found and event.get("status", "accepted") == "accepted":
                found[event["message_id"]].append(event)
        return {message_id: _stored(events) for message_id, events in found.items()}

    def events(self, *, timeout: float) -> list[dict[str, Any]]:
        """Return every event in the store.

        Raises :class:`SenderError`.
        """
        try:
            done = subprocess.run(
                self._command, capture_output=True, encoding="utf-8", timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            said = f"no answer within {timeout:.0f} s: --patience allows more"
            raise SenderError(f"{' '.join(self._command)}: {said}") from error
        except OSError as error:
            raise SenderError(f"{' '.join(self._command)}: {error}") from error
        if done.returncode:
            said = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise SenderError(f"{' '.join(self._command)}: {said}")
        return [json.loads(line) for line in done.stdout.splitlines()]


class Records:
    """A list of visible effects over HTTP: the sandbox's ``/records``, or one of the same shape.

    An event is recognised by the id in its text.
    """

    name = "records"
    needs_text = True
    is_prompt = False

    def __init__(self, url: str) -> None:
        self.url = url

    def look(self, ids: Iterable[str], *, timeout: float) -> dict[str, Sighting]:
        found: dict[str, Counter[str]] = {each: Counter() for each in ids}
        for record in self.records(timeout=timeout):
            for word in set(_ID.findall(str(record.get("text", "")))):
                if word in found:
                    found[word][str(record.get("system", "system"))] += 1
        return {message_id: _recorded(systems) for message_id, systems in found.items()}

    def records(self, *, timeout: float) -> list[dict[str, Any]]:
        """Return every record.

        Raises :class:`SenderError`.
        """
        try:
            with direct_session() as session:
                answer = session.get(self.url, timeout=timeout)
            answer.raise_for_status()
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise SenderError(f"{self.url}: no records: {error}") from error
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise SenderError(f"{self.url}: no list of records, as the sandbox's /records is")
        return found


def direct_session() -> requests.Session:
    """Make a session that uses no proxy, and whose time-out bounds a whole call."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", DeadlineAdapter())
    session.mount("https://", DeadlineAdapter())
    return session


def new_run(kind: Kind) -> str:
    """Make the beginning of ids that no other run has: add ``-`` and five digits."""
    return f"{kind}-{secrets.token_hex(5)}"


def settled(
    witness: Witness,
    ids: Collection[str],
    *,
    wanted: Collection[str],
    patience: float,
    look_timeout: float = LAST_LOOK,
) -> dict[str, Sighting]:
    """Look at *ids* until those *wanted* are there and nothing is pending.

    Return what is there after *patience* seconds in any case. A look may take *look_timeout*
    seconds, or what is left of the patience if that is more.

    Raises :class:`SenderError` if the witness gives no answer.
    """
    ends_at = time.monotonic() + patience
    pause = 0.1
    while True:
        left = ends_at - time.monotonic()
        seen = witness.look(ids, timeout=max(look_timeout, left))
        is_open = any(each.is_pending for each in seen.values())
        is_open = is_open or any(seen[each].count == 0 for each in wanted)
        left = ends_at - time.monotonic()
        if not is_open or left <= 0:
            return seen
        time.sleep(min(pause, left))
        pause = min(2.0, pause * 1.5)


def _stored(events: Sequence[Mapping[str, Any]]) -> Sighting:
    states = Counter(each["state"] for event in events for each in event["deliveries"])
    duplicates = sum(event["duplicates"] for event in events)
    said = f"{len(events)} in the store, {duplicates} more posted"
    if states:
        said += ": " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return Sighting(count=len(events), is_pending=bool(states.keys() - SETTLED), said=said)


def _recorded(systems: Counter[str]) -> Sighting:
    said = ", ".join(f"{count} in {name}" for name, count in sorted(systems.items()))
    most = max(systems.values(), default=0)
    return Sighting(count=most, is_pending=False, said=said or "no record")


def _relay_command() -> list[str]:
    """Find gofax-relay beside this Python, or else on the path."""
    beside = Path(sys.executable).with_name("gofax-relay")
    found = str(beside) if beside.exists() else shutil.which("gofax-relay")
    if found is None:
        raise SenderError(
            "--relay-config needs the command gofax-relay: install it, or leave the option out"
        )
    return [found]
