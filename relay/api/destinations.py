"""The destinations: ``/destinations``."""

from __future__ import annotations

from collections.abc import Sequence

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from typing_extensions import TypedDict

from relay.acts import trying
from relay.acts.trying import CUSTOMER, OURS, UnknownDestination
from relay.api import blueprint as parts
from relay.api import masking
from relay.api.answers import answers
from relay.api.identity import acting, needs, person
from relay.api.paging import Answer, answer, pages
from relay.api.problem import Fault
from relay.api.reading import Asked, Length, Number, Text, Why
from relay.api.services import services
from relay.rules.access import Scope
from relay.shapes.destinations import DestinationJson, destination_json
from relay.shapes.trying import AnswerJson, SentTestJson, answer_json, sent_test_json
from relay.store.actions import Actions
from relay.store.overview import DestinationView, Overview


class DestinationPath(Asked):
    name: Text = Field(description="Name of a destination")


class Pause(Why):
    """For how long nothing is delivered."""

    length: Length | None = Field(
        None, alias="for", description="Serve it again after this time, such as 2h"
    )


class Test(Why):
    """What the test shows."""

    from_: Number = Field(CUSTOMER, alias="from", description="The customer's number")
    to: Number = Field(OURS, description="Your number")


class PausedJson(TypedDict):
    """What became of a pause or its end."""

    changed: bool
    act: str | None
    destination: DestinationJson


def blueprint() -> APIBlueprint:
    made = parts.blueprint("destinations", about="The systems that events are delivered to")

    @made.get(
        "/destinations",
        summary="List the destinations, and how each stands",
        responses=pages(DestinationJson),
    )
    @needs(Scope.READ)
    def list_destinations() -> Answer:
        return answer([masking.shown(destination_json(each)) for each in _all()])

    @made.get(
        "/destinations/<name>",
        summary="Show how a destination stands",
        responses=answers(DestinationJson),
    )
    @needs(Scope.READ)
    def get_destination(path: DestinationPath) -> DestinationJson:
        return masking.shown(destination_json(_named(path.name)))

    @made.post(
        "/destinations/<name>/pause",
        summary="Deliver nothing to a destination; new deliveries wait",
        responses=answers(PausedJson),
    )
    @needs(Scope.OPERATE)
    def pause_destination(path: DestinationPath, body: Pause) -> PausedJson:
        _require(path.name)
        act = acting(body.why)
        until = act.at + body.length if body.length else None
        changed = services().recovery.pause(path.name, act, until=until)
        return _paused(path.name, act=act.id if changed else None)

    @made.post(
        "/destinations/<name>/resume",
        summary="Deliver to a destination again, whatever paused it",
        responses=answers(PausedJson),
    )
    @needs(Scope.OPERATE)
    def resume_destination(path: DestinationPath, body: Why) -> PausedJson:
        _named(path.name)
        act = acting(body.why)
        cause = services().recovery.resume(path.name, act)
        return _paused(path.name, act=act.id if cause else None)

    @made.post(
        "/destinations/<name>/check",
        summary="Ask a destination whether our credentials work now",
        responses=answers(AnswerJson),
    )
    @needs(Scope.OPERATE)
    def check_destination(path: DestinationPath) -> AnswerJson:
        try:
            return answer_json(trying.check(services().config, path.name))
        except UnknownDestination as error:
            raise Fault(404, str(error)) from error

    @made.post(
        "/destinations/<name>/test",
        summary="Send one test to a destination now",
        description="Its text says that it is a test. What it makes there stays there.",
        responses=answers(SentTestJson),
    )
    @needs(Scope.OPERATE)
    def test_destination(path: DestinationPath, body: Test) -> SentTestJson:
        found, who = services(), person(body.why)
        try:
            sent = trying.send_test(
                found.config, path.name, who=who.who, customer=body.from_, ours=body.to
            )
        except UnknownDestination as error:
            raise Fault(404, str(error)) from error
        Actions(found.database).note(
            who.act(found.now()),
            "send-test",
            detail=f"{sent.outcome.kind}",
            destination=path.name,
        )
        return sent_test_json(sent)

    return made


def _all() -> Sequence[DestinationView]:
    found = services()
    look = Overview(found.database).destinations
    return found.shared.get(
        "destinations", lambda: look(found.config.destinations, now=found.now())
    )


def _named(name: str) -> DestinationView:
    for each in _all():
        if each.name == name:
            return each
    raise Fault(404, f"no destination {name}")


def _require(name: str) -> None:
    """Refuse what the config does not name. Raises :class:`Fault`."""
    if name not in services().config.destinations:
        raise Fault(404, f"the config names no destination {name}")


def _paused(name: str, *, act: str | None) -> PausedJson:
    services().shared.forget()
    return {"changed": act is not None, "act": act, "destination": destination_json(_named(name))}
