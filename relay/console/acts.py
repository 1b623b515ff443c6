"""An act on many: how far it has come, how it is stopped, and how it is taken back."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.acts import bulk, recovering
from relay.acts.bulk import BulkAct, TooMany
from relay.acts.recovering import Changed
from relay.api.services import services
from relay.console import acting
from relay.console.pages import needs, tell
from relay.console.wording import count
from relay.rules.access import Scope
from relay.store import StoreUnavailable
from relay.store.recover import BATCH
from relay.store.search import Unknown
from relay.store.undo import Acts

#: What the acts did that cannot be taken back.
ADMITTED, TAKEN_BACK = "let in", "taken back"
_DELIVERIES, _REQUESTS = ("delivery", "deliveries"), ("request", "requests")
#: How many are looked at to say what an act on many would do.
LOOKED_AT = 2000
#: How many single effects are listed; of more, what they have in common is counted.
LISTED = 10


def add(console: Blueprint) -> None:
    """Add the page, and the buttons that it and other pages have."""
    console.add_app_template_filter(acting.plainly, "plainly")
    console.add_app_template_global(number_of, "number_of_act")
    console.add_app_template_global(is_undoable, "is_undoable")

    @console.get("/acts/<act>")
    @needs(Scope.READ)
    def act(act: str) -> ResponseReturnValue:
        running = services().runner.get(act)
        if running is not None:
            return render_template(
                "progress.html", act=running, progress=running.progress,
                live=False if running.is_over else 1,
            )  # fmt: skip
        try:
            number = Acts(services().database).count(act)
        except Unknown:
            abort(404, "Nobody did an act of this name.")
        return render_template("progress_over.html", act=act, number=number)

    @console.post("/acts/<act>/stop")
    @needs(Scope.OPERATE)
    def stop(act: str) -> ResponseReturnValue:
        if services().runner.stop(act):
            tell("It stops after those that it is at.", "good")
        return redirect(url_for("console.act", act=act))

    @console.post("/acts/<act>/undo")
    @needs(Scope.OPERATE)
    def undo(act: str) -> ResponseReturnValue:
        found, person = services(), acting.person()
        acts, back = Acts(found.database), acting.back_to(url_for("console.act", act=act))
        looked: list[Changed] = []

        def make(*, dry_run: bool) -> BulkAct:
            return bulk.undo(
                found.recovery, acts, act, person, dry_run=dry_run, show=looked.extend
            )

        try:
            look = make(dry_run=True)
            resumed = recovering.serve_again(found.recovery, acts, act, person, dry_run=True)
        except Unknown:
            abort(404, "Nobody did an act of this name.")
        if acting.is_confirmed():
            recovering.serve_again(found.recovery, acts, act, person)
            for name in resumed:
                tell(f"{name} is served again.", "good")
            if resumed and not look.progress.total:
                found.shared.forget()
                return redirect(back)
            return start(make(dry_run=False), back=back)
        effects = [*seen(look, looked), *(
            acting.Effect(what=name, does=True, says="will be served again") for name in resumed
        )]  # fmt: skip
        lead = "What was done is taken back, where nothing was sent and nothing changed since."
        return acting.preview(title="Undo", lead=lead, effects=effects, button="Undo", back=back)


def seen(look: BulkAct, looked: Sequence[Changed]) -> Sequence[acting.Effect]:
    """Run a look at what an act would do, and say it; *looked*: what it shows of each."""
    look_at_some(look)
    if look.progress.total <= LISTED:
        return acting.of_changes(looked, by_message=True)
    return in_short(look)


def look_at_some(look: BulkAct) -> None:
    """Run a look at what an act would do, at no more than can be waited for."""

    def advance(_: int) -> None:
        if look.progress.seen >= LOOKED_AT:
            look.stop.set()

    look.run(advance=advance)


def in_short(look: BulkAct) -> Sequence[acting.Effect]:
    """Say in numbers what an act would do."""
    done = look.progress
    among = (
        f" of the first {done.seen:,}; there are {done.total:,}" if done.seen < done.total else ""
    )
    does = [
        acting.Effect(
            what=number_of(look, done.done), does=True, says=f"will be {look.verb}{among}"
        )
    ]
    leaves = [
        acting.Effect(
            what=number_of(look, number), does=False, says=f"left: {acting.plainly(says)}"
        )
        for says, number in done.left.items()
    ]
    return [*(does if done.done else ()), *leaves]


def start(act: BulkAct, *, back: str) -> ResponseReturnValue:
    """Do a small act now, and begin a large one, whose page shows how far it has come."""
    runner, form = services().runner, request.form.get("once", "")
    # Pressed twice, or sent again by the browser: what died in between would be sent once more.
    if form and (first := runner.first_of(form, act)) != act.id:
        tell("That was sent twice, and is done once.", "good")
        return redirect(url_for("console.act", act=first) if runner.get(first) else back)
    services().shared.forget()
    try:
        return _begun(act, back=back)
    except TooMany as error:
        runner.release(form)
        tell(str(error), "bad")
        return redirect(back)
    except StoreUnavailable:
        runner.release(form)
        raise


def _begun(act: BulkAct, *, back: str) -> ResponseReturnValue:
    if act.progress.total <= BATCH and not act.is_paced:
        act.run()
        services().shared.forget()
        return _told(act, back=back)
    services().runner.start(act)
    return redirect(url_for("console.act", act=act.id))


def _told(act: BulkAct, *, back: str) -> ResponseReturnValue:
    done = act.progress
    left = "; ".join(
        f"{number:,} left: {acting.plainly(says)}" for says, number in done.left.items()
    )
    if not done.done:
        tell(f"Nothing was changed. {left}", "bad")
        return redirect(back)
    tell(f"{number_of(act, done.done)} {act.verb}.{f' {left}.' if left else ''}", "good")
    return redirect(acting.with_act(back, act.id) if is_undoable(act) else back)


def number_of(act: BulkAct, number: int) -> str:
    """Write a number of what an act is about."""
    return count(number, *(_REQUESTS if act.verb == ADMITTED else _DELIVERIES))


def is_undoable(act: BulkAct) -> bool:
    return act.verb not in (ADMITTED, TAKEN_BACK)
