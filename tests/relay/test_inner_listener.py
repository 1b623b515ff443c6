"""The inner listener of a real relay: what it answers, when it starts, and what it survives."""

from __future__ import annotations

import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
import requests
import servers
from fakes import eventually
from prometheus_client.parser import text_string_to_metric_families
from site_of_nodes import PATIENCE, Flow, Site

from relay.config.model import Admin
from relay.processes.door import AGAIN, Door
from relay.processes.listening import PortTaken
from relay.store import connect, figures


@pytest.fixture
def site(tmp_path: Path, system: Flow) -> Iterator[Site]:
    made = Site(tmp_path, store="sqlite:///relay.db", flow=system.url)
    _configure(made, "{listen: '127.0.0.1:0'}")
    yield made
    made.close()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        yield other.getsockname()[1]


def _configure(site: Site, admin: str) -> None:
    path = site.folder / "config.yaml"
    path.write_text(re.sub(r"(?m)^admin: .*$", f"admin: {admin}", path.read_text()))


class Scrape(dict[str, float]):
    """Samples by name and label values, such as ``backlog flow``."""

    def __init__(self, site: Site) -> None:
        url = re.findall(r'"metrics":"(http://[^"]*/metrics)"', site.said())[-1]
        answer = requests.get(url, timeout=PATIENCE)
        assert answer.status_code == 200
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                name = sample.name.removeprefix("gofax_relay_")
                self[" ".join([name, *sample.labels.values()])] = sample.value

    def has(self, *, recorded: float, events: int, backlog: int) -> bool:
        return (recorded, events, backlog) == (
            self.get("commit_size_sum record", 0),
            self.get("store_events accepted"),
            self.get("store_backlog flow"),
        )

    def accepts(self) -> float:
        return self.get("requests_total /open accepted 200", 0)


def _receiver_and_worker(command: int) -> list[int]:
    """Return the process that answers, and the one that delivers."""
    web, worker, *_ = psutil.Process(command).children()
    return [web.pid, worker.pid]


@pytest.mark.slow
def test_a_scrape_says_what_the_store_says_and_falls_with_nobody(site: Site, system: Flow) -> None:
    command = site.serve()
    for number in range(5):
        assert site.post(f"m{number}", customer=f"+6140000000{number}") == "accepted"
    assert site.post("m0", customer="+61400000000") == "duplicate"
    # The store is not asked again at once, so that its answer may be of a moment ago.
    eventually(lambda: Scrape(site).has(recorded=5, events=5, backlog=0), seconds=PATIENCE)

    first = Scrape(site)
    events = site.listed("events")
    assert first.accepts() == first["store_events accepted"] == len(events) == 5
    assert first["requests_total /open duplicate 200"] == 1
    assert first["accept_seconds_count /open"] == first["commit_size_sum accept"] == 6
    assert first["deliveries_total flow delivered"] == 5
    assert first["attempts_total flow delivered"] == 5
    assert first["store_backlog flow"] == first["store_oldest_seconds flow"] == 0
    assert first["threads_used  web"] == first["threads_used flow worker"] == 0
    assert first["store_bytes"] >= (site.folder / "relay.db").stat().st_size

    for pid in _receiver_and_worker(command.pid):
        os.kill(pid, signal.SIGKILL)
    system.answering.clear()
    eventually(lambda: site.post("late", customer="+61400000009") == "accepted", seconds=PATIENCE)
    eventually(lambda: "late" in system.names, seconds=PATIENCE)

    eventually(lambda: Scrape(site).has(recorded=5, events=6, backlog=1), seconds=PATIENCE)
    second = Scrape(site)
    counts = [key for key in first if re.search(r"_(total|count|sum|bucket) ", key)]
    assert [key for key in counts if second[key] < first[key]] == []
    assert second.accepts() == second["store_events accepted"] == 6
    assert second["store_backlog flow"] == second["threads_used flow worker"] == 1
    system.answering.set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_two_receivers_and_two_workers_count_what_the_store_has(
    server: None, tmp_path: Path, system: Flow, number: int
) -> None:
    with servers.new_database() as url, ExitStack() as stack:
        sites = [Site(tmp_path / name, store=url, flow=system.url) for name in ("a", "b")]
        for each in sites:
            stack.callback(each.close)
            path = each.folder / "config.yaml"
            # Nothing but the counting is to be slow.
            path.write_text(path.read_text().replace("1000/1s", "100000/1s"))
            _configure(each, "{listen: '127.0.0.1:0'}")
            each.serve()

        with ThreadPoolExecutor(8) as pool:
            posts = [
                pool.submit(sites[n % 2].post, f"m{n}", customer=f"+6140000{n:04}")
                for n in range(number)
            ]
            assert {each.result() for each in posts} == {"accepted"}
            again = [pool.submit(sites[n % 2].post, f"m{n}", customer=f"+6140000{n:04}")
                     for n in range(1, 51)]  # fmt: skip
            assert {each.result() for each in again} == {"duplicate"}

        def scrapes() -> list[Scrape]:
            return [Scrape(each) for each in sites]

        def total(name: str) -> float:
            return sum(each.get(name, 0) for each in scrapes())

        eventually(lambda: total("deliveries_total flow delivered") == number, seconds=PATIENCE)
        # The store is not asked again at once.
        eventually(
            lambda: all(
                each.has(recorded=each["commit_size_sum record"], events=number, backlog=0)
                for each in scrapes()
            ),
            seconds=PATIENCE,
        )
        with closing(connect(url)) as database:
            said = figures.read(database)
        assert said.events == {"accepted": number} and said.backlog == {}
        assert total("requests_total /open accepted 200") == number
        assert total("requests_total /open duplicate 200") == 50
        assert total("commit_size_sum accept") == number + 50
        assert total("attempts_total flow delivered") == number
        # On a busy machine, an attempt may have been made again.
        attempts = {
            name for each in scrapes() for name in each if name.startswith("attempts_total")
        }
        assert total("commit_size_sum record") == sum(map(total, attempts))
        assert len(system.names) == len(set(system.names)) == number
        for each in scrapes():
            assert each["store_backlog flow"] == each["store_paused flow"] == 0
            assert 0 < each.accepts() < number
            assert each["store_bytes"] == pytest.approx(said.size, rel=0.1)


@pytest.mark.slow
def test_a_reload_lets_no_count_fall(site: Site) -> None:
    site.serve()
    assert site.post("m1") == "accepted"

    assert site.run("reload").returncode == 0
    assert site.post("m2") == "accepted"

    assert Scrape(site).accepts() == 2
    _configure(site, "off")
    assert site.run("reload").returncode == 0
    with pytest.raises(requests.ConnectionError):
        eventually(lambda: not Scrape(site), seconds=PATIENCE)


@pytest.mark.slow
def test_a_port_that_the_config_names_must_be_free(site: Site, taken: int) -> None:
    _configure(site, f"{{listen: '127.0.0.1:{taken}'}}")

    ended = site.run("serve")

    assert ended.returncode == 1
    assert f"Error: admin.listen: 127.0.0.1:{taken}: Address already in use" in ended.stderr


@pytest.mark.slow
def test_a_reload_to_a_taken_port_changes_nothing(site: Site, taken: int) -> None:
    site.serve("web")
    _configure(site, f"{{listen: '127.0.0.1:{taken}'}}")

    ended = site.run("reload")

    assert ended.returncode == 1
    assert f"admin.listen: 127.0.0.1:{taken}: Address already in use" in ended.stderr
    assert site.post("m1") == "accepted"
    assert Scrape(site).accepts() == 1


@pytest.mark.slow
def test_the_web_server_answers_no_metrics(site: Site) -> None:
    site.serve("web")

    assert (
        requests.get(f"http://127.0.0.1:{site.port}/metrics", timeout=PATIENCE).status_code == 404
    )


class TestTheDefaultPort:
    """In the place of the real one, which another test may have."""

    @staticmethod
    def at(port: int) -> Admin:
        return Admin.model_construct(_fields_set=set(), listen=f"127.0.0.1:{port}")

    def test_it_is_tried_again_while_somebody_else_has_it(self) -> None:
        now = 0.0
        door = Door(clock=lambda: now)
        with closing(socket.create_server(("127.0.0.1", 0))) as other:
            admin = self.at(other.getsockname()[1])
            assert door.opened(admin) is None
        assert door.opened(admin) is None

        now += AGAIN
        listener = door.opened(admin)

        assert listener is not None and listener.address == admin.listen
        listener.socket.close()

    def test_one_that_is_chosen_is_not(self, taken: int) -> None:
        with pytest.raises(PortTaken):
            Door().opened(Admin(listen=f"127.0.0.1:{taken}"))
