"""A test of a destination, and a check of its credentials, as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.acts.trying import Answer, SentTest


class SentTestJson(TypedDict):
    """How a test of a destination ended."""

    destination: str
    message_id: str | None
    outcome: str
    detail: str | None
    status: int | None
    reference: str | None
    url: str | None


class AnswerJson(TypedDict):
    """What a destination said of our credentials."""

    destination: str
    good: bool
    said: str


def sent_test_json(sent: SentTest) -> SentTestJson:
    """Return how a test ended, as ``send-test --json`` prints it."""
    outcome, receipt = sent.outcome, sent.outcome.receipt
    return {
        "destination": sent.destination,
        "message_id": sent.event.message_id,
        "outcome": outcome.kind.value,
        "detail": outcome.detail or None,
        "status": outcome.status,
        "reference": receipt.reference if receipt else None,
        "url": receipt.url if receipt else None,
    }


def answer_json(answer: Answer) -> AnswerJson:
    """Return what a destination said of our credentials."""
    return {"destination": answer.destination, "good": answer.is_good, "said": answer.said}
