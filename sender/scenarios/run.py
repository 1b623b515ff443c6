"""Plays scenarios, and asks witnesses which effects they had."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from sender.delivery import check_url, explain, shown
from sender.errors import SenderError
from sender.scenarios.base import Check, Effect, Outcome, Scenario, Skip
from sender.scenarios.stage import Setting, Stage
from sender.scenarios.transport import certificate
from sender.witness import LAST_LOOK, Records, Relay, Sighting, Witness, settled

#: Seconds in which a second effect would show, where no witness knows that none is to come.
GRACE = 1.0


def run(
    scenarios: Sequence[Scenario],
    setting: Setting,
    *,
    began: Callable[[Scenario], None] = lambda scenario: None,
) -> Iterator[Outcome]:
    """Play *scenarios* one after the other, and yield each outcome as it ends.

    Raises :class:`SenderError` if the receiver cannot be reached.
    """
    fault = _unreachable(setting)
    if fault is not None and certificate not in scenarios:
        raise SenderError(fault)
    was_played = False
    for scenario in scenarios:
        began(scenario)
        if fault is None or scenario is certificate:
            outcome = _played(scenario, setting)
        else:
            outcome = _skipped(scenario, fault)
        was_played = was_played or outcome.skipped is None
        yield outcome
    if fault is not None and not was_played:
        raise SenderError(fault)


def confirm(
    outcomes: Iterable[Outcome],
    *,
    relay: Relay | None = None,
    records: Records | None = None,
    patience: float,
) -> list[Outcome]:
    """Add to *outcomes* what the witnesses saw within *patience* seconds.

    Raises :class:`SenderError` if a witness gives no answer.
    """
    known = list(outcomes)
    if relay is not None:
        known = _seen_by(relay, known, patience=patience, grace=0.0)
        # The relay has settled, so its destinations have everything.
        patience = 0.0
    if records is not None:
        known = _seen_by(records, known, patience=patience, grace=0.0 if relay else GRACE)
    return known


def _seen_by(
    witness: Witness, outcomes: Sequence[Outcome], *, patience: float, grace: float
) -> list[Outcome]:
    visible = {
        effect.message_id
        for outcome in outcomes
        for effect in outcome.effects
        if effect.is_in_text or not witness.needs_text
    }
    seen = settled(witness, visible, wanted=_promised(outcomes) & visible, patience=patience)
    if grace:
        time.sleep(grace)
        seen = witness.look(visible, timeout=LAST_LOOK)
    return [
        _confirmed(each, [e for e in each.effects if e.message_id in visible], witness, seen)
        for each in outcomes
    ]


def _promised(outcomes: Sequence[Outcome]) -> set[str]:
    """Return the events worth waiting for: those whose answers were right."""
    return {
        effect.message_id
        for outcome in outcomes
        if outcome.verdict == "passed"
        for effect in outcome.effects
        if effect.least
    }


def _confirmed(
    outcome: Outcome, effects: Sequence[Effect], witness: Witness, seen: Mapping[str, Sighting]
) -> Outcome:
    if outcome.skipped is not None or not effects:
        return outcome
    wrong = [e for e in effects if not e.least <= seen[e.message_id].count <= e.most]
    if wrong:
        said = "; ".join(f"{e.message_id}: {seen[e.message_id].said}" for e in wrong[:3])
    elif len(effects) == 1:
        said = seen[effects[0].message_id].said
    else:
        said = f"{sum(seen[e.message_id].count for e in effects)} of {len(effects)} events"
    if any(seen[each.message_id].is_pending for each in effects):
        said += "; some deliveries are still on their way"
    check = Check(
        what=f"effects, by {witness.name}: {_meant(effects)}", passed=not wrong, saw=said
    )
    return replace(outcome, checks=[*outcome.checks, check])


def _meant(effects: Sequence[Effect]) -> str:
    kinds = {(each.least, each.most) for each in effects}
    if kinds == {(0, 0)}:
        return "none"
    if kinds == {(1, 1)}:
        return "each once"
    if kinds <= {(0, 1), (0, 0)}:
        return "none twice"
    return "the honest ones once, none twice"


def _played(scenario: Scenario, setting: Setting) -> Outcome:
    stage = Stage(setting)
    started = time.monotonic()
    checks: list[Check] = []
    skipped = None
    try:
        checks.extend(scenario.play(stage))
    except Skip as reason:
        skipped = str(reason)
    except SenderError as error:
        checks.append(Check(what="the scenario can be played", passed=False, saw=str(error)))
    return Outcome(
        scenario=scenario,
        checks=checks,
        effects=stage.effects,
        seconds=time.monotonic() - started,
        skipped=skipped,
    )


def _skipped(scenario: Scenario, reason: str) -> Outcome:
    return Outcome(scenario=scenario, checks=[], effects=[], seconds=0.0, skipped=reason)


def _unreachable(setting: Setting) -> str | None:
    """Return why nothing can be sent at all, or None if it can."""
    target = setting.target
    check_url(target.url)
    parts = urlsplit(target.url)
    is_tls = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if is_tls else 80)
    context = target.trust.context() if is_tls else None
    try:
        with socket.create_connection((host, port), target.timeout) as sock:
            if context is not None:
                context.wrap_socket(sock, server_hostname=host).close()
    except OSError as error:
        return f"{shown(target.url)}: {explain(error, timeout=target.timeout)}"
    return None
