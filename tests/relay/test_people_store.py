"""Users and tokens in the store: a name is given once, and what was removed is worth nothing."""

from __future__ import annotations

from datetime import timedelta

from fakes import NOON

from relay.rules.access import Role, Scope
from relay.store import Database
from relay.store.actions import Act, Actions
from relay.store.people import Tokens, Users

ON_BOTH = True

ANN = Act(who="ann", why=None, at=NOON)
READ = frozenset({Scope.READ})


def test_a_user_is_added_once(database: Database) -> None:
    users = Users(database)
    made = users.add("mary", Role.VIEWER, ANN)

    assert made is not None and made.role is Role.VIEWER
    assert users.add("mary", Role.ADMIN, ANN) is None
    assert [(each.name, each.role) for each in users.all()] == [("mary", Role.VIEWER)]
    assert len(Actions(database).newest(limit=9)) == 1


def test_a_token_is_made_once(database: Database) -> None:
    tokens = Tokens(database)
    made = tokens.add("bot", READ, ANN, expires_at=None)

    assert made is not None
    assert tokens.add("bot", READ, ANN, expires_at=None) is None
    assert len(tokens.all()) == len(Actions(database).newest(limit=9)) == 1
    assert tokens.shown(made[1], now=NOON) is not None


def test_a_token_that_ended_or_was_removed_opens_nothing(database: Database) -> None:
    tokens = Tokens(database)
    ends = tokens.add("ends", READ, ANN, expires_at=NOON + timedelta(days=1))
    stays = tokens.add("stays", READ, ANN, expires_at=None)
    assert ends is not None and stays is not None

    assert tokens.shown(ends[1], now=NOON + timedelta(days=2)) is None
    assert tokens.remove("stays", ANN)
    assert not tokens.remove("stays", ANN)
    assert tokens.shown(stays[1], now=NOON) is None
