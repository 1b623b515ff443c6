"""One commit for many callers: group commit, by a thread that takes what has gathered."""

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

#: Seconds within which another caller must come for a commit to go on waiting for company.
GATHER = 0.002


class Closed(Exception):
    """The group takes no more items."""


class Late(Exception):
    """There was no commit in time. If the item was committed after all, nobody was told."""


#: Told how an item that nobody waits for ended: with nothing, or with its error.
Then = Callable[[BaseException | None], None]


class _Ticket(Generic[ItemT, ResultT]):
    __slots__ = ("done", "error", "given_up", "item", "result", "then")

    def __init__(self, item: ItemT, then: Then | None = None) -> None:
        self.item = item
        self.then = then
        #: Whoever submitted it has gone.
        self.given_up = False
        self.done = threading.Lock()
        self.done.acquire()
        self.result: ResultT | None = None
        self.error: BaseException | None = None

    def finish(self) -> None:
        """Tell whoever submitted the item."""
        try:
            if self.then is not None:
                self.then(self.error)
        except Exception:
            # The others of this commit must hear of it all the same.
            log.exception("commit.not_told")
        self.done.release()


class GroupCommit(Generic[ItemT, ResultT]):
    """Gathers the items of concurrent callers and commits them together.

    *commit* gets the items in the order in which they came and returns a result for each. If it
    raises, each half is tried alone, down to the one item that has the fault, so that no item can
    take its neighbours down; an error that *shared* names is everybody's (the database is away),
    and nothing is tried again. Nobody waits for longer than *patience* seconds. *gather*: seconds
    within which another has to come for a commit to wait on, for up to ten times as long.
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
    ) -> None:
        self._commit = commit
        self._shared = shared
        self._limit = limit
        self._patience = -1 if patience is None else patience
        self._gather = gather
        self._waiting: queue.SimpleQueue[_Ticket[ItemT, ResultT]] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        #: The last commit was for more than one caller.
        self._company = False
        self._loop = Every(name, math.inf, self._commit_waiting)
        self._loop.start()

    def submit(self, item: ItemT) -> ResultT:
        """Have *item* committed with its neighbours and return its own result.

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
        """Have *item* committed with its neighbours and *then* called, in the group's thread.

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
        """Commit one batch of what has gathered; see to it that the rest follows."""
        if self._waiting.empty():
            return  # The batch before took what this round was asked for.
        if self._company:
            self._await_company()
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
        self._company = count > 1
        return [self._waiting.get() for _ in range(count)]

    def _await_company(self) -> None:
        """Wait while more come: a commit costs so much more than an item that waiting saves."""
        ends_at = time.monotonic() + 10 * self._gather
        before = -1
        while before < (gathered := self._waiting.qsize()) and time.monotonic() < ends_at:
            before = gathered
            time.sleep(self._gather)

    def _settle(self, tickets: Sequence[_Ticket[ItemT, ResultT]]) -> None:
        if not tickets:
            return
        try:
            results = self._commit([ticket.item for ticket in tickets])
        except self._shared as error:
            for ticket in tickets:
                ticket.error = error
            self._turn_away(error)
        except Exception as error:
            if len(tickets) == 1:
                tickets[0].error = error
                return
            middle = len(tickets) // 2
            self._settle(tickets[:middle])
            self._settle(tickets[middle:])
        else:
            for ticket, result in zip(tickets, results, strict=True):
                ticket.result = result

    def _turn_away(self, error: Exception) -> None:
        """Give those in line the error that is everybody's: they have waited long enough."""
        for _ in range(self._waiting.qsize()):
            ticket = self._waiting.get()
            ticket.error = error
            ticket.finish()
