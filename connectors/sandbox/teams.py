"""A stand-in of a channel in Teams, with flows and the service for bots in front of it.

A flow may have any path, so every path takes cards (``teams_flows``) that is not one of the
service for bots and its tokens (``teams_service``).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flask import Blueprint
from flask.typing import ResponseReturnValue

from connectors.sandbox.records import Record, Records
from connectors.sandbox.teams_cards import (
    AdaptiveCard,
    Block,
    blocks,
    customer,
    links,
    written,
)
from connectors.sandbox.teams_flows import FailedRun, Flows
from connectors.sandbox.teams_service import Service


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One card in the channel, as the sandbox's page shows it."""

    record: Record
    blocks: tuple[Block, ...]
    #: Title and address of each button.
    links: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """A post and the cards that answer it."""

    id: str
    cards: list[Card] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """The sandbox's view of Teams: the channel, and the runs whose cards were lost."""

    threads: Sequence[Thread]
    failed: Sequence[FailedRun]


class StandIn:
    """One channel of Teams; safe to use from many threads."""

    def __init__(self, records: Records, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._records = records
        self._lock = threading.RLock()
        self._threads: dict[str, Thread] = {}
        self._last_id = 0
        #: Whether Microsoft's limits apply.
        self.limited = True
        #: The flows, and their failed runs.
        self.flows = Flows(self, clock=clock)
        #: The service for bots, whose tokens and rosters a test may change.
        self.service = Service(self, clock=clock)

    def blueprint(self) -> Blueprint:
        """Return the routes: those of the service, and all others for flows."""
        routes = Blueprint("teams", __name__)
        self.service.add_to(routes)
        for rule in ("", "/", "/<path:rest>"):
            routes.add_url_rule(rule, "receive", self._receive, methods=["POST"])
        return routes

    def threads(self) -> Sequence[Thread]:
        """Return the channel's threads, the one with the newest card first."""
        with self._lock:
            found = [Thread(id=each.id, cards=[*each.cards]) for each in self._threads.values()]
        return sorted(found, key=lambda each: each.cards[-1].record.number, reverse=True)

    def page(self) -> Page:
        """Return what the sandbox's page shows."""
        return Page(threads=self.threads(), failed=self.flows.failed)

    def delete_thread(self, thread: str) -> None:
        """Delete a thread, as a person may."""
        with self._lock:
            del self._threads[thread]

    def has_thread(self, thread: str) -> bool:
        """Say whether cards can be posted in *thread*."""
        with self._lock:
            return thread in self._threads

    def show(self, card: AdaptiveCard, *, thread: str | None = None) -> tuple[str, str]:
        """Post *card* in *thread* or as a new one; return the ids of thread and card."""
        shown = blocks(card)
        with self._lock:
            number = self._new_id()
            found = self._threads.setdefault(thread or number, Thread(id=thread or number))
            first = found.cards[0].record.conversation if found.cards else ""
            record = self._records.add(
                system="teams",
                kind="reply" if found.cards else "card",
                text=written(shown),
                conversation=first or customer(shown),
                reference=number,
            )
            found.cards.append(Card(record=record, blocks=shown, links=links(card)))
            return found.id, number

    def _new_id(self) -> str:
        """Return the time of day in milliseconds, as Teams numbers messages; never one twice."""
        self._last_id = max(self._last_id + 1, time.time_ns() // 1_000_000)
        return str(self._last_id)

    def _receive(self, rest: str = "") -> ResponseReturnValue:
        return self.flows.receive(rest)
