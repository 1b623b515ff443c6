"""What really came of the events: the relay's store, and the records of a sandbox."""

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
from typing import Any, Protocol

import requests

from sender.errors import SenderError

_ID = re.compile(r"[a-z]+-[0-9a-f]{10}-[0-9]{5,}")

#: States of a delivery that nothing more comes of by itself.
SETTLED = frozenset({"delivered", "dead", "held"})
#: Seconds that either may take to answer.
TIMEOUT = 60.0


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
    """Who can say what came of events."""

    name: str
    #: Whether events without text are invisible to it.
    needs_text: bool

    def look(self, ids: Iterable[str]) -> dict[str, Sighting]:
        """Return what is known of each of *ids*.

        Raises :class:`SenderError` if nothing can be said.
        """


class Relay:
    """The store of a gofax-relay, by its command ``events --json``."""

    name = "gofax-relay's store"
    needs_text = False

    def __init__(self, config: Path) -> None:
        self._command = [*_relay_command(), "events", "--json", "--config", str(config)]

    def look(self, ids: Iterable[str]) -> dict[str, Sighting]:
        found: dict[str, list[dict[str, Any]]] = {each: [] for each in ids}
        for event in self.events():
            if event["message_id"] in found and event.get("status", "accepted") == "accepted":
                found[event["message_id"]].append(event)
        return {message_id: _stored(events) for message_id, events in found.items()}

    def events(self) -> list[dict[str, Any]]:
        """Return every event in the store.

        Raises :class:`SenderError`.
        """
        try:
            done = subprocess.run(
                self._command, capture_output=True, encoding="utf-8", timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SenderError(f"{' '.join(self._command)}: {error}") from error
        if done.returncode:
            said = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise SenderError(f"{' '.join(self._command)}: {said}")
        return [json.loads(line) for line in done.stdout.splitlines()]


class Records:
    """A list of visible effects over HTTP: the sandbox's ``/records``, or one of the same shape.

    Events are known by the id in their text, so that it must have one.
    """

    name = "records"
    needs_text = True

    def __init__(self, url: str) -> None:
        self.url = url

    def look(self, ids: Iterable[str]) -> dict[str, Sighting]:
        found: dict[str, Counter[str]] = {each: Counter() for each in ids}
        for record in self.records():
            for word in set(_ID.findall(str(record.get("text", "")))):
                if word in found:
                    found[word][str(record.get("system", "system"))] += 1
        return {message_id: _recorded(systems) for message_id, systems in found.items()}

    def records(self) -> list[dict[str, Any]]:
        """Return every record.

        Raises :class:`SenderError`.
        """
        try:
            with _session() as session:
                answer = session.get(self.url, timeout=TIMEOUT)
            answer.raise_for_status()
            found = answer.json()
        except (requests.RequestException, ValueError) as error:
            raise SenderError(f"{self.url}: no records: {error}") from error
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise SenderError(f"{self.url}: no list of records, as the sandbox's /records is")
        return found

    def break_destinations(self) -> bool:
        """Let each stand-in of the sandbox fail once; whether there is one."""
        base = self.url.rsplit("/", 1)[0]
        orders = [{"system": system, "status": 503} for system in ("hubspot", "zendesk", "teams")]
        try:
            with _session() as session:
                answers = [session.post(f"{base}/faults", json=e, timeout=10) for e in orders]
        except requests.RequestException:
            return False
        return all(each.ok for each in answers)


def _session() -> requests.Session:
    """Make a session that goes where the URL says, past any proxy."""
    session = requests.Session()
    session.trust_env = False
    return session


def new_run(kind: str) -> str:
    """Make the beginning of ids that no other run has: add ``-`` and five digits."""
    return f"{kind}-{secrets.token_hex(5)}"


def settled(
    witness: Witness, ids: Collection[str], *, wanted: Collection[str], patience: float
) -> dict[str, Sighting]:
    """Look at *ids* until those *wanted* are there and nothing is pending.

    After *patience* seconds it is what it is.
    """
    ends_at = time.monotonic() + patience
    pause = 0.1
    while True:
        seen = witness.look(ids)
        is_open = any(each.is_pending for each in seen.values())
        if not (is_open or any(seen[each].count == 0 for each in wanted)):
            return seen
        if time.monotonic() >= ends_at:
            return seen
        time.sleep(pause)
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
    """Find gofax-relay: the one beside us, or the one of the path."""
    beside = Path(sys.executable).with_name("gofax-relay")
    found = str(beside) if beside.exists() else shutil.which("gofax-relay")
    if found is None:
        raise SenderError(
            "--relay-config needs the command gofax-relay: install it, or leave it out"
        )
    return [found]
