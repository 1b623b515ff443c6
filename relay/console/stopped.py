"""Deliveries that stopped: by destination and cause, what one may do about many, and a list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby

from flask import Blueprint, abort, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.acts import bulk
from relay.acts.bulk import BulkAct
from relay.acts.recovering import Changed, End
from relay.api.services import services
from relay.console import acting, acts, sheets
from relay.console.pages import needs, noted, number_shown
from relay.console.places import number_of
from relay.rules.access import Scope
from relay.rules.delivery import State
from relay.shapes.stopped import stopped_cells
from relay.store.pages import Pages
from relay.store.recover import ReasonGroup
from relay.store.search import STOPPED, Filter

#: Deliveries of a page of the list.
LIMIT = 50
#: Seconds for which the groups are good enough: they are counted over all that stopped.
COUNTED_FOR = 10.0
#: The longest reason that a group may have; SQLite compares with no pattern of 50,000 bytes.
LONGEST = 10_000
_ENDS: Mapping[str, End] = {"delivered": State.DELIVERED, "dead": State.DEAD}


def add(console: Blueprint) -> None:
    """Add the pages, and the buttons for many."""

    @console.get("/stopped")
    @needs(Scope.READ)
    def stopped() -> ResponseReturnValue:
        groups = _groups()
        by_name = sorted(groups, key=lambda each: each.destination)
        by_destination = {
            name: sorted(each, key=lambda group: -group.number)
            for name, each in groupby(by_name, lambda each: each.destination)
        }
        largest = sorted(
            by_destination.items(), key=lambda each: -sum(group.number for group in each[1])
        )
        return render_template(
            "stopped.html",
            destinations=largest,
            held={(each.destination, each.reason) for each in _groups(State.HELD)},
            total=sum(each.number for each in groups),
            acts=[each for each in services().runner.all() if not each.is_over],
            most=sheets.MOST,
        )

    @console.get("/stopped/list")
    @needs(Scope.READ)
    def stopped_list() -> ResponseReturnValue:
        which, before = _wanted(), number_of("before")
        page = Pages(services().database).stopped(which, limit=LIMIT, before=before)
        return render_template(
            "stopped_list.html", page=page, before=before, asked=_asked(), most=sheets.MOST
        )

    @console.get("/stopped/export.csv")
    @needs(Scope.READ)
    def stopped_csv() -> ResponseReturnValue:
        zone = services().config.zone
        found = services().recovery.pages(_wanted(), size=sheets.STEP)
        rows = (
            stopped_cells(each, zone=zone)
            | {"customer": number_shown(each.customer), "reason": noted(each.reason)}
            for page in found
            for each in page
        )
        return sheets.download(rows, name="stopped", order="oldest")

    @console.post("/stopped/resend")
    @needs(Scope.OPERATE)
    def stopped_resend() -> ResponseReturnValue:
        return _act(partial(bulk.resend, services().recovery, _wanted()), title="Resend")

    @console.post("/stopped/settle")
    @needs(Scope.OPERATE)
    def stopped_settle() -> ResponseReturnValue:
        end = _ENDS.get(request.form.get("as", ""))
        if end is None:
            abort(400, "as: delivered or dead")
        said = "arrived" if end is State.DELIVERED else "not arrived"
        make = partial(bulk.settle, services().recovery, _wanted(), end=end)
        return _act(make, title=f"Settle as {said}")


def _act(make: Callable[..., BulkAct], *, title: str) -> ResponseReturnValue:
    """Show what an act on many would do, or begin it."""
    back, person = acting.back_to(url_for("console.stopped")), acting.person()
    rate, fault = None, ""
    try:
        rate = acting.rate()
    except ValueError as error:
        fault = f"at most: {error}"
    if acting.is_confirmed() and not fault:
        return acts.start(make(person, rate=rate), back=back)
    looked: list[Changed] = []
    effects = acts.seen(make(person, dry_run=True, show=looked.extend), looked)
    return acting.preview(
        title=title, lead=_said(), effects=effects, button=title, back=back, fault=fault,
        has_rate=True,
    )  # fmt: skip


def _groups(*states: State) -> Sequence[ReasonGroup]:
    """Return the groups of what stopped, or is in these states, as far as they are asked for."""
    found, destination = services(), request.args.get("destination")
    groups = found.shared.get(
        ("stopped", states),
        lambda: found.recovery.groups(Filter(states=states or STOPPED)),
        good_for=COUNTED_FOR,
    )
    return [each for each in groups if not destination or each.destination == destination]


def _asked() -> dict[str, str]:
    """Return which group the address or the form names."""
    given = ((name, request.values.get(name)) for name in ("destination", "reason"))
    asked = {name: value for name, value in given if value is not None}
    for name, value in asked.items():
        if len(value) > LONGEST:
            abort(422, f"{name}: at most {LONGEST:,} characters")
    return asked


def _wanted() -> Filter:
    asked = _asked()
    destination = asked.get("destination")
    return Filter(
        states=STOPPED,
        destinations=(destination,) if destination else (),
        reason=asked.get("reason"),
    )


def _said() -> str:
    """Say which group it is."""
    asked = _asked()
    where = f"everything that stopped at {asked['destination']}" if asked.get("destination") else (
        "everything that stopped")  # fmt: skip
    reason = asked.get("reason")
    return f"This is about {where}{f': {reason}' if reason else ''}."
