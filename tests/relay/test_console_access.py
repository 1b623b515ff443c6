"""Who gets into the console, how, and how long: signing in, sessions, roles, foreign pages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import consoles
import pytest
from consoles import Console, Page, Visitor
from itsdangerous import timed
from itsdangerous.encoding import base64_decode
from structlog.testing import capture_logs

from relay.acts.links import link_for
from relay.console import passwords
from relay.rules.access import (
    IDLE,
    LINK_LIVES,
    LOCKED_FOR,
    LONGEST_SESSION,
    TRIES,
    Role,
    Scope,
    fault_of_password,
)
from relay.store import Database, connect
from relay.store.people import User
from relay.store.recover import Act

GOOD = "four plain words here"
OTHER = "four other words here"
#: Pages that anybody may ask for.
OPEN = {"console.sign_in", "console.welcome", "console.static"}


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


@pytest.fixture
def named(tmp_path: Path, database: Database) -> Iterator[Console]:
    """A console that has a name of its own, too."""
    with consoles.console(tmp_path, database, url="https://relay.example.com") as made:
        yield made


@pytest.fixture
def ann(console: Console) -> User:
    return _user(console, "ann", Role.OPERATOR)


def _user(console: Console, name: str, role: Role) -> User:
    act = Act(who="test", why=None, at=console.now)
    users = console.services.users
    made = users.add(name, role, act)
    assert made is not None
    users.choose_password(made, passwords.hashed(GOOD), act)
    return _again(console, name)


def _again(console: Console, name: str) -> User:
    user = console.services.users.named(name)
    assert user is not None
    return user


def _sign_in(
    visitor: Visitor, name: str, password: str, *, next: str = "", **options: str
) -> Page:
    form = visitor.get(f"/console/sign-in?next={next}")
    return visitor.press(form, "Sign in", name=name, password=password)


def _later(console: Console, by: timedelta) -> None:
    """Move the clock that all nodes share."""
    now = console.database.clock
    console.database.clock = lambda: now() + by


def _what(console: Console) -> list[str]:
    return [each.action.what for each in console.services.actions.newest(limit=20)]


def test_the_first_start_says_how_to_make_a_user(console: Console) -> None:
    page = console.nobody.get("/console/sign-in")

    assert "gofax-relay users add you --role admin" in page.text
    assert not page.has_button("Sign in")


def test_a_link_works_once_and_signs_in(console: Console) -> None:
    act = Act(who="test", why=None, at=console.now)
    invited = console.services.users.add("ann", Role.OPERATOR, act)
    assert invited is not None
    path = link_for(invited, console.services.users, address="")
    visitor, late = console.nobody, console.nobody
    forms = [each.get(path) for each in (visitor, late)]

    welcome = visitor.press(forms[0], "Begin", password=GOOD, again=GOOD)

    assert visitor.follow(welcome).status == 200
    assert _again(console, "ann").signed_in_at is not None
    assert (late.get(path).status, late.press(forms[1], "Begin", password=GOOD).status) == (
        410,
        410,
    )
    assert passwords.matches(GOOD, _again(console, "ann").password)


@pytest.mark.parametrize(
    ("password", "again", "said"),
    [
        ("short", "short", "too short"),
        ("x" * 201, "x" * 201, "too long"),
        ("ababababababababab", "ababababababababab", "the same few characters"),
        ("this is ann speaking", "this is ann speaking", "contains your name"),
        *(
            (each, each, "the same again and again")
            for each in ("let me in let me in ", "Summer!Summer!Su")
        ),
        *(
            (each, each, "too easy to guess")
            for each in (
                "123456789012345",
                "abcdefghijklmnop",
                "qwertyuiopasdfghjkl",
                "987654321098765432",
                "Password12345678",
                "gofax-relay-2026",
                "GoFaxRelayConsole1",
            )
        ),
        (GOOD, OTHER, "not the same"),
    ],
)
def test_a_password_that_is_no_good_is_not_taken(
    console: Console, password: str, again: str, said: str
) -> None:
    act = Act(who="test", why=None, at=console.now)
    invited = console.services.users.add("ann", Role.VIEWER, act)
    assert invited is not None
    visitor = console.nobody
    form = visitor.get(link_for(invited, console.services.users, address=""))

    page = visitor.press(form, "Begin", password=password, again=again)

    assert (page.status, said in page.text) == (422, True)
    assert _again(console, "ann").password is None


@pytest.mark.parametrize(
    "password",
    [GOOD, OTHER, "we were there first", "relay race at school 9", "8c1f0e6b4d2a97531"],
)
def test_a_password_of_ones_own_is_taken(password: str) -> None:
    assert fault_of_password(password, name="ann") == ""


def test_a_name_of_a_letter_or_two_may_be_in_a_password() -> None:
    assert fault_of_password("a garden behind two houses", name="ga") == ""


def test_a_link_ends_after_three_days(
    console: Console, ann: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = link_for(ann, console.services.users, address="")
    really = timed.time.time
    later = LINK_LIVES.total_seconds() + 1
    monkeypatch.setattr(timed.time, "time", lambda: really() + later)

    assert console.nobody.get(path).status == 410


def test_a_link_that_somebody_changed_is_worth_nothing(console: Console, ann: User) -> None:
    path = link_for(ann, console.services.users, address="")

    for wrong in (
        path[:-1],
        path + "x",
        "/console/welcome/",
        path.replace("welcome/", "welcome/a"),
    ):
        assert console.nobody.get(wrong).status in (404, 410)


def test_signing_in_leads_where_one_wanted_to_go(console: Console, ann: User) -> None:
    visitor = console.nobody
    asked = visitor.get("/console/destinations?x=1")
    assert asked.location == "/console/sign-in?next=/console/destinations?x%3D1"
    form = visitor.follow(asked)

    page = visitor.press(form, "Sign in", name="ann", password=GOOD)

    assert page.location == "/console/destinations?x=1"
    assert visitor.follow(page).status == 200
    assert _what(console)[0] == "sign in"


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/console/", "//evil.example/console/", "/\\evil.example/console/",
        "/console/\\..\\\\evil.example", "javascript:alert(1)", "/other", "/console/\n//x", "%00",
        "///console/",
    ],
)  # fmt: skip
def test_signing_in_leads_nowhere_else(console: Console, ann: User, target: str) -> None:
    visitor = console.nobody
    form = visitor.get("/console/sign-in")

    page = visitor.press(form, "Sign in", name="ann", password=GOOD, next=target)

    assert page.location.startswith("/console/")


@pytest.mark.parametrize("target", ["/console/../metrics", "/console/%2e%2e/x", "/console/..//x"])
def test_signing_in_leads_out_of_the_console_by_no_detour(
    console: Console, ann: User, target: str
) -> None:
    visitor = console.nobody
    form = visitor.get("/console/sign-in")

    page = visitor.press(form, "Sign in", name="ann", password=GOOD, next=target)

    assert page.location == "/console/"


def test_nobody_learns_whether_there_is_such_a_user(console: Console, ann: User) -> None:
    wrong, unknown = (
        _sign_in(console.nobody, name, OTHER) for name in ("ann", "nobody-of-this-name")
    )

    assert (wrong.status, unknown.status) == (403, 403)
    assert wrong.text.replace("ann", "") == unknown.text.replace("nobody-of-this-name", "")


def test_an_account_is_locked_after_wrong_passwords_and_opens_again(
    console: Console, ann: User
) -> None:
    for _ in range(TRIES):
        assert _sign_in(console.nobody, "ann", OTHER).status == 403

    assert _sign_in(console.nobody, "ann", GOOD).status == 403
    assert _what(console).count("wrong password") == TRIES
    _later(console, LOCKED_FOR)
    assert _sign_in(console.nobody, "ann", GOOD).location == "/console/"
    assert _again(console, "ann").failures == 0


def test_an_address_that_guesses_has_to_wait(console: Console, ann: User) -> None:
    for number in range(10):
        assert _sign_in(console.nobody, f"user{number}", OTHER).status == 403

    assert _sign_in(console.nobody, "ann", GOOD).status == 403


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(console: Console, ann: User) -> None:
    visitor = console.nobody
    _sign_in(visitor, "ann", GOOD)
    hours = IDLE - timedelta(minutes=1)
    for _ in range(int(LONGEST_SESSION / hours)):
        assert visitor.get("/console/").status == 200
        _later(console, hours)
    _later(console, hours)
    assert visitor.get("/console/").location.startswith("/console/sign-in")

    _sign_in(visitor, "ann", GOOD)
    _later(console, IDLE + timedelta(minutes=1))
    assert visitor.get("/console/").location.startswith("/console/sign-in")


def test_a_page_that_renews_itself_keeps_no_session_open(console: Console, ann: User) -> None:
    visitor = console.nobody
    _sign_in(visitor, "ann", GOOD)
    for _ in range(3):
        _later(console, IDLE / 2)
        page = visitor.get("/console/", headers={"X-Renews": "1"})

    assert page.location.startswith("/console/sign-in")


@pytest.mark.parametrize("change", ["sign out", "role", "link", "remove"])
def test_a_session_and_its_copies_end_when_the_user_changes(
    console: Console, ann: User, change: str
) -> None:
    visitor, thief = console.nobody, console.nobody
    page = visitor.follow(_sign_in(visitor, "ann", GOOD))
    cookie = visitor.client.get_cookie("gofax_console", path="/console")
    assert cookie is not None
    thief.client.set_cookie("gofax_console", cookie.value, path="/console")
    assert thief.get("/console/").status == 200
    act, users = Act(who="test", why=None, at=console.now), console.services.users

    match change:
        case "sign out":
            visitor.press(page, "Sign out")
        case "role":
            users.change_role("ann", Role.VIEWER, act)
        case "link":
            users.renew("ann", act)
        case "remove":
            users.remove("ann", act)

    assert thief.get("/console/").location.startswith("/console/sign-in")
    assert visitor.get("/console/").location.startswith("/console/sign-in")


def test_signing_in_begins_a_session_of_its_own(console: Console, ann: User) -> None:
    visitor = console.nobody
    before = visitor.get("/console/sign-in")
    with visitor.client.session_transaction("/console/") as session:
        session["planted"] = "by somebody else"
        session["user"] = "ann"
    visitor.press(before, "Sign in", name="ann", password=GOOD)

    with visitor.client.session_transaction("/console/") as session:
        assert "planted" not in session


@pytest.mark.parametrize(
    ("address", "name", "limits"),
    [
        ("http://127.0.0.1:8081", "gofax_console", {"Path=/console"}),
        ("http://localhost:9999", "gofax_console", {"Path=/console"}),
        # What browsers demand of this prefix: Secure, the path /, and no Domain.
        ("https://relay.example.com", "__Host-gofax_console", {"Path=/", "Secure"}),
    ],
)
def test_the_cookie_is_for_tls_alone_except_on_loopback(
    named: Console, address: str, name: str, limits: set[str]
) -> None:
    _user(named, "ann", Role.OPERATOR)
    client = named.nobody.client

    form = Page(client.get("/console/sign-in", base_url=address)).form("Sign in")
    data = {**form.fields, "name": "ann", "password": GOOD}
    answer = client.post(
        "/console/sign-in", base_url=address, data=data, headers={"Referer": f"{address}/"}
    )

    cookie, *said = re.split("; ?", answer.headers["Set-Cookie"])
    assert answer.status_code == 302
    assert cookie.startswith(f"{name}=")
    assert {each for each in said if not each.startswith("Expires=")} == {
        "HttpOnly", "SameSite=Lax", *limits
    }  # fmt: skip
    assert client.get("/console/", base_url=address).status_code == 200


def test_a_session_that_another_host_of_the_domain_planted_is_none(named: Console) -> None:
    address = "https://relay.example.com"
    _user(named, "ann", Role.OPERATOR)
    visitor = named.nobody
    visitor.press(visitor.get("/console/sign-in"), "Sign in", name="ann", password=GOOD)
    planted = visitor.client.get_cookie("gofax_console", path="/console")
    assert planted is not None
    victim = named.nobody.client
    victim.set_cookie("gofax_console", planted.value, domain="example.com", path="/console")

    assert victim.get("/console/", base_url=address).status_code == 302


def test_cookies_and_links_are_signed_with_sha_256(console: Console, ann: User) -> None:
    visitor = console.nobody
    _sign_in(visitor, "ann", GOOD)
    cookie = visitor.client.get_cookie("gofax_console", path="/console")
    assert cookie is not None
    link = link_for(ann, console.services.users, address="")

    for signed in (cookie.value, link):
        assert len(base64_decode(signed.rpartition(".")[2])) == hashlib.sha256().digest_size


def test_a_session_by_a_secret_that_was_changed_is_over(console: Console, ann: User) -> None:
    visitor = console.nobody
    _sign_in(visitor, "ann", GOOD)
    assert visitor.get("/console/").status == 200

    console.services.users.change_secret(Act(who="test", why=None, at=console.now))

    assert visitor.get("/console/").location.startswith("/console/sign-in")


def test_the_api_has_no_session(console: Console, ann: User) -> None:
    visitor = console.nobody
    _sign_in(visitor, "ann", GOOD)
    cookie = visitor.client.get_cookie("gofax_console", path="/console")
    assert cookie is not None
    visitor.client.set_cookie("gofax_console", cookie.value, path="/")

    answer = visitor.client.get("/api/v1/problems")

    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


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


def test_a_sign_in_that_failed_stands_in_the_log_without_what_was_typed(
    console: Console, ann: User
) -> None:
    with capture_logs() as logs:
        for name in ("ann", OTHER):
            _sign_in(console.nobody, name, OTHER)
        for _ in range(20):
            _sign_in(console.nobody, "nobody", OTHER)

    failed = {"event": "sign_in.failed", "remote": "127.0.0.1", "log_level": "warning"}
    # An address that guesses on is not asked, and fills no log.
    assert logs == [failed] * 10


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
    _user(console, "root", Role.ADMIN)
    visitor = console.nobody
    _sign_in(visitor, "root", GOOD)
    _later(console, timedelta(minutes=11))
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
    assert {"add user", "add token", "remove token", "remove user"} <= set(_what(console))
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
