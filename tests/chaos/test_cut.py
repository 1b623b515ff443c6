"""A node is cut off in silence from the database: senders are told in time, nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import cluster
import pytest
import requests
import scenes
from network import NoNamespaces
from plan import STORE, Fault, Kind, Plan
from programs import eventually
from proxy import Proxy
from scenes import Scene
from stage import message, running_sandbox

Missing = Callable[[str, str], None]

#: Seconds for which a sender waits.
SENDERS_PATIENCE = 5.0
NODES = {"web-1": "web", "web-2": "web", "work-1": "work"}


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with running_sandbox() as sandbox:
        yield Proxy(sandbox, {"hubspot": {1: Fault.HELD}})


@pytest.fixture
def scene(proxy: Proxy, tmp_path: Path, missing: Missing) -> Iterator[Scene]:
    """Two receivers and a worker, each on a machine of its own."""
    if reason := cluster.unavailable():
        missing("postgres", reason)
    plan = replace(Plan.of(1, Kind.FLEET), commands=NODES)
    with ExitStack() as stack:
        try:
            scene = stack.enter_context(scenes.on_a_fleet(plan, proxy, tmp_path))
        except NoNamespaces as error:
            missing("netns", str(error))
        yield scene


def _effects(proxy: Proxy, system: str) -> list[str]:
    records = requests.get(f"http://{proxy.upstream}/records", timeout=10).json()
    return [each["text"] for each in records if each["system"] == system]


@pytest.mark.slow
def test_who_is_cut_off_in_the_middle_of_commits_acknowledges_nothing_that_is_not_stored(
    scene: Scene,
) -> None:
    cut_off, other = scene.doors
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda door: door.start("web"), scene.doors))
    acknowledged: set[str] = set()
    waited: list[float] = []

    def send(sender: int) -> None:
        """Post one message after the other, until one is refused."""
        for number in range(1000):
            name = f"m-{sender}-{number}"
            asked = time.monotonic()
            answer = cut_off.post(message(name, conversation=sender))
            if answer.status_code != 200:
                waited.append(time.monotonic() - asked)
                assert answer.status_code == 503
                assert int(answer.headers["Retry-After"]) >= 1
                return
            acknowledged.add(name)

    with ThreadPoolExecutor(8) as senders:
        sending = [senders.submit(send, number) for number in range(8)]
        eventually(lambda: len(acknowledged) > 20)
        scene.cut("web-1", STORE)
        for each in sending:
            each.result()

    # Some were in a transaction, some came when there was no connection.
    assert max(waited) < SENDERS_PATIENCE + 1
    assert {each.event.message_id for each in other.events()} >= acknowledged
    # A lock that is held by a connection which hangs is in nobody's way for long.
    asked = time.monotonic()
    for sender in range(8):
        eventually(
            lambda sender=sender: other.post(message(f"n-{sender}", conversation=sender)).ok
        )
    assert time.monotonic() - asked < 20

    scene.mend("web-1", STORE)
    eventually(lambda: cut_off.post(message("after")).status_code == 200)


@pytest.mark.slow
def test_what_a_worker_did_while_it_was_cut_off_is_recorded_when_it_is_back(
    scene: Scene, proxy: Proxy
) -> None:
    door = scene.doors[0]
    door.start("web")
    scene.nodes["work-1"].start("work")
    assert door.post(message("m1", type="SMS_RECEIVED")).status_code == 200
    eventually(lambda: proxy.met[Fault.HELD])

    scene.cut("work-1", STORE)
    proxy.release.set()
    eventually(lambda: _effects(proxy, "hubspot"))
    # The connection that hangs may hold a lock for a while: GoFax is told to come again.
    eventually(lambda: door.post(message("m2", type="SMS_RECEIVED")).ok)
    assert door.unsettled()
    scene.mend("work-1", STORE)
    door.settle()

    [first, *_] = [each for each in door.event("m1").deliveries if each.destination == "crm"]
    assert [each.outcome for each in first.history] == ["delivered"]
    assert len(_effects(proxy, "hubspot")) == 2
