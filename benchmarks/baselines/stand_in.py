"""The destination of a comparison: counts how often it was given each message."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import rig


class StandIn:
    """A process that answers 200 after a latency, or 503 while it is away."""

    def __init__(self, url: str, control: Any) -> None:
        self.url = url
        self._control = control

    @classmethod
    @contextmanager
    def running(cls, latency: float) -> Iterator[StandIn]:
        port = rig.free_port()
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        process = context.Process(target=_Server, args=(port, latency, theirs), daemon=True)
        process.start()
        assert ours.recv() == "ready"
        try:
            yield cls(f"http://127.0.0.1:{port}/hook", ours)
        finally:
            process.terminate()
            process.join()

    def received(self) -> Mapping[str, int]:
        """Return how often each message came."""
        self._control.send("received")
        received: Mapping[str, int] = self._control.recv()
        return received

    def away(self, is_away: bool) -> None:
        self._control.send(is_away)
        self._control.recv()


class _Server:
    def __init__(self, port: int, latency: float, control: Any) -> None:
        # A forked process has its parent's handlers.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._latency, self._is_away = latency, False
        self._received: Counter[str] = Counter()
        asyncio.run(self._serve(port, control))

    async def _serve(self, port: int, control: Any) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", port, backlog=512)
        control.send("ready")
        asyncio.get_running_loop().add_reader(control.fileno(), self._obey, control)
        async with server:
            await server.serve_forever()

    def _obey(self, control: Any) -> None:
        match control.recv():
            case "received":
                control.send(dict(self._received))
            case is_away:
                self._is_away = is_away
                control.send("ok")

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)content-length: (\d+)", head)
                assert length is not None
                body = await reader.readexactly(int(length[1]))
                await asyncio.sleep(self._latency)
                writer.write(self._answer(body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, body: bytes) -> bytes:
        if self._is_away:
            return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        name = re.search(rb"bench-[0-9-]+", body)
        assert name is not None
        self._received[name[0].decode()] += 1
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
