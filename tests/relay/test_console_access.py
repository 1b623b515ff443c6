"""Who may do what in the console: roles, scopes, foreign pages, and people in settings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import consoles
import pytest
from consoles import Console
from signing_in import GOOD, OTHER, acts_of, move_clock, new_user, sign_in
from structlog.testing import capture_logs

from relay.rules.access import Role, Scope
from relay.store import Database, connect
from relay.store.actions import Act

#: Pages that anybody may ask for.
OPEN = {"console.sign_in", "console.welcome", "console.static"}


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


def test_who_may_not_do_something_stands_in_the_log(console: Console) -> None:
    viewer = console.visitor(Role.VIEWER, name="viewer")
    services, act = console.services, Act(who="test", why=None, at=console.now)
    made = services.tokens.add("reader", frozenset({Scope.READ}), act, expires_at=None)
    assert made is not None
    number = consoles.ANN

    with capture_logs() as logs:
        assert viewer.post("/console/settings/export", number=number).status == 403
        bearer = {"Authorization": f"Bearer {made[1]}"}
        client = console.nobody.client
        assert client.get(f"/api/v1/export/{number}", headers=bearer).status_code == 403

    assert [(each["event"], each["who"], each["remote"]) for each in logs] == [
        ("access.refused", "viewer", "127.0.0.1"),
        ("access.refused", "token reader", "127.0.0.1"),
    ]
    assert number[1:] not in repr(logs)


def test_an_unknown_token_stands_in_the_log_without_it(console: Console) -> None:
    with capture_logs() as logs:
        for _ in range(20):
            bearer = {"Authorization": f"Bearer {OTHER}"}
            answer = console.nobody.client.get("/api/v1/problems", headers=bearer)
            assert answer.status_code == 401

    shown = {
        "event": "token.unknown",
        "remote": "127.0.0.1",
        "asked": "api_problems.list_problems",
    }
    assert logs == [{**shown, "log_level": "warning"}] * 10


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "relay.db", "[::2]"])
def test_a_foreign_name_is_refused(console: Console, host: str) -> None:
    for path in ("/console/", "/api/v1/problems", "/"):
        answer = console.nobody.client.get(path, base_url=f"http://{host}")

        assert answer.status_code == 421


def test_a_form_without_our_token_does_nothing(console: Console) -> None:
    visitor = console.visitor(Role.OPERATOR)

    page = visitor.post("/console/destinations/crm/pause", has_token=False, why="forged")

    assert page.status == 400
    assert console.services.queries.pauses() == {}


def test_nothing_private_is_kept_or_framed(console: Console) -> None:
    headers = console.visitor(Role.ADMIN).get("/console/settings").headers

    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"


def test_every_page_says_who_may_use_it_and_keeps_to_it(console: Console) -> None:
    """Walk all rules × nobody, viewer, operator, admin."""
    asked = 0
    for rule in console.app.url_map.iter_rules():
        if not rule.rule.startswith("/console") or rule.endpoint in OPEN:
            continue
        view = console.app.view_functions[rule.endpoint]
        needed = getattr(view, "needed_scope", None)
        if rule.endpoint in ("console.confirm", "console.sign_out"):
            needed = Scope.READ
        assert needed is not None, f"{rule.endpoint} names no scope"
        path = re.sub("<[^>]*>", "nothing-of-this-name", rule.rule)
        method = (
            "POST"
            if "POST" in (rule.methods or ()) and "GET" not in (rule.methods or ())
            else "GET"
        )
        asked += 1

        if method == "GET":
            assert console.nobody.get(path).location.startswith("/console/sign-in"), rule
        if rule.endpoint == "console.sign_out":
            continue
        for role in Role:
            visitor = console.visitor(role)
            page = visitor.get(path) if method == "GET" else visitor.post(path)
            allowed = (
                needed
                in {
                    Role.VIEWER: {Scope.READ},
                    Role.OPERATOR: {Scope.READ, Scope.OPERATE},
                    Role.ADMIN: set(Scope),
                }[role]
            )
            assert (page.status != 403) is allowed, (rule, role, page.status)
            assert page.status < 500, (rule, role, page.text[:300])
    assert asked > 20


def test_what_cannot_be_taken_back_asks_for_the_password_again(console: Console) -> None:
    new_user(console, "root", Role.ADMIN)
    visitor = console.nobody
    sign_in(visitor, "root", GOOD)
    move_clock(console, timedelta(minutes=11))
    page = visitor.get("/console/settings/privacy")

    asked = visitor.press(page, "See what would go", number="+61400000123")
    assert asked.location.startswith("/console/confirm")
    form = visitor.follow(asked)
    assert visitor.press(form, "Continue", password=OTHER).status == 403
    assert visitor.press(form, "Continue", password=GOOD).location.startswith("/console/")

    page = visitor.get("/console/settings/privacy")
    assert visitor.press(page, "See what would go", number="+61400000123").status == 200


def test_an_admin_makes_users_and_tokens_and_takes_them_away(console: Console) -> None:
    admin = console.visitor(Role.ADMIN)
    page = admin.get("/console/settings/people")

    made = admin.press(page, "Add a user", name="cat", role="viewer")
    assert re.search(r"http://localhost/console/welcome/\S+", made.text)
    assert admin.press(page, "Add a user", name="cat", role="viewer").status == 422
    wrong = admin.press(page, "Add a user", name="c a t <b>", role="viewer")
    assert (wrong.status, "letters, digits" in wrong.text) == (422, True)

    token = admin.press(page, "Make a token", name="reports", **{"for": "90d"})
    assert re.search(r"gofaxrelay_[\w-]{40}", token.text)
    shown = re.findall(r"gofaxrelay_[\w-]+", token.text)[0]
    answer = console.nobody.client.get(
        "/api/v1/problems", headers={"Authorization": f"Bearer {shown}"}
    )
    assert answer.status_code == 200
    wrong = admin.press(page, "Make a token", name="other", **{"for": "soon"})
    assert (wrong.status, 'value="soon"' in wrong.html) == (422, True)

    admin.press(admin.get("/console/settings/people"), "Revoke")
    admin.post("/console/settings/users/cat/remove")
    assert [each.name for each in console.services.tokens.all()] == []
    assert console.services.users.named("cat") is None
    assert {"add user", "add token", "remove token", "remove user"} <= set(acts_of(console))
    assert shown not in admin.get("/console/settings/audit").text


def test_an_admin_does_not_lock_the_door_from_outside(console: Console) -> None:
    admin = console.visitor(Role.ADMIN)

    assert admin.post(f"/console/settings/users/{admin.name}/remove").status == 422
    assert admin.post(f"/console/settings/users/{admin.name}/role", role="viewer").status == 422
    assert admin.get("/console/settings/people").status == 200


def test_without_the_store_pages_say_so_and_metrics_are_answered(tmp_path: Path) -> None:
    away = connect("postgresql://nobody@127.0.0.1:9/nothing")
    with consoles.console(tmp_path, away) as console:
        for path in ("/console/", "/console/sign-in"):
            page = console.nobody.get(path)
            assert (page.status, "The store is away" in page.text) == (503, True)
        token = {"Authorization": "Bearer x"}
        answer = console.nobody.client.get("/api/v1/problems", headers=token)
        assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
        assert console.nobody.client.get("/metrics").status_code == 200
        with console.nobody.client.get("/console/static/console.css") as answer:
            assert answer.status_code == 200
