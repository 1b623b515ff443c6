"""One attempt: the connector is called, and the rules say what follows from how that ended."""

from __future__ import annotations

from datetime import datetime
from random import Random

import structlog

from connectors.base import DeliveryError
from relay.destinations import Destination
from relay.rules.delivery import Outcome, OutcomeKind, decide, delivered, outcome_of
from relay.store.values import Claim, Record

log = structlog.get_logger()

#: Of a claim that nobody has begun to deliver.
NOT_BEGUN = Outcome(
    kind=OutcomeKind.TRANSIENT, detail="not begun: the worker was stopping", begun=False
)


def attempt(destination: Destination, claim: Claim) -> Outcome:
    """Call the connector once and say how that ended."""
    try:
        receipt = destination.connector.deliver(
            claim.event,
            key=claim.key,
            thread=claim.thread,
            repeat=claim.tries.repeat,
            deadline=destination.settings.deadline.total_seconds(),
        )
        return delivered(receipt)
    except DeliveryError as error:
        return outcome_of(error)
    except Exception as error:
        # A connector is other people's code: whatever it raises, we cannot know what it did.
        log.exception("connector.failed", event_id=claim.event.id, destination=claim.destination)
        return outcome_of(error)


def conclude(
    destination: Destination,
    claim: Claim,
    outcome: Outcome,
    *,
    now: datetime,
    rng: Random,
    seconds: float,
) -> Record:
    """Decide what follows from *outcome*, and log the attempt, which took so many *seconds*."""
    decision = decide(claim.tries, outcome, policy=destination.settings.policy, now=now, rng=rng)
    record = Record(claim=claim, outcome=outcome, decision=decision, ended_at=now)
    if not outcome.begun:
        return record
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
    return record
