"""What the pages say works: their code runs as it stands, their configs load."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import pytest
from programs import free_port

from connectors import Connector, Event, Receipt
from connectors.testing import ConnectorSuite
from connectors.testing.findings import MENDS
from connectors.testing.hooks import Hooks
from relay import scaffold
from relay.config.installed import find
from relay.config.load import load
from relay.rules.kinds import Kind
from relay.rules.pages import REPOSITORY, mending_page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w+)( \w+)?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: What a reader does over the network, and what does the same here without it.
OFFLINE = {
    "python3 -m venv .venv": "",
    ". .venv/bin/activate": "",
    "pip install -e '.[test]'": "python -m pip install -q --no-deps --no-build-isolation "
    '--no-index --target "$SITE" .',
}
PATIENCE = 60.0


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Return what follows the language, and the text, of the page's blocks in order."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return [(found[2] or "", found[3]) for found in FENCE.finditer(text) if found[1] in languages]


class Reader:
    """Somebody who does what a page says, in a folder of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.said = ""
        self._stack = stack
        self._ports = {8080: free_port(), 8091: free_port()}
        programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        site = str(folder.parent / "site")
        self._environ = {**os.environ, "PATH": programs, "PYTHONPATH": site, "SITE": site}

    def save(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self._adapted(text), encoding="utf-8")

    def does(self, text: str) -> str:
        """Run a block to its end, in a shell that stops at the first failure."""
        script = f"set -e\n{self._adapted(text)}\npwd > {self.folder.parent}/where\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.folder,
            env=self._environ,
            capture_output=True,
            text=True,
            check=False,
            timeout=5 * PATIENCE,
        )
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        self.folder = Path((self.folder.parent / "where").read_text().strip())
        return done.stdout

    def starts(self, text: str, *, port: int) -> None:
        """Run a block that goes on, and wait until its port answers."""
        log = self._stack.enter_context((self.folder.parent / f"{port}.log").open("w"))
        process = subprocess.Popen(
            ["bash", "-c", f"exec {self._adapted(text)}"],
            cwd=self.folder,
            env=self._environ,
            stdout=log,
            stderr=log,
        )
        self._stack.callback(process.wait, 30)
        self._stack.callback(process.terminate)
        ends_at = time.monotonic() + PATIENCE
        while time.monotonic() < ends_at and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._ports[port])) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"{text}: {Path(log.name).read_text()}")

    def _adapted(self, text: str) -> str:
        for line, instead in OFFLINE.items():
            text = text.replace(line, instead)
        for port, free in self._ports.items():
            text = text.replace(f":{port}", f":{free}").replace(f"port={port}", f"port={free}")
        return text


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def reader(tmp_path: Path, stack: ExitStack) -> Reader:
    pytest.importorskip("pip")
    (tmp_path / "here").mkdir()
    return Reader(tmp_path / "here", stack)


def _anchors(page: str) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def test_every_link_leads_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
    broken = []
    for page in pages:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            name, _, anchor = link.partition("#")
            target = page.parent / name if name else page
            if link.startswith(("https://", "http://")):
                continue
            if not target.exists() or (anchor and anchor not in _anchors(target.read_text())):
                broken.append(f"{page.name}: {link}")

    assert broken == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = set(re.findall(r"\(docs/([\w-]+\.md)", (ROOT / "README.md").read_text()))

    assert linked == {each.name for each in DOCS.glob("*.md")}


def test_every_kind_of_problem_has_its_section_with_a_command() -> None:
    page = (DOCS / "mending.md").read_text(encoding="utf-8")
    part = page.split("## By problem\n")[1].split("\n## ")[0]
    sections = dict(re.findall(r"^### (.+)\n\n((?:(?!### ).*\n?)*)", part, re.MULTILINE))

    assert list(sections) == list(Kind)
    assert [kind for kind, text in sections.items() if "gofax-relay " not in text] == []
    assert [kind for kind, text in sections.items() if not text.startswith("**")] == []


def test_links_from_the_relay_lead_to_the_repository_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    assert project["urls"]["Repository"] + "/blob/main" == REPOSITORY
    for kind in Kind:
        page, _, section = mending_page(kind).partition("#")
        assert section in _anchors((ROOT / page).read_text(encoding="utf-8"))


class TestConnectors:
    PAGE = "connectors.md"

    @pytest.mark.slow
    def test_from_nothing_to_a_working_connector(self, reader: Reader) -> None:
        shell = [text for kind, text in blocks(self.PAGE, "sh") if not kind]
        stand_in, serve = (text for kind, text in blocks(self.PAGE, "sh") if kind)
        environment, write, try_it, look, describe = shell
        config = blocks(self.PAGE, "yaml")[0][1]

        reader.does(environment)
        reader.does(write)
        module = reader.folder / "gofax-relay-acme/src/gofax_relay_acme/stand_in.py"
        reader.save(str(module), module.read_text(encoding="utf-8"))  # with a port that is free
        # All but one of the kit's, and one of the package's own.
        checks = sum(each.startswith("test_C") for each in dir(ConnectorSuite))
        assert f"{checks} passed, 1 skipped" in reader.does(try_it)
        reader.save("config.yaml", config)
        reader.starts(stand_in, port=8091)
        reader.starts(serve, port=8080)
        said = reader.does(look)
        ends_at = time.monotonic() + PATIENCE
        while "✓ notes" not in (listed := reader.does("gofax-relay events")):
            assert time.monotonic() < ends_at, listed
        reader.does(describe)

        assert "✓ notes: signed in as the stand-in" in said
        assert re.search(r"  200 .*accepted", said), said
        schema = json.loads((reader.folder / "config.schema.json").read_text())
        known = schema["$defs"]["DestinationConfig"]["properties"]["connector"]["anyOf"][0]["enum"]
        assert "acme" in known

    def test_the_files_are_those_that_are_written(self) -> None:
        page = (DOCS / self.PAGE).read_text(encoding="utf-8")
        named = set(re.findall(r"`([\w./-]+\.(?:py|toml|md|yml))`", page.split("**2.")[0]))

        assert named == set(scaffold.package("acme")) - {
            ".gitignore",
            "src/gofax_relay_acme/py.typed",
        }

    @pytest.mark.slow
    def test_the_code_is_a_connector_that_passes(self, tmp_path: Path) -> None:
        code = "\n".join(text for _, text in blocks(self.PAGE, "python"))
        (tmp_path / "test_chat.py").write_text(code, encoding="utf-8")

        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider",
             "-p", "connectors.testing.report", "--rootdir", str(tmp_path), str(tmp_path)],
            capture_output=True, text=True, check=False, cwd=tmp_path, timeout=5 * PATIENCE,
        )  # fmt: skip

        assert done.returncode == 0, done.stdout + done.stderr
        assert "C17 a killed process leaves one effect of each kind: passed" in done.stdout

    def test_every_check_is_explained_with_what_mends_it(self) -> None:
        page = (DOCS / self.PAGE).read_text(encoding="utf-8")
        explained = re.findall(r"^\| (C\d\d) \| .* \| (.*) \|$", page, re.MULTILINE)

        assert dict(explained) == MENDS
        assert set(MENDS) == {each[5:8] for each in dir(ConnectorSuite) if "test_C" in each}

    def test_every_field_of_the_event_is_explained(self) -> None:
        page = (DOCS / self.PAGE).read_text(encoding="utf-8")
        table = page.split("### The event")[1].split("\n\n")[1]
        explained = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", table, re.M)))

        assert sorted(explained) == sorted(field.name for field in fields(Event))

    def test_everything_that_a_connector_declares_is_explained(self) -> None:
        page = (DOCS / self.PAGE).read_text(encoding="utf-8")
        declared = [name for name in Connector.__annotations__ if name.startswith("default_")]
        given = [*declared, *(field.name for field in fields(Receipt)), "scope", "detail"]

        assert [name for name in given if f"`{name}`" not in page] == []

    def test_every_declaration_is_explained(self) -> None:
        page = (DOCS / self.PAGE).read_text(encoding="utf-8")
        declared = {each for each in vars(Hooks)["__annotations__"] if each != "connector"}

        explained = page.split("### What a suite may declare")[1].split("\n#")[0]
        assert [each for each in sorted(declared) if f"`{each}`" not in explained] == []

    def test_configs_load(self, tmp_path: Path) -> None:
        for _, text in blocks(self.PAGE, "yaml"):
            path = tmp_path / "config.yaml"
            path.write_text(text.replace("connector: acme", "connector: hubspot").replace(
                "token: token", "access_token: token"))  # fmt: skip
            assert load(path, find_connector=find, environ={"GOFAX_SIGNING_SECRET": "x" * 32})


class TestRecipes:
    PAGE = (DOCS / "recipes.md").read_text(encoding="utf-8")

    def test_every_kind_has_its_command(self) -> None:
        commands = re.findall(r"`gofax-relay connectors new [a-z]+ --like ([a-z]+)`", self.PAGE)

        assert set(commands) == set(scaffold.KINDS)

    def test_what_it_says_of_the_templates_is_there(self) -> None:
        """The left columns quote the template ``ticket``, and the text some names of ``chat``."""
        written = {
            kind: "\n".join(scaffold.package("acme", like=kind).values())
            for kind in ("chat", "ticket")
        }
        paths = re.findall(r"^\| `(?:GET|POST) (/\w+)", self.PAGE, re.MULTILINE)
        names = [*paths, "Bearer", "external_id", 'CLOSED = "closed"']

        assert paths
        assert [name for name in names if name not in written["ticket"]] == []
        for name in ("ERRORS", "_messages", "fatal_error", "internal_error", "missing_scope"):
            assert f"`{name}`" in self.PAGE
            assert name in written["chat"]


@pytest.mark.parametrize("position", range(len(blocks("sandbox.md", "python"))))
def test_code_of_the_sandbox_page_runs(position: int, tmp_path: Path) -> None:
    _, text = blocks("sandbox.md", "python")[position]

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=PATIENCE,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("http://127.0.0.1:", "[]"))
