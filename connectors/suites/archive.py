"""The conformance suite of the connector ``archive``."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from connectors.archive import folder
from connectors.archive.connector import Archive
from connectors.suites import page
from connectors.testing import ConnectorSuite, Effect, StandIn


class TestArchive(ConnectorSuite):
    """A folder on this machine."""

    connector = Archive
    over_http = False
    files = (folder.__file__,)

    def options(self, url: str) -> Mapping[str, Any]:
        return {"url": url}

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "archive"
            yield StandIn(url=str(root), effects=lambda: rows(root))

    def docs(self) -> str:
        return page("archive")


def rows(root: Path) -> list[Effect]:
    """Return the rows below *root*; every line has to be whole."""
    found = []
    for part in sorted(root.rglob("*.jsonl")):
        lines = part.read_text(encoding="utf-8").split("\n")
        assert lines.pop() == "", f"{part.name} ends within a line"
        found += [Effect("row", str(json.loads(line)["body"])) for line in lines]
    return found
