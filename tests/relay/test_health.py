"""How a destination does after an attempt, and what may start then."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rules.delivery import DEFAULT_WAIT, LONGEST_WAIT, Outcome, OutcomeKind
from relay.rules.health import (
    ANSWERS_TO_TRUST,
    BACK_AFTER,
    BREAKS_AFTER,
    LONGEST_BREAK,
    LONGEST_PROBE,
    PROBE_EVERY,
    SHORTEST_BREAK,
    Cause,
    Health,
    Pause,
    Ramp,
    after_start,
    granted,
    health_after,
)

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
#: A destination that has just answered again.
CAME_BACK = Health(ramp=Ramp(room=2, answers=1), back_at=NOW)
FAILING = (OutcomeKind.TRANSIENT, OutcomeKind.AMBIGUOUS)
ANSWERING = (OutcomeKind.DELIVERED, OutcomeKind.REFUSED)


def outcome(kind: OutcomeKind, **fields: object) -> Outcome:
    return Outcome(kind=kind, detail="why", **fields)  # type: ignore[arg-type]


def after(health: Health, ended: Outcome | OutcomeKind, *, claimed_at: datetime = NOW) -> Health:
    if isinstance(ended, OutcomeKind):
        ended = outcome(ended)
    return health_after(health, ended, claimed_at=claimed_at, now=NOW)


def paused(cause: Cause, *, failures: int = 0, since: datetime = NOW - SECOND) -> Health:
    pause = Pause(cause=cause, reason="before", since=since, until=NOW)
    return Health(failures=failures, pause=pause)


@pytest.mark.parametrize("result", FAILING)
def test_failures_in_a_row_open_the_breaker(result: OutcomeKind) -> None:
    health = Health()
    for failures in range(1, BREAKS_AFTER):
        health = after(health, result)
        assert health == Health(failures=failures)

    health = after(health, result)

    wanted = Pause(cause="failing", reason="why", since=NOW, until=NOW + SHORTEST_BREAK)
    assert health == Health(failures=BREAKS_AFTER, pause=wanted)


@pytest.mark.parametrize("result", ANSWERING)
def test_one_answer_in_between_starts_the_count_anew(result: OutcomeKind) -> None:
    assert after(Health(failures=BREAKS_AFTER - 1), result).failures == 0


@pytest.mark.parametrize(
    ("failures", "wait"),
    [
        (BREAKS_AFTER, 2 * SHORTEST_BREAK),
        (BREAKS_AFTER + 1, 4 * SHORTEST_BREAK),
        (BREAKS_AFTER + 3, 16 * SHORTEST_BREAK),
        (BREAKS_AFTER + 4, LONGEST_BREAK),
        (10**9, LONGEST_BREAK),
    ],
)
def test_each_probe_that_fails_doubles_the_break(failures: int, wait: timedelta) -> None:
    open_ = paused("failing", failures=failures)

    health = after(open_, OutcomeKind.TRANSIENT)

    assert health.failures == failures + 1
    assert health.pause is not None
    assert (health.pause.until, health.pause.since) == (NOW + wait, NOW - SECOND)


@pytest.mark.parametrize("cause", ["failing", "unauthorized"])
@pytest.mark.parametrize("result", ANSWERING)
def test_a_probe_that_is_answered_ends_the_pause(cause: Cause, result: OutcomeKind) -> None:
    assert after(paused(cause, failures=12), result) == CAME_BACK


@pytest.mark.parametrize("cause", ["failing", "unauthorized"])
@pytest.mark.parametrize("result", [*ANSWERING, *FAILING])
def test_what_was_begun_before_a_pause_does_not_end_or_lengthen_it(
    cause: Cause, result: OutcomeKind
) -> None:
    before = paused(cause, failures=BREAKS_AFTER)

    health = after(before, result, claimed_at=NOW - 2 * SECOND)

    assert health.pause == before.pause


@pytest.mark.parametrize("result", ANSWERING)
def test_what_was_begun_at_the_moment_of_a_pause_is_its_probe(result: OutcomeKind) -> None:
    before = paused("failing", failures=BREAKS_AFTER, since=NOW)

    assert after(before, result, claimed_at=NOW) == CAME_BACK
    longer = after(before, OutcomeKind.TRANSIENT, claimed_at=NOW).pause
    assert longer is not None
    assert longer.until == NOW + 2 * SHORTEST_BREAK


@pytest.mark.parametrize("result", list(OutcomeKind))
def test_nothing_but_a_person_ends_what_a_person_paused(result: OutcomeKind) -> None:
    pause = Pause(cause="operator", reason="holidays", since=NOW - SECOND, until=None)

    assert after(Health(pause=pause), result) == Health(pause=pause)


@pytest.mark.parametrize("cause", get_args(Cause))
def test_a_lost_worker_says_nothing_about_the_destination(cause: Cause) -> None:
    ended = outcome(OutcomeKind.AMBIGUOUS, lost=True)

    assert after(Health(failures=BREAKS_AFTER), ended) == Health(failures=BREAKS_AFTER)
    assert after(paused(cause), ended) == paused(cause)


def test_bad_credentials_pause_the_destination() -> None:
    pause = Pause(cause="unauthorized", reason="why", since=NOW, until=NOW + PROBE_EVERY)

    assert after(Health(failures=3), OutcomeKind.UNAUTHORIZED) == Health(failures=3, pause=pause)


def test_a_probe_that_fails_otherwise_leaves_bad_credentials_the_reason() -> None:
    before = paused("unauthorized", failures=BREAKS_AFTER)

    health = after(before, OutcomeKind.TRANSIENT)

    assert health == Health(failures=BREAKS_AFTER + 1, pause=before.pause)


def test_a_throttled_destination_is_left_alone_as_long_as_it_asks() -> None:
    asked = outcome(OutcomeKind.THROTTLED, retry_after=7 * SECOND)
    pause = Pause(cause="throttled", reason="why", since=NOW, until=NOW + 7 * SECOND)

    assert after(Health(), asked) == Health(pause=pause)
    unasked = after(Health(), OutcomeKind.THROTTLED).pause
    assert unasked is not None
    assert unasked.until == NOW + DEFAULT_WAIT


@pytest.mark.parametrize("result", FAILING)
def test_a_failing_destination_that_says_for_how_long_is_left_alone_for_that_long(
    result: OutcomeKind,
) -> None:
    asked = outcome(result, retry_after=7 * SECOND)
    pause = Pause(cause="throttled", reason="why", since=NOW, until=NOW + 7 * SECOND)

    assert after(Health(failures=2), asked) == Health(failures=3, pause=pause)
    # What was under way meanwhile says no more than that, unless it asks for a longer wait.
    under_way = after(Health(failures=3, pause=pause), asked, claimed_at=NOW - SECOND)
    assert under_way == Health(failures=3, pause=pause)


def test_a_break_is_as_long_as_a_failing_destination_asks_for() -> None:
    asked = outcome(OutcomeKind.TRANSIENT, retry_after=LONGEST_WAIT / 2)

    broken = after(Health(failures=BREAKS_AFTER - 1), asked).pause

    assert broken is not None
    assert (broken.cause, broken.until) == ("failing", NOW + LONGEST_WAIT / 2)
    assert after(paused("unauthorized"), asked).pause == paused("unauthorized").pause


@pytest.mark.parametrize(("asked", "until"), [(1, 60), (90, 90)])
def test_an_answer_that_was_under_way_does_not_shorten_the_wait(asked: int, until: int) -> None:
    pause = Pause(cause="throttled", reason="why", since=NOW, until=NOW + 60 * SECOND)
    ended = outcome(OutcomeKind.THROTTLED, retry_after=asked * SECOND)

    earlier = after(Health(pause=pause), ended, claimed_at=NOW - SECOND)
    since = after(Health(pause=pause), ended, claimed_at=NOW)

    assert earlier.pause == replace(pause, until=NOW + until * SECOND)
    assert since.pause == replace(pause, until=NOW + asked * SECOND)


def test_what_was_not_begun_says_nothing_of_a_destination() -> None:
    health = Health(failures=BREAKS_AFTER - 1)

    assert after(health, outcome(OutcomeKind.TRANSIENT, begun=False)) == health


def test_what_was_throttled_before_credentials_were_bad_does_not_shorten_their_pause() -> None:
    before = paused("unauthorized")

    assert after(before, OutcomeKind.THROTTLED, claimed_at=NOW - 2 * SECOND) == before
    probe = after(before, OutcomeKind.THROTTLED, claimed_at=NOW - SECOND).pause
    assert probe is not None
    assert probe.cause == "throttled"


def test_a_throttled_conversation_is_its_own_affair() -> None:
    health = Health(failures=2)

    assert after(health, outcome(OutcomeKind.THROTTLED, scope="conversation")) == health


def test_a_success_does_not_shorten_the_wait_of_a_throttled_destination() -> None:
    before = paused("throttled", failures=2)

    assert after(before, OutcomeKind.DELIVERED) == paused("throttled")


def test_what_is_well_gets_all_it_can() -> None:
    assert granted(Health(failures=3), now=NOW) == (None, Health(failures=3))


@pytest.mark.parametrize("cause", get_args(Cause))
def test_nothing_starts_during_a_pause(cause: Cause) -> None:
    assert granted(paused(cause), now=NOW - SECOND) == (0, paused(cause))


def test_a_persons_pause_does_not_end_by_itself() -> None:
    pause = Pause(cause="operator", reason="holidays", since=NOW, until=None)

    assert granted(Health(pause=pause), now=NOW + timedelta(days=999))[0] == 0


def test_a_throttled_destination_gets_everything_when_its_time_is_over() -> None:
    assert granted(paused("throttled", failures=2), now=NOW) == (None, Health(failures=2))


@pytest.mark.parametrize(
    ("cause", "next_one"), [("failing", LONGEST_PROBE), ("unauthorized", PROBE_EVERY)]
)
def test_a_pause_that_is_over_is_followed_by_one_probe(cause: Cause, next_one: timedelta) -> None:
    number, health = granted(paused(cause), now=NOW)

    assert number == 1
    assert health.pause is not None
    assert (health.pause.cause, health.pause.until) == (cause, NOW + next_one)
    assert granted(health, now=NOW)[0] == 0


def test_breaks_last_as_long_as_people_are_told() -> None:
    minute = 60 * SECOND
    assert (10, minute) == (BREAKS_AFTER, LONGEST_PROBE)
    assert (15 * SECOND, 5 * minute) == (SHORTEST_BREAK, LONGEST_BREAK)


@pytest.mark.parametrize(
    ("failures", "cause", "claimed", "comes_back"),
    [
        # A delivery that fails for reasons of its own hurries no other.
        (BACK_AFTER - 1, None, NOW, False),
        (BACK_AFTER, None, NOW, True),
        (0, "unauthorized", NOW, True),
        (BREAKS_AFTER, "failing", NOW, True),
        # What began before the pause says nothing.
        (BREAKS_AFTER, "failing", NOW - 2 * SECOND, False),
        (BACK_AFTER, "throttled", NOW, True),
        (BACK_AFTER - 1, "throttled", NOW, False),
    ],
)
@pytest.mark.parametrize("result", ANSWERING)
def test_an_answer_after_an_outage_ends_waits_and_begins_a_ramp(
    result: OutcomeKind, failures: int, cause: Cause | None, claimed: datetime, comes_back: bool
) -> None:
    before = paused(cause, failures=failures) if cause else Health(failures=failures)

    health = after(before, result, claimed_at=claimed)

    wanted = (CAME_BACK.ramp, CAME_BACK.back_at) if comes_back else (None, None)
    assert (health.ramp, health.back_at) == wanted


def test_the_deliveries_under_way_double_each_round_until_all_may_start() -> None:
    health, rounds = after(paused("failing", failures=12), OutcomeKind.DELIVERED), []
    while (room := granted(health, now=NOW)[0]) is not None:
        rounds.append(room)
        health = after_start(health, room)
        assert granted(health, now=NOW)[0] == 0
        for _ in range(room):
            health = after(health, OutcomeKind.DELIVERED)

    assert rounds == [2, 4, 8, 16]
    assert health == Health(back_at=NOW)


@pytest.mark.parametrize(
    ("ended", "ramp"),
    [
        (outcome(OutcomeKind.DELIVERED), Ramp(room=5, answers=8)),
        (outcome(OutcomeKind.TRANSIENT), Ramp()),
        (outcome(OutcomeKind.AMBIGUOUS), Ramp()),
        (outcome(OutcomeKind.THROTTLED), Ramp()),
        # They say nothing of the destination, and make room for another.
        (outcome(OutcomeKind.AMBIGUOUS, lost=True), Ramp(room=4, answers=7)),
        (outcome(OutcomeKind.TRANSIENT, begun=False), Ramp(room=4, answers=7)),
        (outcome(OutcomeKind.THROTTLED, scope="conversation"), Ramp(room=4, answers=7)),
        (outcome(OutcomeKind.UNAUTHORIZED), None),
    ],
)
def test_each_end_of_an_attempt_changes_the_ramp(ended: Outcome, ramp: Ramp | None) -> None:
    health = Health(ramp=Ramp(room=3, answers=7), back_at=NOW)

    assert after(health, ended).ramp == ramp


def test_an_outage_during_a_return_begins_at_the_beginning() -> None:
    health = Health(failures=BREAKS_AFTER - 1, ramp=Ramp(room=3, answers=7), back_at=NOW)

    broken = after(health, OutcomeKind.TRANSIENT)

    assert (broken.pause is not None, broken.ramp, broken.back_at) == (True, None, None)
    assert after(broken, OutcomeKind.DELIVERED) == CAME_BACK


def test_a_persons_pause_may_end_by_itself_slowly() -> None:
    pause = Pause(cause="operator", reason="lunch", since=NOW - SECOND, until=NOW)

    assert granted(Health(failures=4, pause=pause), now=NOW - SECOND)[0] == 0
    assert granted(Health(failures=4, pause=pause), now=NOW) == (
        1,
        Health(ramp=Ramp(), back_at=NOW),
    )


MOMENTS = st.timedeltas(-timedelta(days=2), timedelta(days=2)).map(lambda ago: NOW - ago)
PAUSES = st.builds(
    Pause,
    cause=st.sampled_from(["unauthorized", "throttled", "failing"]),
    reason=st.just("before"),
    since=MOMENTS.map(lambda at: min(at, NOW)),
    until=MOMENTS,
) | st.builds(
    Pause,
    cause=st.just("operator"),
    reason=st.just("holidays"),
    since=MOMENTS.map(lambda at: min(at, NOW)),
    until=st.none(),
)
RAMPS = st.builds(Ramp, room=st.integers(0, 64), answers=st.integers(0, ANSWERS_TO_TRUST - 1))
HEALTHS = st.builds(
    Health, failures=st.integers(0, 10**6), pause=st.none() | PAUSES, ramp=st.none() | RAMPS
)
ENDINGS = st.builds(
    Outcome,
    kind=st.sampled_from(OutcomeKind),
    retry_after=st.none() | st.timedeltas(-timedelta(days=1), timedelta(days=400)),
    scope=st.sampled_from(["conversation", "destination"]),
    lost=st.booleans(),
)


@given(HEALTHS, ENDINGS, MOMENTS)
def test_health_after_an_attempt_is_sound(
    before: Health, ended: Outcome, claimed_at: datetime
) -> None:
    health = after(before, ended, claimed_at=claimed_at)

    assert health.failures in (0, before.failures, before.failures + 1)
    if before.pause is not None and before.pause.cause == "operator":
        assert health == before
    if health.pause is None or health.pause == before.pause:
        return
    # A new pause, or one that lasts longer: it has an end, ahead, and not out of reach.
    assert health.pause.since <= NOW
    assert health.pause.until is not None
    assert NOW < health.pause.until <= NOW + LONGEST_WAIT
    assert health.pause.cause in ("unauthorized", "throttled", "failing")
    assert health.pause.cause != "failing" or health.failures >= BREAKS_AFTER


@given(HEALTHS)
def test_a_moment_grants_one_probe_at_most(before: Health) -> None:
    number, health = granted(before, now=NOW)

    closed = before.pause is not None and (before.pause.until is None or before.pause.until > NOW)
    no_room = before.ramp is not None and before.ramp.room == 0
    assert number != 0 or closed or no_room
    assert not closed or number == 0
    assert health.failures == before.failures
    started = after_start(health, number or 0)
    assert granted(started, now=NOW)[0] == (None if number is None else 0)


@given(st.lists(st.sampled_from(OutcomeKind), max_size=60))
def test_a_destination_is_never_left_alone_for_good(results: list[OutcomeKind]) -> None:
    health, now = Health(), NOW
    for result in results:
        number, health = granted(health, now=now)
        if number == 0:
            assert health.pause is not None
            assert health.pause.until is not None
            now = health.pause.until
            number, health = granted(health, now=now)
        assert number is None or number > 0
        health = after_start(health, 1)
        health = health_after(health, outcome(result), claimed_at=now, now=now + SECOND)
        now += SECOND

    assert health.failures <= len(results)


def test_a_throttle_stays_when_a_destination_that_failed_is_back() -> None:
    health = after(paused("throttled", failures=BACK_AFTER), OutcomeKind.DELIVERED)

    assert health.pause == paused("throttled").pause
    assert (health.ramp, health.back_at) == (CAME_BACK.ramp, NOW)


@pytest.mark.parametrize(
    ("answers", "left"),
    [(ANSWERS_TO_TRUST - 2, ANSWERS_TO_TRUST - 1), (ANSWERS_TO_TRUST - 1, None)],
)
def test_the_last_answer_of_a_ramp_ends_it(answers: int, left: int | None) -> None:
    ramp = after(Health(ramp=Ramp(room=9, answers=answers)), OutcomeKind.DELIVERED).ramp

    assert (ramp and ramp.answers) == left


def test_a_wait_that_an_earlier_attempt_heard_of_shortens_no_throttle() -> None:
    before = paused("throttled", since=NOW)
    assert before.pause is not None
    long = replace(before, pause=replace(before.pause, until=NOW + 60 * SECOND))
    busy = outcome(OutcomeKind.TRANSIENT, retry_after=SECOND)

    earlier = after(long, busy, claimed_at=NOW - SECOND).pause
    later = after(long, busy).pause

    assert earlier is not None
    assert later is not None
    assert (earlier.until, later.until) == (NOW + 60 * SECOND, NOW + SECOND)
