"""One event: what came, what the rules made of it, where it is, and what comes next."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Blueprint, abort, g, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.acts import recovering
from relay.acts.recovering import End, UnknownNames
from relay.api.services import services
from relay.console import acting, conversation, deliveries, pages, wording
from relay.console.around import circumstances
from relay.console.pages import needs
from relay.rules.access import Scope
from relay.rules.delivery import State
from relay.shapes.explanation import keys_of, routes_json
from relay.store.actions import Actions
from relay.store.search import Unknown
from relay.store.values import DeliveryView, EventView

#: States in which something still happens by itself.
_MOVING = (State.WAITING, State.PENDING, State.IN_FLIGHT)
#: How a person says that a delivery ended.
_ENDS: Mapping[str, End] = {"delivered": State.DELIVERED, "dead": State.DEAD}
#: A payload that is longer when it is spread over lines is shown as one.
_LONGEST_PRETTY = 100_000


def add(console: Blueprint) -> None:
    """Add the page, and what one may do there."""
    console.add_app_template_filter(_buttons, "buttons")

    @console.get("/events/<id_>")
    @needs(Scope.READ)
    def event(id_: str) -> ResponseReturnValue:
        return _page(id_)

    @console.post("/events/<id_>/unmask")
    @needs(Scope.READ)
    def unmask(id_: str) -> ResponseReturnValue:
        if fault := acting.fault_of_why(needed=True):
            return _page(id_, fault=fault)
        view = _found(id_)
        detail = "numbers and texts shown"
        Actions(services().database).note(
            acting.person().act(services().now()), "unmask", detail=detail, event_id=view.event.id
        )
        g.unmasked = True
        return _page(view.event.id)

    @console.post("/events/<id_>/resend")
    @needs(Scope.OPERATE)
    def resend(id_: str) -> ResponseReturnValue:
        names, is_again = request.form.getlist("delivery") or [id_], _is_again()

        def act(*, dry_run: bool) -> Sequence[acting.Effect]:
            made = recovering.resend(
                services().recovery, names, person, again=is_again, dry_run=dry_run
            )
            return acting.of_changes(made)

        person = acting.person()
        title = "Send a second time" if is_again else "Resend"
        return _act(id_, act, title=title, verb="Sent again", act_id=person.act_id)

    @console.post("/events/<id_>/replay")
    @needs(Scope.OPERATE)
    def replay(id_: str) -> ResponseReturnValue:
        found, is_again = services(), _is_again()

        def act(*, dry_run: bool) -> Sequence[acting.Effect]:
            made = recovering.replay(
                found.config, found.recovery, [id_], person, again=is_again, dry_run=dry_run
            )
            return acting.of_replays(made)

        person = acting.person()
        lead = "The event goes through today's routes; what is missing is added."
        return _act(id_, act, title="Replay", verb="Added", act_id=person.act_id, lead=lead)

    @console.post("/events/<id_>/settle")
    @needs(Scope.OPERATE)
    def settle(id_: str) -> ResponseReturnValue:
        end = _ENDS.get(request.form.get("as", ""))
        if end is None:
            abort(400, "as: delivered or dead")
        names = request.form.getlist("delivery")

        def act(*, dry_run: bool) -> Sequence[acting.Effect]:
            made = recovering.settle(services().recovery, names, person, end=end, dry_run=dry_run)
            return acting.of_changes(made)

        person = acting.person()
        said = "arrived" if end is State.DELIVERED else "not arrived"
        lead = "You say how it ended; nothing is sent."
        return _act(
            id_, act, title=f"Settle as {said}", verb=f"Settled as {said}",
            act_id=person.act_id, lead=lead,
        )  # fmt: skip


def _act(
    id_: str,
    act: Callable[..., Sequence[acting.Effect]],
    *,
    title: str,
    verb: str,
    act_id: str,
    lead: str = "",
) -> ResponseReturnValue:
    """Show what *act* would do, or do it."""
    back = acting.back_to(url_for("console.event", id_=id_))
    try:
        if acting.is_confirmed():
            return acting.finish(act(dry_run=False), verb=verb, back=back, act=act_id)
        effects = act(dry_run=True)
    except UnknownNames as error:
        abort(404, str(error))
    return acting.preview(title=title, lead=lead, effects=effects, button=title, back=back)


def _page(id_: str, *, fault: str = "") -> ResponseReturnValue:
    found = services()
    try:
        view = found.shared.get(("event", id_), lambda: found.queries.event(id_))
    except Unknown as error:
        abort(404, str(error))
    if view is None:
        return _absent(id_)
    around = circumstances()
    is_moving = any(each.state in _MOVING for each in view.deliveries)
    page = render_template(
        "event.html",
        view=view,
        event=view.event,
        around=around,
        routes=routes_json(view.routing),
        payload=None if pages.is_masked() else _pretty(view.event.payload),
        next_of=deliveries.next_of,
        place=deliveries.place,
        read_out=deliveries.read_out(view, around),
        why_none=_why_none(view),
        conversation_url=conversation.url_of(view.event),
        fault=fault,
        why=acting.why(),
        undo=request.args.get("act"),
        live=5 if is_moving and request.method == "GET" else False,
    )
    return page, 422 if fault else 200


def _absent(id_: str) -> ResponseReturnValue:
    found = services()
    purged = found.queries.purged(id_, keys_of(id_, found.config.endpoints))
    if purged is None:
        abort(404, "No event has this id or messageId. It may be of another store.")
    return render_template("event_removed.html", purged=purged), 410


def _found(id_: str) -> EventView:
    try:
        view = services().queries.event(id_)
    except Unknown as error:
        abort(404, str(error))
    if view is None:
        abort(404, "No event has this id or messageId.")
    return view


def _is_again() -> bool:
    return request.form.get("again") == "1"


def _why_none(view: EventView) -> str:
    """Say why an event has no deliveries."""
    if view.standing == "conflict":
        return "Its messageId was used before, for something else: it is kept, and not delivered."
    if view.standing == "stale":
        return "It is so old that it may have been delivered long ago: it is kept, not delivered."
    if view.event.test:
        return "It is a test, and no route is for tests."
    return "No route matched. After a change of the routes, replay it."


def _pretty(payload: Any) -> str:
    """Write what came as people read it."""
    try:
        spread = json.dumps(payload, ensure_ascii=False, indent=2, default=str)
    except (RecursionError, ValueError):
        return "(nested too deeply to be shown)"
    if len(spread) <= _LONGEST_PRETTY:
        return spread
    return json.dumps(payload, ensure_ascii=False, default=str)


def _buttons(delivery: DeliveryView) -> Sequence[str]:
    """Return what one may do about a delivery now."""
    match delivery.state:
        case State.DEAD:
            return ("resend", "delivered")
        case State.HELD:
            return ("resend", "delivered", "dead")
        case State.PENDING:
            is_later = delivery.due_at is not None and delivery.due_at > wording.now()
            return ("resend", "dead") if is_later else ("dead",)
        case State.DELIVERED:
            return ("again",)
    return ()
