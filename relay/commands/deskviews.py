"""How what stopped, and what people do about it, looks in a terminal and as JSON lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from relay.commands.output import print_json, print_lines, print_table, shown_time, table_of
from relay.rules.recovery import Change, ChangeKind, FoundDelivery, Replay, ReplayStep
from relay.store.recover import ReasonGroup

#: Stands where a plan was not carried out, because somebody else was faster.
CHANGED = "changed meanwhile: look again"


def show_cases(cases: Iterable[FoundDelivery], *, as_json: bool) -> None:
    """Print deliveries that stopped."""
    if as_json:
        for case in cases:
            print_json(case_json(case))
        return
    table = table_of(
        "received", "message", "customer", "destination", "state", "reason", "delivery"
    )
    for case in cases:
        table.add_row(
            shown_time(case.received_at),
            case.message_id or case.event_id,
            case.customer,
            case.destination,
            f"{case.state}, stops its conversation" if case.parks else case.state,
            case.reason,
            case.id,
        )
    print_table(table, empty="nothing is dead or held")


def show_piles(piles: Sequence[ReasonGroup], *, as_json: bool) -> None:
    """Print what stopped by destination and reason, and how to resend one of the groups."""
    if as_json:
        for pile in piles:
            print_json(pile_json(pile))
        return
    table = table_of("number", "destination", "reason", "oldest", "newest")
    for pile in piles:
        oldest, newest = shown_time(pile.oldest), shown_time(pile.newest)
        table.add_row(f"{pile.number:,}", pile.destination, pile.reason, oldest, newest)
    print_table(table, empty="nothing is dead or held")
    if piles:
        click.echo(
            "\nall of a group: gofax-relay resend --destination NAME --reason 'REASON' [--dry-run]"
        )


def show_step(step: Change, *, done: bool, says: str, as_json: bool) -> None:
    """Print what was done with a delivery, or would be."""
    case = step.case
    if as_json:
        print_json(step_json(step, done=done, says=says))
        return
    message = case.message_id or case.event_id
    print_lines([f"{case.id} ({message} to {case.destination}, {case.state}): {says}"])


def show_replay(replay: Replay, *, added: Sequence[ReplayStep], as_json: bool) -> None:
    """Print what a replay did with an event, or would do: where it went then, and goes now."""
    if as_json:
        print_json(replay_json(replay, added=added))
        return
    print_lines(_replay_lines(replay, added))


def says_of(turn: ReplayStep, added: Sequence[ReplayStep]) -> str:
    """Return what became of a turn."""
    return CHANGED if turn.adds and turn not in added else turn.says


def case_json(case: FoundDelivery) -> dict[str, Any]:
    """Return a delivery as ``dead --json`` prints it."""
    return {
        "id": case.id,
        "event_id": case.event_id,
        "message_id": case.message_id,
        "type": case.type,
        "customer": case.customer,
        "received_at": case.received_at.isoformat(),
        "destination": case.destination,
        "state": case.state.value,
        "reason": case.reason,
        "attempts": case.attempts,
        "ended_at": case.ended_at and case.ended_at.isoformat(),
        "late": case.late,
        "parks": case.parks,
    }


def pile_json(pile: ReasonGroup) -> dict[str, Any]:
    """Return a group as ``dead --group --json`` prints it."""
    return {
        "destination": pile.destination,
        "reason": pile.reason,
        "number": pile.number,
        "oldest": pile.oldest.isoformat(),
        "newest": pile.newest.isoformat(),
    }


def step_json(step: Change, *, done: bool, says: str) -> dict[str, Any]:
    """Return what was done with a delivery, as ``resend --json`` prints it."""
    case = step.case
    return {
        "delivery_id": case.id,
        "event_id": case.event_id,
        "message_id": case.message_id,
        "destination": case.destination,
        "was": case.state.value,
        "does": step.kind.value if done else ChangeKind.NOTHING.value,
        "says": says,
    }


def replay_json(replay: Replay, *, added: Sequence[ReplayStep]) -> dict[str, Any]:
    """Return what a replay did with an event, as ``replay --json`` prints it."""
    event = replay.filed.event
    return {
        "event_id": event.id,
        "message_id": event.message_id,
        "refused": replay.refused,
        "destinations": [
            {
                "destination": turn.destination,
                "then": turn.then,
                "now": turn.now,
                "delivery_id": turn.latest and turn.latest.id,
                "was": turn.latest and turn.latest.state.value,
                "adds": turn in added,
                "says": says_of(turn, added),
            }
            for turn in replay.turns
        ],
    }


def _replay_lines(replay: Replay, added: Sequence[ReplayStep]) -> Iterator[str]:
    event = replay.filed.event
    yield f"{event.id} ({event.message_id or 'no messageId'}) {event.type}"
    if replay.refused:
        yield f"  {replay.refused}"
    elif not replay.turns:
        yield "  no route of today matches, and none did when it came"
    for turn in replay.turns:
        sign = "+" if turn in added else " " if turn.now else "-"
        yield f"  {sign} {turn.destination}: {_then_and_now(turn)}; {says_of(turn, added)}"


def _then_and_now(turn: ReplayStep) -> str:
    if turn.then == turn.now:
        return "routed then and today" if turn.now else "routed neither then nor today"
    return "routed today, not then" if turn.now else "routed then, not today"
