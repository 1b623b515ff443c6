"""Posts the events of a plan, each at its time, however slow the answers are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import aiohttp

from sender.delivery import explain
from sender.load.measured import Recorder
from sender.load.plan import Mould, Plan
from sender.signing import SIGNATURE_HEADER, sign

#: Seconds before an idle connection is closed: fewer than receivers wait.
KEPT_ALIVE = 3.0
#: Seconds between reports of progress.
TELLING = 0.25


def run(plan: Plan, *, tell: Callable[[Recorder], None] = lambda recorder: None) -> Recorder:
    """Post everything, and return the recorder.

    Ends when all is answered, or one time-out after the last event was due, or at Ctrl-C.
    """
    return asyncio.run(_Engine(plan, tell).run())


class _Engine:
    def __init__(self, plan: Plan, tell: Callable[[Recorder], None]) -> None:
        self._plan = plan
        self._tell = tell
        self._recorder = Recorder(plan)
        self._mould = Mould(plan)
        self._numbers = iter(range(plan.count))
        self._secret = plan.target.secret
        self._timeout = plan.target.timeout

    async def run(self) -> Recorder:
        async with self._session() as session:
            # Time for every connection to wait for its first event.
            self._started = self._recorder.first_due = time.monotonic() + 0.01
            posting = asyncio.gather(*(self._post_due(session) for _ in self._workers()))
            telling = asyncio.create_task(self._keep_telling())
            with _stopping(posting):
                ends_in = self._plan.seconds + self._timeout
                with contextlib.suppress(TimeoutError, asyncio.CancelledError):
                    await asyncio.wait_for(posting, ends_in)
            telling.cancel()
        self._tell(self._recorder)
        return self._recorder

    def _workers(self) -> range:
        return range(min(self._plan.connections, self._plan.count))

    def _session(self) -> aiohttp.ClientSession:
        target = self._plan.target
        is_tls = urlsplit(target.url).scheme == "https"
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._plan.connections,
                keepalive_timeout=KEPT_ALIVE,
                ssl=target.trust.context() if is_tls else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": "gofax-sender", "Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=self._timeout),
        )

    async def _post_due(self, session: aiohttp.ClientSession) -> None:
        """Take the next event, wait until it is due, post it, and so on."""
        for number in self._numbers:
            due = self._started + number / self._plan.rate
            ahead = due - time.monotonic()
            if ahead > 0:
                await asyncio.sleep(ahead)
            await self._post(session, number, due=due)

    async def _post(self, session: aiohttp.ClientSession, number: int, *, due: float) -> None:
        body = self._mould.body(number)
        headers = {SIGNATURE_HEADER: sign(body, self._secret)} if self._secret else {}
        sent = time.monotonic()
        self._recorder.sending(number, at=sent)
        try:
            async with session.post(
                self._plan.target.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                await response.read()
        except asyncio.CancelledError:
            self._recorder.failed("the load ended before the answer came")
            raise
        except (aiohttp.ClientError, OSError) as error:
            self._recorder.failed(_reason(error, timeout=self._timeout))
        else:
            at = time.monotonic()
            self._recorder.answered(number, response.status, due=due, sent=sent, at=at)

    async def _keep_telling(self) -> None:
        for _ in itertools.count():
            self._tell(self._recorder)
            await asyncio.sleep(TELLING)


@contextlib.contextmanager
def _stopping(posting: asyncio.Future[list[None]]) -> Iterator[None]:
    """Let Ctrl-C end the load, and keep what was measured."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, posting.cancel)
    except (NotImplementedError, RuntimeError, ValueError):
        # asyncio handles no signals on Windows, or outside the main thread: the caller does.
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _reason(error: Exception, *, timeout: float) -> str:
    # What aiohttp keeps of the cause says less than the kind of the error.
    if isinstance(error, TimeoutError):
        return explain(TimeoutError(), timeout=timeout)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return explain(ConnectionResetError(), timeout=timeout)
    return explain(error, timeout=timeout)
