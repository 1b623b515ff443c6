"""Users and tokens: who may do what."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from relay.acts import links
from relay.api.identity import acting, asking
from relay.api.services import services
from relay.config.retention import LONGEST_AGE
from relay.console import sign_in
from relay.console.pages import needs, needs_password, tell
from relay.rules import payload, units
from relay.rules.access import Role, Scope, scopes_of

#: A valid name of a user or a token.
NAME = re.compile(r"[\w.@+-]{1,100}")
WRONG_NAME = "letters, digits and . _ @ + - alone, at most 100"


def add(console: Blueprint) -> None:
    """Add the page, and what can be done on it."""

    @console.get("/settings/people")
    @needs(Scope.ADMIN)
    def people() -> ResponseReturnValue:
        return _people()

    @console.post("/settings/users")
    @needs(Scope.ADMIN)
    @needs_password
    def add_user() -> ResponseReturnValue:
        name, role = _name(), request.form.get("role", "")
        fault = _fault_of(name, role=role)
        user = None if fault else services().users.add(name, Role(role), acting(_why()))
        if user is None:
            fault = fault or f"there is a user {name} already"
            return _people(fault_of_user=fault, name=name, role=role), 422
        return _people(link=_link_of(name), link_of=name)

    @console.post("/settings/users/<name>/role")
    @needs(Scope.ADMIN)
    @needs_password
    def change_role(name: str) -> ResponseReturnValue:
        role = request.form.get("role", "")
        if role not in list(Role):
            return _people(fault_of_user="choose a role"), 422
        if name == asking().name and role != Role.ADMIN:
            return _people(fault_of_user="another admin has to take your role away"), 422
        if not services().users.change_role(name, Role(role), acting(_why())):
            abort(404, f"There is no user {name}.")
        _keep_me(name)
        tell(f"{name} is now {role}", "good")
        return redirect(url_for("console.people"))

    @console.post("/settings/users/<name>/link")
    @needs(Scope.ADMIN)
    @needs_password
    def link(name: str) -> ResponseReturnValue:
        if services().users.renew(name, acting(_why())) is None:
            abort(404, f"There is no user {name}.")
        return _people(link=_link_of(name), link_of=name)

    @console.post("/settings/users/<name>/remove")
    @needs(Scope.ADMIN)
    @needs_password
    def remove_user(name: str) -> ResponseReturnValue:
        if name == asking().name:
            return _people(fault_of_user="another admin has to remove you"), 422
        if not services().users.remove(name, acting(_why())):
            abort(404, f"There is no user {name}.")
        tell(f"{name} is removed; all sessions of that name are over", "good")
        return redirect(url_for("console.people"))

    @console.post("/settings/tokens")
    @needs(Scope.ADMIN)
    @needs_password
    def add_token() -> ResponseReturnValue:
        name, scopes = _name(), request.form.getlist("scope")
        given = request.form.get("for", "").strip()
        fault, length = _fault_of(name), None
        try:
            length = units.duration(given) if given else None
            if length is not None and not timedelta() < length <= LONGEST_AGE:
                raise ValueError(f"more than 0s, at most {LONGEST_AGE.days}d")
            wanted = scopes_of(scopes)
        except ValueError as error:
            fault, wanted = f"for: {error}", frozenset()
        act = acting(_why())
        made = None
        if not fault:
            expires_at = act.at + length if length else None
            made = services().tokens.add(name, wanted, act, expires_at=expires_at)
            fault = "" if made else f"there is a token {name} already"
        if made is None:
            return _people(fault_of_token=fault, token_name=name, token_for=given), 422
        return _people(token=made[1], token_of=name)

    @console.post("/settings/tokens/<name>/remove")
    @needs(Scope.ADMIN)
    @needs_password
    def remove_token(name: str) -> ResponseReturnValue:
        if not services().tokens.remove(name, acting(_why())):
            abort(404, f"There is no token {name}.")
        tell(f"{name} is revoked", "good")
        return redirect(url_for("console.people"))


def _people(**values: Any) -> str:
    found = services()
    return render_template(
        "people.html",
        users=found.users.all(),
        tokens=found.tokens.all(),
        roles=list(Role),
        scopes=list(Scope),
        **values,
    )


def _name() -> str:
    return request.form.get("name", "").strip()


def _why() -> str:
    return payload.clean(request.form.get("why", "").strip())


def _fault_of(name: str, *, role: str | None = None) -> str:
    if not NAME.fullmatch(name):
        return f"name: {WRONG_NAME}"
    if role is not None and role not in list(Role):
        return "role: choose one"
    return ""


def _link_of(name: str) -> str:
    """Return a link by which *name* chooses a password, on the address of this page."""
    found = services()
    user = found.users.named(name)
    if user is None:
        abort(404, f"There is no user {name}.")
    admin = found.config.admin
    address = (admin and admin.url) or request.host_url.rstrip("/")
    return links.link_for(user, found.users, address=address)


def _keep_me(name: str) -> None:
    """Let who changed their own account go on: a new epoch ends the sessions of the old one."""
    user = services().users.named(name)
    if user is not None and session.get("user") == name:
        sign_in.begin(user)
