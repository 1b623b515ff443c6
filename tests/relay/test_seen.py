"""What nodes note for each other: one looks at the certificate, and old secrets have no name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta

import pytest
import sqlalchemy as sa
from fakes import Clock, accept

from relay.rules.problems import Certificate, OldSecret
from relay.rules.signature import SigningKey
from relay.store import Database, Inbox, schema, seen
from relay.store.seen import LOOK, LOOK_IF_WRONG, LOST, Seen

ON_BOTH = True
URL = "https://sms.example.com"


@pytest.fixture
def nodes(database: Database, clock: Clock) -> Sequence[Seen]:
    return [Seen(database, clock=clock) for _ in range(2)]


def known(database: Database, url: str = URL) -> Certificate | None:
    with database.reading() as db:
        return seen.certificate(db, url)


def test_one_node_looks_once_an_hour(
    nodes: Sequence[Seen], clock: Clock, database: Database
) -> None:
    ends_at = clock() + timedelta(days=60)

    assert [each.begin_look(URL) for each in nodes] == [True, False]
    nodes[0].end_look(URL, ends_at=ends_at, fault="")

    assert known(database) == Certificate(url=URL, ends_at=ends_at)
    assert known(database, "https://other.example.com") is None
    clock.advance(LOOK.total_seconds() - 1)
    assert not nodes[1].begin_look(URL)
    clock.advance(1)
    assert nodes[1].begin_look(URL)


def test_what_is_wrong_is_looked_at_soon_again(nodes: Sequence[Seen], clock: Clock) -> None:
    nodes[0].begin_look(URL)
    nodes[0].end_look(URL, ends_at=None, fault="it has expired")

    clock.advance(LOOK_IF_WRONG.total_seconds())

    assert nodes[1].begin_look(URL)


def test_another_node_looks_if_the_first_died_at_it(
    nodes: Sequence[Seen], clock: Clock, database: Database
) -> None:
    nodes[0].begin_look(URL)
    clock.advance(LOST.total_seconds())
    assert not nodes[1].begin_look(URL)

    clock.advance(1)

    assert nodes[1].begin_look(URL)


def test_a_look_that_got_nowhere_changes_nothing_that_is_known(
    nodes: Sequence[Seen], clock: Clock, database: Database
) -> None:
    nodes[0].begin_look(URL)
    nodes[0].end_look(URL, ends_at=None, fault="it has expired")
    clock.advance(LOOK.total_seconds())

    nodes[0].begin_look(URL)
    during = known(database)
    nodes[0].end_look(URL, ends_at=None, fault="")

    assert during == known(database) == Certificate(url=URL, fault="it has expired")


def test_another_address_is_looked_at_at_once(nodes: Sequence[Seen]) -> None:
    nodes[0].begin_look(URL)

    assert nodes[1].begin_look("https://other.example.com")


def test_an_old_secret_is_known_by_its_position(
    nodes: Sequence[Seen], clock: Clock, database: Database, inbox: Inbox
) -> None:
    accept(inbox, "m1")
    keys = {"/x": signing(b"new", b"old", b"older"), "/y": signing(b"one", b"old")}
    nodes[0].note_secrets([("/x", b"older")])
    clock.advance(60)
    nodes[1].note_secrets([("/x", b"old"), ("/x", b"new")])

    with database.reading() as db:
        found = seen.old_secrets(db, keys)
        rotated = seen.old_secrets(db, {"/x": signing(b"newest", b"new")})
        marks = repr(db.execute(sa.select(schema.marks)).all())

    older = OldSecret(position=3, of=3, used_at=clock() - timedelta(seconds=60))
    assert found == {"/x": [older, OldSecret(position=2, of=3, used_at=clock())]}
    # One that was the first becomes an old one.
    assert rotated == {"/x": [OldSecret(position=2, of=2, used_at=clock())]}
    assert "older" not in marks


def test_the_first_secret_is_known_if_it_has_an_end(
    nodes: Sequence[Seen], clock: Clock, database: Database, inbox: Inbox
) -> None:
    accept(inbox, "m1")
    nodes[0].note_secrets([("/x", b"one")])

    with database.reading() as db:
        found = seen.old_secrets(db, {"/x": [SigningKey(key=b"one", not_after=date(2026, 12, 1))]})

    (used,) = found["/x"]
    assert (used.position, used.used_at) == (1, clock())
    assert used.ends_at is not None
    assert f"{used.ends_at:%Y-%m-%d %H:%M}" == "2026-12-01 23:59"


def signing(*keys: bytes) -> list[SigningKey]:
    return [SigningKey(key=each) for each in keys]
