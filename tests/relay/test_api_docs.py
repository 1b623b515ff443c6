"""docs/api.md: what it says to type works, and answers what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apis
import consoles
import pytest
from apis import PREFIX, Api
from consoles import Filled
from werkzeug.serving import make_server

from relay.store import Database

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def api(tmp_path: Path, database: Database, filled_once: tuple[Path, Filled]) -> Iterator[Api]:
    with apis.api(tmp_path, database, filled=filled_once[1]) as made:
        yield made


@contextmanager
def served(api: Api) -> Iterator[int]:
    """Serve the application on a free port."""
    server = make_server("127.0.0.1", 0, api.console.app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.port
    server.shutdown()
    thread.join()
    server.server_close()


def blocks(language: str) -> list[str]:
    return [text for kind, text in FENCE.findall(PAGE) if kind == language]


def _as_here(api: Api, text: str, port: int) -> str:
    [dead] = [each for each in api.console.event(api.filled.dead).deliveries
              if each.destination == "helpdesk"]  # fmt: skip
    here = {
        "127.0.0.1:8081": f"127.0.0.1:{port}",
        "dlv_0193a1b2c3d4": dead.id,
        "abc123": "m-dead",
        "345678&": "000124&",
        "/0412345678": f"/{consoles.BEN}",
        "curl -sS": "curl -sS -w '\\nANSWERED %{http_code} %{method} %{url_effective}\\n'",
    }
    for word, instead in here.items():
        assert word in text, word
        text = text.replace(word, instead)
    return text


@pytest.mark.slow
def test_what_it_says_to_type_works(api: Api, tmp_path: Path) -> None:
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with served(api) as port:
        script = "set -e\n" + _as_here(api, "\n".join(blocks("sh")), port)
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={**os.environ, "PATH": programs},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr

    answered = re.findall(r"^ANSWERED (\d+) (\w+) (\S+)$", done.stdout, re.MULTILINE)
    assert len(answered) == len(re.findall(r"^curl", "\n".join(blocks("sh")), re.MULTILINE))
    faults = [each for each in answered if each[0] != "200"]
    assert [(status, PREFIX in url) for status, _, url in faults] == [("422", True)]
    last = done.stdout.rpartition("\n{")[2].partition("ANSWERED")[0]
    assert json.loads("{" + last) == json.loads(blocks("json")[-1])


def test_the_calls_it_names_exist(api: Api) -> None:
    there = {
        re.sub(r"<\w+>", "X", each.rule.removeprefix(PREFIX))
        for each in api.console.app.url_map.iter_rules()
        if each.rule.startswith(PREFIX)
    }
    named = re.findall(r"`(?:GET |POST )?(/[a-z][\w/.-]+)`", PAGE)
    named = [re.sub(r"/[A-Z]+\b", "/X", each) for each in named if not each.startswith("/api")]

    assert len(named) > 10
    assert [each for each in named if each not in there] == []


def test_an_example_of_a_page_is_one(api: Api) -> None:
    example = json.loads(blocks("json")[0].replace("…", ""))
    real = api.reader.get("/events", limit=1).json

    assert example.keys() == real.keys()
    assert example["items"][0].keys() <= real["items"][0].keys()
    assert type(example["next"]) is type(real["next"])
