"""The audit log: what people did, from where, and why."""

from __future__ import annotations

from datetime import timedelta

from fakes import NOON

from relay.shapes.actions import entry_json
from relay.store import Recovery
from relay.store.actions import Act, Actions
from relay.store.database import Database


def test_the_newest_entries_come_first_and_go_on_before_a_number(database: Database) -> None:
    actions = Actions(database)
    for number in range(5):
        act = Act(who="ann", why=None, at=NOON, origin="192.0.2.7")
        actions.note(act, "unmask", detail=f"text {number}")

    first = actions.newest(limit=2)
    then = actions.newest(limit=9, before=first[-1].seq)

    assert [each.action.detail for each in first] == ["text 4", "text 3"]
    assert [each.action.detail for each in then] == ["text 2", "text 1", "text 0"]
    assert {each.action.origin for each in first} == {"192.0.2.7"}


def test_who_paused_and_resumed_what_is_noted_with_the_place_and_the_act(
    database: Database,
) -> None:
    act = Act(who="ann", why="maintenance", at=NOON, origin="192.0.2.7")
    store = Recovery(database)
    store.pause("crm", act)
    store.resume("crm", Act(who="ben", why=None, at=NOON))

    resumed, paused = map(entry_json, Actions(database).newest(limit=9))

    assert (paused["who"], paused["origin"], paused["why"]) == ("ann", "192.0.2.7", "maintenance")
    assert (paused["what"], paused["destination"], paused["act"]) == ("pause", "crm", act.id)
    assert (resumed["who"], resumed["origin"]) == ("ben", "command line")


def test_entries_are_found_by_who_and_what(database: Database) -> None:
    actions = Actions(database)
    for who, what in (("ann", "unmask"), ("ben", "unmask"), ("ann", "erase")):
        at = NOON if what == "unmask" else NOON + timedelta(hours=1)
        actions.note(Act(who=who, why=None, at=at), what, detail="")

    assert len(actions.newest(limit=9, who="ann")) == 2
    assert len(actions.newest(limit=9, what="unmask")) == 2
    assert len(actions.newest(limit=9, who="ann", what="erase")) == 1
    assert len(actions.newest(limit=9, since=NOON + timedelta(minutes=1))) == 1
