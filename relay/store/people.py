"""Users of the console, and tokens of the API."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

import sqlalchemy as sa

from relay.rules.access import Role, Scope, Tries, scopes_of
from relay.store import schema
from relay.store.actions import Act, note
from relay.store.database import Database
from relay.store.ids import new_id

T = TypeVar("T")

_users, _tokens, _marks = schema.users, schema.tokens, schema.marks
_u, _t = _users.c, _tokens.c

#: The beginning of every token, by which scanners for leaked secrets know it.
PREFIX = "gofaxrelay_"
#: Bytes of chance in a token, and in the secret that signs sessions.
ENTROPY = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """Somebody who may sign in to the console."""

    name: str
    role: Role
    #: The hash of the password by argon2; None: it is still to be chosen by the link.
    password: str | None
    #: Sessions and links of an earlier one are worth nothing.
    epoch: int
    failures: int
    locked_until: datetime | None
    created_at: datetime
    signed_in_at: datetime | None

    @property
    def tries(self) -> Tries:
        return Tries(failures=self.failures, locked_until=self.locked_until)


@dataclass(frozen=True, kw_only=True, slots=True)
class Token:
    """What a program shows to use the API; only its digest is kept."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    #: The day on which it was last used.
    used_at: datetime | None


class Users:
    """Reads and writes users; every change but a sign-in is an action with its person."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def secret(self) -> str:
        """Return the secret that signs sessions and links, which all nodes share."""
        wanted = sa.select(_marks.c.value).where(_marks.c.name == "console")
        with self._database.reading() as db:
            found: bytes | None = db.scalar(wanted)
        if found is None:
            with self._database.writing() as db:
                row = {"name": "console", "value": secrets.token_bytes(ENTROPY)}
                db.execute(self._database.insert(_marks).on_conflict_do_nothing(), [row])
                found = db.scalar(wanted)
        assert found is not None
        return found.hex()

    def change_secret(self, act: Act) -> None:
        """Sign by another secret from now on: whoever knows the old one can make no session."""
        row = {"name": "console", "value": secrets.token_bytes(ENTROPY)}
        with self._database.writing() as db:
            db.execute(sa.delete(_marks).where(_marks.c.name == "console"))
            db.execute(sa.insert(_marks), [row])
            note(db, act, "end sessions", [{"detail": "of all users"}])

    def all(self) -> Sequence[User]:
        """Return all users by name."""
        with self._database.reading() as db:
            rows = db.execute(sa.select(_users).order_by(_u.name)).mappings()
            return [_user(row) for row in rows]

    def named(self, name: str) -> User | None:
        with self._database.reading() as db:
            row = db.execute(sa.select(_users).where(_u.name == name)).mappings().first()
            return None if row is None else _user(row)

    def add(self, name: str, role: Role, act: Act) -> User | None:
        """Add a user without a password; None if there is one of this name."""
        row = {"name": name, "role": role, "epoch": 1, "failures": 0, "created_at": act.at}
        with self._database.writing() as db:
            insert = self._database.insert(_users).values(row).on_conflict_do_nothing()
            # PostgreSQL's driver gives no count of an insert that is not done.
            if db.scalar(insert.returning(_u.name)) is None:
                return None
            note(db, act, "add user", [{"detail": f"{name} is {role}"}])
        return self.named(name)

    def change_role(self, name: str, role: Role, act: Act) -> bool:
        """Give a user another role, at once; False if there is no such user."""
        return self._change(name, act, "change role", f"{name} is now {role}", role=role)

    def renew(self, name: str, act: Act) -> User | None:
        """Take a user's password and sessions away, so that a new link can be given."""
        done = self._change(
            name, act, "new link", f"{name} has to choose a password", password=None
        )
        return self.named(name) if done else None

    def remove(self, name: str, act: Act) -> bool:
        """Remove a user with all sessions; False if there is no such user."""
        with self._database.writing() as db:
            if not db.execute(sa.delete(_users).where(_u.name == name)).rowcount:
                return False
            note(db, act, "remove user", [{"detail": name}])
            return True

    def choose_password(self, user: User, password: str, act: Act) -> bool:
        """Set the hash *password*; False if the user has changed since: a link works once."""
        return self._change(
            user.name,
            act,
            "choose password",
            user.name,
            epoch=user.epoch,
            password=password,
            failures=0,
            locked_until=None,
            signed_in_at=act.at,
        )

    def sign_out(self, user: User, act: Act) -> None:
        """End all sessions of *user*."""
        self._change(user.name, act, "sign out", user.name)

    def signed_in(self, user: User, act: Act, *, rehashed: str | None = None) -> None:
        """Note that *user* gave the right password; *rehashed*: its hash by today's parameters."""
        values: dict[str, Any] = {"failures": 0, "locked_until": None, "signed_in_at": act.at}
        values |= {} if rehashed is None else {"password": rehashed}
        with self._database.writing() as db:
            db.execute(sa.update(_users).where(_u.name == user.name).values(values))
            note(db, act, "sign in", [{"detail": user.name}])

    def failed(self, user: User, tries: Tries, act: Act) -> None:
        """Note that somebody gave a wrong password for *user*."""
        values = {"failures": tries.failures, "locked_until": tries.locked_until}
        locked = ", locked" if tries.is_locked(act.at) else ""
        with self._database.writing() as db:
            db.execute(sa.update(_users).where(_u.name == user.name).values(values))
            note(db, act, "wrong password", [{"detail": f"{user.name}{locked}"}])

    def _change(
        self,
        name: str,
        act: Act,
        what: str,
        detail: str,
        *,
        epoch: int | None = None,
        **values: Any,
    ) -> bool:
        """Change a user, which ends all sessions; *epoch*: only if nothing changed since."""
        found = [_u.name == name] + ([] if epoch is None else [_u.epoch == epoch])
        with self._database.writing() as db:
            change = sa.update(_users).where(*found).values(epoch=_u.epoch + 1, **values)
            if not db.execute(change).rowcount:
                return False
            note(db, act, what, [{"detail": detail}])
            return True


class Tokens:
    """Reads and writes tokens of the API."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Sequence[Token]:
        """Return all tokens, oldest first."""
        with self._database.reading() as db:
            rows = db.execute(sa.select(_tokens).order_by(_t.id)).mappings()
            return [_token(row) for row in rows]

    def add(
        self, name: str, scopes: frozenset[Scope], act: Act, *, expires_at: datetime | None
    ) -> tuple[Token, str] | None:
        """Make a token; return it with what its bearer shows, None if the name is taken."""
        shown = PREFIX + secrets.token_urlsafe(ENTROPY)
        row = {
            "id": new_id("tok"),
            "name": name,
            "scopes": " ".join(sorted(scopes)),
            "digest": _digest(shown),
            "created_at": act.at,
            "created_by": act.who,
            "expires_at": expires_at,
            "used_at": None,
        }
        with self._database.writing() as db:
            insert = self._database.insert(_tokens).values(row).on_conflict_do_nothing()
            if db.scalar(insert.returning(_t.id)) is None:
                return None
            note(db, act, "add token", [{"detail": f"{name}: {row['scopes']}"}])
        return _token(row), shown

    def remove(self, name: str, act: Act) -> bool:
        """Revoke the token with this name or id; False if there is none."""
        with self._database.writing() as db:
            named = sa.or_(_t.name == name, _t.id == name)
            if not db.execute(sa.delete(_tokens).where(named)).rowcount:
                return False
            note(db, act, "remove token", [{"detail": name}])
            return True

    def shown(self, token: str, *, now: datetime) -> Token | None:
        """Return the token that a bearer shows, if it has not expired."""
        wanted = sa.select(_tokens).where(_t.digest == _digest(token))
        with self._database.reading() as db:
            row = db.execute(wanted).mappings().first()
        if row is None or (row["expires_at"] is not None and row["expires_at"] <= now):
            return None
        if row["used_at"] is None or row["used_at"].date() != now.date():
            with self._database.writing_unsynced() as db:
                db.execute(sa.update(_tokens).where(_t.id == row["id"]).values(used_at=now))
        return _token(row)


def _digest(token: str) -> bytes:
    """Return the digest of a token: what has 32 bytes of chance needs no slow hash."""
    return hashlib.sha256(token.encode()).digest()


def _user(row: sa.RowMapping) -> User:
    values = {each.name: row[each.name] for each in fields(User)}
    return User(**values | {"role": Role(row["role"])})


def _token(row: Any) -> Token:
    values = {each.name: row[each.name] for each in fields(Token)}
    return Token(**values | {"scopes": scopes_of(row["scopes"].split())})
