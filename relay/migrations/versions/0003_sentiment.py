"""How texts sound"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("events", sa.Column("sentiment", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("events", "sentiment")
