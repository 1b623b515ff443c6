"""Signing in and out: the one module that OpenID Connect would join.

A session is a cookie, signed by itsdangerous as Flask does it: the user's name, the epoch of the
user, and when the password was given. A user who signs out, or whose role, password or account
changes, gets a new epoch, so that all sessions of the old one are over, stolen ones included.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote, urlsplit

import structlog
from flask import Flask, Request, g, redirect, render_template, request, session, url_for
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from flask.typing import ResponseReturnValue

from relay.acts import links
from relay.api.identity import origin
from relay.api.services import services
from relay.console import passwords
from relay.rules.access import (
    CONFIRMED_FOR,
    IDLE,
    LONGEST_SESSION,
    SCOPES,
    Identity,
    after_failure,
    fault_of_password,
)
from relay.store import StoreUnavailable
from relay.store.actions import Act
from relay.store.people import User

log = structlog.get_logger()

COOKIE, PATH = "gofax_console", "/console"
#: What is said of every sign-in that failed: nobody learns whether there is such a user.
NOT_KNOWN = "That name and password do not go together, or the account is locked for 15 minutes."


class Sessions(SecureCookieSessionInterface):
    """Flask's sessions, of the console alone, with cookies that go over TLS, except on loopback.

    Over TLS the name has the prefix ``__Host-``: browsers take no such cookie from another host of
    the domain, which could otherwise plant a session. It asks for the path /.
    """

    #: Flask's default is SHA-1.
    digest_method = staticmethod(hashlib.sha256)

    def get_cookie_secure(self, app: Flask) -> bool:
        return not is_local(request.host)

    def get_cookie_name(self, app: Flask) -> str:
        return f"__Host-{COOKIE}" if self.get_cookie_secure(app) else COOKIE

    def get_cookie_path(self, app: Flask) -> str:
        return "/" if self.get_cookie_secure(app) else PATH

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Open the session; None while the secret that signs it cannot be read."""
        if not request.path.startswith(PATH):
            return None
        if not request.path.startswith(f"{PATH}/static/"):
            # Each time: it may have been changed, and then the sessions of the old one are over.
            with suppress(StoreUnavailable):
                app.secret_key = services().users.secret()
        return super().open_session(app, request)


def is_local(host: str) -> bool:
    """Return whether *host* (with or without port) is this machine, as over an SSH tunnel."""
    name = urlsplit(f"//{host}").hostname or ""
    return name in ("localhost", "127.0.0.1", "::1")


def signed_in() -> User | None:
    """Return who is signed in; None ends a session that is over."""
    name, epoch = session.get("user"), session.get("epoch")
    if name is None:
        return None
    user = services().users.named(name)
    began, seen = (_time(each) for each in ("began", "seen"))
    now = services().now()
    is_over = now - began > LONGEST_SESSION or now - seen > IDLE
    if user is None or user.epoch != epoch or is_over:
        session.clear()
        return None
    # Nobody is there just because a page renews itself.
    if now - seen > timedelta(minutes=1) and "X-Renews" not in request.headers:
        session["seen"] = now.timestamp()
    return user


def identity_of(user: User) -> Identity:
    return Identity(name=user.name, scopes=SCOPES[user.role], origin=origin())


def is_confirmed() -> bool:
    """Return whether the password was typed in the last minutes."""
    return services().now() - _time("confirmed") < CONFIRMED_FOR


def sign_in() -> ResponseReturnValue:
    """Answer the form that asks for name and password."""
    target = local_target(request.values.get("next", ""))
    if request.method == "GET":
        users = services().users.all()
        return render_template("sign_in.html", next=target, has_users=bool(users))
    name, password = request.form.get("name", "").strip(), request.form.get("password", "")
    user = _checked(name, password)
    if user is None:
        page = render_template(
            "sign_in.html", next=target, name=name, fault=NOT_KNOWN, has_users=True
        )
        return page, 403
    begin(user)
    return redirect(target)


def confirm() -> ResponseReturnValue:
    """Ask for the password again before something that cannot be taken back."""
    target = local_target(request.values.get("next", ""))
    if request.method == "GET":
        return render_template("confirm.html", next=target)
    if _checked(g.user.name, request.form.get("password", "")) is None:
        return render_template("confirm.html", next=target, fault=NOT_KNOWN), 403
    session["confirmed"] = services().now().timestamp()
    return redirect(target)


def sign_out() -> ResponseReturnValue:
    """End all sessions of who is signed in."""
    services().users.sign_out(g.user, _act(g.user.name))
    session.clear()
    return redirect(url_for("console.sign_in"))


def welcome(text: str) -> ResponseReturnValue:
    """Let a person choose a password by the one-time link."""
    user = links.user_of(text, services().users)
    if user is None:
        return render_template("welcome_over.html"), 410
    if request.method == "GET":
        return render_template("welcome.html", name=user.name, role=user.role)
    password = request.form.get("password", "")
    fault = fault_of_password(password, name=user.name)
    if not fault and password != request.form.get("again", ""):
        fault = "the two are not the same"
    if fault:
        page = render_template("welcome.html", name=user.name, role=user.role, fault=fault)
        return page, 422
    users, hash_ = services().users, passwords.hashed(password)
    if not users.choose_password(user, hash_, _act(user.name)):
        return render_template("welcome_over.html"), 410
    chosen = users.named(user.name)
    assert chosen is not None
    begin(chosen)
    return redirect(url_for("console.attention"))


def begin(user: User) -> None:
    """Begin a session of *user*; whatever this browser had before is gone."""
    now = services().now().timestamp()
    session.clear()
    session.permanent = True
    session.update(user=user.name, epoch=user.epoch, began=now, seen=now, confirmed=now)


def local_target(given: str) -> str:
    """Return *given* if it is a page of the console, otherwise its start page."""
    parts = urlsplit(given.replace("\\", "/"))
    is_ours = not parts.scheme and not parts.netloc and parts.path.startswith("/console/")
    is_plain = given.isascii() and given.isprintable() and ".." not in unquote(parts.path)
    return given if is_ours and is_plain else url_for("console.attention")


def _count_guess() -> None:
    """Count and log a sign-in that failed: no more of them than an address may try."""
    services().guesses.add(origin())
    # Not the name: people write their password there.
    log.warning("sign_in.failed", remote=origin())


def _checked(name: str, password: str) -> User | None:
    """Return the user if the password is right; slow down who guesses, lock what is guessed."""
    users, guesses, now = services().users, services().guesses, services().now()
    if guesses.are_too_many(origin()) or not password:
        return None
    user = users.named(name)
    is_right = passwords.matches(password, user.password if user else None)
    if user is None:
        _count_guess()
        return None
    if user.tries.is_locked(now):
        return None
    if not is_right:
        _count_guess()
        users.failed(user, after_failure(user.tries, now=now), _act(name))
        return None
    assert user.password is not None
    users.signed_in(user, _act(name), rehashed=passwords.renewed(password, user.password))
    return user


def _act(who: str) -> Act:
    return Act(who=who, why=None, at=services().now(), origin=origin())


def _time(key: str) -> datetime:
    found = session.get(key)
    seconds = float(found) if isinstance(found, int | float) else 0.0
    return datetime.fromtimestamp(seconds, UTC)
