"""Problems of real processes reach people by real channels, also when a node is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import servers
import site_of_nodes
import sqlalchemy as sa
from site_of_nodes import PATIENCE, Flow, Site

from connectors.suites.mailbox import Mailbox
from relay.store import connect, schema
from relay.store.nodes import Nodes

pytestmark = pytest.mark.slow


@pytest.fixture
def channel() -> Iterator[Flow]:
    """Takes alerts as JSON."""
    with site_of_nodes.flow() as made:
        yield made


def tell(site: Site, *urls: str) -> None:
    with (site.folder / "config.yaml").open("a") as config:
        channels = ", ".join(f'{{url: "{url}"}}' for url in urls)
        config.write(f"alerts: [{channels}]\n")


def json_url(channel: Flow) -> str:
    return channel.url.replace("http://", "json://")


def titles(channel: Flow) -> list[str]:
    return [each["title"].removeprefix("gofax-relay: ") for each in channel.got]


def test_a_destination_that_is_down_is_told_and_so_is_its_return(
    tmp_path: Path, system: Flow, channel: Flow
) -> None:
    with Mailbox() as mailbox:
        site = Site(tmp_path, store="sqlite:///relay.db", flow=system.url)
        mail = f"mailto://127.0.0.1:{mailbox.port}?from=relay@example.com&to=desk@example.com"
        tell(site, json_url(channel), mail)
        system.status = 408
        site.serve()
        assert site.post("m1", customer="+61400000077") == "accepted"

        site_of_nodes.within(60, lambda: channel.got and mailbox.messages)
        (problem,) = site.listed("problems")
        assert (problem["kind"], problem["subject"]) == ("failing", "flow")
        acknowledged = site.run("problems", "ack", "flow", "--who", "ann")
        assert acknowledged.returncode == 0, acknowledged.stderr
        system.status = 204
        site_of_nodes.within(PATIENCE, lambda: len(channel.got) > 1 and len(mailbox.messages) > 1)

        site.close()
        assert titles(channel) == ["failing: opened", "failing: resolved"]
        subjects = [str(each["Subject"]) for each in mailbox.messages]
        assert subjects == ["gofax-relay: failing: opened", "gofax-relay: failing: resolved"]
        assert "0400" not in str(channel.got) and "61400000077" not in str(channel.got)
        assert site.listed("problems") == []
        (past,) = site.listed("problems", "--resolved", "5")
        assert past["acknowledged_by"] == "ann"
        said = site.said()
        assert said.count('"event":"problem.opened"') == 1
        assert said.count('"event":"problem.resolved"') == 1


def test_an_alert_of_a_node_that_is_killed_comes_from_another(
    server: None, tmp_path: Path, channel: Flow
) -> None:
    with servers.new_database() as url:
        site = Site(tmp_path, store=url)
        tell(site, json_url(channel))
        for _ in range(2):
            site.start("work")
        with closing(connect(url)) as database:

            def alerts() -> list[Any]:
                with database.reading() as db:
                    return list(db.execute(sa.select(schema.alerts).order_by(schema.alerts.c.seq)))

            site_of_nodes.within(PATIENCE, lambda: site.run("nodes").stdout.count("alive") == 2)
            channel.answering.clear()
            assert site.run("pause", "flow").returncode == 0
            site_of_nodes.within(60, lambda: channel.got)

            # It was sent, and the node dies before it can note that.
            (told,) = alerts()
            (doomed,) = (each for each in Nodes(database).nodes() if each.name == told.node)
            assert doomed.node is not None
            os.killpg(os.getpgid(doomed.node.pid), signal.SIGKILL)
            channel.answering.set()
            site_of_nodes.within(120, lambda: alerts()[0].sent_at)

        site.close()
        told_of_pause = [each for each in channel.got if "paused" in each["title"]]
        assert ["may be a repetition" in each["message"] for each in told_of_pause] == [
            False,
            True,
        ]
