"""The next revision up and down, with rows in all the tables; and versions side by side."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import servers
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from fakes import NOON, accept, eventually, finish, take_one
from newer import NEWER, newer_version
from site_of_nodes import PATIENCE, Flow, Site

from relay import migrations
from relay.migrations import SchemaTooNew, UnknownRevision, walk
from relay.node import Heartbeat
from relay.store import Database, Inbox, Queries, Queue, connect, indexes, schema
from relay.store.nodes import Nodes

HEAD = migrations.newest()
WITH_EXPRESSIONS = ("ix_deliveries_listed", "ix_deliveries_reference", "ix_lanes_thread")
Rows = dict[str, list[dict[str, Any]]]
Move = Callable[[Database, Path, str], None]

MIGRATE = """
import sys
from relay import migrations
from relay.migrations import walk
from relay.store import connect
print("ready", flush=True)
sys.stdin.readline()
print(walk.migrate(connect(sys.argv[1])).is_none, migrations.newest())
"""

#: Run by the newer version: migrate the database at argv[1] to argv[2].
TO = """
import sys
from relay.migrations import walk
from relay.store import connect
print(walk.migrate(connect(sys.argv[1]), sys.argv[2], force="force" in sys.argv))
"""

#: Run by the newer version: make a store at argv[1], and print its revision and whom it serves.
NEW = """
import sys
import sqlalchemy as sa
from relay import migrations
from relay.store import connect, schema
database = connect(sys.argv[1])
migrations.upgrade(database)
serves = sa.select(schema.marks.c.value).where(schema.marks.c.name == "serves")
with database.reading() as db:
    print(migrations.current(db), db.scalar(serves).decode())
"""

#: What makes the shape of a server's tables.
SHAPE = (
    "SELECT table_name, column_name, data_type, collation_name, is_nullable, column_default,"
    " identity_generation, character_maximum_length FROM information_schema.columns"
    " WHERE table_schema = 'public'",
    "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace",
    "SELECT sequencename, data_type, start_value, increment_by FROM pg_sequences",
)

#: Run by the newer version: print the SQL from revision argv[1] to argv[2], in dialect argv[3].
PRINT = """
import sys
from relay.migrations import walk
before = None if sys.argv[1] == "-" else sys.argv[1]
print(walk.statements(before, sys.argv[2], dialect=sys.argv[3]))
"""


def _by_newer(
    blank: Database, folder: Path, to: str = NEWER, *, serves: str | None, force: bool = False
) -> str:
    """Let a newer version migrate the database, and return what it says to that."""
    ended = _run(folder, TO, blank.url, to, *(["force"] if force else []), serves=serves)
    return ended.stdout + ended.stderr


def _run(
    folder: Path, code: str, *arguments: str, serves: str | None
) -> subprocess.CompletedProcess[str]:
    if not folder.exists():
        newer_version(folder, before=HEAD, serves=serves)
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


@pytest.fixture(params=["sqlite", "postgres"])
def blank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    if request.param == "sqlite":
        with closing(connect(f"sqlite:///{tmp_path}/blank.db")) as database:
            yield database
        return
    request.getfixturevalue("server")
    with servers.new_database() as url, closing(connect(url)) as database:
        yield database


def _online(database: Database, folder: Path, to: str) -> None:
    assert f"after='{to}'" in _by_newer(database, folder, to, serves=HEAD)


def _by_hand(database: Database, folder: Path, to: str) -> None:
    """Do what ``--sql`` prints."""
    before = migrations.revision(database)
    dialect = database.engine.dialect.name
    ended = _run(folder, PRINT, before or "-", to, dialect, serves=HEAD)
    assert (ended.returncode, migrations.revision(database)) == (0, before), ended.stderr
    if database.file is not None:
        with closing(sqlite3.connect(database.file)) as db:
            db.execute("PRAGMA foreign_keys = ON")
            db.executescript(ended.stdout)
    else:
        with psycopg.connect(database.url, autocommit=True) as db:
            db.execute(ended.stdout.encode())


def _value(column: sa.Column[Any], number: int) -> Any:
    if column.name == "state":
        return "delivered"
    match column.type:
        case sa.Boolean():
            return False
        case sa.TIMESTAMP() | sa.DateTime():
            return NOON + timedelta(seconds=number)
        case sa.Integer():
            return number
        case sa.LargeBinary():
            return f"{column.table.name} {column.name} {number}".encode()
        case _:
            return f"{column.table.name} {column.name} {number}"


def _tables(db: sa.Connection) -> list[sa.Table]:
    reflected = sa.MetaData()
    # The full-text index is written by nobody but a worker.
    reflected.reflect(db, only=lambda name, _: not name.startswith("texts"))
    return [each for each in reflected.sorted_tables if each.name != "alembic_version"]


def _fill(database: Database, number: int) -> None:
    """Put a row into each of the tables that there are."""
    with database.writing() as db:
        for table in _tables(db):
            row = {
                column.name: _value(
                    next(iter(column.foreign_keys)).column if column.foreign_keys else column,
                    number,
                )
                for column in table.c
                if column.name != "seq"
            }
            db.execute(sa.insert(table).values(row))


def _rows(database: Database) -> Rows:
    with database.reading() as db:
        found = {
            table.name: [dict(row) for row in db.execute(sa.select(table)).mappings()]
            for table in _tables(db)
        }
    found["marks"] = [row for row in found["marks"] if row["name"] != "serves"]
    return found


def _assert_kept(before: Rows, after: Rows) -> None:
    """Nothing is missing of what there is a place for."""
    for name in set(before) & set(after):
        assert after[name], name
        columns = set(before[name][0]) & set(after[name][0])
        left = [{each: row[each] for each in columns} for row in after[name]]
        for row in before[name]:
            assert {each: row[each] for each in columns} in left, name


@pytest.mark.slow
@pytest.mark.parametrize("move", [_online, _by_hand])
def test_every_revision_is_gone_up_and_down_and_up_with_rows_in_all_tables(
    blank: Database, tmp_path: Path, move: Move
) -> None:
    order = [*migrations.known(), NEWER]
    assert len(order) > 1
    for number, revision in enumerate([*order, *order[-2::-1], *order[1:]]):
        before = _rows(blank) if number else {}
        move(blank, tmp_path / "new", revision)
        assert migrations.revision(blank) == revision
        _assert_kept(before, _rows(blank))
        _fill(blank, number)
    assert set(_rows(blank)) == {*schema.metadata.tables, "novelties"}

    move(blank, tmp_path / "new", HEAD)

    assert set(_rows(blank)) == set(schema.metadata.tables)
    with blank.reading() as db:
        # A server writes the expressions of these indexes in its own way.
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_object": lambda _, name, *__: name not in WITH_EXPRESSIONS,
            "include_name": lambda name, *_: not (name or "").startswith("texts"),
        }
        context = MigrationContext.configure(db, opts=options)
        assert compare_metadata(context, indexes.complete) == []


@pytest.mark.parametrize("blank", ["postgres"], indirect=True)
def test_a_new_store_has_the_same_tables_as_one_that_walked(blank: Database) -> None:
    migrations.upgrade(blank)
    with servers.new_database() as url, closing(connect(url)) as walked:
        walk.migrate(walked)
        for question in SHAPE:
            assert _asked(blank, question) == _asked(walked, question)


@pytest.mark.parametrize("serves", [HEAD, None])
def test_a_new_store_says_whom_it_serves(
    tmp_path: Path, blank: Database, serves: str | None
) -> None:
    ended = _run(tmp_path / "new", NEW, blank.url, serves=serves)

    assert (ended.stdout, ended.stderr) == (f"{NEWER} {serves or NEWER}\n", "")


def _asked(database: Database, question: str) -> set[tuple[Any, ...]]:
    with database.reading() as db:
        return {tuple(row) for row in db.execute(sa.text(question))}


@pytest.mark.slow
@pytest.mark.parametrize("blank", ["postgres"], indirect=True)
def test_several_processes_may_do_it_at_once(blank: Database) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, str(blank.url)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()

    said = [process.communicate(timeout=PATIENCE)[0] for process in processes]

    assert sorted(said) == [f"False {HEAD}\n", f"True {HEAD}\n", f"True {HEAD}\n"]


def test_an_unknown_revision_is_named_with_those_that_there_are(blank: Database) -> None:
    for act in (
        lambda: walk.migrate(blank, "77"),
        lambda: walk.statements(None, "77", dialect="sqlite"),
    ):
        with pytest.raises(UnknownRevision, match="no revision 77.* knows " + HEAD):
            act()


@pytest.mark.slow
def test_tables_stay_while_living_nodes_need_them_unless_somebody_insists(
    blank: Database, tmp_path: Path
) -> None:
    _by_newer(blank, tmp_path / "new", serves=HEAD)
    heartbeat = Heartbeat(blank, name="a", role="worker", seconds=60)
    heartbeat.start()
    eventually(lambda: Nodes(blank).nodes())

    said = _by_newer(blank, tmp_path / "new", HEAD, serves=HEAD)
    assert "a could not go on with that schema: stop them first" in said
    assert migrations.revision(blank) == NEWER

    _by_newer(blank, tmp_path / "new", HEAD, serves=HEAD, force=True)
    assert migrations.revision(blank) == HEAD
    heartbeat.close()


@pytest.mark.slow
def test_an_older_version_goes_on_with_a_schema_that_serves_it(
    blank: Database, tmp_path: Path
) -> None:
    walk.migrate(blank)
    with closing(Inbox(blank)) as inbox, closing(Queue(blank, node="old")) as queue:
        accept(inbox, "m1")

        assert f"after='{NEWER}'" in _by_newer(blank, tmp_path / "new", serves=HEAD)

        accept(inbox, "m2")
        finish(queue, take_one(queue))
        finish(queue, take_one(queue))
    # As every start does, and every command.
    migrations.upgrade(blank)
    assert migrations.revision(blank) == NEWER
    assert Queries(blank).backlog() == {"crm": {"delivered": 2}}
    with pytest.raises(SchemaTooNew, match=NEWER):
        walk.migrate(blank, HEAD)


@pytest.mark.slow
def test_a_newer_version_does_not_break_older_nodes_and_then_shuts_them_out(
    blank: Database, tmp_path: Path
) -> None:
    walk.migrate(blank)
    heartbeat = Heartbeat(blank, name="old", role="worker")
    heartbeat.start()
    eventually(lambda: Nodes(blank).nodes())
    said = _by_newer(blank, tmp_path / "new", serves=None)
    assert "old could not go on with that schema: stop them first" in said
    assert migrations.revision(blank) == HEAD
    heartbeat.close()

    assert f"after='{NEWER}'" in _by_newer(blank, tmp_path / "new", serves=None)

    with pytest.raises(SchemaTooNew, match=f"{NEWER}.*upgrade gofax-relay"):
        migrations.upgrade(blank)
    assert f"after='{HEAD}'" in _by_newer(blank, tmp_path / "new", HEAD, serves=None)
    migrations.upgrade(blank)


@pytest.mark.slow
def test_nodes_of_two_versions_work_side_by_side(
    server: None, tmp_path: Path, system: Flow
) -> None:
    with servers.new_database() as url:
        site = Site(tmp_path / "site", store=url, flow=system.url)
        newer = newer_version(tmp_path / "new", before=HEAD, serves=HEAD)
        old = site.serve()
        assert site.post("m1") == "accepted"

        worker = site.start("work", **newer)
        eventually(lambda: migrations.newest() != _schema(url), seconds=PATIENCE)
        assert [site.post(name) for name in ("m2", "m3")] == ["accepted"] * 2
        eventually(lambda: system.names == ["m1", "m2", "m3"], seconds=PATIENCE)
        old.terminate()
        assert old.wait(PATIENCE) == 0

        again = site.serve("web")
        assert [site.post(name) for name in ("m3", "m4")] == ["duplicate", "accepted"]
        eventually(lambda: system.names[3:] == ["m4"], seconds=PATIENCE)
        assert (again.poll(), worker.poll()) == (None, None)
        site.close()


def _schema(url: str) -> str:
    with psycopg.connect(url) as db:
        row = db.execute("SELECT version_num FROM alembic_version").fetchone()
        assert row
        return str(row[0])
