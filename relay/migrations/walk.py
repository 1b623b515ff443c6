"""The way from one revision of the schema to another, by Alembic.

Loaded only where there is a way to go: nearly every command finds the tables as it needs them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory

from relay.migrations import (
    NodesAtWork,
    SchemaTooNew,
    SchemaTooOld,
    UnknownRevision,
    Unusable,
    current,
    require_free,
)
from relay.store import schema
from relay.store.database import Database
from relay.store.nodes import Nodes

#: The schemas of versions before the first release, which were squashed into its first revision.
UNRELEASED = frozenset({"0001", "0002", "0003", "0004", "0005", "0006"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """From which revision to which; None: no tables."""

    before: str | None
    after: str | None

    @property
    def is_none(self) -> bool:
        return self.before == self.after


def migrate(database: Database, to: str | None = None, *, force: bool = False) -> Change:
    """Bring the tables to the revision *to*, newer or older; without it to this version's.

    All or nothing. *force*: also if living nodes cannot go on with it. Raises
    :class:`SchemaTooOld`, :class:`SchemaTooNew`, :class:`NodesAtWork`, :class:`UnknownRevision`,
    another :class:`Unusable` if another program has tables of these names, and StoreUnavailable.
    """
    known = _Revisions()
    wanted = known.named(to)
    with database.reading() as db:
        # Most often nothing is to be done, for which nobody who writes need be waited for.
        before = current(db)
    if before == wanted:
        return Change(before=before, after=before)
    with database.writing() as db:
        database.hold_exclusive(db, "migrate")
        before = current(db)
        if before == wanted:
            return Change(before=before, after=before)
        if before is None:
            require_free(db)
        if not known.knows(before):
            if to is None and known.knows(_serves(db)):
                return Change(before=before, after=before)
            raise _stranger(before)
        if not force and not known.is_served(before, by=wanted):
            _expect_quiet(database, db)
        go = command.upgrade if known.is_upward(before, wanted) else command.downgrade
        go(_config(connection=db), wanted)
    return Change(before=before, after=wanted)


def require_quiet(database: Database, to: str | None = None) -> None:
    """Raise :class:`NodesAtWork` if living nodes could not go on with the revision *to*.

    Also raises :class:`UnknownRevision` and StoreUnavailable.
    """
    known = _Revisions()
    with database.reading() as db:
        if not known.is_served(current(db), by=known.named(to)):
            _expect_quiet(database, db)


def statements(before: str | None, to: str | None = None, *, dialect: str) -> str:
    """Return the SQL that leads from *before* to *to*, and change nothing.

    Raises :class:`SchemaTooOld`, :class:`SchemaTooNew` and :class:`UnknownRevision`.
    """
    known = _Revisions()
    wanted = known.named(to)
    if not known.knows(before):
        raise _stranger(before)
    if before == wanted:
        return ""
    go = command.upgrade if known.is_upward(before, wanted) else command.downgrade
    printed = io.StringIO()
    go(_config(dialect=dialect, output=printed), f"{before or 'base'}:{wanted}", sql=True)
    return printed.getvalue()


def is_backward(before: str | None, to: str | None) -> bool:
    """Return whether *to* is an older revision. Raises :class:`UnknownRevision`."""
    known = _Revisions()
    wanted = known.named(to)
    return known.knows(before) and before != wanted and not known.is_upward(before, wanted)


def is_there(before: str | None, to: str | None) -> bool:
    """Return whether nothing leads from *before* to *to*, or nothing would be lost on the way."""
    known = _Revisions()
    return before is None or before == known.named(to) or not known.knows(before)


class _Revisions:
    """The revisions of this version, in their order."""

    def __init__(self) -> None:
        self._scripts = ScriptDirectory.from_config(_config())

    @cached_property
    def order(self) -> Sequence[str]:
        return [script.revision for script in self._scripts.walk_revisions()][::-1]

    def named(self, name: str | None) -> str:
        """Return *name*, or the newest revision. Raises :class:`UnknownRevision`."""
        if name is not None and name not in self.order:
            order = ", ".join(self.order)
            raise UnknownRevision(f"there is no revision {name}; this version knows {order}")
        return name or self.order[-1]

    def knows(self, name: str | None) -> bool:
        """Return whether *name* is one of these; no tables at all are known too."""
        return name is None or name in self.order

    def is_upward(self, before: str | None, after: str) -> bool:
        return before is None or self.order.index(before) < self.order.index(after)

    def is_served(self, code: str | None, *, by: str) -> bool:
        """Return whether nodes that know no revision after *code* can work on schema *by*."""
        if code is None:
            return True
        module = self._scripts.get_revision(by).module
        oldest: str = getattr(module, "serves", by)
        return self.order.index(oldest) <= self.order.index(code) <= self.order.index(by)


def _stranger(revision: str | None) -> Unusable:
    """Return the error for a revision that this version does not know."""
    if revision in UNRELEASED:
        return SchemaTooOld(
            f"the database has schema {revision} of a version before 0.1.0, from which no way "
            "leads here: start a new store (another file or database) and keep this one to read"
        )
    return SchemaTooNew(
        f"the database has schema {revision}, which this version does not know: "
        "a newer gofax-relay has used it; upgrade gofax-relay"
    )


def _expect_quiet(database: Database, db: sa.Connection) -> None:
    if living := Nodes(database).living(db):
        raise NodesAtWork(
            f"{', '.join(living)} could not go on with that schema: stop them first"
            " (gofax-relay nodes lists them; who was killed is off the list after 20 s)"
        )


def _serves(db: sa.Connection) -> str:
    """Return the oldest version, by its newest revision, that may work with this database."""
    wanted = sa.select(schema.marks.c.value).where(schema.marks.c.name == "serves")
    return bytes(db.scalar(wanted) or b"?").decode()


def _config(
    *,
    connection: sa.Connection | None = None,
    dialect: str = "",
    output: io.StringIO | None = None,
) -> AlembicConfig:
    config = AlembicConfig(output_buffer=output)
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    config.attributes["dialect"] = dialect
    return config
