"""The tables of a new store, all at once.

The way there by revisions takes four times as long, most of it to import Alembic. A test compares
what the two make.
"""

from __future__ import annotations

import re

import sqlalchemy as sa

from relay.migrations import VERSIONS, current, newest, require_free
from relay.store import schema
from relay.store.database import Database
from relay.store.indexes import complete

#: As Alembic makes it.
_VERSION = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


def made(database: Database) -> str:
    """Make this version's tables unless another process was first; return the revision there is.

    All or nothing. Raises :class:`~relay.migrations.Unusable` and StoreUnavailable.
    """
    with database.writing() as db:
        database.hold_exclusive(db, "migrate")
        if found := current(db):
            return found
        require_free(db)
        _VERSION.create(db, checkfirst=True)
        complete.create_all(db, checkfirst=False)
        db.execute(sa.insert(_VERSION).values(version_num=newest()))
        db.execute(sa.insert(schema.marks).values(name="serves", value=_serves().encode()))
    return newest()


def _serves() -> str:
    """Return what the newest revision says that it serves, without Alembic, which it imports."""
    file = next(VERSIONS.glob(f"{newest()}_*.py"))
    said = re.search(r'^serves = "(\w+)"$', file.read_text(encoding="utf-8"), re.MULTILINE)
    return said[1] if said else newest()
