"""Users of the console and tokens of the API as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.shapes.times import iso
from relay.store.people import Token, User


class UserJson(TypedDict):
    """Somebody who may sign in to the console."""

    name: str
    role: str
    state: str
    created_at: str
    signed_in_at: str | None


class TokenJson(TypedDict):
    """What a program shows to the API, without the secret itself."""

    id: str
    name: str
    scopes: list[str]
    created_at: str
    created_by: str
    expires_at: str | None
    used_at: str | None


def user_json(user: User) -> UserJson:
    """Return a user as ``users --json`` prints it."""
    return {
        "name": user.name,
        "role": user.role.value,
        "state": state_of(user),
        "created_at": iso(user.created_at),
        "signed_in_at": iso(user.signed_in_at),
    }


def state_of(user: User) -> str:
    """Return whether a user has chosen a password."""
    return "invited" if user.password is None else "active"


def token_json(token: Token) -> TokenJson:
    """Return a token as ``tokens --json`` prints it."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": sorted(token.scopes),
        "created_at": iso(token.created_at),
        "created_by": token.created_by,
        "expires_at": iso(token.expires_at),
        "used_at": iso(token.used_at),
    }
