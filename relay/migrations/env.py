"""Run by Alembic: inside the transaction of :mod:`relay.migrations`, or to print statements."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext

from relay.store.indexes import complete
from relay.store.schema import marks


def leave_word(*, ctx: MigrationContext, heads: set[str], **_: Any) -> None:
    """Write down which versions, that do not know this schema, may work with it all the same."""
    for revision in heads:
        script = context.script.get_revision(revision)
        oldest = getattr(script.module, "serves", revision)
        value = sa.cast(sa.literal(oldest, sa.Text()), sa.LargeBinary())
        ctx.execute(sa.delete(marks).where(marks.c.name == "serves"))
        ctx.execute(sa.insert(marks).values(name="serves", value=value))


options: dict[str, Any] = {
    "target_metadata": complete,
    "transactional_ddl": True,
    "on_version_apply": leave_word,
}
if context.is_offline_mode():
    dialect = context.config.attributes["dialect"]
    context.configure(dialect_name=dialect, literal_binds=True, **options)
else:
    context.configure(connection=context.config.attributes["connection"], **options)
with context.begin_transaction():
    context.run_migrations()
