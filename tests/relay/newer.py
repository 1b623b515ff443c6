"""A newer version of the relay: the same code with a second revision, until there is a real one.

It runs in processes of its own, since this process has imported this version.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[2]

REVISION = '''\
"""Something that only a newer version needs"""

import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
{serves}


def upgrade():
    op.add_column("events", sa.Column("novelty", sa.Text(), nullable=True))
    op.create_table("novelties", sa.Column("name", sa.Text(), primary_key=True))


def downgrade():
    op.drop_table("novelties")
    op.drop_column("events", "novelty")
'''
#: What the newer version calls its schema.
NEWER = "9000"


def newer_version(folder: Path, *, before: str, serves: str | None) -> dict[str, str]:
    """Write the newer version into *folder*, and return the environment in which it is run."""
    # With what is compiled: it is as old as its source, and each process would compile it again.
    shutil.copytree(ROOT / "relay", folder / "relay")
    text = REVISION.format(
        revision=NEWER, before=before, serves=f'serves = "{serves}"' if serves else ""
    )
    (folder / "relay/migrations/versions" / f"{NEWER}_novelty.py").write_text(text)
    return {"PYTHONPATH": str(folder)}
