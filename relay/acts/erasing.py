"""Removing what is old, or what is a customer's, out of the store and its files."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from relay.acts.person import Person
from relay.rules import text
from relay.rules.mentions import Mentions
from relay.shapes.receipt import ReceiptJson, receipt
from relay.shapes.words import count
from relay.store import Database, Queries, StoreUnavailable, backup
from relay.store.actions import Act, Actions
from relay.store.backup import Backup
from relay.store.prune import Pruning, Removed
from relay.store.secret import store_secret
from relay.store.traces import ERASED

#: How often a write-ahead log that others read is tried, and seconds in between.
TRIES, PAUSE = 10, 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """What was removed, or would be, and what is left of it elsewhere."""

    removed: Removed
    dry_run: bool
    #: A person ended it before its end.
    interrupted: bool = False
    #: Why the texts are still in the files of the store; empty if they are not.
    kept: str = ""
    #: Backups that hold what was erased.
    backups: Sequence[Backup] = ()
    #: What proves it; None: nothing was removed.
    receipt: ReceiptJson | None = None

    @property
    def is_nothing(self) -> bool:
        """Return whether nothing of the customer was here."""
        return not (self.removed.events or self.removed.requests or self.removed.words)


def erase(database: Database, number: str, person: Person, *, dry_run: bool = False) -> Removal:
    """Remove every event of the customer *number*, and note who did it, without the number."""
    first = Queries(database).first_event_of(number)
    made = backup.recorded(database, since=first) if first else []
    removal = carry_out(
        database, Pruning(database, dry_run=dry_run).erase(number), dry_run=dry_run
    )
    removal = replace(removal, backups=made)
    if dry_run or removal.is_nothing:
        return removal
    act = _note(database, number, person, removal)
    return replace(removal, receipt=_receipt(database, number, act, removal))


def carry_out(database: Database, steps: Iterable[Removed], *, dry_run: bool) -> Removal:
    """Go through *steps*, and take what went out of the files as well."""
    total, interrupted = Removed(), False
    try:
        for step in steps:
            total += step
    except KeyboardInterrupt:
        interrupted = True
    kept = "" if dry_run or total == Removed() else _clear_files(database)
    return Removal(removed=total, dry_run=dry_run, interrupted=interrupted, kept=kept)


def _note(database: Database, number: str, person: Person, removal: Removal) -> Act:
    removed = removal.removed
    events = count(removed.events, "event", "events")
    requests = count(removed.requests, "refused request", "refused requests")
    began = " before it was stopped" if removal.interrupted else ""
    detail = f"{events} of {text.masked(number)} and {requests} removed{began}"
    act = person.act(database.clock())
    if act.why and Mentions(number).in_text(act.why):
        act = replace(act, why=ERASED)
    Actions(database).note(act, "erase", detail=detail)
    return act


def _receipt(database: Database, number: str, act: Act, removal: Removal) -> ReceiptJson:
    # An event whose delivery was under way is still there: the person has to erase once more.
    complete = not removal.interrupted and Queries(database).first_event_of(number) is None
    return receipt(
        removal.removed,
        act,
        number=number,
        complete=complete,
        backups=removal.backups,
        secret=store_secret(database),
    )


def _clear_files(database: Database) -> str:
    """Take what was removed out of the files of the store; return why that failed, if it did."""
    try:
        database.vacuum()
        for _ in range(TRIES):
            if not (reason := database.truncate_log()):
                return ""
            time.sleep(PAUSE)
    except StoreUnavailable as error:
        return str(error)
    return f"{reason}; the worker tries again within the hour"
