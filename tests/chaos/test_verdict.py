"""The judge of chaos runs sees every kind of broken promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
from plan import Plan
from verdict import Evidence, Stored, violations

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


def test_a_run_in_which_all_went_well_violates_nothing() -> None:
    assert violations(GOOD) == []


def test_a_repeated_card_violates_nothing_where_nobody_can_know() -> None:
    assert violations(_with("teams", "m1", "m2", "m1", "m3")) == []


def test_conversations_may_overtake_each_other() -> None:
    first, second, third = GOOD.stored
    apart = replace(GOOD, stored=[replace(first, conversation="c2"), second, third])

    assert violations(replace(apart, effects={s: ("m2", "m3", "m1") for s in GOOD.effects})) == []


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
    ],
)
def test_each_broken_promise_is_named(evidence: Evidence, said: str) -> None:
    assert violations(evidence) == [said]


def test_a_plan_follows_from_its_seed_alone() -> None:
    assert Plan.of(7) == Plan.of(7)
    assert Plan.of(7) != Plan.of(8)
