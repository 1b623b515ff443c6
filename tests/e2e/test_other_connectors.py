"""A connector of somebody else's: written by ``connectors new``, installed, and used.

That it passes its checks is shown where docs/connectors.md is done as it says.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from gofax import EXAMPLE
from processes import PATIENCE, SECRET, Relay

from connectors.sandbox import serving

NAME = "desk-notes"
CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints:
  - {{path: /webhooks/gofax, signing_secrets: ["{secret}"]}}
destinations:
  notes: {{connector: desk-notes, token: "{token}", base_url: "{url}"}}
routes:
  - {{name: everything becomes a note, to: [notes]}}
"""


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=4 * PATIENCE,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package that ``connectors new`` wrote, built and installed by pip."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("third-party")
    written = command("relay.cli", "connectors", "new", NAME, cwd=folder)
    assert written.returncode == 0, written.stderr
    pip = ["pip", "install", "--no-deps", "--no-build-isolation", "--no-index", "--target", "site"]
    built = command(*pip, f"./gofax-relay-{NAME}", cwd=folder)
    assert built.returncode == 0, built.stderr
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process and those that it starts see the package."""
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    )
    monkeypatch.syspath_prepend(str(site))
    return site


def test_it_is_listed_beside_ours(installed: Path, tmp_path: Path) -> None:
    listed = command("relay.cli", "connectors", "list", "--json", cwd=tmp_path)

    found = {each["name"]: each for each in map(json.loads, listed.stdout.splitlines())}
    assert {"hubspot", "zendesk", "teams", NAME} <= set(found)
    notes = found[NAME]
    assert (notes["distribution"], notes["version"]) == (f"gofax-relay-{NAME}", "0.1.0")
    assert notes["class"] == "gofax_relay_desk_notes:DeskNotes"
    assert [(each["name"], each["required"], each["secret"]) for each in notes["options"]] == [
        ("base_url", False, False),
        ("token", True, True),
    ]


def test_it_delivers_when_a_route_names_it(
    installed: Path, tmp_path: Path, stack: ExitStack
) -> None:
    stand_in = importlib.import_module("gofax_relay_desk_notes.stand_in")
    account = stand_in.DeskNotesStandIn()
    url = stack.enter_context(serving(account.app))
    relay = Relay(tmp_path, stack, sandbox="")
    relay.config.write_text(
        CONFIG.format(port=relay.port, secret=SECRET, token=stand_in.TOKEN, url=url)
    )
    relay.start()

    assert relay.post(EXAMPLE).json()["status"] == "accepted"

    [event] = relay.settled()
    [delivery] = event["deliveries"]
    [note] = account.notes
    assert (delivery["destination"], delivery["state"]) == ("notes", "delivered")
    assert (delivery["reference"], note["title"]) == (note["id"], "SMS reply from +61400000000")
    asked = relay.command("check", "--live")
    assert (asked.returncode, asked.stdout.splitlines()[-1]) == (
        0,
        "✓ notes: signed in as the stand-in",
    )
    set_up = relay.command("connectors", "setup", "desk-notes")
    assert (set_up.returncode, set_up.stdout) == (0, "✓ notes: nothing to set up\n")


def test_checking_a_config_asks_nobody(installed: Path, tmp_path: Path, stack: ExitStack) -> None:
    stand_in = importlib.import_module("gofax_relay_desk_notes.stand_in")
    account = stand_in.DeskNotesStandIn()
    asked: list[str] = []
    account.app.before_request(lambda: asked.append("something"))
    url = stack.enter_context(serving(account.app))
    relay = Relay(tmp_path, stack, sandbox="")
    relay.config.write_text(
        CONFIG.format(port=relay.port, secret=SECRET, token=stand_in.TOKEN, url=url)
    )

    checked = relay.command("check")

    assert checked.returncode == 0, checked.stderr
    assert asked == []
