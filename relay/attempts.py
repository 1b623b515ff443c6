"""One attempt: the connector is called, and the rules say what follows from how that ended."""

from __future__ import annotations

from datetime import datetime
from random import Random

import structlog

from connectors.base import DeliveryError
from relay.destinations import Destination
from relay.rules.delivery import Outcome, OutcomeKind, decide, delivered, given_back, outcome_of
from relay.store.values import Claim, Record

log = structlog.get_logger()


def attempt(destination: Destination, claim: Claim) -> Outcome:
    """Call the connector once and say how that ended."""
    try:
        receipt = destination.connector.deliver(
            claim.event,
            key=claim.key,
            thread=claim.thread,
            repeat=claim.standing.repeat,
            deadline=destination.settings.deadline.total_seconds(),
        )
        return delivered(receipt)
    except DeliveryError as error:
        return outcome_of(error)
    except Exception as error:
        # A connector is other people's code: whatever it raises, we cannot know what it did.
        log.exception("connector.failed", event_id=claim.event.id, destination=claim.destination)
        return outcome_of(error)


def not_begun(claim: Claim, *, now: datetime) -> Record:
    """Give a claim back that nobody has begun to deliver."""
    outcome = Outcome(
        kind=OutcomeKind.TRANSIENT, detail="not begun: the worker was stopping", begun=False
    )
    decision = given_back(claim.standing, now=now)
    return Record(claim=claim, outcome=outcome, decision=decision, ended_at=now)


def decided(
    destination: Destination,
    claim: Claim,
    outcome: Outcome,
    *,
    now: datetime,
    rng: Random,
    seconds: float,
) -> Record:
    """Say what follows from *outcome*, after *seconds*, and log it; one line per attempt."""
    decision = decide(
        claim.standing, outcome, policy=destination.settings.policy, now=now, rng=rng
    )
    log.info(
        "delivery.attempted",
        event_id=claim.event.id,
        delivery_id=claim.delivery_id,
        attempt_id=claim.attempt_id,
        destination=claim.destination,
        outcome=outcome.kind.value,
        detail=outcome.detail or None,
        state=decision.state.value,
        due_at=decision.due_at and decision.due_at.isoformat(),
        ms=round(seconds * 1000, 1),
    )
    return Record(claim=claim, outcome=outcome, decision=decision, ended_at=now)
