"""Who gets into the console, and how: links, passwords, signing in, and guesses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import consoles
import pytest
from consoles import Console
from itsdangerous import timed
from signing_in import GOOD, OTHER, acts_of, move_clock, new_user, sign_in, user_named
from structlog.testing import capture_logs

from relay.acts.links import link_for
from relay.console import passwords
from relay.rules.access import LINK_LIVES, LOCKED_FOR, TRIES, Role, fault_of_password
from relay.store import Database
from relay.store.actions import Act
from relay.store.people import User


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, database) as made:
        yield made


@pytest.fixture
def ann(console: Console) -> User:
    return new_user(console, "ann", Role.OPERATOR)


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
    assert user_named(console, "ann").signed_in_at is not None
    assert (late.get(path).status, late.press(forms[1], "Begin", password=GOOD).status) == (
        410,
        410,
    )
    assert passwords.matches(GOOD, user_named(console, "ann").password)


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
    assert user_named(console, "ann").password is None


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
    assert acts_of(console)[0] == "sign in"


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
        sign_in(console.nobody, name, OTHER) for name in ("ann", "nobody-of-this-name")
    )

    assert (wrong.status, unknown.status) == (403, 403)
    assert wrong.text.replace("ann", "") == unknown.text.replace("nobody-of-this-name", "")


def test_an_account_is_locked_after_wrong_passwords_and_opens_again(
    console: Console, ann: User
) -> None:
    for _ in range(TRIES):
        assert sign_in(console.nobody, "ann", OTHER).status == 403

    assert sign_in(console.nobody, "ann", GOOD).status == 403
    assert acts_of(console).count("wrong password") == TRIES
    move_clock(console, LOCKED_FOR)
    assert sign_in(console.nobody, "ann", GOOD).location == "/console/"
    assert user_named(console, "ann").failures == 0


def test_an_address_that_guesses_has_to_wait(console: Console, ann: User) -> None:
    for number in range(10):
        assert sign_in(console.nobody, f"user{number}", OTHER).status == 403

    assert sign_in(console.nobody, "ann", GOOD).status == 403


def test_a_sign_in_that_failed_stands_in_the_log_without_what_was_typed(
    console: Console, ann: User
) -> None:
    with capture_logs() as logs:
        for name in ("ann", OTHER):
            sign_in(console.nobody, name, OTHER)
        for _ in range(20):
            sign_in(console.nobody, "nobody", OTHER)

    failed = {"event": "sign_in.failed", "remote": "127.0.0.1", "log_level": "warning"}
    # An address that guesses on is not asked, and fills no log.
    assert logs == [failed] * 10
