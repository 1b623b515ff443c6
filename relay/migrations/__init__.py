"""Bringing a database to the schema of this version."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from relay.store.database import Database


class SchemaTooNew(Exception):
    """A newer version of gofax-relay has used this database."""


def upgrade(database: Database) -> None:
    """Bring the tables to this version's schema; safe when several processes do it at once.

    Raises :class:`SchemaTooNew`, and StoreUnavailable if the database cannot be used.
    """
    scripts = ScriptDirectory.from_config(_config())
    head = scripts.get_current_head()
    with database.reading() as connection:
        # Most often nothing is to be done, for which nobody who writes need be waited for.
        if MigrationContext.configure(connection).get_current_revision() == head:
            return
    with database.writing() as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        if current == head:
            return
        if current is not None and current not in _known(scripts):
            raise SchemaTooNew(
                f"the database has schema {current}, which this version does not know: "
                "a newer gofax-relay has used it; upgrade gofax-relay"
            )
        command.upgrade(_config(connection), "head")


def _known(scripts: ScriptDirectory) -> set[str]:
    return {script.revision for script in scripts.walk_revisions()}


def _config(connection: sa.Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
