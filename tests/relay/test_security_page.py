"""docs/security.md says of each page and each call who may use it, and from where people come."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from consoles import Console, console
from werkzeug.routing import Rule

from relay.api.identity import origin
from relay.api.services import install
from relay.rules.access import Scope
from relay.store import Database

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
#: First cells of the tables, and which rules they are about: the first that matches is meant.
ROWS = (
    ("GET /`, `/console/static/…", r"GET (/|/console/static/.*)"),
    ("/console/sign-in`, `/console/welcome/LINK", r"\S+ /console/(sign-in|welcome/.*)"),
    ("/console/confirm`, `/console/sign-out", r"\S+ /console/(confirm|sign-out)"),
    ("/console/api`, which", r"\S+ /console/api"),
    ("GET /console/settings/people", r"GET /console/settings/(people|audit|privacy)"),
    ("POST /console/settings/…", r"POST /console/settings/.*"),
    ("POST /console/routes`", r"POST /console/(routes|conversations/.*|.*/unmask)"),
    ("POST /console/…", r"POST /console/.*"),
    ("/console/…` pages", r"GET /console/.*"),
    ("GET /api/v1/openapi.json", r"GET /api/v1/openapi.json"),
    ("/api/v1/users`", r"\S+ /api/v1/(users|tokens|audit|erase|export)(/.*)?"),
    ("other `GET /api/v1/…", r"GET /api/v1/.*|POST /api/v1/(routes/try|.*/unmask)"),
    ("other `POST /api/v1/…", r"POST /api/v1/.*"),
    ("/metrics", r"GET /metrics"),
)


@pytest.fixture
def made(tmp_path: Path, database: Database) -> Iterator[Console]:
    with console(tmp_path, database) as made:
        yield made


def needed(cell: str) -> str:
    """Return what the row with this beginning needs."""
    found = re.search(rf"^\| `?{re.escape(cell)}.*?\| (.*?) \|", PAGE, re.MULTILINE)
    assert found is not None, cell
    return found[1].strip("`")


def calls(rule: Rule) -> Iterator[str]:
    for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
        yield f"{method} {rule.rule}"


def test_every_page_and_call_needs_what_the_page_says(made: Console) -> None:
    wrong, seen = [], set()
    for rule in made.app.url_map.iter_rules():
        scope = getattr(made.app.view_functions[rule.endpoint], "needed_scope", None)
        for call in calls(rule):
            cell = next((cell for cell, meant in ROWS if re.fullmatch(meant, call)), None)
            if cell is None:
                wrong.append(f"{call}: no row")
                continue
            seen.add(cell)
            said = needed(cell)
            if said != scope if said in list(Scope) else scope is not None:
                wrong.append(f"{call}: {scope}, not {said}")

    assert wrong == []
    assert seen == {cell for cell, _ in ROWS}


@pytest.mark.parametrize(
    ("url", "proxies", "remote", "given", "believed"),
    [
        # Nobody is in front: the header is anybody's word.
        (None, 0, "127.0.0.1", "203.0.113.9", "127.0.0.1"),
        # A proxy on this machine, and what somebody wrote before it.
        ("https://relay.example.com", 0, "127.0.0.1", "203.0.113.9", "203.0.113.9"),
        ("https://relay.example.com", 0, "::1", "1.2.3.4, 203.0.113.9", "203.0.113.9"),
        ("https://relay.example.com", 0, "127.0.0.1", "nonsense", "127.0.0.1"),
        # In another container; without a word of the config it is a stranger.
        ("https://relay.example.com", 0, "172.18.0.5", "203.0.113.9", "172.18.0.5"),
        ("https://relay.example.com", 1, "172.18.0.5", "203.0.113.9", "203.0.113.9"),
        ("https://relay.example.com", 1, "172.18.0.5", "", "172.18.0.5"),
        (None, 1, "172.18.0.5", "203.0.113.9", "172.18.0.5"),
    ],
)
def test_the_audit_log_believes_a_proxy_that_there_is(
    made: Console, url: str | None, proxies: int, remote: str, given: str, believed: str
) -> None:
    config = made.config
    assert config.admin is not None
    changed = config.model_copy(
        update={
            "admin": config.admin.model_copy(update={"url": url}),
            "server": config.server.model_copy(update={"trusted_proxies": proxies}),
        }
    )
    install(made.app, replace(made.services, config=changed))
    environ = {"REMOTE_ADDR": remote}

    with made.app.test_request_context(
        "/console/", headers={"X-Forwarded-For": given}, environ_base=environ
    ):
        assert origin() == believed
