"""Worker, connector and stand-in together: nothing is posted above what Microsoft takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fakes import NOON, Clock, accept_apart
from workers import QUICK, step

from connectors.sandbox import create_app, serving
from connectors.sandbox.records import Records
from connectors.sandbox.teams import StandIn
from relay import destinations
from relay.config import installed
from relay.config.load import load
from relay.store import Inbox, Queue
from relay.worker import Worker

CONFIG = """\
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /hook, allow_unsigned: true}}]
destinations:
  front-desk: {{connector: teams, url: "{url}/teams/one", connection: flow owner}}
  sales: {{connector: teams, url: "{url}/teams/another", connection: flow owner}}
"""


def test_no_card_is_lost_although_the_trigger_takes_them_all(
    inbox: Inbox, new_queue: Callable[[str], Queue], clock: Clock, tmp_path: Path
) -> None:
    accept_apart(inbox, 20, to=("front-desk", "sales"))
    stand_in = StandIn(records := Records(), clock=lambda: clock().timestamp())
    sent: list[float] = []

    with serving(create_app(records, teams=stand_in)) as url:
        (tmp_path / "config.yaml").write_text(CONFIG.format(url=url))
        config = load(tmp_path / "config.yaml", find_connector=installed.find)
        workers = [
            Worker(destinations.build(config), new_queue(node), clock=clock, intervals=QUICK)
            for node in ("worker-1", "worker-2")
        ]
        while len(sent) < 40 and clock() < NOON.replace(hour=13):
            for worker in workers:
                sent += [(clock() - NOON).total_seconds()] * step(worker)
            clock.advance(5)
        for worker in workers:
            worker.close()

    assert stand_in.flows.failed == []
    assert len(records.listing()) == 40
    assert sent == [0] * 5 + [15 * n for n in range(1, 36)]
