"""Needs attention: the start page, with what is wrong, and what to do about it."""

from __future__ import annotations

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from relay.api.services import services
from relay.console.pages import needs
from relay.rules.access import Scope


def add(console: Blueprint) -> None:
    """Add the page."""

    @console.get("/")
    @needs(Scope.READ)
    def attention() -> ResponseReturnValue:
        found = services()
        problems = found.shared.get("problems", found.problems.unresolved)
        return render_template("attention.html", problems=problems)
