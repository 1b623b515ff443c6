"""Acts on many as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.acts.bulk import BulkAct
from relay.shapes.times import iso
from relay.store.undo import ActNoted


class BulkActJson(TypedDict):
    """An act on many, and how far it has come."""

    act: str
    verb: str
    who: str
    why: str | None
    origin: str | None
    stage: str
    total: int
    seen: int
    done: int
    left: dict[str, int]
    fault: str | None
    began_at: str | None
    ended_at: str | None


def bulk_act_json(act: BulkAct) -> BulkActJson:
    """Return an act on many, and how far it has come."""
    progress, person = act.progress, act.person
    return {
        "act": act.id,
        "verb": act.verb,
        "who": person.who,
        "why": person.why,
        "origin": person.origin,
        "stage": progress.stage,
        "total": progress.total,
        "seen": progress.seen,
        "done": progress.done,
        "left": dict(progress.left),
        "fault": progress.fault,
        "began_at": iso(progress.began_at),
        "ended_at": iso(progress.ended_at),
    }


def noted_act_json(name: str, noted: ActNoted) -> BulkActJson:
    """Return an act that is over, by what the audit log has of it."""
    return {
        "act": name,
        "verb": noted.what,
        "who": noted.who,
        "why": noted.why,
        "origin": noted.origin,
        "stage": "finished",
        "total": noted.number,
        "seen": noted.number,
        "done": noted.number,
        "left": {},
        "fault": None,
        "began_at": iso(noted.began_at),
        "ended_at": iso(noted.ended_at),
    }
