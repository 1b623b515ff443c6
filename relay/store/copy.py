"""Copying a SQLite store to a PostgreSQL server while the relay goes on writing to it.

Triggers in the source note the key of each row that changes. First all rows are copied, in the
order of their keys; then, in passes, those that were noted meanwhile. After each pass the copy is
what the source was at one moment. The last pass is made while nobody can write, and from then on
nobody can. How far it came stands in the copy, with what was copied: it can be killed at any time.
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

from relay.store import schema
from relay.store.database import Database, StoreUnavailable

#: Rows that are read and written at once.
BATCH = 500

#: What is copied, each after that to which it refers. Nodes say themselves where they are.
TABLES: Sequence[sa.Table] = [
    table for table in schema.metadata.sorted_tables if table not in (schema.marks, schema.nodes)
]

#: Marks of a copy that is not complete: in both stores, and in the source from its end on.
COPYING, MOVED = "copying", "moved"
#: Marks that belong to one store alone.
_OWN = (COPYING, MOVED, "serves")

_NOTES = sa.table("copy_notes", sa.column("n"), sa.column("relation"), sa.column("row_key"))
#: What happens to rows, and what a row is called in a trigger when that did.
_CHANGES = {"INSERT": "NEW", "UPDATE": "NEW", "DELETE": "OLD"}
_marks = schema.marks


class CopyRefused(Exception):
    """The one store cannot be copied to the other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """How many rows of a table there are here and there, and whether they are the same."""

    table: str
    source: int
    target: int
    same: bool


@dataclass(kw_only=True)
class _Progress:
    """How far a copy came."""

    id: str
    #: The last keys of the tables whose rows were there at the beginning.
    ends: dict[str, Any]
    #: The last keys that were copied; those of binary keys in hexadecimal.
    copied: dict[str, Any] = field(default_factory=dict)
    #: Tables whose rows were all copied once.
    done: list[str] = field(default_factory=list)
    #: The last note that was followed.
    followed: int = 0


def objection(database: Database) -> str:
    """Say why nobody may work with a store: it is a copy not complete, or was moved elsewhere."""
    with database.reading() as db:
        if moved := _mark(db, MOVED):
            to = json.loads(moved)["to"]
            return f"this store was moved to {to}: write that to store: in the config"
        if database.file is None and _mark(db, COPYING):
            return "this is a copy that is not complete: gofax-relay migrate-store goes on with it"
    return ""


def moved_to(database: Database) -> str | None:
    """Return where a store was moved, its password left out; None, if it was not."""
    with database.reading() as db:
        moved = _mark(db, MOVED)
    return json.loads(moved)["to"] if moved else None


def is_being_copied(database: Database) -> bool:
    """Return whether changes of a SQLite store are noted for a copy."""
    with database.reading() as db:
        return _mark(db, COPYING) is not None


def require_ours(database: Database) -> None:
    """Raise :class:`CopyRefused` if a database has tables, and they are somebody else's."""
    with database.reading() as db:
        tables = sa.inspect(db).get_table_names()
    if tables and "alembic_version" not in tables:
        raise CopyRefused(f"it has tables of somebody else: {', '.join(sorted(tables)[:5])}")


class Copy:
    """A copy of *source* in *target*, whose tables are of the same version."""

    def __init__(
        self, source: Database, target: Database, *, name: str, batch: int = BATCH
    ) -> None:
        """*name*: what the target is called where people read it; *batch*: rows at once."""
        self._source, self._target, self._name, self._batch = source, target, name, batch
        self._progress: _Progress
        self._puts = {table.name: _upsert(target, table) for table in TABLES}

    def begin(self) -> bool:
        """Start, or go on with what was begun; return whether all is done already.

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
        """Return about how many rows are to be copied before the passes."""
        with self._source.reading() as db:
            return sum(
                db.scalar(self._chosen(table, sa.func.count())) or 0
                for table in TABLES
                if table.name not in self._progress.done
            )

    def copy(self) -> Iterator[int]:
        """Copy the rows that were there at the beginning; yield how many, a batch at a time."""
        for table in TABLES:
            while table.name not in self._progress.done:
                yield self._copy_some(table)

    def follow(self) -> int:
        """Make the copy what the source is at this moment; return how many rows that took."""
        with self._source.reading() as db:
            if _mark(db, MOVED) is not None:
                return 0
            changed = self._follow(db)
        self._forget_notes()
        return changed

    def compare(self) -> Sequence[Compared]:
        """Make the copy what the source is at this moment, and compare every row of it."""
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
        """Let nobody write to the source any more, copy what is left, and open the copy.

        Compared is how many rows there are; each that was changed since :meth:`compare` is read
        back. The copy is opened if all is well; otherwise the source is as it was.
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
        """Copy the next rows of a table, and note how far that came, as one."""
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
        """Select *what* of the rows that were there at the beginning and are not copied yet."""
        (key,) = table.primary_key
        wanted = sa.select(*what).select_from(table)
        if table.name in self._progress.copied:
            last = self._progress.copied[table.name]
            binary = isinstance(key.type, sa.LargeBinary)
            wanted = wanted.where(key > (bytes.fromhex(last) if binary else last))
        if table.name in self._progress.ends:
            # What refers to later rows is later itself.
            wanted = wanted.where(key <= self._progress.ends[table.name])
        return wanted

    def _follow(self, source: sa.Connection, *, read_back: bool = False) -> int:
        """Copy what was noted until *source* began to read."""
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
            _make_way(target, rows)
        self._puts[table.name].many(target, [row._mapping for row in rows])

    def _save(self, target: sa.Connection) -> None:
        _set_mark(self._target, target, COPYING, json.dumps(asdict(self._progress)))

    def _forget_notes(self) -> None:
        """Remove notes that were followed, in steps between which others write."""
        followed, removed = self._progress.followed, 1
        with suppress(StoreUnavailable):  # the next pass tries again
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
    """Make a SQLite store one that is neither being copied nor moved."""
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


def _make_way(target: sa.Connection, rows: Sequence[Any]) -> None:
    """Let nobody stand at the head of a lane in the copy who may not do so any more.

    There is never more than one in the source, but rows come from it at different moments. Whoever
    is moved here was changed after it was copied: it is among *rows*, or will be.
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
        raise CopyRefused(f"rows of {table.name} are not the same in the copy")


def _digest(db: sa.Connection, table: sa.Table) -> tuple[int, int]:
    """Return the number of rows and the sum of their digests, in whatever order they come."""
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
    """Let the next row of a table in PostgreSQL come after all that the source ever had."""
    sequence = sa.func.pg_get_serial_sequence(table, "seq")
    db.execute(sa.select(sa.func.setval(sequence, max(used, 1), used > 0)))


def _watch(db: sa.Connection) -> None:
    """Have SQLite note the keys of all rows that change."""
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
    """Let every write fail from now on as it does when the store is away.

    A relay that still runs answers 503.
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
