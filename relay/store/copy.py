"""Copying a SQLite store to a PostgreSQL server while the relay goes on writing to it.

Triggers in the source note the key of each row that changes. First all rows are copied in the
order of their keys, then, in passes, the rows that changed meanwhile. After each pass the copy
equals the source at one moment. Nobody can write during the last pass, nor after it. The copy
itself holds its progress, so it can be killed at any time.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from relay.store import schema, texts
from relay.store.database import Database, StoreUnavailable

#: Rows that are read and written together.
BATCH = 500

#: Tables that are not copied: nodes announce themselves, and problems are found again.
LEFT_OUT = (schema.marks, schema.nodes, schema.problems, schema.alerts)
#: The tables to copy, each after those it refers to.
TABLES: Sequence[sa.Table] = [
    table for table in schema.metadata.sorted_tables if table not in LEFT_OUT
]

#: The mark of an incomplete copy, in both stores; the mark of a source whose copy is complete.
COPYING, MOVED = "copying", "moved"
#: Marks that belong to one store alone; the copy indexes its texts itself.
_OWN = (COPYING, MOVED, "serves", *texts.MARKS)

_NOTES = sa.table("copy_notes", sa.column("n"), sa.column("relation"), sa.column("row_key"))
#: What happens to rows, and the name of the row in the trigger for it.
_CHANGES = {"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"}
_marks = schema.marks


class CopyRefused(Exception):
    """One store cannot be copied to the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """How many rows a table has in source and target, and whether they are equal."""

    table: str
    source: int
    target: int
    same: bool


@dataclass(kw_only=True)
class _Progress:
    """How far a copy has come."""

    id: str
    #: The last key of each table at the beginning.
    ends: dict[str, Any]
    #: The last key copied of each table; binary keys in hexadecimal.
    copied: dict[str, Any] = field(default_factory=dict)
    #: Tables that were copied to their end.
    done: list[str] = field(default_factory=list)
    #: The last note that was applied.
    followed: int = 0


def objection(database: Database) -> str:
    """Return why a store must not be used: it is an incomplete copy, or was moved; else ``""``."""
    with database.reading() as db:
        if moved := _mark(db, MOVED):
            to = json.loads(moved)["to"]
            return f"this store was moved to {to}: write that to store: in the config"
        if database.file is None and _mark(db, COPYING):
            return "this is a copy that is not complete: gofax-relay migrate-store goes on with it"
    return ""


def moved_to(database: Database) -> str | None:
    """Return where a store was moved, without its password; None if it was not moved."""
    with database.reading() as db:
        moved = _mark(db, MOVED)
    return json.loads(moved)["to"] if moved else None


def is_being_copied(database: Database) -> bool:
    """Return whether changes of a SQLite store are noted for a copy."""
    with database.reading() as db:
        return _mark(db, COPYING) is not None


def require_ours(database: Database) -> None:
    """Raise :class:`CopyRefused` if a database has tables of another program."""
    with database.reading() as db:
        tables = sa.inspect(db).get_table_names()
    if tables and "alembic_version" not in tables:
        raise CopyRefused(f"it has tables of another program: {', '.join(sorted(tables)[:5])}")


class Copy:
    """A copy of *source* in *target*, whose tables are of the same version."""

    def __init__(
        self, source: Database, target: Database, *, name: str, batch: int = BATCH
    ) -> None:
        """*name*: the target's name for people; *batch*: rows that are copied together."""
        self._source, self._target, self._name, self._batch = source, target, name, batch
        self._progress: _Progress
        self._puts = {table.name: _upsert(target, table) for table in TABLES}

    def begin(self) -> bool:
        """Start, or continue; return whether the copy is complete already.

        Raises :class:`CopyRefused` if the target holds something else.
        """
        with self._target.reading() as db:
            begun, filled = _mark(db, COPYING), _is_filled(db)
        with self._source.reading() as db:
            known, moved = _mark(db, COPYING), _mark(db, MOVED)
        if begun is None:
            if moved is not None and json.loads(moved)["to"] == self._name:
                return True
            if moved is not None or filled:
                raise CopyRefused(self._why_not(moved))
            self._start()
            return False
        self._progress = _Progress(**json.loads(begun))
        if self._progress.id not in (known, moved and json.loads(moved)["id"]):
            raise CopyRefused(f"{self._name} holds the unfinished copy of another store")
        return False

    def left(self) -> int:
        """Return roughly how many rows must be copied before the passes."""
        with self._source.reading() as db:
            return sum(
                db.scalar(self._chosen(table, sa.func.count())) or 0
                for table in TABLES
                if table.name not in self._progress.done
            )

    def copy(self) -> Iterator[int]:
        """Copy the rows that existed at the beginning; yield the number after each batch."""
        for table in TABLES:
            while table.name not in self._progress.done:
                yield self._copy_some(table)

    def follow(self) -> int:
        """Bring the copy up to the source of this moment; return the number of rows that took."""
        with self._source.reading() as db:
            if _mark(db, MOVED) is not None:
                return 0
            changed = self._follow(db)
        self._forget_notes()
        return changed

    def compare(self) -> Sequence[Compared]:
        """Bring the copy up to the source of this moment, and compare every row."""
        with self._source.reading() as db:
            self._follow(db)
            found = [_digest(db, table) for table in TABLES]
        with self._target.reading() as db:
            return [
                Compared(table=table.name, source=ours[0], target=theirs[0], same=ours == theirs)
                for table, ours in zip(TABLES, found, strict=True)
                for theirs in [_digest(db, table)]
            ]

    def finish(self) -> Sequence[Compared]:
        """Close the source for writing, copy the rest, and open the copy.

        Row counts are compared, and each row that changed since :meth:`compare` is read back. If
        anything differs, the source stays open and the copy closed.
        """
        with self._source.writing() as db:
            self._follow(db, read_back=True)
            found = self._count(db)
            if not all(each.same for each in found):
                return found
            sequences = {
                row.name: row.seq
                for row in db.execute(sa.text("SELECT name, seq FROM sqlite_sequence"))
            }
            own_marks = _marks.c.name.not_in(_OWN)
            marks = db.execute(sa.select(_marks).where(own_marks)).mappings().all()
            if _mark(db, MOVED) is None:
                _unwatch(db)
                _freeze(db)
                moved = json.dumps({"id": self._progress.id, "to": self._name})
                _set_mark(self._source, db, MOVED, moved)
        with self._target.writing() as db:
            for table in TABLES:
                if "seq" in table.c:
                    _set_sequence(db, table.name, sequences.get(table.name, 0))
            for mark in marks:
                db.execute(sa.delete(_marks).where(_marks.c.name == mark["name"]))
                db.execute(sa.insert(_marks).values(**mark))
            db.execute(sa.delete(_marks).where(_marks.c.name == COPYING))
        return found

    def _why_not(self, moved: str | None) -> str:
        if moved is not None:
            return f"the store was moved to {json.loads(moved)['to']} already"
        return f"{self._name} is not empty; a store is copied to a new database"

    def _start(self) -> None:
        with self._source.writing() as db:
            _unwatch(db)
            _watch(db)
            ends = {
                table.name: db.scalar(sa.select(sa.func.max(table.c.seq))) or 0
                for table in TABLES
                if "seq" in table.c
            }
            self._progress = _Progress(id=secrets.token_hex(8), ends=ends)
            _set_mark(self._source, db, COPYING, self._progress.id)
        with self._target.writing() as db:
            self._save(db)

    def _copy_some(self, table: sa.Table) -> int:
        """Copy the next rows of a table and note the progress, in one transaction."""
        (key,) = table.primary_key
        with self._source.reading() as db:
            wanted = self._chosen(table, *table.c).order_by(key).limit(self._batch)
            rows = db.execute(wanted).all()
        with self._target.writing_unsynced() as db:
            self._put(db, table, rows)
            if rows:
                self._progress.copied[table.name] = _plain(getattr(rows[-1], key.name))
            if len(rows) < self._batch:
                self._progress.done.append(table.name)
            self._save(db)
        return len(rows)

    def _chosen(self, table: sa.Table, *what: Any) -> sa.Select[Any]:
        """Select *what* of the rows that existed at the beginning and are not copied yet."""
        (key,) = table.primary_key
        wanted = sa.select(*what).select_from(table)
        if table.name in self._progress.copied:
            last = self._progress.copied[table.name]
            binary = isinstance(key.type, sa.LargeBinary)
            wanted = wanted.where(key > (bytes.fromhex(last) if binary else last))
        if table.name in self._progress.ends:
            # A row that refers to later rows is later itself.
            wanted = wanted.where(key <= self._progress.ends[table.name])
        return wanted

    def _follow(self, source: sa.Connection, *, read_back: bool = False) -> int:
        """Copy the rows noted before the transaction *source* began."""
        if _mark(source, MOVED) is not None:
            return 0
        newest = source.scalar(sa.select(sa.func.max(_NOTES.c.n))) or 0
        changed = 0
        gone: dict[str, list[Any]] = {}
        with self._target.writing() as target:
            for table in TABLES:
                (key,) = table.primary_key
                noted = sa.select(_NOTES.c.row_key).distinct()
                noted = noted.where(_NOTES.c.relation == table.name)
                keys = source.scalars(noted.where(_NOTES.c.n > self._progress.followed)).all()
                changed += len(keys)
                gone[table.name] = []
                for chunk in _batches(keys):
                    rows = source.execute(sa.select(table).where(key.in_(chunk))).all()
                    self._put(target, table, rows)
                    there = {getattr(row, key.name) for row in rows}
                    gone[table.name] += [each for each in chunk if each not in there]
                    if read_back:
                        _require_same(target, table, chunk, rows)
            for table in reversed(TABLES):
                (key,) = table.primary_key
                for chunk in _batches(gone[table.name]):
                    target.execute(sa.delete(table).where(key.in_(chunk)))
            self._progress.followed = max(newest, self._progress.followed)
            self._save(target)
        return changed

    def _put(self, target: sa.Connection, table: sa.Table, rows: Sequence[Any]) -> None:
        if table is schema.deliveries:
            _free_heads(target, rows)
        self._puts[table.name].many(target, [row._mapping for row in rows])

    def _save(self, target: sa.Connection) -> None:
        _set_mark(self._target, target, COPYING, json.dumps(asdict(self._progress)))

    def _forget_notes(self) -> None:
        """Remove applied notes, in steps between which others can write."""
        followed, removed = self._progress.followed, 1
        with suppress(StoreUnavailable):  # the next pass removes them
            while removed:
                with self._source.writing_unsynced() as db:
                    some = sa.select(_NOTES.c.n).where(_NOTES.c.n <= followed).limit(20 * BATCH)
                    removed = db.execute(sa.delete(_NOTES).where(_NOTES.c.n.in_(some))).rowcount

    def _count(self, source: sa.Connection) -> Sequence[Compared]:
        found = []
        with self._target.reading() as target:
            for table in TABLES:
                number = sa.select(sa.func.count()).select_from(table)
                ours, theirs = source.scalar(number) or 0, target.scalar(number) or 0
                found.append(
                    Compared(table=table.name, source=ours, target=theirs, same=ours == theirs)
                )
        return found


def abandon(source: Database) -> None:
    """Turn a SQLite store that is being copied, or was moved, back into an ordinary one."""
    with source.writing() as db:
        _unwatch(db)
        _thaw(db)
        db.execute(sa.delete(_marks).where(_marks.c.name.in_([COPYING, MOVED])))


def _upsert(target: Database, table: sa.Table) -> Any:
    insert = target.insert(table)
    changed = {each.name: insert.excluded[each.name] for each in table.c if not each.primary_key}
    (key,) = table.primary_key
    upsert = insert.on_conflict_do_update(index_elements=[key], set_=changed)
    return target.prepare(upsert, columns=[each.name for each in table.c])


def _free_heads(target: sa.Connection, rows: Sequence[Any]) -> None:
    """Take outdated deliveries away from the heads of lanes in the copy.

    The source never has two heads in a lane, but its rows are read at different moments. A head
    that is taken away here has changed since it was copied, so it is among *rows* or comes later.
    """
    d = schema.deliveries.c
    heads = [row.lane_id for row in rows if row.state in ("pending", "in_flight") and not row.late]
    changed = d.seq.in_([row.seq for row in rows])
    replaced = sa.and_(d.lane_id.in_(heads), schema.AT_HEAD)
    target.execute(
        sa.update(schema.deliveries).where(sa.or_(changed, replaced)).values(state="copied")
    )


def _is_filled(db: sa.Connection) -> bool:
    for table in (*TABLES, schema.nodes):
        if db.execute(sa.select(1).select_from(table).limit(1)).first():
            return True
    return _mark(db, "secret") is not None


def _require_same(
    target: sa.Connection, table: sa.Table, keys: Collection[Any], rows: Sequence[Any]
) -> None:
    (key,) = table.primary_key
    there = target.execute(sa.select(table).where(key.in_(keys))).all()
    if {tuple(row) for row in rows} - {tuple(row) for row in there}:
        raise CopyRefused(f"rows of {table.name} differ in the copy")


def _digest(db: sa.Connection, table: sa.Table) -> tuple[int, int]:
    """Return the number of rows and the sum of their digests, which needs no order."""
    count = total = 0
    for row in db.execute(sa.select(table).execution_options(yield_per=BATCH)):
        count += 1
        digest = hashlib.blake2b(repr(tuple(row)).encode(), digest_size=16).digest()
        total = (total + int.from_bytes(digest, "big")) % (1 << 128)
    return count, total


def _batches(keys: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(keys), BATCH):
        yield keys[start : start + BATCH]


def _plain(key: Any) -> Any:
    return key.hex() if isinstance(key, bytes) else key


def _mark(db: sa.Connection, name: str) -> str | None:
    value = db.scalar(sa.select(_marks.c.value).where(_marks.c.name == name))
    return None if value is None else bytes(value).decode("utf-8", "replace")


def _set_mark(database: Database, db: sa.Connection, name: str, value: str) -> None:
    insert = database.insert(_marks).values(name=name, value=value.encode())
    changed = {"value": insert.excluded["value"]}
    db.execute(insert.on_conflict_do_update(index_elements=[_marks.c.name], set_=changed))


def _set_sequence(db: sa.Connection, table: str, used: int) -> None:
    """Let the next row of a table in PostgreSQL follow all that the source ever had."""
    sequence = sa.func.pg_get_serial_sequence(table, "seq")
    db.execute(sa.select(sa.func.setval(sequence, max(used, 1), used > 0)))


def _watch(db: sa.Connection) -> None:
    """Have SQLite note the key of every row that changes."""
    db.execute(
        sa.text(
            "CREATE TABLE copy_notes"
            " (n INTEGER PRIMARY KEY AUTOINCREMENT, relation TEXT NOT NULL, row_key NOT NULL)"
        )
    )
    for table in TABLES:
        (key,) = table.primary_key
        for what, row in _CHANGES.items():
            db.execute(
                sa.text(
                    f"CREATE TRIGGER copy_{table.name}_{what} AFTER {what} ON {table.name} BEGIN"
                    f" INSERT INTO copy_notes (relation, row_key)"
                    f" VALUES ('{table.name}', {row}.{key.name}); END"
                )
            )


def _unwatch(db: sa.Connection) -> None:
    for table in TABLES:
        for what in _CHANGES:
            db.execute(sa.text(f"DROP TRIGGER IF EXISTS copy_{table.name}_{what}"))
    db.execute(sa.text("DROP TABLE IF EXISTS copy_notes"))


def _freeze(db: sa.Connection) -> None:
    """Let every write fail from now on, as if the store were away.

    A relay that still runs then answers 503.
    """
    for table in TABLES:
        for what in _CHANGES:
            db.execute(
                sa.text(
                    f"CREATE TRIGGER moved_{table.name}_{what} BEFORE {what} ON {table.name} BEGIN"
                    " DELETE FROM this_store_was_moved; END"
                )
            )


def _thaw(db: sa.Connection) -> None:
    for table in TABLES:
        for what in _CHANGES:
            db.execute(sa.text(f"DROP TRIGGER IF EXISTS moved_{table.name}_{what}"))
