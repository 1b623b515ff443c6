"""PostgreSQL's own programs: a dump that can be verified, and how it is put back as a whole."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

import sqlalchemy as sa

from relay.config.store_urls import without_password
from relay.store import schema
from relay.store.database import Database
from relay.store.restored import BACKUP

#: How a dump is written: it can be put back by another owner, and one table at a time.
HOW = ("--format=custom", "--no-owner", "--no-privileges")
#: Tables that one statement of a dump fills.
_COPY = re.compile(rb"COPY (?:\S+\.)?\"?(\w+)\"? \(")
#: Characters of a program's last words that are repeated.
LONGEST_REASON = 300


class Failed(Exception):
    """A program of PostgreSQL is missing, or said no."""


def write(database: Database, file: Path) -> int:
    """Dump what the store is at one moment, and count that all of it is there; return the rows."""
    _require("pg_dump", advice=f"where it is, run: {advice(database.url, file)}")
    with connected(database.url) as target, database.reading() as db:
        db.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        for limit in ("statement_timeout", "idle_in_transaction_session_timeout"):
            db.execute(sa.text(f"SET LOCAL {limit} = 0"))
        snapshot = db.scalar(sa.text("SELECT pg_export_snapshot()"))
        there = set(sa.inspect(db).get_table_names())
        names = [table.name for table in schema.metadata.sorted_tables if table.name in there]
        rows = {name: db.scalar(sa.text(f"SELECT count(*) FROM {name}")) or 0 for name in names}
        _run("pg_dump", *HOW, f"--snapshot={snapshot}", f"--file={file}", f"--dbname={target}")
    found = _rows(file)
    for name, number in rows.items():
        if found.get(name) != number:
            raise Failed(f"{name}: {found.get(name, 0)} rows in the dump, {number} in the store")
    return sum(rows.values())


def advice(url: str, file: Path) -> str:
    """Return the command that makes a dump, without a password."""
    return shlex.join(["pg_dump", *HOW, f"--file={file}", f"--dbname={without_password(url)}"])


def verify_file(file: Path) -> None:
    """Raise :class:`Failed` if *file* is no whole dump of a store, or cannot be put back here."""
    for program in ("pg_restore", "psql"):
        _require(program, advice="install PostgreSQL's client programs on this machine")
    _rows(file)


def put_back(url: str, file: Path) -> None:
    """Make the database what the dump *file* says, all or nothing, marked as a backup."""
    clean = ("--clean", "--if-exists", "--no-owner", "--no-privileges", "--file=-")
    into = ("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "--single-transaction", "-d")
    with (
        connected(url) as target,
        _opened("pg_restore", *clean, str(file)) as script,
        subprocess.Popen(
            [*into, target],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as psql,
    ):
        assert psql.stdin is not None and psql.stderr is not None and script.stdout is not None
        try:
            psql.stdin.write(b"SET lock_timeout = '30s';\n")
            shutil.copyfileobj(script.stdout, psql.stdin)
            if script.wait() != 0:
                # It commits when its input ends.
                psql.kill()
                raise Failed(f"pg_restore: {_said(script.stderr)}")
            mark = f"INSERT INTO marks (name, value) VALUES ('{BACKUP}', '1');\n"
            psql.stdin.write(b"RESET search_path;\n" + mark.encode())
            psql.stdin.close()
        except BrokenPipeError:
            script.kill()
        said = _said(psql.stderr)
        if psql.wait() != 0:
            raise Failed(f"psql: {said}")


@contextmanager
def connected(url: str) -> Iterator[str]:
    """Give what PostgreSQL's programs connect by; the password in a file, for nobody else."""
    # The driver is an extra, and slow to import.
    target, password = import_module("relay.store.postgres").conninfo(url)
    if password is None:
        yield target
        return
    with NamedTemporaryFile("w") as file:
        file.write("*:*:*:*:" + re.sub(r"([\\:])", r"\\\1", password) + "\n")
        file.flush()
        yield f"{target} passfile={file.name}"


def _rows(file: Path) -> dict[str, int]:
    """Read a dump to its end, and return the number of rows of each table."""
    found: dict[str, int] = {}
    with _opened("pg_restore", "--data-only", "--file=-", str(file)) as script:
        assert script.stdout is not None
        table = ""
        for line in script.stdout:
            if table and line == b"\\.\n":
                table = ""
            elif table:
                found[table] += 1
            elif started := _COPY.match(line):
                table = started[1].decode()
                found[table] = 0
        said = _said(script.stderr)
        if script.wait() != 0:
            raise Failed(f"{file}: {said}")
    if "alembic_version" not in found:
        raise Failed(f"{file}: this is no backup of a gofax-relay store")
    return found


def _opened(*command: str) -> subprocess.Popen[bytes]:
    _require(command[0], advice="install PostgreSQL's client programs on this machine")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise Failed(f"{command[0]}: {_shortened(done.stderr)}")


def _require(program: str, *, advice: str) -> None:
    if shutil.which(program) is None:
        raise Failed(f"{program} is not installed here; {advice}")


def _said(stream: IO[bytes] | None) -> str:
    return _shortened(stream.read() if stream else b"")


def _shortened(said: bytes) -> str:
    return " ".join(said.decode(errors="replace").split())[:LONGEST_REASON]
