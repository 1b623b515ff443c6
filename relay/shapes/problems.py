"""Problems as JSON, with the documentation that says more."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.rules.pages import mending_page
from relay.rules.problems import Problem
from relay.shapes.times import iso


class ProblemJson(TypedDict):
    """What a person should know."""

    id: str
    kind: str
    subject: str
    level: str
    state: str
    said: str
    number: int
    opened_at: str | None
    escalated_at: str | None
    acknowledged_at: str | None
    acknowledged_by: str | None
    resolved_at: str | None
    docs: str


def problem_json(problem: Problem) -> ProblemJson:
    """Return a problem as ``problems --json`` prints it."""
    return {
        "id": problem.id,
        "kind": problem.kind,
        "subject": problem.subject,
        "level": problem.level,
        "state": "resolved" if problem.resolved_at else "open",
        "said": problem.said,
        "number": problem.number,
        "opened_at": iso(problem.opened_at),
        "escalated_at": iso(problem.escalated_at),
        "acknowledged_at": iso(problem.acknowledged_at),
        "acknowledged_by": problem.acknowledged_by,
        "resolved_at": iso(problem.resolved_at),
        "docs": mending_page(problem.kind),
    }


def state_of(problem: Problem) -> str:
    """Return where a problem stands, in words."""
    if problem.resolved_at:
        return "resolved"
    if problem.acknowledged_by:
        return f"acknowledged by {problem.acknowledged_by}"
    return "escalated" if problem.escalated_at else "open"
