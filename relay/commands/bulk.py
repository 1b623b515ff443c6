"""Carries out resends and replays, by name or page by page: shown, counted and stoppable."""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relay.commands import output
from relay.commands.options import FAILED, confirm
from relay.commands.tables import failure, print_lines
from relay.rules.recovery import Change, ChangeKind, FoundDelivery, FoundEvent, Replay
from relay.rules.units import RateLimit
from relay.shapes.recovery import CHANGED, says_of
from relay.shapes.words import count
from relay.store import Recovery
from relay.store.ids import new_id
from relay.store.recover import BATCH, Act
from relay.store.search import Unknown

T = TypeVar("T")

#: Whether something was done, and what it was or why not.
Done = tuple[bool, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkOptions:
    """Who does it, why, and how."""

    who: str
    why: str | None
    as_json: bool
    dry_run: bool = False
    yes: bool = False
    rate: RateLimit | None = None
    #: The version of the config whose routes are used.
    config: str | None = None
    #: Names all that this command does, so that it can be undone.
    act_id: str = field(default_factory=partial(new_id, "act"))
    is_undo: bool = False

    def act(self, store: Recovery) -> Act:
        """Return who acts, why, and when by the clock of the store."""
        return Act(
            who=self.who, why=self.why, at=store.clock(), config=self.config, id=self.act_id
        )

    @property
    def batch(self) -> int:
        """Return how many to do at a time."""
        return min(BATCH, self.rate.count) if self.rate and not self.dry_run else BATCH

    def say(self, line: str) -> None:
        """Print a line for people; with --json it goes to standard error."""
        print_lines([line], err=self.as_json)

    def say_end(self, *, changed: bool) -> None:
        """Say that nothing was changed, or how to take back what was."""
        if self.dry_run:
            self.say("nothing was changed")
        elif changed and not self.is_undo:
            hint = f"to take back what has not been sent: gofax-relay undo {self.act_id}"
            print_lines([hint], err=True)

    def confirm(self, question: str, *, number: int) -> None:
        """Ask whether to continue, unless --yes was given or there is nothing to do."""
        if self.yes or self.dry_run or not number:
            return
        confirm(question, look="--dry-run", err=self.as_json)


def found(find: Callable[[str], T], names: Iterable[str]) -> dict[str, T]:
    """Find everything that is named, or fail with every name that is unknown."""
    hits: dict[str, T] = {}
    faults = []
    for name in names:
        try:
            hits[name] = find(name)
        except Unknown as error:
            faults.append(str(error))
    if faults:
        raise failure("\n".join(faults))
    return hits


def apply_changes(
    store: Recovery, changes: Sequence[Change], options: BulkOptions, *, show: bool
) -> Sequence[Done]:
    """Make *changes* to deliveries, and return what was done."""
    asked = [change.kind is not ChangeKind.NOTHING for change in changes]
    did = asked if options.dry_run else store.do(changes, options.act(store))
    done = [
        (is_done, CHANGED if is_asked and not is_done else change.says)
        for change, is_asked, is_done in zip(changes, asked, did, strict=True)
    ]
    if show or options.as_json:
        for change, (is_done, says) in zip(changes, done, strict=True):
            output.show_change(change, done=is_done, says=says, as_json=options.as_json)
    return done


def apply_replays(
    store: Recovery, replays: Sequence[Replay], options: BulkOptions, *, show: bool
) -> Sequence[Done]:
    """Make *replays* of events, and return what was done."""
    planned = [[step for step in each.steps if step.adds] for each in replays]
    added = planned if options.dry_run else store.replay(replays, options.act(store))
    done: list[Done] = []
    for each, steps in zip(replays, added, strict=True):
        done += [(step in steps, says_of(step, steps)) for step in each.steps]
        done += [(False, each.refused)] if each.refused else []
        if show or options.as_json:
            output.show_replay(each, added=steps, as_json=options.as_json)
    return done


def by_name(
    store: Recovery,
    found: dict[str, Sequence[FoundDelivery]],
    decide: Callable[[FoundDelivery], Change],
    options: BulkOptions,
) -> None:
    """Change the deliveries that were named; exit 1 if a name changed nothing."""
    unchanged = []
    for name, deliveries in found.items():
        done = apply_changes(
            store, [decide(delivery) for delivery in deliveries], options, show=True
        )
        if not deliveries:
            options.say(f"{name}: no such delivery; gofax-relay explain {name} says why")
        if not any(is_done for is_done, _ in done):
            unchanged.append(name)
    options.say_end(changed=len(unchanged) < len(found))
    if unchanged:
        sys.exit(FAILED)


def replay_by_name(
    store: Recovery,
    events: Iterable[FoundEvent],
    decide: Callable[[FoundEvent], Replay],
    options: BulkOptions,
) -> None:
    """Replay the events that were named; exit 1 if one of them cannot be replayed."""
    replays = [decide(event) for event in events]
    done = [apply_replays(store, [each], options, show=True) for each in replays]
    options.say_end(changed=any(is_done for each in done for is_done, _ in each))
    if any(each.refused for each in replays):
        sys.exit(FAILED)


@dataclass
class _Tally:
    done: int = 0
    left: Counter[str] = field(default_factory=Counter)


def by_page(
    pages: Iterable[Sequence[T]],
    do: Callable[[Sequence[T]], Sequence[Done]],
    *,
    verb: str,
    total: int,
    options: BulkOptions,
) -> None:
    """Do page after page and print how many; exit 1 if it was stopped before the end."""
    tally, seen = _Tally(), 0

    def batch(page: Sequence[T]) -> int:
        nonlocal seen
        done = do(page)
        number = sum(is_done for is_done, _ in done)
        tally.done += number
        tally.left.update(says for is_done, says in done if not is_done)
        seen += len(page)
        advance(len(page))
        return number

    quiet = options.dry_run or options.as_json
    finished = False
    try:
        with (
            stoppable() as stop,
            progress(verb, total=None if quiet else total) as advance,
        ):
            rate = None if options.dry_run else options.rate
            finished = run_batches(pages, batch, stop=stop, rate=rate)
    finally:
        # Report even if the store went away: what was done is done.
        _report(tally, verb=verb, options=options)
        if not finished:
            options.say(f"stopped after {seen:,} of {total:,}; the others are unchanged")
    if not finished:
        sys.exit(FAILED)


def _report(tally: _Tally, *, verb: str, options: BulkOptions) -> None:
    would = "would have " if options.dry_run else ""
    options.say(f"{would}{verb} {count(tally.done, 'delivery', 'deliveries')}")
    for says, number in tally.left.most_common():
        options.say(f"left {number:,}: {says}")
    options.say_end(changed=bool(tally.done))


def run_batches(
    batches: Iterable[T],
    do: Callable[[T], int],
    *,
    stop: threading.Event,
    rate: RateLimit | None = None,
) -> bool:
    """Do one batch after another; return whether all were done before *stop* was set.

    *do* returns how many things it did, which *rate* limits.
    """
    pause = rate.period.total_seconds() / rate.count if rate else 0.0
    wait = 0.0
    for batch in batches:
        if stop.wait(wait) if wait else stop.is_set():
            return False
        wait = do(batch) * pause
    return True


@contextmanager
def stoppable() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C and SIGTERM set, so that no batch is cut in the middle."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def progress(what: str, *, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal if *total* is given; the yielded function advances it."""
    if total is None or not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
