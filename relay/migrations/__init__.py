"""Bringing a database to the schema of this version, or to an older one.

A revision may say ``serves = "0104"``: code whose newest revision is that one still works on this
schema. So nodes of two versions run side by side while one after the other is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import sqlalchemy as sa

from relay.config.model import Config
from relay.store import connect, copy, restored, schema
from relay.store.database import Database, StoreUnavailable

#: A file for each revision, named after it.
VERSIONS = Path(__file__).parent / "versions"

#: Alembic's table.
_VERSION = sa.table("alembic_version", sa.column("version_num", sa.Text))


class Unusable(Exception):
    """A database must not be used as it is."""


class SchemaTooOld(Unusable):
    """A version before the first release made this database."""


class SchemaTooNew(Unusable):
    """A newer version of gofax-relay has used this database, and said that ours cannot."""


class UnknownRevision(Unusable):
    """There is no such revision."""


class NoTables(Unusable):
    """Nothing was ever stored in this database."""


class NodesAtWork(Unusable):
    """Nodes are at work that could not go on with the schema that was asked for."""


def opened(config: Config, *, make: bool = True) -> Database:
    """Open the store of *config* with its tables brought up to date.

    Raises :class:`Unusable`, or StoreUnavailable if it cannot be used now; without *make*
    :class:`NoTables` if it has none yet.
    """
    try:
        with ExitStack() as unless_good:
            database = connect(config.store, reserve=config.disk_reserve)
            unless_good.callback(database.discard)
            upgrade(database, make=make)
            unless_good.pop_all()
    except (Unusable, StoreUnavailable) as error:
        raise type(error)(f"{config.store_name}: {error}") from error
    return database


def upgrade(database: Database, *, make: bool = True) -> None:
    """Bring the tables to this version's schema; safe when several processes do it at once.

    A newer schema on which this version still works is left as it is. Raises :class:`Unusable`
    if it is none of ours, or the store was moved; StoreUnavailable if it cannot be used now;
    without *make* :class:`NoTables` if it has none yet.
    """
    found = revision(database)
    if found is None and not make:
        raise NoTables("no tables yet")
    if found is None:
        found = import_module("relay.migrations.fresh").made(database)
    if found != newest():
        # Alembic takes longer to import than most commands take to run.
        import_module("relay.migrations.walk").migrate(database)
    if reason := copy.objection(database) or restored.objection(database):
        raise Unusable(reason)


def revision(database: Database) -> str | None:
    """Return the revision that a database has. Raises StoreUnavailable."""
    with database.reading() as db:
        return current(db)


def require_free(db: sa.Connection) -> None:
    """Raise :class:`Unusable` if another program's tables have the names of ours."""
    if taken := schema.metadata.tables.keys() & set(sa.inspect(db).get_table_names()):
        some = ", ".join(sorted(taken)[:5])
        raise Unusable(f"it has tables of another program: {some}: name another database")


def known() -> Sequence[str]:
    """Return the revisions that this version knows, by the names of their files."""
    return sorted(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*.py"))


def newest() -> str:
    """Return the revision of this version."""
    return known()[-1]


def current(db: sa.Connection) -> str | None:
    """Return the revision of the database that *db* is connected to; None: it has no tables."""
    if not sa.inspect(db).has_table(_VERSION.name):
        return None
    return db.execute(sa.select(_VERSION.c.version_num)).scalar_one_or_none()
