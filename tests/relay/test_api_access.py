"""Who may call what: every call of the API, by every token that there can be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import apis
import pytest
from apis import PREFIX, Api
from consoles import Filled

from relay.api.identity import SPOKEN_FOR
from relay.rules.access import SCOPES, Identity, Role, Scope
from relay.store import Database

#: The description, which says nothing about anybody.
OPEN = {"description"}
REALM = 'Bearer realm="gofax-relay"'


@pytest.fixture
def api(tmp_path: Path, database: Database, filled_once: tuple[Path, Filled]) -> Iterator[Api]:
    with apis.api(tmp_path, database, filled=filled_once[1]) as made:
        yield made


def calls(api: Api) -> list[tuple[str, str, str]]:
    """Return method, path and endpoint of every call."""
    return [
        (method, re.sub("<[^>]+>", "unknown", rule.rule), rule.endpoint)
        for rule in api.console.app.url_map.iter_rules()
        if rule.rule.startswith(f"{PREFIX}/")
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"})
    ]


def needed(api: Api, endpoint: str) -> Scope:
    scope = getattr(api.console.app.view_functions[endpoint], "needed_scope", None)
    assert isinstance(scope, Scope), f"{endpoint} does not say what it needs"
    return scope


def test_every_call_answers_those_who_may_and_nobody_else(api: Api) -> None:
    programs = {
        None: api.program(),
        **{scope: api.program(scope) for scope in Scope},
    }
    expired = api.program(Scope.READ, expires_at=api.console.now - timedelta(seconds=1))
    found = [each for each in calls(api) if each[2] not in OPEN]
    assert len(found) > 40

    wrong = []
    for method, path, endpoint in found:
        scope = needed(api, endpoint)
        for given, program in programs.items():
            status = program.call(method, path).status
            # A token with any scope may read.
            may = given is not None and scope in {Scope.READ, given}
            expected = 401 if given is None else 403
            if may == (status in (401, 403)) or (not may and status != expected):
                wrong.append(f"{method} {path} with {given}: {status}")
        if (status := expired.call(method, path).status) != 401:
            wrong.append(f"{method} {path} with an expired token: {status}")

    assert wrong == []


def test_a_view_that_does_not_say_what_it_needs_answers_nobody(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = api.console.app.view_functions["api_problems.list_problems"]
    monkeypatch.delattr(view, "needed_scope")

    assert api.admin.get("/problems").status == 403


def test_only_admins_look_at_people_customers_and_the_audit_log(api: Api) -> None:
    admins = {endpoint for _, _, endpoint in calls(api) if endpoint not in OPEN
              and needed(api, endpoint) is Scope.ADMIN}  # fmt: skip

    assert {each.partition(".")[2] for each in admins} == {
        "list_users", "add_user", "change_role", "renew_user", "remove_user",
        "list_tokens", "add_token", "remove_token", "list_audit", "export_customer",
        "erase_customer",
    }  # fmt: skip


@pytest.mark.parametrize(
    "header", ["", "Basic YTpi", "Bearer", "Bearer ", "Bearer x", "Bearer \u00e4", "bearer"]
)
def test_what_is_no_token_is_refused(api: Api, header: str) -> None:
    answer = api.program().call("GET", "/events", headers={"Authorization": header})

    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith(REALM)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_no_header_makes_somebody_a_person_of_the_console(api: Api) -> None:
    for name in (SPOKEN_FOR, "gofax-relay-identity", "X-Forwarded-User"):
        answer = api.program().call("GET", "/events", headers={name: "admin"})
        assert answer.status == 401


def test_the_console_speaks_for_a_person_with_that_persons_scopes(api: Api) -> None:
    viewer = Identity(name="vera", scopes=SCOPES[Role.VIEWER], origin="192.0.2.7")
    admin = Identity(name="ann", scopes=SCOPES[Role.ADMIN], origin="192.0.2.8")
    program = api.program()

    def pause(who: Identity) -> int:
        return program.call(
            "POST", "/destinations/crm/pause", json={}, environ_overrides={SPOKEN_FOR: who}
        ).status

    assert pause(viewer) == 403
    assert pause(admin) == 200
    entry = api.last_action()
    assert (entry["what"], entry["who"], entry["origin"]) == ("pause", "ann", "192.0.2.8")


def test_private_answers_are_not_kept_by_anybody(api: Api) -> None:
    answer = api.reader.get("/events")

    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers


def test_a_name_that_points_here_from_elsewhere_is_not_answered(api: Api) -> None:
    answer = api.reader.call("GET", "/events", headers={"Host": "evil.example"})

    assert answer.status == 421
