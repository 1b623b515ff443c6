"""People at a console who have passwords, and what tests do as them."""

from __future__ import annotations

from datetime import timedelta

from consoles import Console, Page, Visitor

from relay.console import passwords
from relay.rules.access import Role
from relay.store.actions import Act
from relay.store.people import User

GOOD = "four plain words here"
OTHER = "four other words here"


def new_user(console: Console, name: str, role: Role) -> User:
    """Make a user whose password is GOOD."""
    act = Act(who="test", why=None, at=console.now)
    users = console.services.users
    made = users.add(name, role, act)
    assert made is not None
    users.choose_password(made, passwords.hashed(GOOD), act)
    return user_named(console, name)


def user_named(console: Console, name: str) -> User:
    user = console.services.users.named(name)
    assert user is not None
    return user


def sign_in(visitor: Visitor, name: str, password: str) -> Page:
    form = visitor.get("/console/sign-in")
    return visitor.press(form, "Sign in", name=name, password=password)


def move_clock(console: Console, by: timedelta) -> None:
    """Move the clock that all nodes share."""
    now = console.database.clock
    console.database.clock = lambda: now() + by


def acts_of(console: Console) -> list[str]:
    return [each.action.what for each in console.services.actions.newest(limit=20)]
