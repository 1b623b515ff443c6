"""What all pages of the console have in common: who may see them, and what they are shown with."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from urllib.parse import urlsplit

from flask import Blueprint, abort, current_app, flash, g, redirect, request, url_for
from flask.typing import ResponseReturnValue

from relay.api.identity import asking, is_allowed
from relay.api.services import services
from relay.console import sign_in, wording
from relay.rules.access import Scope, masked_number, masked_sentence
from relay.store import StoreUnavailable

P = ParamSpec("P")

HERE = Path(__file__).parent
PREFIX = "/console"
#: Characters of what is said on the next page, which travels in a cookie of 4 KiB.
LONGEST_SAID = 500
#: Names of pages that need no sign-in.
OPEN = {"console.sign_in", "console.welcome", "console.static"}


def blueprint() -> Blueprint:
    """Make the blueprint of the console, with signing in and nothing else yet."""
    made = Blueprint(
        "console",
        "relay.console",
        url_prefix=PREFIX,
        template_folder=str(HERE / "templates"),
        static_folder=str(HERE / "static"),
        static_url_path="/static",
    )
    made.before_request(_require_sign_in)
    made.context_processor(_context)
    for name, filter_ in wording.FILTERS.items():
        made.add_app_template_filter(filter_, name)
    made.add_app_template_filter(number_shown, "number")
    made.add_app_template_filter(text_shown, "said")
    made.add_app_template_filter(noted, "noted")
    made.add_url_rule("/sign-in", "sign_in", sign_in.sign_in, methods=["GET", "POST"])
    made.add_url_rule("/confirm", "confirm", sign_in.confirm, methods=["GET", "POST"])
    made.add_url_rule("/sign-out", "sign_out", sign_in.sign_out, methods=["POST"])
    made.add_url_rule("/welcome/<path:text>", "welcome", sign_in.welcome, methods=["GET", "POST"])
    return made


def needs(scope: Scope) -> Callable[[Callable[P, Any]], Callable[P, Any]]:
    """Return a decorator for pages that only *scope* may use; others are told so."""

    def decorate(view: Callable[P, Any]) -> Callable[P, Any]:
        @wraps(view)
        def checked(*args: P.args, **kwargs: P.kwargs) -> Any:
            if not is_allowed(scope):
                abort(403)
            return view(*args, **kwargs)

        checked.needed_scope = scope  # type: ignore[attr-defined]  # the table of access reads it
        return checked

    return decorate


def needs_password(view: Callable[P, Any]) -> Callable[P, Any]:
    """Ask for the password again, unless it was typed in the last minutes."""

    @wraps(view)
    def confirmed(*args: P.args, **kwargs: P.kwargs) -> Any:
        if sign_in.is_confirmed():
            return view(*args, **kwargs)
        # A form's input does not survive the redirect, so lead back to the page of the form.
        back = request.full_path if request.method == "GET" else _path_of_referrer()
        return redirect(url_for("console.confirm", next=back))

    return confirmed


def tell(said: str, category: str) -> None:
    """Say something on the next page; it travels in a cookie, which browsers keep short."""
    flash(said if len(said) <= LONGEST_SAID else f"{said[:LONGEST_SAID]}…", category)


def is_masked() -> bool:
    """Return whether numbers and texts are hidden from who looks."""
    admin = services().config.admin
    return bool(admin and admin.mask) and asking().only_looks and not getattr(g, "unmasked", False)


def number_shown(number: str | None) -> str:
    """Return a customer's number as who looks may see it."""
    return (masked_number(number) if is_masked() else number) or "no number"


def text_shown(text: str | None) -> str | None:
    """Return what a customer wrote as who looks may see it."""
    return "…" if text and is_masked() else text


def noted(text: str | None) -> str | None:
    """Return what was noted, without numbers and quotes if those are hidden from who looks."""
    return masked_sentence(text) if text and is_masked() else text


def _require_sign_in() -> ResponseReturnValue | None:
    if current_app.secret_key is None and request.endpoint != "console.static":
        raise StoreUnavailable("the secret of sessions cannot be read")
    if request.endpoint in OPEN:
        return None
    user = sign_in.signed_in()
    if user is None:
        # A page that was asked for by a form cannot be come back to.
        target = request.full_path.rstrip("?") if request.method == "GET" else None
        return redirect(url_for("console.sign_in", next=target))
    g.user, g.identity = user, sign_in.identity_of(user)
    return None


def _path_of_referrer() -> str:
    """Return the page of ours from which a form was sent."""
    parts = urlsplit(request.referrer or "")
    query = f"?{parts.query}" if parts.query else ""
    return sign_in.local_target(parts.path + query if parts.netloc == request.host else "")


def _context() -> dict[str, Any]:
    identity = getattr(g, "identity", None)
    return {
        "identity": identity,
        "may": (lambda scope: identity is not None and identity.may(Scope(scope))),
        "masked": identity is not None and is_masked(),
        "now": wording.now(),
        "pages": current_app.view_functions,
        "problems_open": len(_open_problems()) if identity else 0,
    }


def _open_problems() -> Any:
    found = services()
    return found.shared.get("problems", found.problems.unresolved)
