"""Migrations: every database comes to the schema of this version, or says why not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from fakes import arrival

from relay import migrations
from relay.migrations import walk
from relay.store import Database, Inbox, Queries, StoreUnavailable, connect, indexes, schema

ROOT = Path(__file__).parents[2]

UPGRADE = """
import sys
from relay import migrations
from relay.store import connect
print("ready", flush=True)
sys.stdin.readline()
migrations.upgrade(connect(sys.argv[1]))
"""


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    database = connect(f"sqlite:///{tmp_path}/empty.db")
    yield database
    database.close()


def _revisions(database: Database) -> list[str]:
    with database.reading() as db:
        return list(db.scalars(sa.text("SELECT version_num FROM alembic_version")))


def _shape(database: Database) -> dict[str, str]:
    """Return the statements that made tables and indexes, without white space."""
    with database.reading() as db:
        rows = db.execute(sa.text("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))
        return {row.name: "".join(row.sql.replace('"', "").split()) for row in rows}


def test_a_fresh_database_gets_its_tables(empty: Database) -> None:
    migrations.upgrade(empty)

    assert set(schema.metadata.tables) <= set(sa.inspect(empty.engine).get_table_names())
    inbox = Inbox(empty)
    assert inbox.accept(arrival("m1")).standing == "accepted"
    inbox.close()


def test_the_second_time_changes_nothing(empty: Database) -> None:
    migrations.upgrade(empty)
    before = _shape(empty), _revisions(empty)
    inbox = Inbox(empty)
    inbox.accept(arrival("m1"))
    inbox.close()

    migrations.upgrade(empty)

    assert (_shape(empty), _revisions(empty)) == before
    assert len(list(Queries(empty).events())) == 1


@pytest.mark.slow
def test_four_processes_may_do_it_at_once(empty: Database) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", UPGRADE, str(empty.url)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()

    ends = [process.communicate(timeout=60)[1] for process in processes]

    assert ends == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    assert len(_revisions(empty)) == 1
    assert set(schema.metadata.tables) <= set(sa.inspect(empty.engine).get_table_names())


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(database: Database) -> None:
    with database.writing() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        db.execute(sa.text("UPDATE marks SET value = X'39393939' WHERE name = 'serves'"))
    before = _shape(database)

    with pytest.raises(migrations.SchemaTooNew, match="9999.*upgrade gofax-relay") as caught:
        migrations.upgrade(database)

    assert "\n" not in str(caught.value)
    assert (_shape(database), _revisions(database)) == (before, ["9999"])


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "relay.db").write_bytes(b"no database at all" * 1000)

    with pytest.raises(StoreUnavailable, match="not a database"):
        connect(f"sqlite:///{tmp_path}/relay.db")


def test_a_migrated_database_is_what_the_code_expects(empty: Database) -> None:
    walk.migrate(empty)
    with empty.reading() as db:
        options = {
            "compare_type": True,
            "compare_server_default": True,
            "include_name": lambda name, *_: not (name or "").startswith("texts"),
        }
        context = MigrationContext.configure(db, opts=options)
        assert compare_metadata(context, indexes.complete) == []


def test_a_migrated_database_is_the_same_to_the_last_word(tmp_path: Path, empty: Database) -> None:
    # Alembic compares neither the conditions of partial indexes nor AUTOINCREMENT.
    walked = connect(f"sqlite:///{tmp_path}/walked.db")
    walk.migrate(walked)
    migrations.upgrade(empty)

    made, migrated = _shape(empty), _shape(walked)
    walked.close()

    # The constraints of a table may stand in another order.
    assert {name: sorted(said) for name, said in made.items()} == {
        name: sorted(said) for name, said in migrated.items()
    }


def test_the_names_of_the_files_are_the_revisions_in_their_order() -> None:
    scripts = ScriptDirectory(str(migrations.VERSIONS.parent))

    assert migrations.known() == [s.revision for s in scripts.walk_revisions()][::-1]


@pytest.mark.parametrize("revision", sorted(walk.UNRELEASED))
def test_a_store_of_an_unreleased_version_is_refused_with_what_to_do(
    database: Database, revision: str
) -> None:
    with database.writing() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
        db.execute(sa.text("UPDATE marks SET value = X'30303035' WHERE name = 'serves'"))
    before = _shape(database)

    for act in (
        lambda: migrations.upgrade(database),
        lambda: walk.statements(revision, dialect="sqlite"),
    ):
        with pytest.raises(migrations.SchemaTooOld, match=f"{revision} .*start a new store"):
            act()

    assert (_shape(database), _revisions(database)) == (before, [revision])
