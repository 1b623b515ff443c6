"""What stopped, and what a person does about it: ``/deliveries``, ``/events/replay``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field, model_validator
from typing_extensions import TypedDict

from relay.acts import bulk, recovering
from relay.acts.bulk import BulkAct
from relay.acts.person import Person
from relay.acts.recovering import Changed, Replayed
from relay.api import blueprint as parts
from relay.api import masking
from relay.api.acts import Started, started
from relay.api.answers import answers
from relay.api.filters import MOST, OfDeliveries, OfEvents, Stopped
from relay.api.identity import needs, person
from relay.api.paging import Answer, Paged, answer, cursor_at, pages
from relay.api.problem import Fault, documented
from relay.api.reading import Asked, Flag, Rate, Text, Why
from relay.api.services import services
from relay.rules.access import Scope
from relay.rules.delivery import State
from relay.shapes.bulk import BulkActJson
from relay.shapes.explanation import (
    AttemptJson,
    Circumstances,
    ExplainedDeliveryJson,
    attempt_json,
    explained_delivery_json,
)
from relay.shapes.recovery import ChangeJson, ReplayJson
from relay.shapes.stopped import GroupJson, StoppedJson, group_json, stopped_json
from relay.shapes.times import full_time
from relay.store.pages import Pages
from relay.store.recover import BATCH
from relay.store.search import STOPPED, Unknown
from relay.store.values import DeliveryView, EventView

#: What a person may settle, and send again, by a filter.
_SETTLED = (State.HELD, State.DEAD, State.PENDING)
_SENT_AGAIN = (State.DEAD, State.HELD, State.PENDING, State.DELIVERED)


class StoppedQuery(OfDeliveries, Paged):
    state: list[Stopped] = Field([], max_length=2, description="Only those that are so")


class GroupsQuery(OfDeliveries):
    state: list[Stopped] = Field([], max_length=2, description="Only those that are so")


class DeliveryPath(Asked):
    id: Text = Field(description="Id of a delivery")


class ResendFilter(OfDeliveries):
    """Which deliveries; dead ones, unless `state` says otherwise."""

    state: list[Literal[State.DEAD, State.HELD, State.PENDING, State.DELIVERED]] = Field(
        [], max_length=len(_SENT_AGAIN), description="Only those that are so; default: dead"
    )


class SettleFilter(OfDeliveries):
    """Which deliveries; held ones, unless `state` says otherwise."""

    state: list[Literal[State.HELD, State.DEAD, State.PENDING]] = Field(
        [], max_length=len(_SETTLED), description="Only those that are so; default: held"
    )


class Many(Why):
    """What is meant: names, or a filter."""

    ids: list[Text] = Field(
        [],
        max_length=BATCH,
        description=f"Up to {BATCH} ids of deliveries or events, or messageIds: done at once",
    )
    dry_run: Flag = Field(False, description="Say what would be done; change nothing")
    rate: Rate | None = Field(
        None, description="With a filter: at most this many, such as 100/10s"
    )

    @model_validator(mode="after")
    def _is_one(self) -> Many:
        if bool(self.ids) == (getattr(self, "filter", None) is not None):
            raise ValueError("give either ids or a filter; the filter {} means all")
        return self


class Resend(Many):
    """Which deliveries get a new series of attempts."""

    filter: ResendFilter | None = Field(None, description="All that it means: as a bulk act")
    again: Flag = Field(False, description="Also delivered ones: makes a second effect")


class Settle(Many):
    """Which deliveries ended, and how."""

    end: Literal[State.DELIVERED, State.DEAD] = Field(alias="as", description="How they ended")
    filter: SettleFilter | None = Field(None, description="All that it means: as a bulk act")


class Replay(Many):
    """Which events go through today's routes."""

    filter: OfEvents | None = Field(None, description="All that it means: as a bulk act")
    destination: list[Text] = Field(
        [], max_length=MOST, description="Add deliveries to these destinations only"
    )
    again: Flag = Field(False, description="Also where it was delivered: a second effect")


class ChangesJson(TypedDict):
    """What was done to deliveries, or would be; of a filter, the first of *total*."""

    act: str | None
    dry_run: bool
    total: int
    changes: list[ChangeJson]


class ReplaysJson(TypedDict):
    """What was done to events, or would be; of a filter, the first of *total*."""

    act: str | None
    dry_run: bool
    total: int
    replays: list[ReplayJson]


class OneDeliveryJson(ExplainedDeliveryJson):
    """A delivery of an event, with its attempts, and what comes next."""

    event_id: str
    message_id: str | None


def blueprint() -> APIBlueprint:
    made = parts.blueprint("deliveries", about="One event to one destination")
    _add_lists(made)
    _add_changes(made)
    return made


def _add_lists(made: APIBlueprint) -> None:
    @made.get(
        "/deliveries",
        summary="List dead and held deliveries, the newest first",
        description="What is under way stands in the events: /events?state=pending",
        responses=pages(StoppedJson),
    )
    @needs(Scope.READ)
    def list_deliveries(query: StoppedQuery) -> Answer:
        found = Pages(services().database).stopped(
            query.in_states(query.state, otherwise=STOPPED),
            limit=query.limit,
            before=query.before,
        )
        items = [masking.shown(stopped_json(each)) for each in found.items]
        return answer(items, None if found.next is None else cursor_at(found.next))

    @made.get(
        "/deliveries/groups",
        summary="Count dead and held deliveries by destination and reason, the most first",
        responses=pages(GroupJson),
    )
    @needs(Scope.READ)
    def group_deliveries(query: GroupsQuery) -> Answer:
        groups = services().recovery.groups(query.in_states(query.state, otherwise=STOPPED))
        return answer([masking.shown(group_json(each)) for each in groups])

    @made.get(
        "/deliveries/<id>",
        summary="Show a delivery with its attempts, and what comes next",
        responses=answers(OneDeliveryJson),
    )
    @needs(Scope.READ)
    def get_delivery(path: DeliveryPath) -> OneDeliveryJson:
        view, delivery = _named(path.id)
        found = services()
        around = Circumstances.of(
            found.config,
            found.queries,
            now=found.now(),
            show_time=partial(full_time, zone=found.config.zone),
        )
        said: OneDeliveryJson = {
            **explained_delivery_json(delivery, around),
            "event_id": view.event.id,
            "message_id": view.event.message_id,
        }
        return masking.shown(said)

    @made.get(
        "/deliveries/<id>/attempts",
        summary="List the attempts of a delivery, the newest first",
        responses=pages(AttemptJson),
    )
    @needs(Scope.READ)
    def list_attempts(path: DeliveryPath, query: Paged) -> Answer:
        _, delivery = _named(path.id)
        found = Pages(services().database).attempts(
            delivery.id, limit=query.limit, before=query.before
        )
        items = [masking.shown(attempt_json(each)) for each in found.items]
        return answer(items, None if found.next is None else cursor_at(found.next))


def _add_changes(made: APIBlueprint) -> None:
    @made.post(
        "/deliveries/resend",
        summary="Give deliveries a new series of attempts",
        description="An event stands for its newest delivery to each destination.",
        responses=answers(ChangesJson) | _started(),
    )
    @needs(Scope.OPERATE)
    def resend_deliveries(body: Resend) -> ChangesJson | Started:
        store, who = services().recovery, person(body.why)
        if body.filter is None:
            made = recovering.resend(store, body.ids, who, again=body.again, dry_run=body.dry_run)
            return _changes(made, who, dry_run=body.dry_run)
        resend = partial(
            bulk.resend,
            store,
            body.filter.in_states(body.filter.state, otherwise=[State.DEAD]),
            who,
            again=body.again,
        )
        return _changing(resend, body, who)

    @made.post(
        "/deliveries/settle",
        summary="Say how deliveries ended that are held, dead, or wait for an attempt",
        description="A conversation that waited for one goes on.",
        responses=answers(ChangesJson) | _started(),
    )
    @needs(Scope.OPERATE)
    def settle_deliveries(body: Settle) -> ChangesJson | Started:
        store, who, end = services().recovery, person(body.why), body.end
        if body.filter is None:
            made = recovering.settle(store, body.ids, who, end=end, dry_run=body.dry_run)
            return _changes(made, who, dry_run=body.dry_run)
        settle = partial(
            bulk.settle,
            store,
            body.filter.in_states(body.filter.state, otherwise=[State.HELD]),
            who,
            end=end,
        )
        return _changing(settle, body, who)

    @made.post(
        "/events/replay",
        summary="Send events through today's routes, and add missing deliveries",
        responses=answers(ReplaysJson) | _started(),
    )
    @needs(Scope.OPERATE)
    def replay_events(body: Replay) -> ReplaysJson | Started:
        found, who = services(), person(body.why)
        if body.filter is None:
            made = recovering.replay(
                found.config,
                found.recovery,
                body.ids,
                who,
                only=body.destination,
                again=body.again,
                dry_run=body.dry_run,
            )
            return _replays(made, who, dry_run=body.dry_run)
        which, seen = body.filter.filter, _First()
        act = bulk.replay(
            found.config,
            found.recovery,
            which,
            who,
            only=body.destination,
            again=body.again,
            rate=body.rate,
            dry_run=body.dry_run,
            show=seen.show,
        )
        if not body.dry_run:
            return started(act)
        seen.look(act)
        return _replays(seen.items, who, dry_run=True, total=act.progress.total)


class _First:
    """The first page of what an act would do."""

    def __init__(self) -> None:
        self.items: list[Any] = []
        self._act: BulkAct | None = None

    def show(self, page: Sequence[Any]) -> None:
        self.items += page
        if self._act is not None:
            self._act.stop.set()

    def look(self, act: BulkAct) -> None:
        self._act = act
        act.run()


def _changing(make: partial[BulkAct], asked: Many, who: Person) -> ChangesJson | Started:
    """Start an act on what a filter means, or say how it would begin."""
    if not asked.dry_run:
        return started(make(rate=asked.rate))
    seen = _First()
    act = make(dry_run=True, show=seen.show)
    seen.look(act)
    return _changes(seen.items, who, dry_run=True, total=act.progress.total)


def _changes(
    made: Sequence[Changed], who: Person, *, dry_run: bool, total: int | None = None
) -> ChangesJson:
    services().shared.forget()
    return {
        "act": None if dry_run else who.act_id,
        "dry_run": dry_run,
        "total": len(made) if total is None else total,
        "changes": [each.json for each in made],
    }


def _replays(
    made: Sequence[Replayed], who: Person, *, dry_run: bool, total: int | None = None
) -> ReplaysJson:
    services().shared.forget()
    return {
        "act": None if dry_run else who.act_id,
        "dry_run": dry_run,
        "total": len(made) if total is None else total,
        "replays": [each.json for each in made],
    }


def _started() -> dict[Any, Any]:
    return answers(BulkActJson, status=202) | documented(409)


def _named(name: str) -> tuple[EventView, DeliveryView]:
    """Return a delivery and its event. Raises :class:`Fault`."""
    try:
        [found] = recovering.one_delivery(services().recovery, name)
    except Unknown as error:
        raise Fault(404, str(error)) from error
    view = services().queries.event(found.event_id)
    deliveries = view.deliveries if view else ()
    for each in deliveries:
        if view is not None and each.id == found.id:
            return view, each
    raise Fault(404, f"no delivery {name}")
