"""What a person changes: shown first, with a field for why, and done when they say so."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flask import redirect, render_template, request
from flask.typing import ResponseReturnValue

from relay.acts.person import Person
from relay.acts.recovering import Changed, Replayed
from relay.api import identity
from relay.api.services import services
from relay.console import pages, sign_in
from relay.console.pages import number_shown
from relay.console.wording import STATES
from relay.rules.recovery import ChangeKind, FoundDelivery
from relay.rules.units import RateLimit
from relay.rules.units import rate as read_rate
from relay.shapes.recovery import CHANGED

#: The longest reason that a person may give.
LONGEST_WHY = 500
#: Fields of a form that are not handed on to its second showing.
_OWN = ("csrf_token", "confirmed", "why", "once")
_SAID = {
    ChangeKind.HURRY: "will be tried now",
    ChangeKind.COPY: "will be sent a second time, although it has arrived",
}
#: What the rules say, in the words of a page.
_PLAIN = (
    (re.compile("; --again .*"), ""),
    (re.compile("late: outside the order"), "beside the order of its conversation"),
    (re.compile("^missing: added, late"), "will be sent, beside the order of its conversation"),
    (re.compile("^(dead|held): resend or settle .*"), "stopped there: resend or settle that one"),
    (re.compile("delivered already"), "arrived already"),
    (re.compile("settled as delivered"), "settled as arrived"),
    (re.compile("settled as dead"), "settled as not arrived"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Effect:
    """What a change does to one thing, or why it does nothing."""

    what: str
    does: bool
    says: str


def is_confirmed() -> bool:
    """Return whether what was shown is to be done, and the reason is not too long."""
    return request.form.get("confirmed") == "1" and not fault_of_why()


def why() -> str:
    return request.form.get("why", "").strip()


def person() -> Person:
    """Return who acts, with the reason from the form."""
    return identity.person(why())


def fault_of_why(*, needed: bool = False) -> str:
    """Return what is wrong with the reason."""
    if needed and not why():
        return "why: write a few words; they are kept with what you do"
    if len(why()) > LONGEST_WHY:
        return f"why: at most {LONGEST_WHY} characters"
    return ""


def back_to(default: str) -> str:
    """Return the page from which somebody came, if it is one of ours."""
    given = request.form.get("back", "")
    return sign_in.local_target(given) if given else default


def preview(
    *,
    title: str,
    effects: Sequence[Effect],
    button: str,
    back: str,
    lead: str = "",
    fault: str = "",
    needs_why: bool = False,
    has_rate: bool = False,
) -> ResponseReturnValue:
    """Show what would happen, with the button that does it."""
    was_asked = request.form.get("confirmed") == "1"
    fault = fault or (fault_of_why(needed=needs_why) if was_asked else "")
    is_empty = not any(each.does for each in effects)
    hidden = [(name, value) for name, value in request.form.items(multi=True)
              if name not in _OWN and not (has_rate and name == "rate")]  # fmt: skip
    page = render_template(
        "act.html", title=title, lead=lead, effects=effects, button=button, back=back,
        fault=fault, needs_why=needs_why, has_rate=has_rate, hidden=hidden, why=why(),
        is_empty=is_empty, longest=LONGEST_WHY, rate=request.form.get("rate", ""),
        once=person().act_id,
    )  # fmt: skip
    return page, 422 if fault else 200


def rate() -> RateLimit | None:
    """Return the rate from the form; None if there is none. Raises ValueError."""
    given = request.form.get("rate", "").strip()
    return read_rate(given) if given else None


def of_changes(made: Sequence[Changed], *, by_message: bool = False) -> Sequence[Effect]:
    """Say what changes to deliveries do, or did; each is called by its destination or message."""
    return [
        Effect(
            what=_message(each.change.delivery)
            if by_message
            else each.change.delivery.destination,
            does=each.is_done,
            says=_said(each),
        )
        for each in made
    ]


def _message(delivery: FoundDelivery) -> str:
    return f"{number_shown(delivery.customer)}, {delivery.destination}"


def of_replays(made: Iterable[Replayed]) -> Sequence[Effect]:
    """Say what replays add, or added."""
    effects = []
    for each in made:
        if each.replay.refused:
            effects.append(Effect(what="all", does=False, says=plainly(each.replay.refused)))
        for step, (does, says) in zip(each.replay.steps, each.done, strict=False):
            effects.append(Effect(what=step.destination, does=does, says=plainly(says)))
    return effects


def finish(effects: Sequence[Effect], *, verb: str, back: str, act: str) -> ResponseReturnValue:
    """Say what was done, and lead back to where it can be taken back."""
    services().shared.forget()
    did = [each.what for each in effects if each.does]
    if not did:
        left = "; ".join(dict.fromkeys(each.says for each in effects)) or "there was nothing to do"
        pages.tell(f"Nothing was changed: {left}", "bad")
        return redirect(back)
    pages.tell(f"{verb}: {', '.join(did)}.", "good")
    return redirect(with_act(back, act))


def plainly(says: str) -> str:
    """Return what the rules say of a change in the words of a page."""
    for written, plain in _PLAIN:
        says = written.sub(plain, says)
    return says


def _said(each: Changed) -> str:
    if each.says == CHANGED:
        return CHANGED
    if each.change.kind is ChangeKind.RESTORE:
        return f"as it was before: {STATES[each.change.state]}"
    return _SAID.get(each.change.kind) or plainly(each.says)


def with_act(back: str, act: str) -> str:
    """Return the page *back*, which then offers to take the act back."""
    path, _, query = back.partition("?")
    kept = [each for each in query.split("&") if each and not each.startswith("act=")]
    return f"{path}?{'&'.join([*kept, f'act={act}'])}"
