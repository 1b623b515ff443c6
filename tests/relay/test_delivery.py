"""What becomes of a delivery: every outcome under every policy, and the waits in between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import (
    Ambiguous,
    ContractError,
    DeliveryError,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from relay.rules.delivery import (
    DEFAULT_SCHEDULE,
    DEFAULT_WAIT,
    DEFAULT_WINDOW,
    LONGEST_WAIT,
    SHORTEST_WAIT,
    Decision,
    Outcome,
    OutcomeKind,
    Policy,
    State,
    Tries,
    bug,
    decide,
    delivered,
    outcome_of,
)
from relay.rules.health import PROBE_EVERY

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
FIRST = Tries(attempts=1, repeat=False, failing_since=None)
#: Two failures behind it, and an attempt of which nobody knows what it did.
THIRD = Tries(attempts=3, repeat=True, failing_since=NOW - HOUR)
PAUSING = {OutcomeKind.THROTTLED, OutcomeKind.UNAUTHORIZED}

DURATIONS = st.timedeltas(min_value=timedelta(), max_value=timedelta(days=30))
SCHEDULES = st.lists(DURATIONS, min_size=1, max_size=12)
SEEDS = st.integers()
STANDINGS = st.builds(
    Tries,
    attempts=st.integers(1, 40),
    repeat=st.booleans(),
    failing_since=st.none() | DURATIONS.map(lambda ago: NOW - ago),
)
POLICIES = st.builds(
    Policy,
    schedule=SCHEDULES,
    window=DURATIONS,
    on_ambiguous=st.sampled_from(["retry", "hold"]),
    on_dead=st.sampled_from(["skip", "hold"]),
)
OUTCOMES = st.builds(
    Outcome,
    kind=st.sampled_from(OutcomeKind),
    detail=st.just("why"),
    retry_after=st.none() | st.timedeltas(-HOUR, timedelta(days=400)),
    scope=st.sampled_from(["conversation", "destination"]),
    acted=st.booleans(),
)


class Halfway(Random):
    """Draws the middle, always."""

    def random(self) -> float:
        return 0.5


def decided(
    result: OutcomeKind | Outcome, tries: Tries = FIRST, policy: Policy | None = None
) -> Decision:
    outcome = result if isinstance(result, Outcome) else Outcome(kind=result, detail="why")
    return decide(tries, outcome, policy=policy or Policy(), now=NOW, rng=Halfway())


class TestOutcome:
    def test_an_error_of_the_contract_keeps_its_words_and_status(self) -> None:
        rows = [
            (Transient("why", status=503), OutcomeKind.TRANSIENT),
            (Ambiguous("why", status=503), OutcomeKind.AMBIGUOUS),
            (Refused("why", status=503), OutcomeKind.REFUSED),
            (Unauthorized("why", status=503), OutcomeKind.UNAUTHORIZED),
        ]

        for error, kind in rows:
            assert outcome_of(error) == Outcome(kind=kind, detail="why", status=503)

    @pytest.mark.parametrize("kind", [Transient, Throttled, Ambiguous, Refused, Unauthorized])
    def test_what_was_done_before_an_error_is_not_forgotten(
        self, kind: type[DeliveryError]
    ) -> None:
        error = kind("logged, but not on a ticket")
        error.acted = True

        assert outcome_of(error).acted
        assert decided(outcome_of(error)).repeat

    @pytest.mark.parametrize("scope", ["conversation", "destination"])
    def test_throttling_keeps_what_was_asked_for(
        self, scope: Literal["conversation", "destination"]
    ) -> None:
        error = Throttled("why", retry_after=MINUTE, scope=scope, status=429)

        assert outcome_of(error) == Outcome(
            kind=OutcomeKind.THROTTLED, detail="why", status=429, retry_after=MINUTE, scope=scope
        )

    def test_a_subclass_counts_as_what_it_is(self) -> None:
        class Gone(Refused):
            pass

        assert outcome_of(Gone("why")).kind is OutcomeKind.REFUSED

    def test_an_error_without_words_is_named(self) -> None:
        rows = [Transient, Throttled, Ambiguous, Refused, Unauthorized]

        for kind in rows:
            assert outcome_of(kind("")).detail == kind.__name__

    def test_words_that_cannot_be_stored_are_cleaned(self) -> None:
        error = Refused("vendor said \0\ud800!")

        assert outcome_of(error).detail == "vendor said ?!"

    def test_every_error_may_say_how_long_to_wait(self) -> None:
        for kind in (Transient, Ambiguous, Refused, Unauthorized):
            assert outcome_of(kind("why", retry_after=60)).retry_after == MINUTE

    def test_the_root_of_the_tree_does_not_say_what_happened(self) -> None:
        with pytest.raises(ContractError, match="raised DeliveryError"):
            outcome_of(DeliveryError("hidden text", status=500))


class TestBug:
    def test_it_is_ambiguous_and_the_text_is_hidden(self) -> None:
        for error in (ValueError("hidden"), TimeoutError("hidden"), KeyboardInterrupt("hidden")):
            assert bug(error, where="acme/chat.py:7") == Outcome(
                kind=OutcomeKind.AMBIGUOUS,
                detail=f"bug in the connector (acme/chat.py:7): {type(error).__name__}",
            )

    def test_the_contracts_own_words_are_shown(self) -> None:
        error = ContractError("Receipt.url takes text or a number, not list")

        assert bug(error, where="chat.py:7").detail == (
            "bug in the connector (chat.py:7): Receipt.url takes text or a number, not list"
        )


class TestDelivered:
    def test_a_receipt_is_kept(self) -> None:
        receipt = Receipt(reference="4711", url="https://example.com/4711", thread="815")

        assert delivered(receipt) == Outcome(kind=OutcomeKind.DELIVERED, receipt=receipt)

    @pytest.mark.parametrize("missing", [None, ""])
    def test_a_receipt_may_say_little(self, missing: str | None) -> None:
        receipt = Receipt(reference="4711", url=missing, thread=missing)

        assert delivered(receipt).receipt == receipt

    def test_what_cannot_be_stored_of_a_receipt_is_cleaned(self) -> None:
        receipt = Receipt(reference="a\0\ud800", url="b\0\ud800", thread="c\0\ud800")

        assert delivered(receipt).receipt == Receipt(reference="a?", url="b?", thread="c?")


#: The first attempt and a later one, under every policy.
EVERY_POLICY = [
    (tries, Policy(on_ambiguous=on_ambiguous, on_dead=on_dead))
    for tries in (FIRST, THIRD)
    for on_ambiguous in ("retry", "hold")
    for on_dead in ("skip", "hold")
]


class TestEveryPolicy:
    def test_what_arrived_is_delivered(self) -> None:
        for tries, policy in EVERY_POLICY:
            outcome = Outcome(kind=OutcomeKind.DELIVERED, receipt=Receipt(reference="1"))

            assert decided(outcome, tries, policy) == Decision(
                state=State.DELIVERED, attempts=tries.attempts, repeat=tries.repeat
            )

    def test_what_is_refused_is_dead_or_parked(self) -> None:
        for tries, policy in EVERY_POLICY:
            held = policy.on_dead == "hold"

            assert decided(OutcomeKind.REFUSED, tries, policy) == Decision(
                state=State.HELD if held else State.DEAD,
                attempts=tries.attempts,
                repeat=tries.repeat,
                reason="refused: why",
                parks=held,
            )

    def test_a_wait_that_a_failing_system_asks_for_is_kept_and_costs_an_attempt(self) -> None:
        waits = [(48 * HOUR, LONGEST_WAIT), (2 * HOUR, 2 * HOUR), (SECOND / 2, None)]
        for tries, policy in EVERY_POLICY:
            for kind in (OutcomeKind.TRANSIENT, OutcomeKind.AMBIGUOUS):
                for asked, wait in waits:
                    failed = Outcome(kind=kind, detail="why")
                    usual = decided(failed, tries, policy)
                    decision = decided(replace(failed, retry_after=asked), tries, policy)

                    if usual.due_at is not None and wait is not None:
                        usual = replace(usual, due_at=NOW + wait)
                    assert replace(decision, hurry_from=None) == replace(usual, hurry_from=None)

    def test_a_transient_failure_is_tried_again(self) -> None:
        for tries, policy in EVERY_POLICY:
            cap = DEFAULT_SCHEDULE[tries.attempts - 1]

            assert decided(OutcomeKind.TRANSIENT, tries, policy) == Decision(
                state=State.PENDING,
                due_at=NOW + cap / 2,
                hurry_from=NOW,
                attempts=tries.attempts,
                repeat=tries.repeat,
                failing_since=tries.failing_since or NOW,
            )

    @pytest.mark.parametrize(
        ("kind", "asked", "failures", "hurried"),
        [
            (OutcomeKind.TRANSIENT, None, 1, timedelta()),
            (OutcomeKind.TRANSIENT, None, 9, timedelta()),
            (OutcomeKind.TRANSIENT, 20 * SECOND, 9, 20 * SECOND),
            # The whole wait was asked for.
            (OutcomeKind.TRANSIENT, 2 * HOUR, 9, None),
            (OutcomeKind.THROTTLED, 20 * SECOND, 1, None),
            # The system may still be acting.
            (OutcomeKind.AMBIGUOUS, None, 1, None),
            (OutcomeKind.AMBIGUOUS, None, 9, MINUTE),
            (OutcomeKind.AMBIGUOUS, 90 * SECOND, 9, 90 * SECOND),
            # It waits for the destination and for nothing else.
            (OutcomeKind.UNAUTHORIZED, None, 1, None),
        ],
    )
    def test_a_wait_may_end_early_except_for_what_was_asked_for_or_is_in_doubt(
        self,
        kind: OutcomeKind,
        asked: timedelta | None,
        failures: int,
        hurried: timedelta | None,
    ) -> None:
        failed = Outcome(kind=kind, detail="why", retry_after=asked)
        tries = Tries(attempts=failures, repeat=False, failing_since=NOW)

        decision = decided(failed, tries, Policy())

        assert decision.hurry_from == (None if hurried is None else NOW + hurried)

    def test_doubt_is_repeated_as_such_or_held(self) -> None:
        for tries, policy in EVERY_POLICY:
            # Halfway between half and all of it.
            wait = DEFAULT_SCHEDULE[tries.attempts - 1] * 3 / 4
            wanted = Decision(
                state=State.PENDING,
                due_at=NOW + wait,
                hurry_from=NOW + MINUTE if wait > MINUTE else None,
                attempts=tries.attempts,
                repeat=True,
                failing_since=tries.failing_since or NOW,
            )
            if policy.on_ambiguous == "hold":
                wanted = Decision(
                    state=State.HELD,
                    attempts=tries.attempts,
                    repeat=True,
                    reason="ambiguous: why",
                )

            assert decided(OutcomeKind.AMBIGUOUS, tries, policy) == wanted

    def test_throttling_costs_no_attempt(self) -> None:
        for tries, policy in EVERY_POLICY:
            outcome = Outcome(kind=OutcomeKind.THROTTLED, detail="why", retry_after=MINUTE)

            assert decided(outcome, tries, policy) == Decision(
                state=State.PENDING,
                due_at=NOW + MINUTE,
                attempts=tries.attempts - 1,
                repeat=tries.repeat,
                failing_since=tries.failing_since,
            )

    def test_bad_credentials_cost_no_attempt(self) -> None:
        for tries, policy in EVERY_POLICY:
            assert decided(OutcomeKind.UNAUTHORIZED, tries, policy) == Decision(
                state=State.PENDING,
                due_at=NOW,
                attempts=tries.attempts - 1,
                repeat=tries.repeat,
                failing_since=tries.failing_since,
            )

    def test_after_the_window_it_is_exhausted(self) -> None:
        for tries, policy in EVERY_POLICY:
            for result in (OutcomeKind.TRANSIENT, OutcomeKind.AMBIGUOUS):
                late = replace(tries, failing_since=NOW - policy.window)
                held = policy.on_dead == "hold"
                wanted = Decision(
                    state=State.HELD if held else State.DEAD,
                    attempts=late.attempts,
                    repeat=late.repeat or result is OutcomeKind.AMBIGUOUS,
                    reason=f"exhausted after {late.attempts} attempts: why",
                    parks=held,
                )
                if result is OutcomeKind.AMBIGUOUS and policy.on_ambiguous == "hold":
                    wanted = replace(
                        wanted, state=State.HELD, reason="ambiguous: why", parks=False
                    )

                assert decided(result, late, policy) == wanted


@pytest.mark.parametrize(
    ("failing_for", "state"),
    [
        (None, State.PENDING),  # the first failure opens the window
        (timedelta(), State.PENDING),
        (DEFAULT_WINDOW - timedelta(microseconds=1), State.PENDING),
        (DEFAULT_WINDOW, State.DEAD),
        (DEFAULT_WINDOW + SECOND, State.DEAD),
    ],
)
def test_the_window_counts_from_the_first_failure(
    failing_for: timedelta | None, state: State
) -> None:
    since = failing_for if failing_for is None else NOW - failing_for

    assert decided(OutcomeKind.TRANSIENT, replace(FIRST, failing_since=since)).state is state


def test_without_a_window_the_first_failure_is_the_last() -> None:
    decision = decided(OutcomeKind.TRANSIENT, policy=Policy(window=timedelta()))

    assert decision.reason == "exhausted after 1 attempts: why"


@pytest.mark.parametrize("result", [OutcomeKind.THROTTLED, OutcomeKind.UNAUTHORIZED])
def test_no_window_ends_while_the_destination_is_the_cause(result: OutcomeKind) -> None:
    ancient = replace(THIRD, failing_since=NOW - 10 * DEFAULT_WINDOW)

    assert decided(result, ancient).state is State.PENDING


def test_a_retry_after_is_honoured_within_bounds() -> None:
    rows = [
        (None, DEFAULT_WAIT),
        (timedelta(), DEFAULT_WAIT),  # "at once" to a limit that was just hit is no advice
        (-HOUR, SHORTEST_WAIT),
        (timedelta(microseconds=1), SHORTEST_WAIT),
        (SHORTEST_WAIT, SHORTEST_WAIT),
        (SHORTEST_WAIT + timedelta(microseconds=1), SHORTEST_WAIT + timedelta(microseconds=1)),
        (37 * SECOND, 37 * SECOND),
        (LONGEST_WAIT, LONGEST_WAIT),
        (LONGEST_WAIT + SECOND, LONGEST_WAIT),
        (timedelta.max, LONGEST_WAIT),
    ]

    for retry_after, wait in rows:
        for scope in ("conversation", "destination"):
            outcome = Outcome(kind=OutcomeKind.THROTTLED, retry_after=retry_after, scope=scope)
            assert decided(outcome).due_at == NOW + wait, retry_after


def test_the_defaults_are_those_that_the_documentation_gives() -> None:
    policy = Policy()

    assert [int(wait.total_seconds()) for wait in policy.schedule] == [
        5, 30, 120, 600, 1800,
    ]  # fmt: skip
    assert policy.window == timedelta(days=3)
    assert (policy.on_ambiguous, policy.on_dead) == ("retry", "skip")
    assert (PROBE_EVERY, DEFAULT_WAIT) == (5 * MINUTE, 10 * SECOND)
    assert (SHORTEST_WAIT, LONGEST_WAIT) == (SECOND, 24 * HOUR)


@pytest.mark.parametrize(
    ("failures", "cap"),
    [(1, 10), (2, 20), (3, 40), (4, 40), (400, 40)],  # the last wait repeats
)
def test_the_schedule_gives_the_longest_wait(failures: int, cap: int) -> None:
    policy = Policy(schedule=[10 * SECOND, 20 * SECOND, 40 * SECOND])

    assert policy.backoff(failures, Halfway()) == cap * SECOND / 2


@given(SCHEDULES, st.integers(1, 100), SEEDS)
def test_a_wait_is_never_negative_and_never_above_its_cap(
    schedule: Sequence[timedelta], failures: int, seed: int
) -> None:
    wait = Policy(schedule=schedule).backoff(failures, Random(seed))

    assert timedelta() <= wait <= schedule[min(failures, len(schedule)) - 1]


def test_waits_are_spread_over_the_whole_of_the_cap() -> None:
    rng = Random(1)
    waits = [Policy(schedule=[10 * SECOND]).backoff(1, rng) for _ in range(1000)]

    assert min(waits) < SECOND
    assert max(waits) > 9 * SECOND


@given(STANDINGS, OUTCOMES, POLICIES, SEEDS)
def test_a_decision_is_sound(tries: Tries, outcome: Outcome, policy: Policy, seed: int) -> None:
    decision = decide(tries, outcome, policy=policy, now=NOW, rng=Random(seed))

    # Either there is a next attempt, and it is not in the past, or the series is over.
    assert decision.ends is (decision.due_at is None)
    assert decision.due_at is None or decision.due_at >= NOW
    assert decision.ends is (decision.state is not State.PENDING)
    # What is over without success says why.
    assert bool(decision.reason) is (decision.state in (State.DEAD, State.HELD))
    # What was done, or may have been, is never forgotten, and comes from nothing else.
    doubt = tries.repeat or outcome.acted or outcome.kind is OutcomeKind.AMBIGUOUS
    assert decision.repeat is doubt
    # Only waiting for the destination gives an attempt back.
    assert tries.attempts - decision.attempts == (outcome.kind in PAUSING)
    # Only what died and is held parks its conversation.
    assert not decision.parks or (decision.state, policy.on_dead) == (State.HELD, "hold")


@given(STANDINGS, POLICIES, SEEDS)
def test_no_wait_is_shorter_than_a_clamped_retry_after(
    tries: Tries, policy: Policy, seed: int
) -> None:
    for asked in (SHORTEST_WAIT, MINUTE, LONGEST_WAIT, 2 * LONGEST_WAIT):
        outcome = Outcome(kind=OutcomeKind.THROTTLED, retry_after=asked)

        decision = decide(tries, outcome, policy=policy, now=NOW, rng=Random(seed))

        assert decision.due_at == NOW + min(asked, LONGEST_WAIT)


@given(POLICIES, SEEDS)
def test_a_delivery_that_only_fails_is_over_some_time(policy: Policy, seed: int) -> None:
    policy = replace(policy, schedule=[max(wait, HOUR) for wait in policy.schedule])
    rng, now, tries = Random(seed), NOW, FIRST
    outcome = Outcome(kind=OutcomeKind.TRANSIENT, detail="why")

    for _ in range(100_000):
        decision = decide(tries, outcome, policy=policy, now=now, rng=rng)
        if decision.due_at is None:
            break
        now = decision.due_at
        tries = Tries(
            attempts=decision.attempts + 1,
            repeat=decision.repeat,
            failing_since=decision.failing_since,
        )

    assert decision.ends
    assert now - NOW <= policy.window + max(policy.schedule)


def test_what_is_not_said_is_not_there() -> None:
    assert asdict(Outcome(kind=OutcomeKind.DELIVERED)) == {
        "kind": OutcomeKind.DELIVERED,
        "detail": "",
        "status": None,
        "retry_after": None,
        "scope": "destination",
        "receipt": None,
        "lost": False,
        "begun": True,
        "acted": False,
    }
    assert asdict(Decision(state=State.DELIVERED, attempts=1, repeat=False)) == {
        "state": State.DELIVERED,
        "due_at": None,
        "hurry_from": None,
        "attempts": 1,
        "repeat": False,
        "failing_since": None,
        "reason": "",
        "parks": False,
    }


def test_what_is_stored_keeps_its_words() -> None:
    # Stores of earlier versions hold them.
    assert [str(each) for each in State] == [
        "waiting", "pending", "in_flight", "delivered", "dead", "held",
    ]  # fmt: skip
    assert [str(each) for each in OutcomeKind] == [
        "delivered", "transient", "throttled", "ambiguous", "refused", "unauthorized",
    ]  # fmt: skip


def test_a_series_ends_in_three_states() -> None:
    rows = [
        (State.WAITING, False),
        (State.PENDING, False),
        (State.IN_FLIGHT, False),
        (State.DELIVERED, True),
        (State.DEAD, True),
        (State.HELD, True),
    ]

    wrong = [
        (state, got)
        for state, ends in rows
        if (got := Decision(state=state, attempts=1, repeat=False).ends) != ends
    ]

    assert wrong == []


@given(POLICIES, SEEDS, st.integers(1, 50))
def test_after_doubt_at_least_half_of_the_schedule_is_waited_for(
    policy: Policy, seed: int, failures: int
) -> None:
    cap = policy.schedule[min(failures, len(policy.schedule)) - 1]

    wait = policy.backoff(failures, Random(seed), doubtful=True)

    assert cap / 2 <= wait <= cap


def test_what_was_not_begun_goes_back_at_once_and_costs_no_attempt() -> None:
    tries = Tries(attempts=3, repeat=True, failing_since=NOW - MINUTE)

    outcome = Outcome(kind=OutcomeKind.TRANSIENT, begun=False)

    assert decided(outcome, tries) == Decision(
        state=State.PENDING, due_at=NOW, attempts=2, repeat=True, failing_since=NOW - MINUTE
    )
