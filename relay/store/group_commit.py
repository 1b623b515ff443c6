"""Group commit: a thread commits the items of many callers together."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog

from relay.every import Every

log = structlog.get_logger()

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")

#: A commit waits on while another caller comes within this many seconds.
GATHER = 0.002


class Closed(Exception):
    """The group takes no more items."""


class Late(Exception):
    """The commit did not end in time. It may still happen, without telling the caller."""


#: Called with None, or with its error, when an item that nobody waits for was committed.
Then = Callable[[BaseException | None], None]
Committed = Callable[[int, float], None]


class _Ticket(Generic[ItemT, ResultT]):
    __slots__ = ("done", "error", "given_up", "item", "result", "then")

    def __init__(self, item: ItemT, then: Then | None = None) -> None:
        self.item = item
        self.then = then
        #: The caller has stopped waiting.
        self.given_up = False
        self.done = threading.Lock()
        self.done.acquire()
        self.result: ResultT | None = None
        self.error: BaseException | None = None

    def finish(self) -> None:
        """Tell the caller."""
        try:
            if self.then is not None:
                self.then(self.error)
        except Exception:
            # The other callers of this commit must still be told.
            log.exception("commit.not_told")
        self.done.release()


class GroupCommit(Generic[ItemT, ResultT]):
    """Gathers the items of concurrent callers and commits them together.

    *commit* gets the items in the order in which they came and returns a result for each. If it
    raises, each half is tried alone, down to the one item at fault, so that no item can take its
    neighbours down. An error of the type *shared* concerns everybody (the database is away), and
    nothing is tried again. No caller waits for longer than *patience* seconds. A commit waits on
    while another caller comes within *gather* seconds, at most ten times as long.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[ItemT]], Sequence[ResultT]],
        *,
        name: str,
        shared: type[Exception],
        limit: int = 256,
        patience: float | None = None,
        gather: float = GATHER,
        committed: Committed | None = None,
    ) -> None:
        """*committed* is told of each commit: how many items in how many seconds."""
        self._commit = commit
        self._shared = shared
        self._limit = limit
        self._patience = -1 if patience is None else patience
        self._gather = gather
        self._committed = committed or (lambda items, seconds: None)
        self._waiting: queue.SimpleQueue[_Ticket[ItemT, ResultT]] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        #: Whether the last commit had more than one caller.
        self._had_several = False
        self._loop = Every(name, math.inf, self._commit_waiting)
        self._loop.start()

    def submit(self, item: ItemT) -> ResultT:
        """Commit *item* together with others, and return its own result.

        Raises what committing this item raised, :class:`Closed`, or :class:`Late`.
        """
        ticket: _Ticket[ItemT, ResultT] = _Ticket(item)
        self._put(ticket)
        if not ticket.done.acquire(timeout=self._patience):
            ticket.given_up = True
            raise Late
        if ticket.error is not None:
            raise ticket.error
        return ticket.result  # type: ignore[return-value]  # set, because there was no error

    def submit_later(self, item: ItemT, then: Then) -> None:
        """Commit *item* together with others, and call *then* in the group's thread.

        Raises :class:`Closed`.
        """
        self._put(_Ticket(item, then))

    def close(self) -> None:
        """Commit what was submitted, then stop."""
        with self._gate:
            self._closed = True
        self._loop.close()
        while not self._waiting.empty():
            self._commit_waiting()

    def _put(self, ticket: _Ticket[ItemT, ResultT]) -> None:
        with self._gate:
            if self._closed:
                raise Closed
            self._waiting.put(ticket)
        self._loop.wake()

    def _commit_waiting(self) -> None:
        """Commit one batch of what is waiting, and make sure that the rest follows."""
        if self._waiting.empty():
            return  # The previous batch took everything.
        if self._had_several:
            self._await_more()
        tickets = self._gathered()
        try:
            self._settle([ticket for ticket in tickets if not ticket.given_up])
        finally:
            for ticket in tickets:
                ticket.finish()
        if not self._waiting.empty():
            self._loop.wake()

    def _gathered(self) -> Sequence[_Ticket[ItemT, ResultT]]:
        count = min(self._limit, self._waiting.qsize())
        self._had_several = count > 1
        return [self._waiting.get() for _ in range(count)]

    def _await_more(self) -> None:
        """Wait while more items come: a commit costs so much that waiting pays."""
        ends_at = time.monotonic() + 10 * self._gather
        before = -1
        while before < (gathered := self._waiting.qsize()) and time.monotonic() < ends_at:
            before = gathered
            time.sleep(self._gather)

    def _settle(self, tickets: Sequence[_Ticket[ItemT, ResultT]]) -> None:
        if not tickets:
            return
        started = time.monotonic()
        try:
            results = self._commit([ticket.item for ticket in tickets])
        except self._shared as error:
            for ticket in tickets:
                ticket.error = error
            self._fail_waiting(error)
        except Exception as error:
            if len(tickets) == 1:
                tickets[0].error = error
                return
            middle = len(tickets) // 2
            self._settle(tickets[:middle])
            self._settle(tickets[middle:])
        else:
            self._committed(len(tickets), time.monotonic() - started)
            for ticket, result in zip(tickets, results, strict=True):
                ticket.result = result

    def _fail_waiting(self, error: Exception) -> None:
        """Fail everything that waits with an error that concerns everybody."""
        for _ in range(self._waiting.qsize()):
            ticket = self._waiting.get()
            ticket.error = error
            ticket.finish()
