"""How long a session lasts, whose it is, and what its cookie says to browsers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import consoles
import pytest
from consoles import Console, Page
from itsdangerous.encoding import base64_decode
from signing_in import GOOD, move_clock, new_user, sign_in

from relay.acts.links import link_for
from relay.rules.access import IDLE, LONGEST_SESSION, Role
from relay.store import Database
from relay.store.actions import Act
from relay.store.people import User


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
    return new_user(console, "ann", Role.OPERATOR)


def test_a_session_ends_when_it_is_idle_and_when_it_is_old(console: Console, ann: User) -> None:
    visitor = console.nobody
    sign_in(visitor, "ann", GOOD)
    hours = IDLE - timedelta(minutes=1)
    for _ in range(int(LONGEST_SESSION / hours)):
        assert visitor.get("/console/").status == 200
        move_clock(console, hours)
    move_clock(console, hours)
    assert visitor.get("/console/").location.startswith("/console/sign-in")

    sign_in(visitor, "ann", GOOD)
    move_clock(console, IDLE + timedelta(minutes=1))
    assert visitor.get("/console/").location.startswith("/console/sign-in")


def test_a_page_that_renews_itself_keeps_no_session_open(console: Console, ann: User) -> None:
    visitor = console.nobody
    sign_in(visitor, "ann", GOOD)
    for _ in range(3):
        move_clock(console, IDLE / 2)
        page = visitor.get("/console/", headers={"X-Renews": "1"})

    assert page.location.startswith("/console/sign-in")


@pytest.mark.parametrize("change", ["sign out", "role", "link", "remove"])
def test_a_session_and_its_copies_end_when_the_user_changes(
    console: Console, ann: User, change: str
) -> None:
    visitor, thief = console.nobody, console.nobody
    page = visitor.follow(sign_in(visitor, "ann", GOOD))
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
    new_user(named, "ann", Role.OPERATOR)
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
    new_user(named, "ann", Role.OPERATOR)
    visitor = named.nobody
    visitor.press(visitor.get("/console/sign-in"), "Sign in", name="ann", password=GOOD)
    planted = visitor.client.get_cookie("gofax_console", path="/console")
    assert planted is not None
    victim = named.nobody.client
    victim.set_cookie("gofax_console", planted.value, domain="example.com", path="/console")

    assert victim.get("/console/", base_url=address).status_code == 302


def test_cookies_and_links_are_signed_with_sha_256(console: Console, ann: User) -> None:
    visitor = console.nobody
    sign_in(visitor, "ann", GOOD)
    cookie = visitor.client.get_cookie("gofax_console", path="/console")
    assert cookie is not None
    link = link_for(ann, console.services.users, address="")

    for signed in (cookie.value, link):
        assert len(base64_decode(signed.rpartition(".")[2])) == hashlib.sha256().digest_size


def test_a_session_by_a_secret_that_was_changed_is_over(console: Console, ann: User) -> None:
    visitor = console.nobody
    sign_in(visitor, "ann", GOOD)
    assert visitor.get("/console/").status == 200

    console.services.users.change_secret(Act(who="test", why=None, at=console.now))

    assert visitor.get("/console/").location.startswith("/console/sign-in")


def test_the_api_has_no_session(console: Console, ann: User) -> None:
    visitor = console.nobody
    sign_in(visitor, "ann", GOOD)
    cookie = visitor.client.get_cookie("gofax_console", path="/console")
    assert cookie is not None
    visitor.client.set_cookie("gofax_console", cookie.value, path="/")

    answer = visitor.client.get("/api/v1/problems")

    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers
