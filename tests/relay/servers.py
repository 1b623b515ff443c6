"""Databases on a PostgreSQL server, for tests: made when asked for, gone afterwards."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

#: Where the server is, without the name of a database.
SERVER = os.environ.get("GOFAX_TEST_POSTGRES", "postgresql://postgres@127.0.0.1:5432")


def unreachable() -> str:
    """Say why no database can be made; nothing, if it can."""
    try:
        with psycopg.connect(f"{SERVER}/postgres", connect_timeout=3):
            return ""
    except psycopg.Error as error:
        return " ".join(str(error).split())


@contextmanager
def new_database(*, template: str | None = None) -> Iterator[str]:
    """Make a database, give its URL, and drop it."""
    name = f"gofax_test_{secrets.token_hex(6)}"
    made = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
    if template is not None:
        made += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
    with psycopg.connect(f"{SERVER}/postgres", autocommit=True) as server:
        server.execute(made)
        try:
            yield f"{SERVER}/{name}"
        finally:
            drop = sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            server.execute(drop)
