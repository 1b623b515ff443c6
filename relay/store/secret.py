"""The store's own secret: digests under it may outlive what they are made of."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from relay.store import schema
from relay.store.database import Database

_SECRET = sa.select(schema.marks.c.value).where(schema.marks.c.name == "secret")


def store_secret(database: Database) -> bytes:
    """Return the store's own secret, which its first use creates."""
    with database.reading() as db:
        if known := known_secret(db):
            return known
    row = {"name": "secret", "value": secrets.token_bytes(32)}
    with database.writing() as db:
        db.execute(database.insert(schema.marks).on_conflict_do_nothing(), [row])
        return bytes(db.execute(_SECRET).scalar_one())


def known_secret(db: sa.Connection) -> bytes:
    """Return the store's own secret; nothing before its first use."""
    return bytes(db.execute(_SECRET).scalar_one_or_none() or b"")
