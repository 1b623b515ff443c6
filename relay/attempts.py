"""One attempt: the connector is called, and the rules say what follows from how that ended."""

from __future__ import annotations

import traceback
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any

import structlog

from connectors import base
from connectors.base import Connector, ContractError, DeliveryError
from relay.destinations import Destination
from relay.rules.delivery import Outcome, OutcomeKind, bug, decide, delivered, outcome_of
from relay.store.values import Claim, Record

log = structlog.get_logger()

#: Of a claim that nobody has begun to deliver.
NOT_BEGUN = Outcome(
    kind=OutcomeKind.TRANSIENT, detail="not begun: the worker was stopping", begun=False
)


def attempt(destination: Destination, claim: Claim) -> Outcome:
    """Call the connector once and say how that ended, whatever it does."""
    try:
        with destination.metrics.attempting():
            receipt = destination.connector.deliver(
                destination.linked(claim.event),
                key=claim.key,
                thread=claim.thread,
                repeat=claim.tries.repeat,
                deadline=destination.settings.deadline.total_seconds(),
            )
        return delivered(receipt)
    except BaseException as error:
        # Other people's code: it may even call sys.exit(), and the delivery must be recorded.
        return _failed(destination, claim, error)


def _failed(destination: Destination, claim: Claim, error: BaseException) -> Outcome:
    broken = error
    if isinstance(error, DeliveryError):
        try:
            return outcome_of(error)
        except Exception as wrong:
            broken = wrong
    where = _where(error, destination.connector)
    log.error(
        "connector.failed",
        **claim.names,
        where=where,
        exception=_trace(broken),
    )
    return bug(broken, where=where)


def _where(error: BaseException, connector: Connector[Any]) -> str:
    """Return file and line at which the connector raised *error*, or else those of its deliver."""
    package = type(connector).__module__.partition(".")[0]
    code = type(connector).deliver.__code__
    place = code.co_filename, code.co_firstlineno
    for frame, line in traceback.walk_tb(error.__traceback__):
        module = frame.f_globals.get("__name__", "")
        if module != base.__name__ and module.partition(".")[0] == package:
            place = frame.f_code.co_filename, line
    file, line = place
    return f"{'/'.join(Path(file).parts[-2:])}:{line}"


def _trace(error: BaseException) -> str:
    """Return where *error* and its causes came from, without what they say.

    That was not written for people, and may hold a text or a secret.
    """
    parts: list[str] = []
    seen: list[BaseException] = []
    next_: BaseException | None = error
    while next_ is not None and next_ not in seen:
        seen.append(next_)
        said = f": {next_}" if isinstance(next_, ContractError) else ""
        parts[:0] = [*traceback.format_tb(next_.__traceback__), f"{type(next_).__name__}{said}\n"]
        next_ = next_.__cause__ or (None if next_.__suppress_context__ else next_.__context__)
    return "".join(parts).rstrip()


def conclude(
    destination: Destination,
    claim: Claim,
    outcome: Outcome,
    *,
    now: datetime,
    rng: Random,
    seconds: float,
) -> Record:
    """Decide what follows; log and count the attempt, which took so many *seconds*."""
    decision = decide(claim.tries, outcome, policy=destination.settings.policy, now=now, rng=rng)
    record = Record(claim=claim, outcome=outcome, decision=decision, ended_at=now)
    if not outcome.begun:
        return record
    destination.metrics.attempted(outcome.kind.value, decision.state.value)
    log.info(
        "delivery.attempted",
        **claim.names,
        attempt_id=claim.attempt_id,
        outcome=outcome.kind.value,
        detail=outcome.detail or None,
        state=decision.state.value,
        due_at=decision.due_at and decision.due_at.isoformat(),
        ms=round(seconds * 1000, 1),
    )
    return record
