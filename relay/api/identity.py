"""Who asks: the bearer of a token, or a signed-in person whom the console speaks for."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any, TypeVar

import structlog
from flask import current_app, g, request

from relay.acts.person import Person
from relay.api.problem import Fault
from relay.api.services import services
from relay.rules.access import Identity, Scope
from relay.store.actions import Act

log = structlog.get_logger()

View = TypeVar("View", bound=Callable[..., Any])

#: The key of the WSGI environment under which the console says for whom it asks. No header of a
#: request can become it: those begin with HTTP_.
SPOKEN_FOR = "gofax_relay.identity"
_REALM = 'Bearer realm="gofax-relay"'


def needs(scope: Scope) -> Callable[[View], View]:
    """Return a decorator for views of the API that only *scope* may use."""

    def decorate(view: View) -> View:
        view.needed_scope = scope  # type: ignore[attr-defined]  # authenticate reads it
        return view

    return decorate


def authenticate() -> None:
    """Find out who asks the API, and whether they may, before any view of it.

    Raises :class:`Fault`. A view that does not say what it needs answers nobody.
    """
    spoken_for = request.environ.get(SPOKEN_FOR)
    g.identity = spoken_for if isinstance(spoken_for, Identity) else _bearer()
    view = current_app.view_functions[request.endpoint or ""]
    scope: Scope | None = getattr(view, "needed_scope", None)
    if scope is None or not is_allowed(scope):
        raise Fault(403, f"this needs the scope {scope}")


def is_allowed(scope: Scope) -> bool:
    """Return whether who asks may do what needs *scope*; a log line says who may not."""
    who = asking()
    if who.may(scope):
        return True
    # Its name, and not the path, which may hold a customer's number.
    log.warning(
        "access.refused", who=who.name, remote=who.origin, scope=scope, asked=request.endpoint
    )
    return False


def asking() -> Identity:
    """Return who asks."""
    found: Identity = g.identity
    return found


def person(why: str | None = None) -> Person:
    """Return who asks as a person who acts."""
    who = asking()
    return Person(who=who.name, why=why or None, origin=who.origin)


def acting(why: str | None = None) -> Act:
    """Return an act of who asks, now."""
    return person(why).act(services().now())


def origin() -> str:
    """Return the address from which this request comes.

    A proxy on this machine, or any if the config says that there are some, says it by
    ``X-Forwarded-For``, whose last entry is the proxy's own word; it is believed only where
    ``admin.url`` names a site of its own.
    """
    remote = request.remote_addr or "unknown"
    config = services().config
    url = config.admin.url if config.admin else None
    given = request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
    is_proxy = _is_loopback(remote) or config.server.trusted_proxies > 0
    if url is None or not given or not is_proxy:
        return remote
    try:
        return str(ipaddress.ip_address(given))
    except ValueError:
        return remote


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _bearer() -> Identity:
    given = request.authorization
    if given is None or given.type != "bearer" or not given.token:
        raise Fault(401, "send Authorization: Bearer TOKEN", headers={"WWW-Authenticate": _REALM})
    token = services().tokens.shown(given.token, now=services().now())
    if token is None:
        _log_unknown_token()
        raise Fault(
            401,
            "no such token, or it has expired: gofax-relay tokens",
            headers={"WWW-Authenticate": f'{_REALM}, error="invalid_token"'},
        )
    return Identity(name=f"token {token.name}", scopes=token.scopes, origin=origin())


def _log_unknown_token() -> None:
    """Log who shows an unknown token; of an address that shows many only the first ones."""
    unknown, remote = services().unknown_tokens, origin()
    if not unknown.are_too_many(remote):
        unknown.add(remote)
        log.warning("token.unknown", remote=remote, asked=request.endpoint)
