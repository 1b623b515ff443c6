"""What a person's change did, or would do, as JSON and in words."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import TypedDict

from relay.rules.recovery import Change, ChangeKind, Replay, ReplayStep

#: Said of a change that was not made, because somebody else was faster.
CHANGED = "changed meanwhile: look again"


class ChangeJson(TypedDict):
    """What was done to a delivery."""

    delivery_id: str
    event_id: str
    message_id: str | None
    destination: str
    was: str
    does: str
    says: str


class ReplayStepJson(TypedDict):
    """One destination of a replay."""

    destination: str
    then: bool
    now: bool
    delivery_id: str | None
    was: str | None
    adds: bool
    says: str


class ReplayJson(TypedDict):
    """What a replay did to an event."""

    event_id: str
    message_id: str | None
    refused: str | None
    destinations: list[ReplayStepJson]


def change_json(change: Change, *, done: bool, says: str) -> ChangeJson:
    """Return what was done to a delivery, as ``resend --json`` prints it."""
    delivery = change.delivery
    return {
        "delivery_id": delivery.id,
        "event_id": delivery.event_id,
        "message_id": delivery.message_id,
        "destination": delivery.destination,
        "was": delivery.state.value,
        "does": change.kind.value if done else ChangeKind.NOTHING.value,
        "says": says,
    }


def replay_json(replay: Replay, *, added: Sequence[ReplayStep]) -> ReplayJson:
    """Return what a replay did to an event, as ``replay --json`` prints it."""
    event = replay.found.event
    return {
        "event_id": event.id,
        "message_id": event.message_id,
        "refused": replay.refused,
        "destinations": [
            {
                "destination": step.destination,
                "then": step.then,
                "now": step.now,
                "delivery_id": step.latest.id if step.latest else None,
                "was": step.latest.state.value if step.latest else None,
                "adds": step in added,
                "says": says_of(step, added),
            }
            for step in replay.steps
        ],
    }


def says_of(step: ReplayStep, added: Sequence[ReplayStep]) -> str:
    """Return what happened to a step."""
    return CHANGED if step.adds and step not in added else step.says


def then_and_now(step: ReplayStep) -> str:
    """Return when the routes named the destination of a step."""
    if step.then == step.now:
        return "routed then and today" if step.now else "routed neither then nor today"
    return "routed today, not then" if step.now else "routed then, not today"
