"""HubSpot's limits are kept request by request, and learnt from its answers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

import pytest
from hubspot_portal import CONTACTS, Portal, deliver

from connectors import Throttled
from connectors.hubspot.allowance import REQUESTS, SEARCHES, SECONDS, Allowance
from connectors.testing import sample_event

LATER = 1_000.0


class Clock:
    """A clock that sleeping advances."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.allowance = Allowance(clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def take(
        self, times: int, *, search: bool = False, ends_at: float = LATER, lasting: float = 0.0
    ) -> None:
        """Make requests, one after the other, that each take *lasting* seconds."""
        for _ in range(times):
            with self.allowance.turn(search=search, ends_at=ends_at):
                self.now += lasting


@pytest.fixture
def clock() -> Clock:
    return Clock()


def said(most: object, left: object, milliseconds: object = 10_000) -> Mapping[str, str]:
    values = {"Max": most, "Remaining": left, "Interval-Milliseconds": milliseconds}
    return {f"X-HubSpot-RateLimit-{name}": str(value) for name, value in values.items()}


@pytest.mark.parametrize(
    ("search", "most", "seconds"), [(False, REQUESTS, SECONDS), (True, SEARCHES, 1.0)]
)
def test_no_window_holds_more_than_its_limit(
    clock: Clock, search: bool, most: int, seconds: float
) -> None:
    begun, ended = [], []
    for number in range(3 * most):
        with clock.allowance.turn(search=search, ends_at=LATER):
            begun.append(clock.now)
            clock.now += 0.03 * (number % 4)
            ended.append(clock.now)
        clock.now += seconds / most / 3

    # Whenever each arrived while it was under way.
    for first, beyond in zip(ended, begun[most:], strict=False):
        assert beyond - first >= seconds - 1e-6


def test_what_is_under_way_is_counted(clock: Clock) -> None:
    with ExitStack() as stack:
        for _ in range(SEARCHES):
            stack.enter_context(clock.allowance.turn(search=True, ends_at=LATER))
        clock.now += 60.0

        with pytest.raises(Throttled):
            clock.take(1, search=True, ends_at=clock.now + 0.04)


def test_searches_and_requests_have_limits_of_their_own(clock: Clock) -> None:
    clock.take(REQUESTS)
    clock.take(SEARCHES, search=True)

    assert clock.slept == []


def test_a_wait_beyond_the_deadline_is_throttled_without_a_request(clock: Clock) -> None:
    clock.take(REQUESTS)
    clock.now += 4.0

    with pytest.raises(Throttled, match="not sent: 100 requests in 10 s") as caught:
        clock.take(1, ends_at=clock.now + 5.0)

    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == pytest.approx(6.0)
    assert clock.slept == []


def test_the_accounts_own_limit_is_learnt(clock: Clock) -> None:
    clock.take(1)
    clock.allowance.learn(said(190, 189))
    clock.take(189)
    assert clock.slept == []

    clock.take(1)

    assert sum(clock.slept) == pytest.approx(10.0)


def test_what_other_processes_sent_is_counted(clock: Clock) -> None:
    clock.take(1)
    clock.allowance.learn(said(100, 2))

    clock.take(2)
    assert clock.slept == []
    clock.take(1)

    assert clock.slept != []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        said(0, 0),
        said(-1, 5),
        said("many", 5),
        said(10**12, 5),
        said(20_000, 0),
        said("²", "²"),
    ],
)
def test_headers_that_make_no_sense_change_nothing(
    clock: Clock, headers: Mapping[str, str]
) -> None:
    clock.allowance.learn(headers)

    clock.take(REQUESTS)
    assert clock.slept == []
    clock.take(1)
    assert sum(clock.slept) == pytest.approx(10.0)


def test_a_destination_keeps_to_the_limit_that_hubspot_names(portal: Portal) -> None:
    portal.ask("PATCH", "/sandbox", {"ten_secondly": 8})
    connector = portal.connector()
    thread = deliver(connector).thread
    portal.calls.clear()

    for number in range(5):
        deliver(connector, key=f"more-{number}", thread=thread)
    with pytest.raises(Throttled, match="not sent"):
        deliver(connector, key="too-many", thread=thread, deadline=1.0)

    assert len(portal.calls) == 5


def test_six_new_customers_in_a_second_are_five_searches(portal: Portal) -> None:
    portal.ask("PATCH", "/sandbox", {"searches_a_second": SEARCHES})
    connector = portal.connector()

    for number in range(SEARCHES + 1):
        event = sample_event(customer=f"+6140000000{number}")
        deliver(connector, event, key=f"key-{number}")

    assert portal.calls.count(f"POST {CONTACTS}/search") == SEARCHES + 1
    assert len(portal.stand_in.page()) == SEARCHES + 1
