"""Checks and tests of a destination by the API: really done, and noted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import apis
import consoles
import pytest
from apis import Api

from relay.store import Database

TO_A_FOLDER = "  folder: {connector: archive, url: archive}\nroutes:"


@pytest.fixture
def api(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The usual config, and a destination that needs no network."""
    monkeypatch.setattr(consoles, "CONFIG", consoles.CONFIG.replace("routes:", TO_A_FOLDER))
    with apis.api(tmp_path, database) as made:
        yield made


def test_a_test_arrives_and_the_audit_log_says_who_sent_it(api: Api, tmp_path: Path) -> None:
    body = {"from": "0491 570 006", "why": "after the move"}

    sent = api.operator.post("/destinations/folder/test", **body)

    assert (sent.status, sent.json["outcome"]) == (200, "delivered")
    [file] = (tmp_path / "archive").rglob("*.jsonl")
    [line] = [json.loads(each) for each in file.read_text().splitlines()]
    assert "sent by token operate" in json.dumps(line)
    assert "+61491570006" in json.dumps(line)
    entry = api.last_action()
    assert (entry["what"], entry["destination"], entry["why"]) == (
        "send-test",
        "folder",
        "after the move",
    )
    assert all(each["message_id"] != sent.json["message_id"]
               for each in api.reader.get("/events").items)  # fmt: skip


def test_a_check_asks_the_destination(api: Api) -> None:
    found = api.operator.post("/destinations/folder/check")

    assert (found.status, found.json["destination"], found.json["good"]) == (200, "folder", True)


def test_one_that_cannot_work_says_why(api: Api, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file in its place")

    assert api.operator.post("/destinations/folder/check").json["good"] is False
    sent = api.operator.post("/destinations/folder/test").json
    assert sent["outcome"] != "delivered" and sent["detail"]
