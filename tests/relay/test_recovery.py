"""What may be done about a delivery or an event, as tables."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fakes import NOON, arrival

from relay.rules import recovery
from relay.rules.delivery import State
from relay.rules.recovery import Before, Change, ChangeKind, FoundDelivery, FoundEvent, Latest

SOON, BEFORE = NOON + timedelta(hours=1), NOON - timedelta(hours=1)
CASE = FoundDelivery(
    id="dlv_1",
    seq=1,
    event_id="evt_1",
    message_id="m1",
    type="SMS_REPLY",
    customer="+61400000001",
    received_at=NOON,
    destination="crm",
    lane_id="lane",
    state=State.DEAD,
    late=False,
    due_at=None,
    claims=3,
    reason="refused",
    attempts=3,
    ended_at=NOON,
    parks=False,
    copy=None,
)


def case(state: State, **changes: Any) -> FoundDelivery:
    return replace(CASE, state=state, **changes)


@pytest.mark.parametrize(
    ("left", "found", "kind"),
    [
        (State.PENDING, case(State.PENDING), ChangeKind.RESTORE),
        # Behind other late ones.
        (State.PENDING, case(State.WAITING), ChangeKind.RESTORE),
        (State.DEAD, case(State.DEAD), ChangeKind.RESTORE),
        (State.DELIVERED, case(State.DELIVERED), ChangeKind.RESTORE),
        # An attempt was made, or is.
        (State.PENDING, case(State.PENDING, claims=4), ChangeKind.NOTHING),
        (State.PENDING, case(State.IN_FLIGHT, claims=4), ChangeKind.NOTHING),
        (State.PENDING, case(State.DELIVERED, claims=4), ChangeKind.NOTHING),
        # Somebody else changed it.
        (State.PENDING, case(State.DEAD), ChangeKind.NOTHING),
        (State.DEAD, case(State.PENDING), ChangeKind.NOTHING),
        (State.DELIVERED, case(State.WAITING), ChangeKind.NOTHING),
    ],
)
def test_what_was_not_sent_since_can_be_undone(
    left: State, found: FoundDelivery, kind: ChangeKind
) -> None:
    change = Change(
        delivery=case(State.HELD, parks=True), kind=ChangeKind.END, says="", state=left
    )
    before = Before.from_json(Before.of(change).as_json())

    undone = recovery.undo(found, before)

    assert before == Before.of(change)
    assert undone.kind is kind
    if kind is ChangeKind.RESTORE:
        assert (undone.state, undone.before) == (State.HELD, before)


def test_a_delivery_that_a_person_added_is_removed() -> None:
    before = Before.from_json(Before.added("dlv_1").as_json())

    assert recovery.undo(case(State.WAITING, claims=0), before).kind is ChangeKind.REMOVE
    assert recovery.undo(case(State.PENDING, claims=1), before).kind is ChangeKind.NOTHING


@pytest.mark.parametrize(
    ("found", "again", "kind", "late"),
    [
        (case(State.DEAD), False, ChangeKind.RENEW, True),
        (case(State.DEAD, late=True), False, ChangeKind.RENEW, True),
        # --again is for what was delivered; a dead one has a key that nothing came of.
        (case(State.DEAD), True, ChangeKind.RENEW, True),
        (case(State.HELD, parks=True), False, ChangeKind.RENEW, False),
        (case(State.HELD), False, ChangeKind.RENEW, True),
        (case(State.HELD, late=True), False, ChangeKind.RENEW, True),
        (case(State.PENDING, due_at=SOON), False, ChangeKind.HURRY, False),
        (case(State.PENDING, due_at=SOON, late=True), False, ChangeKind.HURRY, True),
        (case(State.PENDING, due_at=NOON), False, ChangeKind.NOTHING, False),
        (case(State.PENDING, due_at=BEFORE), True, ChangeKind.NOTHING, False),
        (case(State.WAITING), True, ChangeKind.NOTHING, False),
        (case(State.IN_FLIGHT), True, ChangeKind.NOTHING, False),
        (case(State.DELIVERED), False, ChangeKind.NOTHING, False),
        (case(State.DELIVERED), True, ChangeKind.COPY, True),
        (case(State.DELIVERED, copy="dlv_2"), True, ChangeKind.NOTHING, False),
    ],
)
def test_resend(found: FoundDelivery, again: bool, kind: ChangeKind, late: bool) -> None:
    step = recovery.resend(found, again=again, now=NOON)

    assert (step.kind, step.late, step.delivery) == (kind, late, found)
    assert step.says


@pytest.mark.parametrize("end", [State.DELIVERED, State.DEAD])
@pytest.mark.parametrize(
    ("found", "ends"),
    [
        (case(State.HELD), {State.DELIVERED, State.DEAD}),
        (case(State.HELD, parks=True), {State.DELIVERED, State.DEAD}),
        (case(State.PENDING, due_at=SOON), {State.DELIVERED, State.DEAD}),
        (case(State.DEAD), {State.DELIVERED}),
        (case(State.DELIVERED), set()),
        (case(State.WAITING), set()),
        (case(State.IN_FLIGHT), set()),
    ],
)
def test_settle(found: FoundDelivery, ends: set[State], end: Any) -> None:
    step = recovery.settle(found, end=end)

    assert step.kind is (ChangeKind.END if end in ends else ChangeKind.NOTHING)
    assert step.state is (end if end in ends else found.state)
    assert step.says


def filed(
    *, standing: str = "accepted", then: tuple[str, ...] = (), **latest: State
) -> FoundEvent:
    return FoundEvent(
        seq=1,
        event=arrival().event,
        key=b"key",
        standing=standing,
        then=then,
        deliveries={name: Latest(id=f"dlv_{name}", state=at) for name, at in latest.items()},
    )


@pytest.mark.parametrize(
    ("latest", "again", "adds"),
    [
        ({}, False, True),
        ({}, True, True),
        ({"crm": State.DELIVERED}, False, False),
        ({"crm": State.DELIVERED}, True, True),
        ({"crm": State.DEAD}, True, False),
        ({"crm": State.HELD}, True, False),
        ({"crm": State.WAITING}, True, False),
        ({"crm": State.PENDING}, True, False),
        ({"crm": State.IN_FLIGHT}, True, False),
    ],
)
def test_replay_adds_what_is_missing(latest: dict[str, State], again: bool, adds: bool) -> None:
    (turn,) = recovery.replay(filed(**latest), ["crm"], again=again).steps

    assert turn.adds is adds
    assert turn.says


def test_replay_compares_then_and_now() -> None:
    found = filed(then=("crm", "desk"), crm=State.DELIVERED, desk=State.DELIVERED)

    turns = recovery.replay(found, ["crm", "chat"], again=True).steps

    assert [(turn.destination, turn.then, turn.now, turn.adds) for turn in turns] == [
        ("crm", True, True, True),
        ("chat", False, True, True),
        # Not even --again sends to where today's routes do not.
        ("desk", True, False, False),
    ]


def test_replay_of_some_destinations_leaves_the_others_out() -> None:
    replay = recovery.replay(filed(), ["crm", "chat"], only=["chat", "elsewhere"])

    assert [turn.destination for turn in replay.steps] == ["chat"]


@pytest.mark.parametrize(
    ("standing", "again", "refused"),
    [
        ("accepted", False, False),
        ("conflict", False, True),
        ("conflict", True, True),
        ("stale", False, True),
        ("stale", True, False),
    ],
)
def test_what_is_no_accepted_event_is_replayed_with_care(
    standing: str, again: bool, refused: bool
) -> None:
    replay = recovery.replay(filed(standing=standing), ["crm"], again=again)

    assert (replay.refused is not None) is refused
    assert bool(replay.steps) is not refused


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("refused: HTTP 400", "refused: HTTP 400"),
        ("refused: contact 4711 is archived", "refused: contact * is archived"),
        ("exhausted after 12 attempts: HTTP 503", "exhausted after * attempts: HTTP 503"),
        ("exhausted after 1 attempts: no route", "exhausted after * attempts: no route"),
        ("id 0193a1b2-c3d4-7000-8000-00000000abcd", "id *"),
        ("no such number +61400000000", "no such number +*"),
        ("a well-known reason", "a well-known reason"),
        ("", ""),
        (None, ""),
    ],
)
def test_reasons_are_alike_but_for_ids_and_numbers(reason: str | None, kind: str) -> None:
    assert recovery.kind_of_reason(reason) == kind
