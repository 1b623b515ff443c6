"""Measurements of a load: answers, errors, and how long events took.

An event's latency counts from the moment at which it was due, not from when it could be sent: a
receiver that stalls makes the events behind it late, and that is part of what it costs (else the
stall would hide itself, which is called coordinated omission).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from hdrh.histogram import HdrHistogram

from sender.load.plan import Plan

#: Bounds of a latency in microseconds, and its significant digits.
_LOWEST, _HIGHEST, _DIGITS = 1, 3_600_000_000, 3
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 100.0)

#: What is known of an event.
UNSENT, UNKNOWN, ACCEPTED, REFUSED = range(4)


class Recorder:
    """Records what happens to each event of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.fates = bytearray(plan.count)
        self.statuses: Counter[int] = Counter()
        self.errors: Counter[str] = Counter()
        self.sent = 0
        self.first_due = self.last_sent = self.last_answer = 0.0
        self._latency = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)
        self._service = HdrHistogram(_LOWEST, _HIGHEST, _DIGITS)

    def sending(self, number: int, *, at: float) -> None:
        """Note that the event goes out now."""
        self.fates[number] = UNKNOWN
        self.sent += 1
        self.last_sent = at

    def answered(self, number: int, status: int, *, due: float, sent: float, at: float) -> None:
        """Note an answer."""
        self.statuses[status] += 1
        self.last_answer = at
        if 200 <= status < 300:
            self.fates[number] = ACCEPTED
        elif status < 500:
            self.fates[number] = REFUSED
        self._latency.record_value(_microseconds(at - due))
        self._service.record_value(_microseconds(at - sent))

    def failed(self, why: str) -> None:
        """Note that an event had no answer."""
        self.errors[why] += 1

    def measured(self) -> Measured:
        """Return the totals."""
        plan = self.plan
        sending = self.last_sent - self.first_due + 1 / plan.rate if self.sent else 0.0
        answering = self.last_answer - self.first_due + 1 / plan.rate
        answers = sum(self.statuses.values())
        return Measured(
            planned=plan.count,
            sent=self.sent,
            accepted=self.fates.count(ACCEPTED),
            statuses=dict(sorted(self.statuses.items())),
            errors=dict(self.errors.most_common()),
            asked_per_second=plan.rate,
            sent_per_second=self.sent / sending if self.sent else 0.0,
            answered_per_second=answers / answering if answers else 0.0,
            latency_ms=_percentiles(self._latency),
            service_ms=_percentiles(self._service),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The totals of a load."""

    planned: int
    sent: int
    #: How many were answered 2xx.
    accepted: int
    statuses: Mapping[int, int]
    #: How often there was no answer, by reason.
    errors: Mapping[str, int]
    asked_per_second: float
    sent_per_second: float
    answered_per_second: float
    #: By percentile: from when the event was due to the end of its answer.
    latency_ms: Mapping[float, float]
    #: By percentile: from when it was sent.
    service_ms: Mapping[float, float]

    @property
    def is_success(self) -> bool:
        """Whether every planned event was sent and answered 2xx."""
        return self.accepted == self.planned


def _microseconds(seconds: float) -> int:
    return min(_HIGHEST, max(_LOWEST, round(seconds * 1e6)))


def _percentiles(histogram: HdrHistogram) -> dict[float, float]:
    return {each: round(histogram.get_value_at_percentile(each) / 1000, 3) for each in PERCENTILES}
