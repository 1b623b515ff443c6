"""The calls to our endpoints: ``/requests``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field, SecretStr, model_validator
from typing_extensions import TypedDict

from relay.acts import admitting, bulk
from relay.acts.admitting import Admitted
from relay.acts.person import Person
from relay.api import blueprint as parts
from relay.api import masking
from relay.api.acts import Started, started
from relay.api.answers import answers
from relay.api.filters import Listing, RequestStanding
from relay.api.identity import acting, needs, person
from relay.api.paging import Answer, Paged, answer, cursor_at, pages
from relay.api.problem import Fault, documented
from relay.api.reading import Asked, Body, Flag, Rate, Span, Text, Unmask, Why
from relay.api.services import services
from relay.intake import Examined
from relay.rules.access import Scope
from relay.rules.diagnose import Secret
from relay.shapes.admitted import AdmittedJson
from relay.shapes.bulk import BulkActJson
from relay.shapes.diagnosis import DiagnosisJson, diagnosis_json
from relay.shapes.requests import RequestJson, request_json
from relay.shapes.times import full_time
from relay.store.actions import Actions
from relay.store.pages import Pages, RequestsPlace
from relay.store.recover import BATCH
from relay.store.refused import Refused
from relay.store.values import Request

#: Characters of a secret that is tried.
LONGEST_SECRET = 1000


class RequestsQuery(Listing, Paged):
    standing: list[RequestStanding] = Field(
        [], max_length=6, description="Only those that became this"
    )


class RequestPath(Asked):
    id: Text = Field(description="Id of a request")


class Diagnose(Body):
    """What else is tried."""

    secret: SecretStr | None = Field(
        None,
        min_length=1,
        max_length=LONGEST_SECRET,
        description="A further secret to try; it is neither kept nor logged",
    )
    model_config = Why.model_config


class Admit(Span, Why):
    """Which refused requests may come in: ids, a span of time, or one on your word."""

    ids: list[Text] = Field([], max_length=BATCH, description="Ids of refused requests")
    unverified: Text | None = Field(
        None, description="The id of one that no signature proves: your word for it, with why"
    )
    dry_run: Flag = Field(False, description="Say what would come in; change nothing")
    rate: Rate | None = Field(None, description="Of many: at most so many, such as 100/10s")

    @model_validator(mode="after")
    def _is_one(self) -> Admit:
        has_span = self.since is not None or self.until is not None
        if sum((bool(self.ids), has_span, self.unverified is not None)) != 1:
            raise ValueError("give ids, or since and until, or unverified")
        if self.unverified is not None and self.why is None:
            raise ValueError("unverified needs why: how do you know it?")
        return self


class AdmissionJson(TypedDict):
    """What became of refused requests, or would; of many, the first of *total*."""

    act: str | None
    dry_run: bool
    total: int
    requests: list[AdmittedJson]


def blueprint() -> APIBlueprint:
    made = parts.blueprint("requests", about="Every call to an endpoint, good or refused")

    @made.get("/requests", summary="List requests, the newest first", responses=pages(RequestJson))
    @needs(Scope.READ)
    def list_requests(query: RequestsQuery) -> Answer:
        found = Pages(services().database).requests(
            query.of_standing(query.standing), limit=query.limit, before=_place(query)
        )
        items = [masking.shown(request_json(each)) for each in found.items]
        at = found.next
        return answer(items, None if at is None else cursor_at(at.event, at.request))

    @made.get(
        "/requests/<id>",
        summary="Show a request",
        responses=answers(RequestJson),
    )
    @needs(Scope.READ)
    def get_request(path: RequestPath) -> RequestJson:
        return masking.shown(request_json(_named(path.id)))

    @made.post(
        "/requests/<id>/unmask",
        summary="Show a request whose body is hidden; the audit log has it",
        responses=answers(RequestJson),
    )
    @needs(Scope.READ)
    def unmask_request(path: RequestPath, body: Unmask) -> RequestJson:
        found = _named(path.id)
        detail = f"what the request {found.id} says shown"
        Actions(services().database).note(
            acting(body.why), "unmask", detail=detail, event_id=found.event_id
        )
        return request_json(found)

    @made.post(
        "/requests/<id>/diagnose",
        summary="Find out why the signature of a refused request did not match",
        responses=answers(DiagnosisJson),
    )
    @needs(Scope.OPERATE)
    def diagnose_request(path: RequestPath, body: Diagnose) -> DiagnosisJson:
        found = services()
        request = admitting.named(Refused(found.database), path.id)
        further = (
            [Secret(name="the secret that you gave", text=body.secret.get_secret_value())]
            if body.secret
            else []
        )
        diagnosis = admitting.diagnose(found.config, request, further=further)
        show_time = partial(full_time, zone=found.config.zone)
        return diagnosis_json(request, diagnosis, show_time=show_time)

    @made.post(
        "/requests/admit",
        summary="Let in refused requests whose signature matches today's secrets",
        responses=answers(AdmissionJson) | answers(BulkActJson, status=202) | documented(409),
    )
    @needs(Scope.OPERATE)
    def admit_requests(body: Admit) -> AdmissionJson | Started:
        found, who = services(), person(body.why)
        examined = _examined(body, who)
        if len(examined) > BATCH and not body.dry_run:
            act = bulk.admit(found.config, found.database, examined, who, rate=body.rate)
            return started(act)
        admitted = admitting.admit(
            found.config, found.database, examined[:BATCH], dry_run=body.dry_run
        )
        return _admission(list(admitted), who, dry_run=body.dry_run, total=len(examined))

    return made


def _named(id_: str) -> Request:
    """Return a request. Raises :class:`Fault`."""
    found = services().queries.request(id_)
    if found is None:
        raise Fault(404, f"no request {id_}")
    return found


def _place(query: RequestsQuery) -> RequestsPlace | None:
    if query.cursor is None:
        return None
    event, *others = query.cursor
    return RequestsPlace(event=event, request=others[0] if others else None)


def _examined(asked: Admit, who: Person) -> Sequence[Examined]:
    found = services()
    store = Refused(found.database)
    if asked.unverified is not None:
        return [admitting.taken_on_word(found.config, store, asked.unverified, who)]
    return admitting.examined(
        found.config, store, who, ids=asked.ids, since=asked.since, until=asked.until
    )


def _admission(
    admitted: Sequence[Admitted], who: Person, *, dry_run: bool, total: int
) -> AdmissionJson:
    services().shared.forget()
    return {
        "act": None if dry_run else who.act_id,
        "dry_run": dry_run,
        "total": total,
        "requests": [each.json for each in admitted],
    }
