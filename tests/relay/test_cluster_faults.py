"""The fleet while its broker stops and starts, its workers are killed, and people look at it."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import brokers
import psycopg
import pytest
import requests
from brokers import RabbitNode, Redis
from fleets import Fleet, migrated_store
from programs import eventually, free_port
from receiver import Receiver

pytestmark = pytest.mark.slow

Missing = Callable[[str, str], None]
NewFleet = Callable[..., Fleet]
Process = subprocess.Popen[bytes]


@pytest.fixture
def new_fleet(server: None, tmp_path: Path) -> Iterator[NewFleet]:
    """Make a fleet with a store and a system of its own; nothing of it runs yet."""
    with ExitStack() as stack:

        def new_fleet(broker: str, **options: str) -> Fleet:
            store = stack.enter_context(migrated_store())
            system = stack.enter_context(Receiver())
            fleet = Fleet(tmp_path, store=store, broker=broker, system=system, **options)
            return stack.enter_context(closing(fleet))

        yield new_fleet


@pytest.fixture(
    params=[
        pytest.param(RabbitNode, id="rabbitmq"),
        pytest.param(Redis, id="redis", marks=pytest.mark.long),
    ]
)
def broker(
    request: pytest.FixtureRequest, tmp_path: Path, missing: Missing
) -> Iterator[RabbitNode | Redis]:
    """A broker of the test's own."""
    kind = "redis" if request.param is Redis else "rabbitmq"
    if reason := brokers.no_redis() if request.param is Redis else brokers.no_rabbit_node():
        missing(kind, reason)
    folder = tmp_path / "broker"
    folder.mkdir()
    made = request.param(folder)
    made.start()
    yield made
    made.stop()


def _start(*starts: Callable[[], Process]) -> list[Process]:
    with ThreadPoolExecutor(len(starts)) as starting:
        return [each.result() for each in [starting.submit(start) for start in starts]]


def test_a_broker_that_stops_and_starts_delays_no_answer_and_loses_no_delivery(
    broker: RabbitNode | Redis, new_fleet: NewFleet
) -> None:
    fleet = new_fleet(broker.url)
    web, worker, _, _ = _start(fleet.web, fleet.worker, fleet.worker, fleet.beat)
    names = []

    def say(count: int) -> list[float]:
        new = [f"m{len(names) + number}" for number in range(count)]
        names.extend(new)
        return [fleet.post(name, customer=number % 3) for number, name in enumerate(new)]

    usual = say(12)
    eventually(lambda: fleet.are("delivered", names))
    # RabbitMQ 3.10 writes down after half a second which quorum queues it has (docs/scaling.md).
    time.sleep(2)
    for _ in range(2):
        say(6)
        broker.stop()
        meanwhile = say(12)
        time.sleep(3)
        meanwhile += say(3)
        broker.start()
        assert max(meanwhile) < max(usual) + 2.0
        say(6)
        eventually(lambda: fleet.are("delivered", names))

    assert sorted(fleet.system.names("m")) == sorted(names)
    assert {len(each) for each in fleet.attempts(names).values()} == {1}
    said = fleet.said(web)
    assert said.count("broker.unavailable") in (1, 2)
    assert said.count("broker.available") == said.count("broker.unavailable")
    assert worker.poll() is None


def test_an_attempt_of_a_worker_that_is_killed_is_taken_over(
    broker: RabbitNode | Redis, new_fleet: NewFleet
) -> None:
    fleet = new_fleet(broker.url)
    _, worker, _ = _start(fleet.web, fleet.worker, fleet.beat)
    fleet.system.script["m0"] = ["hang"]
    fleet.post("m0")
    fleet.post("m1")
    eventually(lambda: fleet.system.names("m") == ["m0"])

    fleet.worker()
    worker.send_signal(signal.SIGKILL)

    # When its lease of 30 s has run out, and nobody has renewed it for longer than a heartbeat.
    eventually(lambda: fleet.are("delivered", ["m0", "m1"]))
    assert fleet.system.names("m") == ["m0", "m0", "m1"]
    (first, second) = fleet.delivery("m0").history
    assert (first.outcome, second.outcome) == ("ambiguous", "delivered")
    assert first.detail == "the worker was lost (lease ran out)"


def test_what_hangs_is_left_to_its_lease_when_a_worker_stops(
    broker: RabbitNode | Redis, new_fleet: NewFleet
) -> None:
    fleet = new_fleet(broker.url)
    _, worker = _start(fleet.web, fleet.worker)
    fleet.system.script["m0"] = ["hang"]
    fleet.post("m0")
    eventually(lambda: fleet.system.names("m"))

    worker.send_signal(signal.SIGTERM)
    assert worker.wait(11) == 0

    assert '"left_to_their_leases":1' in fleet.said(worker)
    assert fleet.delivery("m0").state == "in_flight"


def test_a_worker_stops_in_time_while_the_broker_is_away(
    broker: RabbitNode | Redis, new_fleet: NewFleet
) -> None:
    fleet = new_fleet(broker.url)
    (worker,) = _start(fleet.worker)
    time.sleep(3)
    broker.stop()
    eventually(lambda: "onnection" in fleet.said(worker))

    worker.send_signal(signal.SIGTERM)

    assert worker.wait(11) == 0


def test_serve_runs_receiver_worker_and_beat(
    broker: RabbitNode | Redis, new_fleet: NewFleet
) -> None:
    fleet = new_fleet(broker.url)
    serve = fleet.serve()
    fleet.system.script["m0"] = [503, 503]
    fleet.post("m0")
    eventually(lambda: fleet.are("delivered", ["m0"]))

    # Of which no hint tells: a beat does, every second.
    with psycopg.connect(fleet.store, autocommit=True) as db:
        db.execute("UPDATE deliveries SET state = 'pending', due_at = now()")
    started = time.monotonic()
    eventually(lambda: len(fleet.system.names("m0")) == 4)
    assert time.monotonic() - started < 4.5
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(12) == 0
    assert '"left_to_their_leases":0' in fleet.said(serve)


def test_a_reload_replaces_the_worker_of_the_fleet(
    broker: RabbitNode | Redis, new_fleet: NewFleet
) -> None:
    fleet = new_fleet(broker.url)
    serve = fleet.serve()

    serve.send_signal(signal.SIGHUP)
    eventually(lambda: '"config.reloaded"' in fleet.said(serve))
    eventually(lambda: fleet.said(serve).count('"worker.stopped"') == 1)
    fleet.post("m0")

    eventually(lambda: fleet.are("delivered", ["m0"]))
    assert fleet.said(serve).count('"worker.started"') == 2
    serve.send_signal(signal.SIGTERM)
    assert serve.wait(12) == 0


def test_flower_sees_the_workers_and_nobody_sees_the_password(
    broker: RabbitNode | Redis, new_fleet: NewFleet
) -> None:
    url = broker.url
    if isinstance(broker, Redis):
        broker.require("a-secret")
        url = url.replace("//", "//:a-secret@")
    fleet = new_fleet(url)
    port = free_port()
    flower = ("-m", "celery", "-A", "relay.cluster", "flower", f"--port={port}")
    environ = {"FLOWER_UNAUTHENTICATED_API": "true"}
    _start(fleet.worker, lambda: fleet.run(*flower, environ=environ))
    address = f"http://127.0.0.1:{port}/api/workers?refresh=1"

    def workers() -> dict[str, dict[str, list[dict[str, str]]]]:
        try:
            answer = requests.get(address, timeout=20)
        except requests.RequestException:
            return {}
        return answer.json() if answer.ok else {}

    (name, about) = next(iter(eventually(workers).items()))
    assert name.startswith("relay@")
    queues = {queue["name"] for queue in about["active_queues"]}
    assert queues == {"gofax", "gofax.flow", "gofax.slow"}

    said = [json.dumps(workers())]
    for command in (["inspect", "conf"], ["report"], ["inspect", "stats"]):
        run = fleet.run("-m", "celery", "-A", "relay.cluster", *command, ends=True)
        said.append(fleet.said(run))
    secret = "a-secret" if isinstance(broker, Redis) else "guest:guest"
    assert not [text for text in [*said, *map(fleet.said, fleet.logs)] if secret in text]
