"""Measures what an event costs on one node and on several, and on each database.

Everything shares this machine's processors with the load and the stand-in, so more nodes cannot be
faster here. The CPU time of one event, on the relay and on the database server, shows whether they
could be elsewhere.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import fill
import psutil
import rig
import sqlalchemy as sa
import wrk
from brokers import new_vhost

from relay.store import Database, connect, schema

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: {store}
engine: {engine}
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [{secret}]}}]
destinations:
  crm: {{connector: webhook, url: "{stand_in}", rate: null, concurrency: 16}}
routes: [{{name: all, to: [crm]}}]
"""
#: More events than any receiver here can accept, so that none comes twice as a duplicate.
EVENTS_A_SECOND = 4_000
PATIENCE = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Events a second, and microseconds of CPU for each."""

    per_second: float
    relay_us: float
    server_us: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def us(self) -> float:
        return self.relay_us + self.server_us


class StandIn:
    """Answers 200 at once, and counts distinct effects."""

    def __init__(self, port: int, control: Any) -> None:
        self._effects: dict[bytes, float] = {}
        asyncio.run(self._serve(port, control))

    async def _serve(self, port: int, control: Any) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", port, backlog=512)
        control.send("ready")
        asyncio.get_running_loop().add_reader(control.fileno(), self._obey, control)
        async with server:
            await server.serve_forever()

    def _obey(self, control: Any) -> None:
        match control.recv():
            case "count":
                control.send(len(self._effects))
            case "times":
                control.send(sorted(self._effects.values()))
                self._effects.clear()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"(?i)content-length: (\d+)", head)
                effect = re.search(rb"(?i)webhook-id: (\S+)", head)
                assert length is not None
                assert effect is not None
                await reader.readexactly(int(length[1]))
                self._effects.setdefault(effect[1], time.time())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


class Bench:
    """A folder, a stand-in, and a server with a new database for each run."""

    def __init__(self, folder: Path, server: rig.Server) -> None:
        self.folder, self.server = folder, server
        self._runs = 0
        port = rig.free_port()
        self.stand_in = f"http://127.0.0.1:{port}/effects"
        self._control, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=StandIn, args=(port, theirs), daemon=True)
        self._process.start()
        assert self._control.recv() == "ready"

    def close(self) -> None:
        self._process.terminate()
        self._process.join()

    def ask(self, what: str) -> Any:
        self._control.send(what)
        return self._control.recv()

    @contextmanager
    def store(self, database: str) -> Iterator[str]:
        """Return the URL of a new store."""
        self._runs += 1
        if database == "sqlite":
            yield f"sqlite:///{self.folder}/relay-{self._runs}.db"
            return
        name = f"run_{self._runs}"
        yield self.server.new_database(name)
        self.server.drop_database(name)

    def config(self, store: str, *, engine: str = "threads", number: int = 0) -> tuple[Path, int]:
        """Write a node's config, and return its path and the port of its receiver."""
        port, path = rig.free_port(), self.folder / f"config-{number}.yaml"
        path.write_text(
            CONFIG.format(
                port=port, store=store, secret=wrk.SECRET, stand_in=self.stand_in, engine=engine
            )
        )
        return path, port

    def spent(self, processes: Sequence[psutil.Process]) -> tuple[float, float]:
        """Return the CPU seconds that *processes* and the server have used."""
        return sum(map(rig.cpu_seconds, processes)), rig.cpu_seconds(self.server.process)


def accepts(
    bench: Bench, options: Namespace, *, nodes: int, database: str, engine: str = "threads"
) -> Cost:
    """Let *nodes* receivers on one store accept as fast as they can."""
    share = options.seconds * EVENTS_A_SECOND
    script = wrk.write_load(bench.folder, share * nodes)
    with bench.store(database) as store, ExitStack() as stack:
        webs, ports = _webs(bench, stack, store, nodes=nodes, engine=engine)
        before = bench.spent(webs)
        done = _load(script, ports, options, share=share)
        spent = bench.spent(webs)
        _check_stored(stack.enter_context(closing(connect(store))), done)
    return _cost(before, spent, sum(each.count for each in done), done)


def paced(
    bench: Bench, options: Namespace, *, nodes: int, database: str, engine: str = "threads"
) -> Cost:
    """Give each of *nodes* the same events a second, to accept and to deliver."""
    share = options.seconds * options.each * 2
    pause = options.connections * 1000 // options.each
    script = wrk.write_load(bench.folder, share * nodes, pause=pause)
    with bench.store(database) as store, ExitStack() as stack:
        webs, ports = _webs(bench, stack, store, nodes=nodes, engine=engine)
        config = str(bench.folder / "config-0.yaml")
        both = [*webs, *_workers(bench, stack, config, nodes=nodes)]
        looking = stack.enter_context(closing(connect(store)))
        before = bench.spent(both)
        done = _load(script, ports, options, share=share)
        _until(lambda: not _open_deliveries(looking))
        spent = bench.spent(both)
        _check_stored(looking, done)
    return _cost(before, spent, len(bench.ask("times")), done)


def _check_stored(database: Database, loads: Sequence[wrk.Load]) -> None:
    """End the benchmark if an event that was answered 200 is not in the store."""
    with database.reading() as db:
        stored = set(db.scalars(sa.select(schema.events.c.message_id)))
    if lost := set().union(*(each.ids for each in loads)) - stored:
        raise SystemExit(f"{len(lost)} events were answered 200 and are not stored")


def _open_deliveries(database: Database) -> int:
    with database.reading() as db:
        ended = schema.deliveries.c.ended_at
        return db.scalar(sa.select(sa.func.count()).where(ended.is_(None))) or 0


def _webs(
    bench: Bench, stack: ExitStack, store: str, *, nodes: int, engine: str
) -> tuple[Sequence[psutil.Process], Sequence[int]]:
    """Start receivers on one store; return them and their ports."""
    placed = [bench.config(store, engine=engine, number=each) for each in range(nodes)]
    rig.run(bench.folder, "migrate", "--config", str(placed[0][0]))
    webs = [
        stack.enter_context(rig.command(bench.folder, "web", "--config", str(path)))
        for path, _ in placed
    ]
    for _, port in placed:
        rig.await_url(f"http://127.0.0.1:{port}/readyz")
    return webs, [port for _, port in placed]


def _workers(
    bench: Bench, stack: ExitStack, config: str, *, nodes: int
) -> Sequence[psutil.Process]:
    """Start workers, and wait until all of them are up."""
    workers = [
        stack.enter_context(
            rig.command(bench.folder, "work", "--config", config, name=f"work-{each}")
        )
        for each in range(nodes)
    ]
    rig.await_nodes(bench.folder, config, nodes)
    return workers


def _load(
    script: Path, ports: Sequence[int], options: Namespace, *, share: int
) -> Sequence[wrk.Load]:
    """Post to all *ports* at the same time, to each its *share* of the events."""
    with ThreadPoolExecutor(len(ports)) as pool:
        loads = [
            pool.submit(wrk.post, script, port, seconds=options.seconds, first=each * share,
                        connections=options.connections)
            for each, port in enumerate(ports)
        ]  # fmt: skip
        done = [each.result() for each in loads]
    assert not sum(each.errors for each in done), done
    return done


def _cost(
    before: tuple[float, float], after: tuple[float, float], count: int, loads: Sequence[wrk.Load]
) -> Cost:
    relay, server = (now - then for now, then in zip(after, before, strict=True))
    return Cost(
        per_second=round(sum(each.count / each.seconds for each in loads), 1),
        relay_us=round(relay / count * 1e6, 1),
        server_us=round(server / count * 1e6, 1),
        p50_ms=statistics.median(each.p50_ms for each in loads),
        p99_ms=max(each.p99_ms for each in loads),
    )


def deliveries(
    bench: Bench, options: Namespace, *, nodes: int, database: str, engine: str = "threads"
) -> Cost:
    """Let *nodes* workers deliver a backlog, starting when all of them are up."""
    with bench.store(database) as store, ExitStack() as stack:
        fill.fill(store, events=options.events, delivered=False)
        config = str(bench.config(store, engine=engine)[0])
        rig.run(bench.folder, "pause", "crm", "--config", config)
        workers = _workers(bench, stack, config, nodes=nodes)
        before = bench.spent(workers)
        rig.run(bench.folder, "resume", "crm", "--config", config)
        _until(lambda: bench.ask("count") > options.events)
        relay, server = (after - b for after, b in zip(bench.spent(workers), before, strict=True))
    times = bench.ask("times")
    begin = len(times) // 10
    return Cost(
        per_second=round((len(times) - 1 - begin) / (times[-1] - times[begin]), 1),
        relay_us=round(relay / len(times) * 1e6, 1),
        server_us=round(server / len(times) * 1e6, 1),
    )


def _until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends_at:
            raise SystemExit("not all deliveries were made")
        time.sleep(0.05)


def measure(options: Namespace) -> dict[str, Any]:
    """Run everything *rounds* times, in turn, and return the medians."""
    runs = [("postgres", nodes, name) for name in options.engines for nodes in options.nodes]
    kinds = {"paced": paced} if options.each else {"accepts": accepts, "deliveries": deliveries}
    found: dict[str, dict[str, list[Cost]]] = {what: {} for what in kinds}
    with ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="gofax-bench-"))
        server = stack.enter_context(rig.server())
        bench = Bench(Path(name), server)
        stack.callback(bench.close)
        for _ in range(options.rounds):
            for database, nodes, engine in [*runs, ("sqlite", 1, "threads")]:
                where = f"{database}, {nodes} node{'s' * (nodes > 1)}"
                where += ", celery" * (engine == "celery")
                for what, act in kinds.items():
                    with _engine(engine) as said:
                        cost = act(bench, options, nodes=nodes, database=database, engine=said)
                    print(f"{what}, {where}: {cost}", file=sys.stderr)
                    found[what].setdefault(where, []).append(cost)
        return {
            "postgres": server.version,
            "nodes": {
                what: {where: _median(each) for where, each in of.items()}
                for what, of in found.items()
            },
        }


@contextmanager
def _engine(name: str) -> Iterator[str]:
    """Return the engine for the config; a fleet has a vhost of its own."""
    if name == "threads":
        yield name
        return
    with new_vhost() as url:
        yield f"{{celery: {{broker: {url}}}}}"


def _median(costs: Sequence[Cost]) -> dict[str, float]:
    fields = asdict(costs[0])
    middle = {name: statistics.median(getattr(each, name) for each in costs) for name in fields}
    return {**middle, "us": round(statistics.median(each.us for each in costs), 1)}
