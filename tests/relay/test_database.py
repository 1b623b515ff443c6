"""The database: private files, synced writes, one writer at a time, and honest errors."""

from __future__ import annotations

import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from fakes import NOON, locked

from relay.store import Database, StoreUnavailable, connect, indexes, schema
from relay.store.sqlite import LARGE_CACHE

#: Holds the lock file of the store in argv[1] from "held" until its input ends.
HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1] + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""

PAUSE = {"name": "crm", "cause": "operator", "reason": "a test", "since": NOON}


def _write(database: Database, *, name: str = "crm", since: datetime = NOON) -> None:
    with database.writing() as db:
        db.execute(sa.insert(schema.destinations), [PAUSE | {"name": name, "since": since}])


def _names(database: Database) -> set[str]:
    with database.reading() as db:
        return set(db.scalars(sa.select(schema.destinations.c.name)))


@contextmanager
def _lock_held_by_another_process(path: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        yield
        assert holder.stdin
        holder.stdin.close()
        holder.wait(30)


def test_all_files_of_a_store_are_for_their_owner_only(tmp_path: Path) -> None:
    database = connect(f"sqlite:///{tmp_path}/new/folder/relay.db")
    indexes.complete.create_all(database.engine)
    _write(database)

    modes = {
        file.name: stat.S_IMODE(file.stat().st_mode)
        for file in (tmp_path / "new/folder").iterdir()
    }

    database.close()
    assert set(modes) == {"relay.db", "relay.db-wal", "relay.db-shm", "relay.db.lock"}
    assert set(modes.values()) == {0o600}


def test_writes_are_synced_even_on_a_connection_that_served_unsynced_ones(
    database: Database,
) -> None:
    levels = []
    for transaction in (
        database.writing,
        database.writing_unsynced,
        database.writing,
        database.writing_unsynced,
        database.writing,
    ):
        with transaction() as db:
            levels.append(db.execute(sa.text("PRAGMA synchronous")).scalar_one())

    full, normal = 2, 1
    assert levels == [full, normal, full, normal, full]


def test_the_journal_is_a_write_ahead_log_and_references_are_checked(database: Database) -> None:
    with database.reading() as db:
        assert db.execute(sa.text("PRAGMA journal_mode")).scalar_one() == "wal"
        assert db.execute(sa.text("PRAGMA foreign_keys")).scalar_one() == 1


@pytest.mark.parametrize(("asked", "kib"), [({}, 4096), ({"cache": LARGE_CACHE}, 16384)])
def test_a_connection_keeps_as_many_pages_as_who_opened_the_store_needs(
    tmp_path: Path, asked: dict[str, int], kib: int
) -> None:
    with (
        closing(connect(f"sqlite:///{tmp_path}/relay.db", **asked)) as database,
        database.reading() as first,
        database.reading() as second,
    ):
        sizes = [db.exec_driver_sql("PRAGMA cache_size").scalar_one() for db in (first, second)]

    assert sizes == [-kib, -kib]


def test_a_write_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(ZeroDivisionError), database.writing() as db:
        db.execute(sa.insert(schema.destinations), [PAUSE])
        1 / 0  # noqa: B018  # the fault

    assert _names(database) == set()
    _write(database)
    assert _names(database) == {"crm"}


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),  # before the epoch
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 11, 24, 22, 0, 0, 1, tzinfo=timezone(timedelta(hours=10))),  # Brisbane
    ],
)
def test_times_come_back_the_same_in_utc(database: Database, moment: datetime) -> None:
    _write(database, since=moment)

    with database.reading() as db:
        (read,) = db.scalars(sa.select(schema.destinations.c.since))

    assert read == moment
    assert read.tzinfo is UTC


def test_a_time_that_is_not_there_stays_away(database: Database) -> None:
    _write(database)

    with database.reading() as db:
        assert list(db.scalars(sa.select(schema.destinations.c.until))) == [None]


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(sa.exc.StatementError, match="naive"):
        _write(database, since=NOON.replace(tzinfo=None))


def test_times_can_be_compared_in_queries(database: Database) -> None:
    _write(database, name="early", since=NOON - timedelta(microseconds=1))
    _write(database, name="late", since=NOON)

    with database.reading() as db:
        table = schema.destinations.c
        found = db.scalars(sa.select(table.name).where(table.since < NOON)).all()

    assert found == ["early"]


def test_threads_write_one_after_the_other(database: Database) -> None:
    inside = 0

    def write() -> None:
        nonlocal inside
        for _ in range(10):
            with database.writing() as db:
                inside += 1
                assert inside == 1
                db.execute(sa.select(schema.marks.c.name)).all()
                inside -= 1

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert inside == 0


def test_a_write_queues_up_behind_another_processs_write(database: Database) -> None:
    written = threading.Event()

    def write() -> None:
        _write(database)
        written.set()

    with _lock_held_by_another_process(database.file):
        thread = threading.Thread(target=write)
        thread.start()
        assert not written.wait(0.1)
        assert _names(database) == set()  # readers wait for nobody

    thread.join(30)
    assert _names(database) == {"crm"}


def test_a_lock_dies_with_the_process_that_held_it(database: Database) -> None:
    with _lock_held_by_another_process(database.file):
        pass

    _write(database)

    assert _names(database) == {"crm"}


def test_a_database_that_a_stranger_holds_is_unavailable_and_then_works_again(
    database: Database,
) -> None:
    with locked(database), pytest.raises(StoreUnavailable, match="database is locked"):
        _write(database)

    _write(database)

    assert _names(database) == {"crm"}


def test_a_full_disk_makes_the_store_unavailable_until_there_is_room(database: Database) -> None:
    def fill(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # SQLite takes the present size

    sa.event.listen(database.engine, "begin", fill)
    with pytest.raises(StoreUnavailable, match="full"):
        _write(database, name="crm" * 10_000)
    sa.event.remove(database.engine, "begin", fill)

    def empty(connection: sa.Connection) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")

    sa.event.listen(database.engine, "begin", empty)
    _write(database)

    assert _names(database) == {"crm"}


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    path.write_bytes(b"no database at all" * 1000)

    with pytest.raises(StoreUnavailable, match="file is not a database: name another file"):
        connect(f"sqlite:///{path}")


def test_a_damaged_file_is_unavailable(database: Database) -> None:
    for number in range(50):
        _write(database, name=f"{number}" * 400)
    with database.engine.connect() as db:
        db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.engine.dispose()
    size = database.file.stat().st_size
    with database.file.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))

    with pytest.raises(StoreUnavailable):
        _names(database)


def test_a_store_that_cannot_be_made_says_where(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(StoreUnavailable, match=f"{tmp_path}/file: this is no folder"):
        connect(f"sqlite:///{tmp_path}/file/relay.db")


def test_a_store_whose_lock_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "relay.db.lock").mkdir()

    with pytest.raises(StoreUnavailable, match=r"relay\.db\.lock"):
        connect(f"sqlite:///{tmp_path}/relay.db")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("sslmoed=require", "an option that PostgreSQL does not know; did you mean sslmode?"),
        ("xyzzy=1", "an option that PostgreSQL does not know"),
        ("connect_timeout=soon", "a bad option: bad value for connect_timeout"),
    ],
)
def test_a_bad_option_of_a_servers_url_is_named(option: str, words: str) -> None:
    url = f"postgresql://relay:hush@db/relay?{option}"

    with pytest.raises(StoreUnavailable) as caught, connect(url).reading():
        pass

    assert words in str(caught.value)
    assert "hush" not in str(caught.value)
