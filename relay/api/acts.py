"""Acts on many, which go on after their answer: ``/acts``."""

from __future__ import annotations

from flask import url_for
from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field
from typing_extensions import TypedDict

from relay.acts import bulk, recovering
from relay.acts.bulk import BulkAct
from relay.api import blueprint as parts
from relay.api.answers import answers
from relay.api.identity import needs, person
from relay.api.paging import Answer, answer, pages
from relay.api.problem import Fault, documented
from relay.api.reading import Asked, Flag, Rate, Text, Why
from relay.api.services import services
from relay.rules.access import Scope
from relay.shapes.bulk import BulkActJson, bulk_act_json, noted_act_json
from relay.shapes.recovery import ChangeJson
from relay.store.recover import BATCH
from relay.store.search import Unknown
from relay.store.undo import Acts

#: The answer to an act that goes on.
Started = tuple[BulkActJson, int, dict[str, str]]


class ActPath(Asked):
    id: Text = Field(description="Id of an act")


class Undo(Why):
    """How an act is taken back."""

    dry_run: Flag = Field(False, description="Say what would be done; change nothing")
    rate: Rate | None = Field(None, description="At most this many, such as 100/10s")


class UndoneJson(TypedDict):
    """What was taken back, or would be; of many, the first of *total*."""

    act: str | None
    dry_run: bool
    total: int
    #: Destinations that are served again.
    served: list[str]
    changes: list[ChangeJson]


def started(act: BulkAct) -> Started:
    """Let *act* go on after the answer. Raises :class:`~relay.acts.bulk.TooMany`."""
    services().runner.start(act)
    services().shared.forget()
    headers = {"Location": url_for("api_acts.get_act", id=act.id)}
    return bulk_act_json(act), 202, headers


def blueprint() -> APIBlueprint:
    made = parts.blueprint("acts", about="Acts on many, which go on after their answer")

    @made.get(
        "/acts",
        summary="List the acts that run, and the last ones that ran, the newest first",
        responses=pages(BulkActJson),
    )
    @needs(Scope.READ)
    def list_acts() -> Answer:
        return answer([bulk_act_json(each) for each in services().runner.all()])

    @made.get("/acts/<id>", summary="Show how far an act has come", responses=answers(BulkActJson))
    @needs(Scope.READ)
    def get_act(path: ActPath) -> BulkActJson:
        act = services().runner.get(path.id)
        if act is not None:
            return bulk_act_json(act)
        return noted_act_json(path.id, Acts(services().database).noted(path.id))

    @made.post(
        "/acts/<id>/stop",
        summary="Let an act end after the page that it is at",
        responses=answers(BulkActJson),
    )
    @needs(Scope.OPERATE)
    def stop_act(path: ActPath) -> BulkActJson:
        act = _named(path.id)
        services().runner.stop(act.id)
        return bulk_act_json(act)

    @made.post(
        "/acts/<id>/undo",
        summary="Take back what an act did, where nothing was sent since",
        responses=answers(UndoneJson) | answers(BulkActJson, status=202) | documented(409),
    )
    @needs(Scope.OPERATE)
    def undo_act(path: ActPath, body: Undo) -> UndoneJson | Started:
        found, who = services(), person(body.why)
        store, acts = found.recovery, Acts(found.database)
        total = _changes_of(path.id)
        served = recovering.serve_again(store, acts, path.id, who, dry_run=body.dry_run)
        changes: list[ChangeJson] = []
        if total:
            act = bulk.undo(
                store,
                acts,
                path.id,
                who,
                rate=body.rate,
                dry_run=body.dry_run,
                show=lambda page: changes.extend(
                    each.json for each in page[: BATCH - len(changes)]
                ),
            )
            if total > BATCH and not body.dry_run:
                return started(act)
            # One page of a preview says enough.
            act.run(advance=lambda _: act.stop.set() if body.dry_run else None)
        found.shared.forget()
        return {
            "act": None if body.dry_run else who.act_id,
            "dry_run": body.dry_run,
            "total": total,
            "served": list(served),
            "changes": changes,
        }

    return made


def _changes_of(name: str) -> int:
    """Return how many changes of an act can be taken back. Raises :class:`Fault`."""
    found = services()
    act = found.runner.get(name)
    if act is not None and not act.is_over:
        raise Fault(409, f"{name} still runs: stop it, and wait for its end")
    try:
        return Acts(found.database).count(name)
    except Unknown:
        if act is None:
            raise
        return 0  # it did nothing


def _named(name: str) -> BulkAct:
    act = services().runner.get(name)
    if act is None:
        raise Fault(404, f"no act {name} runs, or ran lately")
    return act
