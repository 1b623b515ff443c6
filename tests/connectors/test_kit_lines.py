"""Connectors that speak no HTTP are killed at each of their lines; the suite is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from pydantic import Field

from connectors import Connector, Event, Options, Receipt
from connectors.testing import ConnectorSuite, Effect, StandIn


class FolderOptions(Options):
    """Where the files go."""

    folder: str = Field(description="A folder.")


class Folder(Connector[FolderOptions]):
    """Keeps a file for each event, complete or not at all."""

    Options = FolderOptions
    default_rate = None

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        path = Path(self.options.folder) / f"{key}.json"
        unfinished = path.with_suffix(".part")
        text = json.dumps({"text": event.body, "from": event.customer})
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
        return Receipt(reference=path.name)

    def check(self) -> str:
        return f"writes to {self.options.folder}"


class Torn(Folder):
    """Adds a line to one file, and another that says how many there are."""

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        path = Path(self.options.folder) / "all.json"
        known = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if repeat and len(known) % 2 == 0 and any(key in each for each in known):
            return Receipt(reference=key)
        text = json.dumps({"text": event.body, "key": key})
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{len(known) // 2 + 1}\n")
        return Receipt(reference=key)


class TestFolder(ConnectorSuite):
    """The good one passes everything that has nothing to do with HTTP."""

    connector = Folder
    over_http = False
    exempt = {"C16": "it is documented nowhere but in this file"}

    def options(self, url: str) -> Mapping[str, Any]:
        return {"folder": url}

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with TemporaryDirectory() as folder:
            yield StandIn(url=folder, effects=lambda: _files(Path(folder)))


class TornSuite(TestFolder):
    connector = Torn

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with TemporaryDirectory() as folder:
            yield StandIn(url=folder, effects=lambda: _lines(Path(folder)))


def _files(folder: Path) -> list[Effect]:
    return [Effect("file", json.loads(each.read_text())["text"]) for each in folder.glob("*.json")]


def _lines(folder: Path) -> list[Effect]:
    path = folder / "all.json"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Effect("line", each) for each in lines if each.startswith("{")]


def test_what_a_kill_between_two_lines_tears_is_found() -> None:
    with pytest.raises(pytest.fail.Exception) as raised:
        TornSuite().test_C17_a_killed_process_leaves_one_effect_of_each_kind()

    assert "first event, killed at line" in str(raised.value)
    assert "2 of kind line, wanted 1" in str(raised.value)


def test_what_is_never_killed_says_nothing() -> None:
    class Elsewhere(TestFolder):
        files = ("nowhere.py",)

    with pytest.raises(pytest.fail.Exception, match="no process was killed"):
        Elsewhere().test_C17_a_killed_process_leaves_one_effect_of_each_kind()
