"""Requests: every call to an endpoint; why one was refused, and letting it in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

from flask import Blueprint, abort, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.acts import admitting, bulk
from relay.acts.admitting import Admitted
from relay.api.services import services
from relay.console import acting, acts, filters, pages, sheets
from relay.console.filters import Asked
from relay.console.pages import needs, noted, tell
from relay.console.places import number_of
from relay.intake import Examined
from relay.rules.access import Scope
from relay.rules.diagnose import Diagnosis, Secret
from relay.shapes import spreadsheet
from relay.shapes.diagnosis import recommended, told
from relay.store.actions import Actions
from relay.store.pages import Page, Pages, RequestsPlace
from relay.store.refused import Refused
from relay.store.search import Unknown
from relay.store.values import Request

#: Requests of a page.
LIMIT = 50
STANDINGS = ("accepted", "duplicate", "conflict", "stale", "probe", "refused")
#: Characters of a body that are shown.
SHOWN = 100_000
#: The longest secret that may be tried.
LONGEST_SECRET = 1000
#: Hints for the command line; this page has a button and a field instead.
_COMMAND = "    gofax-relay requests admit"
_OPTION = "try it with --secret-from ENV", "try it here"


def add(console: Blueprint) -> None:
    """Add the pages."""

    @console.get("/requests")
    @needs(Scope.READ)
    def requests() -> ResponseReturnValue:
        asked = filters.read(STANDINGS)
        before = RequestsPlace(event=number_of("event"), request=number_of("request"))
        page, notes = _page(asked, before)
        shown = render_template(
            "requests.html",
            asked=asked,
            page=page,
            is_first=before == RequestsPlace(),
            notes=notes,
            standings=[(each, each) for each in STANDINGS],
            most=sheets.MOST,
            live=5 if before == RequestsPlace() and not asked.faults else False,
            **filters.choices(),
        )
        return shown, 422 if asked.faults else 200

    @console.get("/requests/export.csv")
    @needs(Scope.READ)
    def requests_csv() -> ResponseReturnValue:
        asked = filters.read(STANDINGS)
        if asked.faults:
            return redirect(asked.url(request.path.removesuffix("/export.csv")))
        zone = services().config.zone
        cells = (
            spreadsheet.request_cells(each, zone=zone) | {"reason": noted(each.reason)}
            for each in _all(asked)
        )
        return sheets.download(cells, name="requests", order="newest")

    @console.get("/requests/<id_>")
    @needs(Scope.READ)
    def refused(id_: str) -> ResponseReturnValue:
        return _one(_named(id_))

    @console.post("/requests/<id_>/unmask")
    @needs(Scope.READ)
    def unmask_request(id_: str) -> ResponseReturnValue:
        found = _named(id_)
        if fault := acting.fault_of_why(needed=True):
            return _one(found, fault=fault)
        act = acting.person().act(services().now())
        detail = f"what the refused request {found.id} says shown"
        Actions(services().database).note(act, "unmask", detail=detail)
        g.unmasked = True
        return _one(found)

    @console.post("/requests/<id_>/diagnose")
    @needs(Scope.OPERATE)
    def diagnose(id_: str) -> ResponseReturnValue:
        found, secret = _named(id_), request.form.get("secret", "")
        if not secret.strip():
            return _one(found, secret_fault="secret: paste the one to try")
        if len(secret) > LONGEST_SECRET:
            fault = f"secret: at most {LONGEST_SECRET} characters"
            return _one(found, secret_fault=fault)
        return _one(found, further=[Secret(name="the secret that you typed", text=secret)])

    @console.post("/requests/admit")
    @needs(Scope.OPERATE)
    def admit_all() -> ResponseReturnValue:
        asked = filters.read(STANDINGS)
        if asked.faults:
            return redirect(asked.url(url_for("console.requests")))
        found, person = services(), acting.person()
        looked = admitting.examined(
            found.config, Refused(found.database), person,
            since=asked.which.since, until=asked.which.until,
        )  # fmt: skip
        make = partial(bulk.admit, found.config, found.database, looked, person)
        back = asked.url(url_for("console.requests"))
        if acting.is_confirmed():
            return acts.start(make(), back=back)
        look = make(dry_run=True)
        look.run()
        return acting.preview(
            title="Let in what is proved",
            lead="Today's secrets are tried on what was refused and carries a signature.",
            effects=acts.in_short(look),
            button="Let in",
            back=back,
        )

    @console.post("/requests/<id_>/admit")
    @needs(Scope.OPERATE)
    def admit(id_: str) -> ResponseReturnValue:
        return _admit(_named(id_))


def _page(
    asked: Asked, before: RequestsPlace
) -> tuple[Page[Request, RequestsPlace], Sequence[str]]:
    def ask() -> tuple[Page[Request, RequestsPlace], Sequence[str]]:
        if asked.faults:
            return Page(items=()), ()
        notes: list[str] = []
        pages_ = Pages(found.database, tell=lambda said, _: notes.append(said))
        return pages_.requests(asked.which, limit=LIMIT, before=before), notes

    found = services()
    return found.shared.get(("requests", tuple(sorted(asked.given.items())), before), ask)


def _all(asked: Asked) -> Iterator[Request]:
    """Yield all requests that are asked for, page by page, the newest first."""
    reader, before = Pages(services().database), None
    while True:
        page = reader.requests(asked.which, limit=sheets.STEP, before=before)
        yield from page.items
        if page.next is None:
            return
        before = page.next


def _named(id_: str) -> Request:
    try:
        return admitting.named(Refused(services().database), id_)
    except Unknown:
        abort(
            404, "No refused request has this id. Those that brought an event are told of there."
        )


def _one(
    found: Request,
    *,
    further: Sequence[Secret] = (),
    fault: str = "",
    secret_fault: str = "",
) -> ResponseReturnValue:
    diagnosis = admitting.diagnose(services().config, found, further=further)
    best = recommended(diagnosis)
    body = (found.body or b"").decode("utf-8", "replace")
    page = render_template(
        "request.html",
        found=found,
        is_hidden=pages.is_masked(),
        body=body[:SHOWN],
        left=max(0, len(body) - SHOWN),
        says=_says(found, diagnosis),
        is_explained=best is not None,
        is_tried=bool(further),
        fault=fault,
        secret_fault=secret_fault,
        why=acting.why(),
    )
    return page, 422 if fault or secret_fault else 200


def _says(found: Request, diagnosis: Diagnosis) -> Sequence[str]:
    """Return what a diagnosis came to, without what the page itself says or does."""
    lines = list(told(found, diagnosis))
    after = lines[lines.index("") + 1 :]
    return [line.replace(*_OPTION) for line in after if not line.startswith(_COMMAND)]


def _admit(found: Request) -> ResponseReturnValue:
    """Show what would come in, or let it in."""
    on_word = request.form.get("word") == "1"
    here = url_for("console.refused", id_=found.id)
    fault = acting.fault_of_why(needed=on_word)
    if acting.is_confirmed() and not fault:
        (done,) = admitting.admit(
            services().config, services().database, [_examined(found, on_word=on_word)]
        )
        return _let_in(done, here)
    looked = _examined(found, on_word=on_word)
    lead = (
        "No signature proves it: you say that it is genuine, and why. Your name is kept with it."
        if on_word
        else "Its signature is good by today's secrets; it comes in as if it had just come."
    )
    return acting.preview(
        title="Let in on your word" if on_word else "Let in",
        lead=lead if looked.arrival else "",
        effects=[_effect(looked)],
        button="Let in",
        back=here,
        needs_why=on_word,
    )


def _examined(found: Request, *, on_word: bool) -> Examined:
    config, store, person = services().config, Refused(services().database), acting.person()
    if on_word:
        # The page shows the event first and asks for the reason then.
        with_reason = replace(person, why=person.why or "not said yet")
        return admitting.taken_on_word(config, store, found.id, with_reason)
    examined = admitting.examined(config, store, person, ids=[found.id])
    if examined:
        return examined[0]
    return Examined(request=found, reason="it carries no signature, or is not here whole")


def _effect(looked: Examined) -> acting.Effect:
    what = f"{looked.request.method} {looked.request.endpoint}"
    if looked.arrival is None:
        return acting.Effect(what=what, does=False, says=f"stays out: {looked.reason}")
    to = looked.arrival.match.destinations
    where = f"goes to {', '.join(to)}" if to else "goes nowhere, since no route matches"
    says = f"comes in as {looked.arrival.event.type}, and {where}, unless it came before"
    return acting.Effect(what=what, does=True, says=says)


def _let_in(done: Admitted, here: str) -> ResponseReturnValue:
    services().shared.forget()
    if done.event_id is None:
        tell(f"It stays out: {done.became or done.examined.reason}", "bad")
        return redirect(here)
    said = {"accepted": "It is in.", "duplicate": "It had come in before: nothing more happens."}
    tell(said.get(done.became, f"It is in, as a {done.became}."), "good")
    return redirect(url_for("console.event", id_=done.event_id))
