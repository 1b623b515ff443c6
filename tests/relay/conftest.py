"""A store with tables, and what reads and writes it; every test has its own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import consoles
import psycopg
import pytest
import servers
import site_of_nodes
import sqlalchemy as sa
import structlog
from config_files import Faults, Read, find_connector
from fakes import Clock, Commits, LongestWaits, Scripted, be_impatient
from hinted import Hinted
from site_of_nodes import Flow, Site
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from workers import QUICK, NewWorker

from relay import migrations
from relay.config.document import ConfigError
from relay.config.load import load
from relay.config.model import Config
from relay.destinations import Destination
from relay.leases import Intervals
from relay.store import Database, Inbox, Queries, Queue, Recovery, connect, schema
from relay.store.values import DeliveryView
from relay.worker import Worker


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let nothing be written that threads log while a test ends."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def compiled_once() -> Iterator[None]:
    """Compile each statement once for all tests, although every test opens stores of its own."""
    ready: dict[type, sa.Dialect] = {}
    compiled: dict[Any, Any] = {}

    def share(engine: sa.Engine) -> None:
        kind = type(engine.dialect)
        if kind in ready:
            engine.dialect = ready[kind]
        else:
            # A dialect learns from its first connection what the server can do.
            sa.event.listen(
                engine, "connect", lambda *_: ready.setdefault(kind, engine.dialect), once=True
            )
        engine.update_execution_options(compiled_cache=compiled)

    with pytest.MonkeyPatch.context() as patch:
        for kind in (SQLiteDialect_pysqlite, PGDialect_psycopg):
            patch.setattr(kind, "engine_created", share)
        yield


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the tables of this version and nothing in them."""
    path = tmp_path_factory.mktemp("migrated") / "relay.db"
    database = connect(f"sqlite:///{path}")
    migrations.upgrade(database)
    database.close()
    return path


@pytest.fixture(scope="session")
def filled_once(
    migrated: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, consoles.Filled]:
    """A file with a store that consoles.fill has filled, and what is in it."""
    folder = tmp_path_factory.mktemp("filled")
    path = folder / "relay.db"
    shutil.copy(migrated, path)
    with (
        closing(connect(f"sqlite:///{path}")) as database,
        consoles.console(folder, database) as console,
    ):
        return path, consoles.fill(console)


@pytest.fixture
def path(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> Path:
    """A store's file, with tables; well filled if the test asks for filled_once, too."""
    copy = tmp_path / "relay.db"
    is_filled = "filled_once" in request.fixturenames
    shutil.copy(request.getfixturevalue("filled_once")[0] if is_filled else migrated, copy)
    return copy


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that says ON_BOTH on SQLite and on PostgreSQL."""
    if "database" in metafunc.fixturenames and getattr(metafunc.module, "ON_BOTH", False):
        metafunc.parametrize("database", ["sqlite", "postgres"], indirect=True)


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A store with tables and nothing in them."""
    if getattr(request, "param", "sqlite") == "sqlite":
        database = connect(f"sqlite:///{request.getfixturevalue('path')}")
    else:
        database = connect(request.getfixturevalue("emptied"))
    be_impatient(database)
    yield database
    database.close()


@pytest.fixture(scope="session")
def server(missing: Callable[[str, str], None]) -> None:
    """A PostgreSQL server that can be reached."""
    if reason := servers.unreachable():
        missing("postgres", reason)


@pytest.fixture(scope="session")
def on_server(server: None) -> Iterator[str]:
    """The URL of a PostgreSQL database with the tables of this version, for all tests here."""
    with servers.new_database() as url:
        with closing(connect(url)) as database:
            migrations.upgrade(database)
        yield url


@pytest.fixture(scope="session")
def cleaner(on_server: str) -> Iterator[Callable[[], None]]:
    """Remove every row of that database."""
    # Where there is little, this is faster than TRUNCATE; in a connection that is kept, because a
    # new one takes the server fifty times as long.
    names = [*(table.name for table in reversed(schema.metadata.sorted_tables)), "texts"]
    tables = [f"DELETE FROM {name}" for name in names]
    statements = "; ".join(["SET synchronous_commit = off", *tables])
    with closing(psycopg.connect(on_server, autocommit=True)) as db:
        yield lambda: db.execute(statements) and None


@pytest.fixture
def emptied(on_server: str, cleaner: Callable[[], None]) -> str:
    """The same, with nothing in its tables."""
    cleaner()
    return on_server


@pytest.fixture
def inbox(database: Database) -> Iterator[Inbox]:
    inbox = Inbox(database)
    yield inbox
    inbox.close()


@pytest.fixture
def new_queue(database: Database) -> Iterator[Callable[[str], Queue]]:
    """Make the queue of a worker of that name."""
    made = []

    def new_queue(node: str) -> Queue:
        made.append(Queue(database, node=node, again=0.005))
        return made[-1]

    yield new_queue
    for queue in made:
        queue.close()


@pytest.fixture
def queue(new_queue: Callable[[str], Queue]) -> Queue:
    return new_queue("worker-1")


@pytest.fixture
def queries(database: Database) -> Queries:
    return Queries(database)


@pytest.fixture
def desk(database: Database) -> Recovery:
    return Recovery(database)


@pytest.fixture
def commits(database: Database) -> Commits:
    return Commits(database)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def delivery(queries: Queries) -> Callable[..., DeliveryView]:
    """Find the one delivery of a message to a destination."""

    def delivery(message_id: str = "m1", destination: str = "crm") -> DeliveryView:
        view = queries.event(message_id)
        assert view is not None
        (found,) = [each for each in view.deliveries if each.destination == destination]
        return found

    return delivery


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@pytest.fixture
def read(file: Path) -> Read:
    """Load a text, with keyword arguments as the environment."""

    def read(text: str, **environ: str) -> Config:
        file.write_text(dedent(text), encoding="utf-8")
        return load(file, find_connector=find_connector, environ=environ)

    return read


@pytest.fixture
def faults(file: Path, read: Read) -> Faults:
    """Load a text that cannot be used, and return its faults as ``line: words``."""

    def faults(text: str, **environ: str) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            read(text, **environ)
        lines = str(caught.value).split("\n")
        assert len(lines) == len(caught.value.faults)
        assert all(line.startswith(f"{file}:") for line in lines)
        return [line.removeprefix(f"{file}:") for line in lines]

    return faults


@pytest.fixture
def system() -> Iterator[Flow]:
    """A system that takes what is delivered."""
    with site_of_nodes.flow() as made:
        yield made


@pytest.fixture
def site(tmp_path: Path, system: Flow) -> Iterator[Site]:
    """A relay on this machine that delivers to it."""
    made = Site(tmp_path, store="sqlite:///relay.db", flow=system.url)
    yield made
    made.close()


@pytest.fixture
def crm() -> Scripted:
    return Scripted()


@pytest.fixture(params=[Worker, Hinted], ids=["threads", "celery"])
def new_worker(
    request: pytest.FixtureRequest, new_queue: Callable[[str], Queue], clock: Clock
) -> Iterator[NewWorker]:
    """Make a worker that has not been started: of either engine."""
    made: list[tuple[Any, tuple[Destination, ...]]] = []

    def new_worker(
        *destinations: Destination, node: str = "worker-1", intervals: Intervals = QUICK
    ) -> Any:
        rng: Any = LongestWaits()
        served = {each.name: each for each in destinations}
        worker = request.param(served, new_queue(node), clock=clock, rng=rng, intervals=intervals)
        made.append((worker, destinations))
        return worker

    yield new_worker
    for worker, destinations in made:
        worker.stop()
        for each in destinations:
            for hang in each.connector.hangs:
                hang.release()
        worker.drain(10)
        worker.close()


@pytest.fixture
def running(new_worker: NewWorker) -> Iterator[NewWorker]:
    """Make a worker and let it run."""
    started: list[tuple[Worker, threading.Thread]] = []

    def running(*destinations: Destination, **options: Any) -> Worker:
        worker = new_worker(*destinations, **options)
        thread = threading.Thread(target=worker.run)
        thread.start()
        started.append((worker, thread))
        return worker

    yield running
    for worker, thread in started:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()
