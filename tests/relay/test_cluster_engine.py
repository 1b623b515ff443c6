"""The fleet as operators run it: `celery -A relay.cluster worker`, on RabbitMQ and on Redis."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import brokers
import pytest
from celery import Celery
from fleets import Fleet, migrated_store
from programs import eventually
from receiver import Receiver

from relay.cluster.hints import Hints, waiting
from relay.cluster.settings import declared

pytestmark = pytest.mark.slow

Missing = Callable[[str, str], None]


@contextmanager
def _broker(kind: str, folder: Path, missing: Missing) -> Iterator[str]:
    if kind == "rabbitmq":
        if reason := brokers.no_rabbitmq():
            missing(kind, reason)
        with brokers.new_vhost() as url:
            yield url
        return
    if reason := brokers.no_redis():
        missing(kind, reason)
    redis = brokers.Redis(folder)
    redis.start()
    try:
        yield redis.url
    finally:
        redis.stop()


@pytest.fixture(scope="module", params=["rabbitmq", "redis"])
def fleet(
    request: pytest.FixtureRequest,
    server: None,
    missing: Missing,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Fleet]:
    """A receiver, a worker and a beat for all tests of a broker, which name messages apart."""
    folder = tmp_path_factory.mktemp("fleet")
    with (
        _broker(request.param, folder, missing) as broker,
        migrated_store() as store,
        Receiver() as system,
        closing(Fleet(folder, store=store, broker=broker, system=system)) as fleet,
        ThreadPoolExecutor(3) as starting,
    ):
        starts = [starting.submit(start) for start in (fleet.web, fleet.beat, fleet.worker)]
        _, fleet.clock, fleet.first = (start.result() for start in starts)
        yield fleet


def test_conversations_arrive_in_their_order_and_nothing_twice(fleet: Fleet) -> None:
    names = {who: [f"order-{who}-{number}" for number in range(8)] for who in range(4)}

    def talk(who: int) -> None:
        for name in names[who]:
            fleet.post(name, customer=10 + who)

    talkers = [threading.Thread(target=talk, args=(who,)) for who in names]
    for talker in talkers:
        talker.start()
    for talker in talkers:
        talker.join()

    everything = [name for said in names.values() for name in said]
    eventually(lambda: fleet.are("delivered", everything))
    for who, said in names.items():
        assert fleet.system.names(f"order-{who}-") == said


def test_a_hint_is_given_at_once(fleet: Fleet) -> None:
    # Not by a sweep: those come every five seconds when no beat asks for them.
    fleet.clock.send_signal(signal.SIGSTOP)
    took = []
    for number in range(5):
        started = time.monotonic()
        fleet.post(f"soon-{number}", customer=20)
        eventually(lambda number=number: f"soon-{number}" in fleet.system.names("soon-"))
        took.append(time.monotonic() - started)
    fleet.clock.send_signal(signal.SIGCONT)
    assert min(took) < 1.0


def test_what_fails_is_tried_again_and_what_is_refused_is_dead(fleet: Fleet) -> None:
    fleet.system.script["fails"] = [503, 503]
    fleet.system.script["refused"] = [422]
    fleet.system.script["throttled"] = [429]
    names = ["fails", "refused", "throttled"]

    for number, name in enumerate(names):
        fleet.post(name, customer=30 + number)

    eventually(lambda: fleet.are("dead", ["refused"]))
    eventually(lambda: fleet.are("delivered", ["fails", "throttled"]))
    assert fleet.attempts(names) == {
        "fails": ["ambiguous", "ambiguous", "delivered"],
        "refused": ["refused"],
        "throttled": ["throttled", "delivered"],
    }


def test_hints_that_are_lost_or_doubled_change_nothing(fleet: Fleet) -> None:
    queue = declared("gofax.flow")
    names = [f"hints-{number}" for number in range(40)]
    done = threading.Event()

    def meddle() -> None:
        with fleet.queues() as connection, connection.channel() as channel:
            while not done.is_set():
                # Nobody else may have made it yet.
                queue(channel).queue_declare()
                queue(channel).purge()

    meddler = threading.Thread(target=meddle)
    meddler.start()
    for number, name in enumerate(names):
        fleet.post(name, customer=40 + number % 4)
    done.set()
    meddler.join()
    with closing(Celery(broker=fleet.broker)) as stranger:
        for _ in range(200):
            stranger.send_task("relay.deliver", ("flow",), queue=queue)
        stranger.send_task("relay.sweep", queue=declared("gofax"))

    eventually(lambda: fleet.are("delivered", names))
    assert sorted(fleet.system.names("hints-")) == sorted(names)
    for who in range(4):
        came = [name for name in fleet.system.names("hints-") if int(name[6:]) % 4 == who]
        assert came == names[who::4]


def test_no_more_hints_wait_than_a_destination_takes_at_a_time(fleet: Fleet) -> None:
    queue = declared("gofax.idle")
    with closing(Celery(broker=fleet.broker)) as app:
        app.conf.task_queues = [queue]
        hints = Hints(app, {"idle": 3})
        for _ in range(20):
            hints.give({"idle": 5})
            time.sleep(0.02)
        hints.close()
    with fleet.queues() as connection, connection.channel() as channel:
        eventually(lambda: waiting(channel, queue.name) > 0)
        # What RabbitMQ says of a quorum queue may be a moment old.
        assert waiting(channel, queue.name) <= 6


def test_a_destination_that_hangs_takes_nobodys_place(fleet: Fleet) -> None:
    stuck = [f"stuck-{number}" for number in range(6)]
    for number, name in enumerate(stuck):
        fleet.system.script[name] = ["hang"]
        fleet.post(name, customer=50 + number, type="SLOW")
    eventually(lambda: len(fleet.system.names("stuck-")) == 2)

    names = [f"beside-{number}" for number in range(20)]
    for number, name in enumerate(names):
        fleet.post(name, customer=60 + number)

    eventually(lambda: fleet.are("delivered", names))
    assert len(fleet.system.names("stuck-")) == 2
    fleet.system.released.set()
    eventually(lambda: fleet.are("delivered", stuck))
    fleet.system.released.clear()


def test_a_worker_that_is_told_to_stop_finishes_what_runs_and_another_does_the_rest(
    fleet: Fleet,
) -> None:
    first, fleet.first = fleet.first, fleet.worker()
    fleet.system.script |= {f"last-{number}": ["hang"] for number in range(8)}
    # As many as both take at a time.
    for number in range(8):
        fleet.post(f"last-{number}", customer=90 + number)
    eventually(lambda: len(fleet.system.names("last-")) == 8)

    first.send_signal(signal.SIGTERM)
    eventually(lambda: "Warm shutdown" in fleet.said(first))
    fleet.post("after", customer=99)
    fleet.system.released.set()

    assert first.wait(12) == 0
    assert '"left_to_their_leases":0' in fleet.said(first)
    names = [f"last-{number}" for number in range(8)] + ["after"]
    eventually(lambda: fleet.are("delivered", names))
    assert fleet.attempts(names) == dict.fromkeys(names, ["delivered"])
    fleet.system.released.clear()


@pytest.mark.slow
def test_a_worker_may_come_back_while_the_broker_still_has_its_connection_of_before(
    fleet: Fleet,
) -> None:
    name = ("-n", "relay@twin")
    before = fleet.worker(*name)
    fleet.first.send_signal(signal.SIGSTOP)
    fleet.post("by-the-one", customer=110)
    eventually(lambda: fleet.are("delivered", ["by-the-one"]))

    before.send_signal(signal.SIGSTOP)
    again = fleet.worker(*name)
    fleet.post("by-the-other", customer=111)

    eventually(lambda: fleet.are("delivered", ["by-the-other"]))
    assert again.poll() is None
    fleet.first.send_signal(signal.SIGCONT)
    for each in (before, again):
        each.kill()
        each.wait(20)
