"""The judge of chaos runs sees every kind of broken promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan import BROKER, STORE, Blow, Cut, Kind, Outage, Plan
from verdict import Evidence, Heard, Stored, violations

EVERYWHERE = {"crm": "delivered", "helpdesk": "delivered", "front-desk": "delivered"}
NAMES = ("m1", "m2", "m3")
GOOD = Evidence(
    acknowledged=frozenset(NAMES),
    stored=[
        Stored(name=name, conversation="c1", standing="accepted", states=EVERYWHERE)
        for name in NAMES
    ],
    effects={"hubspot": NAMES, "zendesk": NAMES, "teams": NAMES},
)


def _with(system: str, *effects: str) -> Evidence:
    return replace(GOOD, effects={**GOOD.effects, system: effects})


def _heard(
    posted_at: float, acknowledged_at: float, *, doubtful: bool = False, **statuses: int
) -> Heard:
    return Heard(
        posted_at=posted_at,
        acknowledged_at=acknowledged_at,
        statuses=statuses or {"accepted": 1},
        doubtful=doubtful,
    )


def test_a_run_in_which_all_went_well_violates_nothing() -> None:
    assert violations(GOOD) == []


def test_a_repeated_card_violates_nothing_where_nobody_can_know() -> None:
    assert violations(_with("teams", "m1", "m2", "m1", "m3")) == []


def test_conversations_may_overtake_each_other() -> None:
    first, second, third = GOOD.stored
    apart = replace(GOOD, stored=[replace(first, conversation="c2"), second, third])

    assert violations(replace(apart, effects={s: ("m2", "m3", "m1") for s in GOOD.effects})) == []


def test_who_was_on_the_way_at_the_same_time_may_be_done_in_any_order() -> None:
    heard = {"m1": _heard(3, 5), "m2": _heard(1, 4), "m3": _heard(2, 6, accepted=1, duplicate=3)}

    assert violations(replace(GOOD, heard=heard)) == []


def test_who_got_no_answer_may_be_a_duplicate_of_itself() -> None:
    heard = {"m1": _heard(1, 2, doubtful=True, duplicate=1)}

    assert violations(replace(GOOD, heard=heard)) == []


def test_a_message_that_was_overtaken_is_named_wherever_that_was() -> None:
    heard = {"m1": _heard(5, 6), "m2": _heard(3, 4), "m3": _heard(1, 2)}

    assert violations(replace(GOOD, heard={**heard, "m2": _heard(1, 7)})) == [
        f"m3 in {system} was overtaken by m1" for system in GOOD.effects
    ]


@pytest.mark.parametrize(
    ("evidence", "said"),
    [
        (
            replace(GOOD, acknowledged=frozenset({*NAMES, "m4"})),
            "m4 was acknowledged and is not in the store",
        ),
        (
            replace(GOOD, stored=[*GOOD.stored, replace(GOOD.stored[0], conversation="c2")]),
            "m1 is 2 events",
        ),
        (
            replace(GOOD, stored=[*GOOD.stored[:2], replace(GOOD.stored[2], standing="conflict")]),
            "m3 is a conflict",
        ),
        (
            replace(
                GOOD,
                stored=[
                    *GOOD.stored[:2],
                    replace(GOOD.stored[2], states={**EVERYWHERE, "crm": "waiting"}),
                ],
            ),
            "m3 to crm is waiting",
        ),
        (_with("zendesk", "m1", "m2"), "m3 has no effect in zendesk"),
        (_with("teams", "m2", "m3"), "m1 has no effect in teams"),
        (_with("hubspot", *NAMES, "m9"), "m9 has an effect in hubspot, where it does not belong"),
        (_with("hubspot", "m1", "m2", "m2", "m3"), "m2 has 2 effects in hubspot"),
        (
            _with("teams", "m2", "m1", "m2", "m3"),
            "c1 in teams: accepted ['m1', 'm2', 'm3'], done ['m2', 'm1', 'm3']",
        ),
        (
            replace(GOOD, heard={"m1": _heard(1, 2, accepted=2)}),
            "m1 was accepted 2 times",
        ),
        (
            replace(GOOD, heard={"m1": _heard(1, 2, duplicate=2)}),
            "m1 was a duplicate of nothing",
        ),
        (
            replace(GOOD, heard={"m1": _heard(1, 2, accepted=1, conflict=1)}),
            "m1 was answered conflict",
        ),
    ],
)
def test_each_broken_promise_is_named(evidence: Evidence, said: str) -> None:
    assert violations(evidence) == [said]


def test_a_plan_follows_from_its_seed_alone() -> None:
    for kind in Kind:
        assert Plan.of(7, kind) == Plan.of(7, kind)
        assert Plan.of(7, kind) != Plan.of(8, kind)


def test_a_fleet_is_cut_off_from_each_of_its_servers() -> None:
    plans = [Plan.of(seed, Kind.CELERY) for seed in range(1, 11)]
    found = {(type(each), getattr(each, "server", "")) for p in plans for each in p.misfortunes}

    assert found == {
        (Blow, ""),
        *((kind, server) for kind in (Cut, Outage) for server in (STORE, BROKER)),
    }
