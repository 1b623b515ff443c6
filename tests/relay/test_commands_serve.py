"""``serve`` as a developer uses it: in a terminal, and with files that change under it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from fakes import eventually
from terminals import terminal

from relay.commands.watch import Watched, watched_by

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
endpoints:
  - {{path: /{path}, signing_secrets: ["file:secret"]}}
destinations:
  it: {{connector: acme}}
routes:
  - {{name: all, to: [it]}}
"""
CONNECTOR = """\
from connectors.base import Connector, Options, Receipt

class Acme(Connector[Options]):
    Options = Options

    def check(self):
        return "well"

    def deliver(self, event, *, key, thread, repeat, deadline):
        return Receipt(reference="1")
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def folder(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config, a secret, and the package of a connector that is being written."""
    package = tmp_path / "acme"
    (package / "deep" / "__pycache__").mkdir(parents=True)
    for file in ("__init__.py", "deep/__init__.py"):
        (package / file).touch()
    (package / "connector.py").write_text(CONNECTOR)
    about = tmp_path / "acme-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    entry = "[gofax_relay.connectors]\nacme = acme.connector:Acme\n"
    (about / "entry_points.txt").write_text(entry)
    (tmp_path / "secret").write_text("the-first-secret-of-the-relay")
    (tmp_path / "config.yaml").write_text(CONFIG.format(port=port, path="first"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.fixture
def watching(folder: Path) -> Iterator[Callable[[], str]]:
    """``serve --watch``; returns what it has said."""
    said = folder / "said"
    with said.open("w") as err:
        command = [sys.executable, "-m", "relay.cli", "serve", "--watch"]
        process = subprocess.Popen(command, cwd=folder, stderr=err, start_new_session=True)
    try:
        yield said.read_text
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def answers(port: int, path: str) -> int:
    try:
        return requests.post(f"http://127.0.0.1:{port}/{path}", json={}, timeout=5).status_code
    except (requests.ConnectionError, requests.Timeout):
        return 0


@pytest.mark.slow
def test_it_starts_again_when_config_secret_or_connector_change(
    folder: Path, port: int, watching: Callable[[], str]
) -> None:
    eventually(lambda: answers(port, "first") == 401)

    (folder / "other").touch()
    (folder / "config.yaml").write_text(CONFIG.format(port=port, path="second"))
    eventually(lambda: answers(port, "second") == 401)
    assert "changed: config.yaml; starting again" in watching()

    (folder / "secret").write_text("the-second-secret-of-the-relay")
    eventually(lambda: "changed: secret; starting again" in watching())
    (folder / "acme" / "connector.py").write_text(CONNECTOR.replace("class", "class("))
    eventually(lambda: "acme/connector.py; starting again" in watching())
    eventually(lambda: "SyntaxError" in watching())
    assert answers(port, "second") == 0

    (folder / "acme" / "connector.py").write_text(CONNECTOR)
    eventually(lambda: answers(port, "second") == 401)
    assert "other" not in watching()


def test_it_follows_config_secrets_and_sources_but_not_what_is_installed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    config = folder / "config.yaml"
    others = "destinations:\n  other: {connector: nobody}\n  wrong: 1\n"
    config.write_text(config.read_text().replace("destinations:\n", others))

    found = watched_by(config)

    assert found.files == {config, folder / "secret"}
    assert found.folders == {folder / "acme", folder / "acme" / "deep"}
    assert found.places == {folder, folder / "acme", folder / "acme" / "deep"}
    assert _accepted(found, folder / "acme" / "deep" / "x.py", config) == [True, True]
    assert _accepted(found, folder / "x.py", folder / "acme" / "x.pyc") == [False, False]


def test_it_goes_on_with_what_it_watched_while_the_config_is_no_yaml(folder: Path) -> None:
    config = folder / "config.yaml"
    before = watched_by(config)

    config.write_text("a: b: c")

    assert watched_by(config, before=before) == before
    assert watched_by(config).files == {config}


def _accepted(watched: Watched, *files: Path) -> list[bool]:
    return [watched.accepts(1, str(each)) for each in files]  # type: ignore[arg-type]


def test_in_a_terminal_it_says_in_words_where_posts_go_and_what_becomes_of_them(
    folder: Path, port: int
) -> None:
    url = f"http://127.0.0.1:{port}/first"
    with terminal("serve", folder=folder, columns=80, term="dumb") as screen:
        eventually(lambda: f"endpoint.served  {url}  json, signed with its secret" in screen.said)
        eventually(lambda: answers(port, "first") == 401)
        eventually(lambda: "request.received  /first  401  refused  " in screen.said)
        screen.process.send_signal(signal.SIGTERM)
        assert screen.end() == 0
        assert "{" not in screen.said
