"""One-time links by which a person chooses a password."""

from __future__ import annotations

import hashlib

from itsdangerous import BadSignature, URLSafeTimedSerializer

from relay.rules.access import LINK_LIVES
from relay.store.people import User, Users

PATH = "/console/welcome/"


def link_for(user: User, users: Users, *, address: str) -> str:
    """Return the link for *user*; it works once, and until the user changes."""
    return f"{address}{PATH}{_serializer(users).dumps([user.name, user.epoch])}"


def user_of(text: str, users: Users) -> User | None:
    """Return the user of a link's last part, if it still works."""
    try:
        lives = int(LINK_LIVES.total_seconds())
        name, epoch = _serializer(users).loads(text, max_age=lives)
    except (BadSignature, ValueError, TypeError):
        return None
    user = users.named(name)
    return user if user is not None and user.epoch == epoch else None


def _serializer(users: Users) -> URLSafeTimedSerializer:
    # itsdangerous' default is SHA-1.
    signer = {"digest_method": hashlib.sha256}
    return URLSafeTimedSerializer(users.secret(), salt="welcome", signer_kwargs=signer)
