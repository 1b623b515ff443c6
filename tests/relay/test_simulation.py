"""The model of benchmarks/simulate.py: where a formula is known, it comes to the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

import pytest
import simpy
from simulate import Design, Figures, Gathering, Machines, Station, World, at, designs, simulate

# The relay does not use the model, so only CI runs these by default.
pytestmark = pytest.mark.slow

#: So many that chance moves a mean by about 5 %.
EVENTS = 60_000
FIGURES = Figures()


def mean_wait(servers: int, service: Callable[[Random], float], *, rate: float) -> float:
    """Return how long customers wait who come at random; services take 1 s on average."""
    env, rng, stays = simpy.Environment(), Random(7), []
    station = Station(env, servers, lambda: service(rng))

    def stay() -> simpy.events.ProcessGenerator:
        come = env.now
        yield from station.visit()
        stays.append(env.now - come)

    def arrive() -> simpy.events.ProcessGenerator:
        for _ in range(EVENTS):
            yield env.timeout(rng.expovariate(rate))
            env.process(stay())

    env.process(arrive())
    env.run()
    return sum(stays[EVENTS // 10 :]) / len(stays[EVENTS // 10 :]) - 1


def erlang_wait(servers: int, *, rate: float) -> float:
    """Return the mean wait of M/M/c with a mean service of one second (Erlang's C)."""
    terms = [rate**n / math.factorial(n) for n in range(servers)]
    last = rate**servers / math.factorial(servers) * servers / (servers - rate)
    return last / (sum(terms) + last) / (servers - rate)


def cosmetatos_wait(servers: int, *, rate: float) -> float:
    """Return the mean wait of M/D/c by Cosmetatos' approximation, good to a percent or two."""
    rho = rate / servers
    bend = (1 - rho) * (servers - 1) * (math.sqrt(4 + 5 * servers) - 2) / (16 * rho * servers)
    return erlang_wait(servers, rate=rate) / 2 * (1 + bend)


@pytest.mark.parametrize(("servers", "rate"), [(1, 0.5), (1, 0.7), (4, 2.8)])
def test_waits_before_random_services_are_those_of_erlang(servers: int, rate: float) -> None:
    waited = mean_wait(servers, lambda rng: rng.expovariate(1.0), rate=rate)

    assert waited == pytest.approx(erlang_wait(servers, rate=rate), rel=0.1)


def test_waits_before_one_even_service_are_those_of_pollaczek_and_khinchine() -> None:
    waited = mean_wait(1, lambda _: 1.0, rate=0.7)

    assert waited == pytest.approx(0.7 / (2 * (1 - 0.7)), rel=0.1)


@pytest.mark.parametrize(("servers", "rate"), [(2, 1.4), (4, 2.8)])
def test_waits_before_several_even_services_are_those_of_cosmetatos(
    servers: int, rate: float
) -> None:
    waited = mean_wait(servers, lambda _: 1.0, rate=rate)

    assert waited == pytest.approx(cosmetatos_wait(servers, rate=rate), rel=0.1)


def test_who_comes_during_a_commit_shares_the_next_one() -> None:
    env, groups, ends = simpy.Environment(), [], []

    def commit(count: int) -> simpy.events.ProcessGenerator:
        groups.append(count)
        yield env.timeout(10)

    gathering = Gathering(env, commit, limit=3)

    def come(at: float) -> simpy.events.ProcessGenerator:
        yield env.timeout(at)
        yield gathering.join()
        ends.append((at, env.now))

    for moment in (0, 1, 2, 3, 4):
        env.process(come(moment))
    env.run()

    assert groups == [1, 3, 1]
    assert ends == [(0, 10), (1, 20), (2, 20), (3, 20), (4, 30)]


def test_a_lone_event_takes_what_its_steps_take() -> None:
    design = Design(name="one")
    delays = World(design, FIGURES, Machines(), 0.5, Random(1)).run(100)

    accepted = (FIGURES.receiver + FIGURES.accepting + FIGURES.sync) / 1e6
    received = (FIGURES.delivering / 2 + FIGURES.sync + FIGURES.worker) / 1e6
    assert at(delays.accepted, 0.5) == pytest.approx(accepted)
    assert at(delays.received, 0.5) == pytest.approx(received)


def test_every_event_is_answered_and_received() -> None:
    for design in designs(FIGURES, databases=4, skew=0.5):
        delays = World(design, FIGURES, Machines(), 500.0, Random(1)).run(1000)

        assert len(delays.accepted) == len(delays.received) == 800


def test_where_a_database_cannot_keep_up_only_a_broker_answers() -> None:
    alone, behind = Design(name="alone"), Design(name="behind", broker=True)
    beyond = Machines().cores / (FIGURES.accepting + FIGURES.delivering) * 1e6 * 1.1
    found = [
        simulate(each, FIGURES, Machines(), beyond, events=2000, seed=1)
        for each in (alone, behind)
    ]

    assert "accept_p50_ms" not in found[0]
    assert found[1]["accept_p99_ms"] < 50
    assert "receipt_p50_ms" not in found[1]
