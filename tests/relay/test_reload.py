"""Restarts refuse nobody: what runs takes a new config or another version between two calls."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner
from fakes import eventually
from site_of_nodes import PATIENCE, Flow, Site
from stream import Stream

from relay.cli import cli
from relay.config.model import Server
from relay.processes import PortTaken
from relay.processes.listening import listen

#: Seconds in which docs/hosting.md says that a process ends.
PROMISED = 10.0


def edit(site: Site, old: str, new: str) -> None:
    path = site.folder / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def children(process: subprocess.Popen[bytes]) -> set[int]:
    return {child.pid for child in psutil.Process(process.pid).children(recursive=True)}


@contextmanager
def foreign_listener() -> Iterator[int]:
    """Listen as others do who let their port be shared."""
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        yield foreign.getsockname()[1]


@pytest.mark.slow
def test_a_reload_takes_the_new_config_and_refuses_nobody(site: Site, system: Flow) -> None:
    process = site.serve()
    before = children(process)

    with Stream(site.port, per_second=100) as stream:
        eventually(lambda: len(stream.answers) > 50, seconds=PATIENCE)
        edit(site, "path: /open", "path: /open, name: renamed")
        ended = site.run("reload")
        eventually(lambda: not before & children(process), seconds=PATIENCE)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert set(stream.kinds) == {"accepted"}
    eventually(lambda: set(system.names) == stream.accepted, seconds=PATIENCE)
    assert len(system.names) == len(stream.accepted)
    assert site.post("last") == "accepted"
    first, *_, last = site.listed("events")
    assert (last["message_id"], last["endpoint"]) == ("last", "renamed")
    was, now = (each["deliveries"][0]["config"] for each in (first, last))
    assert was != now
    assert f"config {now}\n" in ended.stdout


@pytest.mark.slow
def test_a_reload_without_a_change_replaces_every_process_the_console_too(site: Site) -> None:
    edit(site, "admin: off", "admin: {listen: '127.0.0.1:0'}")
    process = site.serve()
    # One receives, one delivers, one serves the console.
    eventually(lambda: len(children(process)) == 3, seconds=PATIENCE)
    before = children(process)

    assert site.run("reload").returncode == 0

    eventually(lambda: not before & children(process), seconds=PATIENCE)
    eventually(lambda: len(children(process)) == 3, seconds=PATIENCE)


@pytest.mark.slow
def test_a_connection_that_is_kept_gets_one_more_answer_by_the_old_config(site: Site) -> None:
    site.serve()
    with closing(HTTPConnection("127.0.0.1", site.port, timeout=PATIENCE)) as kept:

        def asked() -> tuple[bool, str | None]:
            kept.request("POST", "/renamed", body="{}")
            answer = kept.getresponse()
            answer.read()
            return answer.status != 404, answer.getheader("Connection")

        assert asked() == (False, None)
        edit(site, "path: /open", "path: /renamed")
        assert site.run("reload").returncode == 0

        assert asked() == (False, "close")
        # The client connects anew, and no other process listens by then.
        assert asked() == (True, None)


@pytest.mark.slow
def test_faults_leave_what_runs(site: Site) -> None:
    process = site.serve()
    before = children(process)
    with foreign_listener() as port:
        edit(site, f":{site.port}", f":{port}")
        taken = site.run("reload")
        edit(site, "connector: webhook", "connector: webhok")
        unknown = site.run("reload")

    assert (taken.returncode, "already in use" in taken.stderr) == (1, True)
    assert unknown.returncode == 1
    assert "config.yaml:6: destinations.flow.connector" in unknown.stderr
    assert children(process) == before
    assert site.post("m1") == "accepted"


def test_a_port_that_others_would_share_is_taken() -> None:
    with (
        foreign_listener() as port,
        pytest.raises(PortTaken, match="in use: stop the process"),
    ):
        listen(Server(listen=f"127.0.0.1:{port}"))


def test_what_we_listen_on_is_shared_with_nobody() -> None:
    ours = listen(Server(listen="127.0.0.1:0"))
    with ours.socket, socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", ours.port))


def test_nothing_is_reloaded_where_nothing_runs(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"

    ended = CliRunner().invoke(cli, ["reload", "--config", str(path)])

    assert ended.exit_code == 1
    assert ended.stderr == f"Error: nothing runs with {path} on this machine\n"


@pytest.mark.slow
def test_a_reload_moves_to_another_port(site: Site) -> None:
    process = site.serve()
    before, first = children(process), site.port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        site.port = probe.getsockname()[1]
    edit(site, f":{first}", f":{site.port}")
    edit(site, "admin: off", "admin: off\nlogs: {format: text, level: warning}")

    assert site.run("reload").returncode == 0

    assert site.post("m1") == "accepted"
    # Neither the new processes nor their parent say any more what is no warning.
    assert '"event":"endpoint.served"' in site.said()
    assert f":{site.port}/open" not in site.said()
    assert "request.received" not in site.said()
    assert "config.reloaded" not in site.said()
    eventually(lambda: not before & children(process), seconds=PATIENCE)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", first)) != 0


@pytest.mark.slow
def test_halves_reload_at_a_hangup_and_together(site: Site, system: Flow) -> None:
    web, worker = site.serve("web"), site.start("work")
    assert site.post("m1") == "accepted"
    eventually(lambda: system.names == ["m1"], seconds=PATIENCE)
    first = {each: children(each) for each in (web, worker)}

    for each in (web, worker):
        each.send_signal(signal.SIGHUP)
        eventually(lambda each=each: not first[each] & children(each), seconds=PATIENCE)
    assert site.post("m2") == "accepted"
    eventually(lambda: system.names == ["m1", "m2"], seconds=PATIENCE)
    both = site.run("reload")

    assert both.returncode == 0
    assert [line.split()[0] for line in both.stdout.splitlines()] == ["web", "work"]


@pytest.mark.slow
def test_an_attempt_outlives_a_reload(site: Site, system: Flow) -> None:
    process = site.serve()
    before = children(process)
    system.answering.clear()
    assert site.post("m1") == "accepted"
    eventually(lambda: system.names == ["m1"], seconds=PATIENCE)
    assert site.post("m2") == "accepted"

    assert site.run("reload").returncode == 0
    assert system.names == ["m1"]
    system.answering.set()

    eventually(lambda: not before & children(process), seconds=PATIENCE)
    eventually(lambda: system.names == ["m1", "m2"], seconds=PATIENCE)
    assert '"left_to_their_leases":0' in site.said()


@pytest.mark.slow
def test_a_terminal_that_closes_ends_the_relay(site: Site) -> None:
    terminal, inner = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(inner, termios.TIOCSCTTY, 0)
        # These tests may run below nohup, which a relay obeys.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    command = [sys.executable, "-m", "relay.cli", "serve"]
    with (site.folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=site.folder, stdin=inner, stderr=log, preexec_fn=take_terminal
        )
    os.close(inner)
    eventually(site.answers, seconds=PATIENCE)

    os.close(terminal)

    assert process.wait(PROMISED) == 0
    assert '"event":"worker.stopped"' in site.said()
