"""Works off many things, a batch at a time: paced, stoppable between batches, with a bar."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from relay.rules.units import RateLimit

T = TypeVar("T")


def work_off(
    batches: Iterable[T],
    do: Callable[[T], int],
    *,
    stop: threading.Event,
    rate: RateLimit | None = None,
) -> bool:
    """Do one batch after the other; return whether all were done before *stop* was set.

    *do* says how many things it did, of which there are no more than *rate* over time.
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
    """Turn Ctrl-C and SIGTERM into an event, so that nothing stops in the middle of a batch."""
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
    """Show a bar on a terminal, if a total is given; what is yielded moves it on."""
    if total is None or not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)
