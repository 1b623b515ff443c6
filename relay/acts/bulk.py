"""Acts on many deliveries, events or requests: page after page, counted, paced and stoppable."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

import structlog

from relay.acts import admitting, recovering
from relay.acts.person import Person
from relay.acts.recovering import Changed, Done, End, Replayed
from relay.config.effective import version_if_complete
from relay.config.model import Config
from relay.intake import Examined
from relay.rules import recovery
from relay.rules.recovery import Before, Change, FoundDelivery, FoundEvent
from relay.rules.units import RateLimit
from relay.store import Database, Recovery, StoreUnavailable
from relay.store.recover import BATCH
from relay.store.search import Filter
from relay.store.undo import Acts

log = structlog.get_logger()

T = TypeVar("T")

#: Acts of one process that run at the same time, and finished ones that it remembers.
MOST_RUNNING, REMEMBERED = 4, 50

Stage = Literal["waiting", "running", "finished", "stopped", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """How far an act has come."""

    stage: Stage
    #: How many it is about, and how many of those it has looked at.
    total: int
    seen: int = 0
    #: How much it did, and how often it did nothing, by the reason.
    done: int = 0
    left: Mapping[str, int]
    #: Why it failed.
    fault: str | None = None
    began_at: datetime | None = None
    ended_at: datetime | None = None


class BulkAct:
    """One act on many: :meth:`run` it in any thread, ask for its progress from any other."""

    def __init__(
        self,
        *,
        verb: str,
        person: Person,
        total: int,
        pages: Iterable[Sequence[T]],
        do: Callable[[Sequence[T]], Sequence[Done]],
        rate: RateLimit | None,
        dry_run: bool,
        clock: Callable[[], datetime],
    ) -> None:
        """*verb*: what it does to each, as a participle: ``resent``."""
        self.verb = verb
        self.person = person
        self.dry_run = dry_run
        #: Set it, and no further page is begun.
        self.stop = threading.Event()
        self._pages: Iterable[Sequence[Any]] = pages
        self._do: Callable[[Sequence[Any]], Sequence[Done]] = do
        self._rate = None if dry_run else rate
        self._clock = clock
        self._left: Counter[str] = Counter()
        self._progress = Progress(stage="waiting", total=total, left={})

    @property
    def id(self) -> str:
        """The name of the act, by which it can be undone."""
        return self.person.act_id

    @property
    def progress(self) -> Progress:
        """Return how far it has come."""
        return self._progress

    @property
    def is_paced(self) -> bool:
        return self._rate is not None

    @property
    def is_over(self) -> bool:
        return self._progress.stage in ("finished", "stopped", "failed")

    def run(self, *, advance: Callable[[int], None] = lambda number: None) -> bool:
        """Do all of it; return False if it was stopped before the end.

        *advance* is told of each page how many it was about.
        """
        self._note(stage="running", began_at=self._clock())

        def batch(page: Sequence[Any]) -> int:
            number = self._count(page, self._do(page))
            advance(len(page))
            return number

        try:
            finished = run_batches(self._pages, batch, stop=self.stop, rate=self._rate)
        except BaseException as error:
            self._note(stage="failed", fault=str(error) or type(error).__name__)
            raise
        self._note(stage="finished" if finished else "stopped")
        return finished

    def _count(self, page: Sequence[Any], done: Sequence[Done]) -> int:
        number = sum(is_done for is_done, _ in done)
        self._left.update(says for is_done, says in done if not is_done)
        self._progress = replace(
            self._progress,
            seen=self._progress.seen + len(page),
            done=self._progress.done + number,
            left=dict(self._left.most_common()),
        )
        return number

    def _note(self, **changes: Any) -> None:
        changes |= {} if changes["stage"] == "running" else {"ended_at": self._clock()}
        self._progress = replace(self._progress, **changes)


def resend(
    store: Recovery,
    which: Filter,
    person: Person,
    *,
    again: bool = False,
    rate: RateLimit | None = None,
    dry_run: bool = False,
    show: Callable[[Sequence[Changed]], None] = lambda page: None,
) -> BulkAct:
    """Return the act that gives the deliveries that *which* means a new series of attempts."""
    decide = recovering.resending(store, again=again)
    return _changing(
        store, which, person, decide, verb="resent", rate=rate, dry_run=dry_run, show=show
    )


def settle(
    store: Recovery,
    which: Filter,
    person: Person,
    *,
    end: End,
    rate: RateLimit | None = None,
    dry_run: bool = False,
    show: Callable[[Sequence[Changed]], None] = lambda page: None,
) -> BulkAct:
    """Return the act that says how the deliveries that *which* means ended."""
    decide = partial(recovery.settle, end=end)
    return _changing(
        store, which, person, decide, verb="settled", rate=rate, dry_run=dry_run, show=show
    )


def replay(
    config: Config,
    store: Recovery,
    which: Filter,
    person: Person,
    *,
    only: Sequence[str] = (),
    again: bool = False,
    rate: RateLimit | None = None,
    dry_run: bool = False,
    show: Callable[[Sequence[Replayed]], None] = lambda page: None,
) -> BulkAct:
    """Return the act that sends the events that *which* means through today's routes."""
    decide = recovering.replaying(config, only=only, again=again)
    person = replace(person, config=version_if_complete(config))

    def do(page: Sequence[FoundEvent]) -> Sequence[Done]:
        replays = [decide(event) for event in page]
        made = recovering.add(store, replays, person, dry_run=dry_run)
        show(made)
        return [done for each in made for done in each.done]

    return BulkAct(
        verb="added",
        person=person,
        total=store.count_events(which),
        pages=store.event_pages(which, size=_size(rate, dry_run=dry_run)),
        do=do,
        rate=rate,
        dry_run=dry_run,
        clock=store.clock,
    )


def undo(
    store: Recovery,
    acts: Acts,
    name: str,
    person: Person,
    *,
    rate: RateLimit | None = None,
    dry_run: bool = False,
    show: Callable[[Sequence[Changed]], None] = lambda page: None,
) -> BulkAct:
    """Return the act that takes back the changes to deliveries of the act *name*.

    Raises :class:`~relay.store.search.Unknown`.
    """

    def do(page: Sequence[tuple[FoundDelivery, Before]]) -> Sequence[Done]:
        changes = [recovery.undo(*each) for each in page]
        made = recovering.change(store, changes, person, dry_run=dry_run)
        show(made)
        return [done for each in made for done in each.done]

    return BulkAct(
        verb="taken back",
        person=person,
        total=acts.count(name),
        pages=acts.pages(name, size=_size(rate, dry_run=dry_run)),
        do=do,
        rate=rate,
        dry_run=dry_run,
        clock=store.clock,
    )


def admit(
    config: Config,
    database: Database,
    requests: Sequence[Examined],
    person: Person,
    *,
    rate: RateLimit | None = None,
    dry_run: bool = False,
) -> BulkAct:
    """Return the act that lets in those refused *requests* that may come in."""

    def do(page: Sequence[Examined]) -> Sequence[Done]:
        made = admitting.admit(config, database, page, dry_run=dry_run)
        return [(each.is_good, each.became or each.examined.reason) for each in made]

    return BulkAct(
        verb="let in",
        person=person,
        total=len(requests),
        pages=_batches(requests, _size(rate, dry_run=dry_run)),
        do=do,
        rate=rate,
        dry_run=dry_run,
        clock=database.clock,
    )


def _changing(
    store: Recovery,
    which: Filter,
    person: Person,
    decide: Callable[[FoundDelivery], Change],
    *,
    verb: str,
    rate: RateLimit | None,
    dry_run: bool,
    show: Callable[[Sequence[Changed]], None],
) -> BulkAct:
    def do(page: Sequence[FoundDelivery]) -> Sequence[Done]:
        changes = [decide(delivery) for delivery in page]
        made = recovering.change(store, changes, person, dry_run=dry_run)
        show(made)
        return [done for each in made for done in each.done]

    return BulkAct(
        verb=verb,
        person=person,
        total=store.count(which),
        pages=store.pages(which, size=_size(rate, dry_run=dry_run)),
        do=do,
        rate=rate,
        dry_run=dry_run,
        clock=store.clock,
    )


def _size(rate: RateLimit | None, *, dry_run: bool) -> int:
    """Return how many to do at a time."""
    return min(BATCH, rate.count) if rate and not dry_run else BATCH


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


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


class TooMany(Exception):
    """As many acts run as may run at the same time."""


class Runner:
    """Runs the bulk acts of one process, each in a thread of its own."""

    def __init__(self, *, most: int = MOST_RUNNING, remembered: int = REMEMBERED) -> None:
        self._most, self._remembered = most, remembered
        self._acts: dict[str, BulkAct] = {}
        self._threads: dict[str, threading.Thread] = {}
        self._forms: dict[str, str] = {}
        self._lock = threading.Lock()

    def first_of(self, form: str, act: BulkAct) -> str:
        """Return the id of the act that *form* began: of *act*, if it was not sent before."""
        with self._lock:
            first = self._forms.setdefault(form, act.id)
            if len(self._forms) > self._remembered:
                del self._forms[next(iter(self._forms))]
        return first

    def release(self, form: str) -> None:
        """Let *form* be sent again: what it was to begin did not begin."""
        with self._lock:
            self._forms.pop(form, None)

    def start(self, act: BulkAct) -> BulkAct:
        """Run *act*. Raises :class:`TooMany`."""
        # A process that ends does not wait for it: what a page did is committed.
        thread = threading.Thread(target=self._run, args=[act], name=f"bulk {act.id}", daemon=True)
        with self._lock:
            if len(self._threads) >= self._most:
                raise TooMany(f"{len(self._threads)} acts run already: wait for one, or stop it")
            self._acts[act.id] = act
            self._threads[act.id] = thread
            self._forget()
            thread.start()
        return act

    def get(self, id: str) -> BulkAct | None:
        """Return an act that runs, or that is remembered."""
        return self._acts.get(id)

    def all(self) -> Sequence[BulkAct]:
        """Return the acts, the newest first."""
        with self._lock:
            return list(self._acts.values())[::-1]

    def stop(self, id: str) -> bool:
        """Let an act end after the page that it is at; return whether it was running."""
        with self._lock:
            act = self._acts.get(id) if id in self._threads else None
        if act is not None:
            act.stop.set()
        return act is not None

    def close(self, *, within: float | None = None) -> None:
        """Stop all acts, and wait for them, for so many seconds each."""
        with self._lock:
            threads = dict(self._threads)
        for id in threads:
            self.stop(id)
        for thread in threads.values():
            thread.join(within)

    def _run(self, act: BulkAct) -> None:
        try:
            act.run()
        except StoreUnavailable as error:
            log.warning("bulk_act.failed", act=act.id, error=str(error))
        except Exception:
            log.exception("bulk_act.failed", act=act.id)
        finally:
            with self._lock:
                del self._threads[act.id]

    def _forget(self) -> None:
        """Forget the oldest acts that are over."""
        over = [id for id in self._acts if id not in self._threads]
        for id in over[: max(0, len(over) - self._remembered)]:
            del self._acts[id]
