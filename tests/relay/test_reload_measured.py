"""Restarts refuse nobody, measured: reloads, restarts and an upgrade under a steady stream."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import servers
import sqlalchemy as sa
from fakes import eventually
from installed import Installed
from site_of_nodes import PATIENCE, Flow, Site, within
from stream import Stream

from relay.store import connect, schema

pytestmark = pytest.mark.slow

#: Reloads, and restarts of the receiver.
TIMES = pytest.mark.parametrize(
    ("reloads", "restarts"), [(4, 2), pytest.param(20, 10, marks=pytest.mark.long)]
)


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path / "installed")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.long)])
def sites(
    request: pytest.FixtureRequest, tmp_path: Path, system: Flow, installed: Installed
) -> Iterator[Sequence[Site]]:
    """One machine with SQLite, or two that share PostgreSQL."""
    with ExitStack() as stack:
        store, names = "sqlite:///relay.db", ["one"]
        if request.param == "postgres":
            request.getfixturevalue("server")
            store, names = stack.enter_context(servers.new_database()), ["one", "two"]
        made = [Site(tmp_path / name, store=store, flow=system.url) for name in names]
        for each in made:
            each.python = installed.python
            stack.callback(each.close)
        yield made


def receivers(process: subprocess.Popen[bytes], port: int) -> list[psutil.Process]:
    """Return the children that accept at *port*."""
    found = []
    for each in psutil.Process(process.pid).children():
        # One that was replaced may end while it is looked at.
        with suppress(psutil.NoSuchProcess):
            heard = [at for at in each.net_connections("tcp") if at.status == psutil.CONN_LISTEN]
            found += [each] if any(at.laddr.port == port for at in heard) else []
    return found


def out_of_order(site: Site, system: Flow) -> list[str]:
    """Return the messages that came to the system before an earlier one of their conversation."""
    url = next(
        line.removeprefix("store: ")
        for line in (site.folder / "config.yaml").read_text().splitlines()
        if line.startswith("store: ")
    ).replace("sqlite:///", f"sqlite:///{site.folder}/")
    # Several nodes accept at once: a lane's order is that in which they got hold of it.
    order = sa.select(schema.events.c.message_id, schema.deliveries.c.seq).join_from(
        schema.deliveries, schema.events
    )
    with closing(connect(url)) as database, database.reading() as db:
        place = {row.message_id: row.seq for row in db.execute(order)}
    came: dict[str, int] = defaultdict(int)
    late = []
    for each in system.got:
        name, customer = each["data"]["message_id"], each["data"]["customer"]
        if place[name] < came[customer]:
            late.append(name)
        came[customer] = max(came[customer], place[name])
    return late


@TIMES
def test_nobody_is_refused_and_nothing_is_lost(
    reloads: int,
    restarts: int,
    sites: Sequence[Site],
    system: Flow,
    installed: Installed,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = installed.wheel("0.1.0"), installed.wheel("0.1.1")
    installed.install(old)
    processes = [each.serve() for each in sites]
    rate = 100 / len(sites)
    streams = [Stream(each.port, per_second=rate, prefix=each.folder.name) for each in sites]

    with ExitStack() as stack:
        for stream in streams:
            stack.enter_context(stream)
        for number in range(reloads):
            site = sites[number % len(sites)]
            assert site.run("reload").returncode == 0, site.said()
        for number in range(restarts):
            site, process = sites[number % len(sites)], processes[number % len(sites)]
            # After a reload the one before may still serve what it has accepted.
            accept = partial(receivers, process, site.port)
            eventually(lambda accept=accept: len(accept()) == 1, seconds=PATIENCE)
            [receiver] = accept()
            receiver.send_signal(signal.SIGTERM)
            eventually(lambda receiver=receiver: not receiver.is_running(), seconds=PATIENCE)
            eventually(site.answers, seconds=PATIENCE)
            eventually(lambda accept=accept: len(accept()) == 1, seconds=PATIENCE)
        installed.install(new)
        upgraded = [each.run("reload") for each in sites]

    answers = sum((stream.kinds for stream in streams), start=type(streams[0].kinds)())
    accepted = set().union(*(stream.accepted for stream in streams))
    # What could not be delivered at the rate of the stream meanwhile, on a slow machine.
    within(PATIENCE * 5, lambda: set(system.names) == accepted)
    with capsys.disabled():
        slowest = max(stream.slowest for stream in streams)
        sys.stdout.write(f"\n{dict(answers)}, slowest answer {slowest:.2f} s\n")
    assert set(answers) == {"accepted"}
    assert len(system.names) == len(accepted)
    assert out_of_order(sites[0], system) == []
    for process, ended in zip(processes, upgraded, strict=True):
        assert f"serve ({process.pid}): version 0.1.1, config " in ended.stdout, ended.stderr
        assert process.poll() is None


def test_what_runs_needs_none_of_its_files(
    tmp_path: Path, system: Flow, installed: Installed
) -> None:
    site = Site(tmp_path / "one", store="sqlite:///relay.db", flow=system.url)
    site.python = installed.python
    old, new = installed.wheel("0.1.0"), installed.wheel("0.1.1")
    installed.install(old)
    try:
        process = site.serve()
        installed.uninstall()

        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        eventually(site.answers, seconds=PATIENCE)
        assert site.post("m1") == "accepted"
        eventually(lambda: system.names == ["m1"], seconds=PATIENCE)

        installed.install(new)
        ended = site.run("reload")
        assert f"serve ({process.pid}): version 0.1.1" in ended.stdout, ended.stderr
        assert site.post("m2") == "accepted"
        eventually(lambda: system.names == ["m1", "m2"], seconds=PATIENCE)
    finally:
        site.close()
    assert "ModuleNotFoundError" not in site.said()


def test_a_version_that_cannot_start_leaves_the_old_one(
    tmp_path: Path, system: Flow, installed: Installed
) -> None:
    site = Site(tmp_path / "one", store="sqlite:///relay.db", flow=system.url)
    site.python = installed.python
    installed.install(installed.wheel("0.1.0"))
    broken = installed.wheel("0.1.1")
    try:
        process = site.serve()
        installed.install(broken)
        [main] = (tmp_path / "installed").glob("venv/lib/python*/site-packages/relay/app.py")
        text = main.read_text()
        main.write_text("import nowhere\n")

        # The command is of the new version, too: it must not need what is broken there.
        process.send_signal(signal.SIGHUP)

        eventually(lambda: "config.not_taken" in site.said(), seconds=PATIENCE)
        assert "No module named 'nowhere'" in site.said()
        assert site.post("m1") == "accepted"
        eventually(lambda: system.names == ["m1"], seconds=PATIENCE)
        main.write_text(text)
        assert "version 0.1.1" in site.run("reload").stdout
    finally:
        site.close()
