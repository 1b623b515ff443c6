"""What a customer leaves beside events: refused requests, people's words, what systems hold."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from relay.rules.mentions import Mentions
from relay.store import schema

#: What stands in the place of words that were erased.
ERASED = "(erased)"

_requests, _actions, _health = schema.requests, schema.actions, schema.destinations


@dataclass(frozen=True, kw_only=True, slots=True)
class Elsewhere:
    """Something of a customer at a destination, where only a person can remove it."""

    destination: str
    #: Link or id of the ticket, contact, message or file; None if no answer named one.
    where: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What may stay of a person's act."""

    seq: int
    why: str | None
    detail: str


def elsewhere(db: sa.Connection, event_ids: Iterable[str]) -> list[Elsewhere]:
    """Return the places to which deliveries of events went, each once."""
    c = schema.deliveries.c
    where = sa.func.coalesce(c.url, c.reference)
    wanted = sa.select(c.destination, where.label("place")).where(
        c.event_id.in_(event_ids), c.claims > 0
    )
    rows = db.execute(wanted.order_by(c.seq)).all()
    return list(dict.fromkeys(Elsewhere(destination=r.destination, where=r.place) for r in rows))


def texts(db: sa.Connection, customer: str, *, after: int, limit: int) -> Sequence[Any]:
    """Return numbers and texts of events of *customer*, after that number."""
    c = schema.events.c
    wanted = sa.select(c.seq, c.body).where(c.customer == customer, c.seq > after)
    return db.execute(wanted.order_by(c.seq).limit(limit)).all()


def refused(
    db: sa.Connection, mentions: Mentions, *, after: int, limit: int
) -> tuple[int, list[int]]:
    """Look at refused requests *after* a number; return the last one, and those with a mention.

    The last one is 0 if there are no more.
    """
    c = _requests.c
    wanted = sa.select(c.seq, c.reason, c.message_id, c.headers, c.body)
    wanted = wanted.where(schema.REFUSED, c.seq > after).order_by(c.seq).limit(limit)
    last, found = 0, []
    for row in db.execute(wanted):
        last = row.seq
        words = f"{row.message_id}\n{row.reason}"
        raws = (row.headers.encode(), row.body or b"")
        if mentions.in_text(words) or any(map(mentions.in_body, raws)):
            found.append(row.seq)
    return last, found


def words(
    db: sa.Connection, mentions: Mentions, *, after: int, limit: int
) -> tuple[int, list[Words]]:
    """Look at people's acts *after* a number; return the last one, and what may stay of some.

    The last one is 0 if there are no more.
    """
    c = _actions.c
    wanted = sa.select(c.seq, c.why, c.detail).where(c.seq > after).order_by(c.seq).limit(limit)
    last, found = 0, []
    for row in db.execute(wanted):
        last = row.seq
        why = ERASED if row.why and mentions.in_text(row.why) else row.why
        detail = ERASED if mentions.in_text(row.detail) else row.detail
        if (why, detail) != (row.why, row.detail):
            found.append(Words(seq=row.seq, why=why, detail=detail))
    return last, found


def blank_words(db: sa.Connection, left: Iterable[Words]) -> None:
    """Let only *left* stay of what people said about their acts."""
    for each in left:
        acted = sa.update(_actions).where(_actions.c.seq == each.seq)
        db.execute(acted.values(why=each.why, detail=each.detail))


def forget_undo(db: sa.Connection, event_ids: Iterable[str]) -> None:
    """Remove what acts keep of the deliveries of events: there is nothing left to undo."""
    acted = _actions.c.event_id.in_(event_ids), _actions.c.before.is_not(None)
    db.execute(sa.update(_actions).where(*acted).values(before=None))


def blank_pauses(db: sa.Connection, mentions: Mentions) -> None:
    """Remove the reasons of pauses that mention the customer."""
    c = _health.c
    rows = db.execute(sa.select(c.name, c.reason).where(c.reason.is_not(None))).all()
    names = [row.name for row in rows if mentions.in_text(row.reason)]
    db.execute(sa.update(_health).where(c.name.in_(names)).values(reason=ERASED))
