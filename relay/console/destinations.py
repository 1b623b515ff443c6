"""Destinations: how each stands, and what a person may do about it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.acts import trying
from relay.acts.trying import SentTest
from relay.api.identity import acting, asking
from relay.api.services import services
from relay.config.retention import LONGEST_AGE
from relay.console.pages import needs, tell
from relay.rules import units
from relay.rules.access import Scope
from relay.shapes.destinations import why
from relay.store.overview import DestinationView, Overview

#: Pauses that are offered; empty: until somebody resumes it.
PAUSES = ("30m", "2h", "8h", "1d", "")


def add(console: Blueprint) -> None:
    """Add the pages."""

    @console.get("/destinations")
    @needs(Scope.READ)
    def destinations() -> ResponseReturnValue:
        return render_template("destinations.html", views=views(), why=why)

    @console.get("/destinations/<name>")
    @needs(Scope.READ)
    def destination(name: str) -> ResponseReturnValue:
        return _page(name)

    @console.post("/destinations/<name>/pause")
    @needs(Scope.OPERATE)
    def pause(name: str) -> ResponseReturnValue:
        _view(name)
        given, said = (request.form.get(each, "").strip() for each in ("for", "why"))
        try:
            length = _length(given)
        except ValueError as error:
            return _page(name, fault=str(error), given=given, said=said), 422
        act = acting(said)
        done = services().recovery.pause(name, act, until=act.at + length if length else None)
        services().shared.forget()
        tell(f"{name} is paused" if done else f"{name} was paused so already", "good")
        return redirect(url_for("console.destination", name=name))

    @console.post("/destinations/<name>/resume")
    @needs(Scope.OPERATE)
    def resume(name: str) -> ResponseReturnValue:
        _view(name)
        cause = services().recovery.resume(name, acting(request.form.get("why", "").strip()))
        services().shared.forget()
        tell(f"{name} is served again" if cause else f"{name} was not paused", "good")
        return redirect(url_for("console.destination", name=name))

    @console.post("/destinations/<name>/check")
    @needs(Scope.OPERATE)
    def check(name: str) -> ResponseReturnValue:
        _configured(name)
        answer = trying.check(services().config, name)
        tell(f"{name}: {answer.said}", "good" if answer.is_good else "bad")
        return redirect(url_for("console.destination", name=name))

    @console.post("/destinations/<name>/test")
    @needs(Scope.OPERATE)
    def test(name: str) -> ResponseReturnValue:
        _configured(name)
        sent = trying.send_test(services().config, name, who=asking().name)
        services().actions.note(
            acting(), "send-test", destination=name, detail=f"{sent.outcome.kind}"
        )
        tell(f"{name}: {_ended(sent)}", "good" if sent.is_good else "bad")
        return redirect(url_for("console.destination", name=name))


def views() -> Sequence[DestinationView]:
    """Return how all destinations stand."""
    found = services()

    def ask() -> Sequence[DestinationView]:
        overview = Overview(found.database)
        return overview.destinations(found.config.destinations, now=found.now())

    return found.shared.get("destinations", ask)


def _page(name: str, **values: Any) -> str:
    found = services()
    view = _view(name)
    return render_template(
        "destination.html",
        view=view,
        why=why(view),
        settings=found.config.destinations.get(name),
        routes=[each for each in found.config.routes if name in each.to],
        pauses=PAUSES,
        **values,
    )


def _view(name: str) -> DestinationView:
    found = {each.name: each for each in views()}
    if name not in found:
        abort(404, f'There is no destination named "{name}".')
    return found[name]


def _ended(sent: SentTest) -> str:
    """Say how a test ended."""
    outcome = sent.outcome
    if not sent.is_good:
        return f"the test did not arrive: {outcome.kind}: {outcome.detail}"
    receipt = outcome.receipt
    where = f" {receipt.url}" if receipt and receipt.url else ""
    return f"the test arrived{where}; what it made there stays there"


def _configured(name: str) -> None:
    if name not in services().config.destinations:
        abort(404, f'The config names no destination "{name}".')


def _length(given: str) -> timedelta | None:
    """Read a length of time; None for nothing. Raises ValueError."""
    if not given:
        return None
    length = units.duration(given)
    if not timedelta() < length <= LONGEST_AGE:
        raise ValueError(f"more than 0s, at most {LONGEST_AGE.days}d")
    return length
