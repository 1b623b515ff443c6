"""How many customers wait for something to arrive, at each destination?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from relay.rules.delivery import State
from relay.store import candidates, schema
from relay.store.database import Database

#: Deliveries of a destination that are looked at, at the most.
LOOKED_AT = 2000
#: The heads of lanes first, of which each lane has one: so little is looked at twice.
UNFINISHED = (State.PENDING, State.IN_FLIGHT, State.WAITING)
STOPPED = (State.DEAD, State.HELD)

_d = schema.deliveries.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Lanes:
    """How many conversations there are."""

    number: int = 0
    #: Whether there may be more: not all deliveries were looked at.
    more: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """The conversations of a destination in which something has not arrived."""

    #: Something will be tried, or is being tried.
    unfinished: Lanes
    #: Something waits for a person.
    stopped: Lanes


def waiting(database: Database, *, most: int = LOOKED_AT) -> Mapping[str, Waiting]:
    """Return the destinations where something has not arrived, by name.

    *most*: of how many deliveries that are unfinished, and that have stopped, the conversations
    are counted.
    """
    with database.reading() as db:
        there: dict[str, set[State]] = {}
        for name, state in candidates.listed(db):
            if state is not State.DELIVERED:
                there.setdefault(name, set()).add(state)
        return {
            name: Waiting(
                unfinished=_lanes(db, name, [s for s in UNFINISHED if s in states], most=most),
                stopped=_lanes(db, name, [s for s in STOPPED if s in states], most=most),
            )
            for name, states in there.items()
        }


def _lanes(db: sa.Connection, name: str, states: Iterable[State], *, most: int) -> Lanes:
    lanes: set[str] = set()
    left = most
    for state in states:
        some = sa.select(_d.lane_id).where(candidates.is_listed(name, state)).limit(left + 1)
        found = db.scalars(some).all()
        lanes.update(found[:left])
        if len(found) > left:
            return Lanes(number=len(lanes), more=True)
        left -= len(found)
    return Lanes(number=len(lanes))
