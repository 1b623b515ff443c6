"""docs/start.md, followed to the letter: from nothing to a signed 200 through the real Caddy.

What belongs to a whole machine is played: packages, users, and systemd, whose part a script has
that runs what the units say. Files go below a folder of the test's own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests
from test_docs import blocks, free_port

ROOT = Path(__file__).parents[1]
PAGE = "start.md"
PATIENCE = 60.0
WHEEL = "gofax_relay-0.1.0-py3-none-any.whl"
#: What stands in for programs that would change this machine.
PLAYED = {
    "apt-get": "exit 0",
    "chown": "exit 0",
    "useradd": "exit 0",
    "id": "echo 0",
    "git": 'for to; do :; done; mkdir -p "$to"'
    ' && cp -r "$REPOSITORY/deploy" "$REPOSITORY/config.example.yaml" "$to/"'
    ' && cd "$to/deploy" && sed -i -E -f "$HERE/played/moved" *.s* C*',
    "setpriv": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
    "systemctl": 'exec "$PYTHON" "$SYSTEMD" "$@"',
}
#: How the files of deploy/ change: folders of the test's own, its user, and what is installed is
#: what the tests run with, wherever that is. (tests/test_install.py installs for real.)
MOVED = r"""
s#(^|[ "=(-])/(etc|opt|var|run|usr/local)/#\1HERE/\2/#g
s/ -o (root|"\$user")//; s/ -g "\$user"//
/-m pip install/,/[^\\]$/d
/^for python in /,/^done$/d
"""


class Machine:
    """The server of somebody who follows the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site, self.console, self.web, self.admin = (free_port() for _ in range(4))
        self.root = folder / "caddy/pki/authorities/local/root.crt"
        programs = folder / "played"
        for each in (
            "usr/local/bin",
            "etc/caddy",
            "etc/systemd/system",
            "run",
            "opt/gofax-relay/.venv",
        ):
            (folder / each).mkdir(parents=True)
        programs.mkdir()
        for name, does in PLAYED.items():
            (programs / name).write_text(f"#!/bin/sh\n{does}\n")
            (programs / name).chmod(0o755)
        (programs / "moved").write_text(MOVED.replace("HERE", str(folder)))
        installed = Path(sys.executable).parent
        (folder / "opt/gofax-relay/.venv/bin").symlink_to(installed)
        path = [str(folder / "usr/local/bin"), str(programs), os.environ["PATH"]]
        self._environ = {
            **os.environ,
            "PATH": os.pathsep.join(path),
            "HERE": str(folder),
            "REPOSITORY": str(ROOT),
            "PYTHON": sys.executable,
            "SYSTEMD": str(ROOT / "tests/played_systemd.py"),
            "RELAY_WEBS": f"127.0.0.1:{self.web}",
            "RELAY_CONSOLES": f"127.0.0.1:{self.admin}",
            "GOFAX_SENDER_STORE": str(folder / "sender.db"),
        }

    def does(self, text: str) -> str:
        """Run a block to its end, in a shell that stops at the first failure."""
        done = subprocess.run(
            ["bash", "-ec", self._adapted(text)],
            cwd=self.folder, env=self._environ, capture_output=True, text=True, check=False,
            timeout=2 * PATIENCE,
        )  # fmt: skip
        logs = "".join(f"\n{each.name}: {each.read_text()}" for each in self.folder.glob("*.log"))
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}{logs}"
        return done.stdout

    def _adapted(self, text: str) -> str:
        text = re.sub(r"(?<![\w.])/(etc|opt|var|usr/local)/", rf"{self.folder}/\1/", text)
        instead = {
            "sms.example.com": f"localhost:{self.site}",
            "relay.example.com": f"localhost:{self.console}",
            "RELAY_TLS=you@example.com": "RELAY_TLS=internal",
            "127.0.0.1:8080": f"127.0.0.1:{self.web}",
            "127.0.0.1:8081": f"127.0.0.1:{self.admin}",
            "python3 -m pip download --quiet --no-deps": f"touch {WHEEL} #",
            # Nobody outside trusts the authority of this Caddy.
            "gofax-sender test": f"gofax-sender test --ca {self.root}",
            "doctor --public-url": "doctor || [ $? = 3 ]",
        }
        for word, other in instead.items():
            text = text.replace(word, other)
        return text

    def get(self, url: str) -> requests.Response:
        return requests.get(url, verify=str(self.root), timeout=10)

    def waits(self, answers: Callable[[], bool]) -> None:
        ends_at = time.monotonic() + PATIENCE
        while time.monotonic() < ends_at:
            with suppress(OSError):
                if answers():
                    return
            time.sleep(0.1)
        logs = "".join(each.read_text() for each in self.folder.glob("*.log"))
        raise AssertionError(logs)

    def ends(self) -> None:
        for file in self.folder.glob("*.pid"):
            with suppress(ProcessLookupError):
                os.killpg(int(file.read_text()), signal.SIGTERM)


@pytest.fixture
def machine(tmp_path: Path, missing: Callable[[str, str], None]) -> Iterator[Machine]:
    if shutil.which("caddy") is None:
        missing("caddy", "no such command")
    machine = Machine(tmp_path)
    yield machine
    machine.ends()


@pytest.mark.slow
def test_from_nothing_to_a_signed_200(machine: Machine) -> None:
    shell = [text for _, text in blocks(PAGE, "sh")]
    install, config, start, front, play, look, user, alerts, backup, teams, doctor = shell

    for block in (install, config, start, front):
        machine.does(block)
    machine.waits(lambda: machine.root.exists())
    site = f"https://localhost:{machine.site}"
    machine.waits(lambda: machine.get(f"{site}/webhooks/gofax").status_code == 405)
    played = machine.does(play)
    looked = machine.does(look)
    link = re.search(r"https://\S+", machine.does(user))
    machine.does(alerts)
    machine.waits(lambda: machine.get(f"{site}/webhooks/gofax").status_code == 405)
    backed = machine.does(backup)
    destined = machine.does(teams)
    machine.waits(lambda: machine.get(f"{site}/webhooks/gofax").status_code == 405)
    again = machine.does(play)
    found = machine.does(doctor)

    assert "passed" in played and "passed" in again
    assert "accepted" in looked
    assert link is not None and machine.get(link[0]).status_code == 200
    assert re.search(r"^-rw-------.*relay-\w+\.db$", backed, re.MULTILINE), backed
    assert "route everything: every event → front-desk" in destined
    faults = [line for line in found.splitlines() if line.startswith(("✗", "!! "))]
    assert [line for line in faults if "certificate" not in line] == [], found
