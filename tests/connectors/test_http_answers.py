"""What an answer means: which error it is, and when to come again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Ambiguous, Refused, Throttled, Transient, Unauthorized
from connectors.http import error_for, retry_after

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


# What the header says, and the seconds that it means at NOW.
WAITS = [
    ("0", 0),
    ("7", 7),
    (" 120 ", 120),
    ("9" * 13, 10**9),
    ("9" * 100_000, 10**9),
    ("Tue, 24 Nov 2026 12:00:30 GMT", 30),
    ("Tue, 24 Nov 2026 13:00:30 +0100", 30),
    ("Tuesday, 24-Nov-26 12:00:30 GMT", 30),  # RFC 850
    ("Tue Nov 24 12:00:30 2026", 30),  # asctime
    ("Tue, 24 Nov 2026 11:00:00 GMT", 0),  # past
    ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
    ("", None),
    ("soon", None),
    ("-5", None),
    ("1.5", None),
    ("٣", None),  # a digit, but none of ASCII
    ("Tue, 99 Nov 2026 12:00:30 GMT", None),
    ("Tue, 24 Nov 99999 12:00:30 GMT", None),  # no date that Python knows
    ("Tue, 24 Nov 99999999999999999999 12:00:30 GMT", None),
    ("Tue, 24 Nov 2026 99999999999999999999:00:30 GMT", None),
]


class TestRetryAfter:
    def test_reads_both_forms(self) -> None:
        read = [(text, retry_after({"retry-AFTER": text}, now=NOW)) for text, _ in WAITS]

        assert [(text, None if wait is None else wait.total_seconds()) for text, wait in read] == [
            (text, seconds) for text, seconds in WAITS
        ]

    def test_is_none_without_the_header(self) -> None:
        assert retry_after({"Date": "Tue, 24 Nov 2026 12:00:00 GMT"}) is None

    @given(st.text() | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ [\d:]+ \S*"))
    def test_never_raises_and_is_never_negative(self, text: str) -> None:
        wait = retry_after({"Retry-After": text}, now=NOW)

        assert wait is None or wait >= timedelta()

    @given(st.integers(0, 10**9))
    def test_a_date_says_the_same_as_its_seconds(self, seconds: int) -> None:
        moment = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)

        assert retry_after({"Retry-After": moment}, now=NOW) == timedelta(seconds=seconds)


# Status, error for a request that acts, error for one that may be repeated.
STATUSES = [
    (200, None, None),
    (202, None, None),
    (299, None, None),
    (301, Unauthorized, Unauthorized),
    (302, Unauthorized, Unauthorized),
    (308, Unauthorized, Unauthorized),
    (400, Refused, Refused),
    (401, Unauthorized, Unauthorized),
    (403, Unauthorized, Unauthorized),
    (404, Refused, Refused),
    (408, Transient, Transient),
    (409, Refused, Refused),
    (410, Refused, Refused),
    (413, Refused, Refused),
    (422, Refused, Refused),
    (425, Transient, Transient),
    (429, Throttled, Throttled),
    (499, Refused, Refused),
    (500, Ambiguous, Transient),
    (502, Ambiguous, Transient),
    (503, Ambiguous, Transient),
    (599, Ambiguous, Transient),
    # Classes that HTTP does not have, and an interim answer that is none any more.
    (101, Ambiguous, Transient),
    (199, Ambiguous, Transient),
    (600, Ambiguous, Transient),
    (999, Ambiguous, Transient),
]


class TestErrorFor:
    def test_follows_the_table(self) -> None:
        def kind(status: int, *, safe: bool) -> type | None:
            error = error_for(status, headers={}, safe=safe)
            return type(error) if error else None

        found = [
            (status, kind(status, safe=False), kind(status, safe=True)) for status, *_ in STATUSES
        ]

        assert found == STATUSES

    def test_carries_status_and_detail(self) -> None:
        error = error_for(422, headers={}, detail="subject is too long")

        assert error is not None
        assert error.status == 422
        assert str(error) == "answered 422: subject is too long"

    def test_throttled_carries_the_wait(self) -> None:
        error = error_for(429, headers={"Retry-After": "7"})

        assert isinstance(error, Throttled)
        assert error.retry_after == timedelta(seconds=7)
        assert error.scope == "destination"

    @pytest.mark.parametrize("status", [408, 500, 503])
    @pytest.mark.parametrize("safe", [False, True])
    def test_a_failure_carries_the_wait_too(self, status: int, safe: bool) -> None:
        error = error_for(status, headers={"Retry-After": "7"}, safe=safe)

        assert error is not None
        assert error.retry_after == timedelta(seconds=7)

    @given(st.integers(100, 999), st.booleans())
    def test_knows_every_status(self, status: int, safe: bool) -> None:
        error = error_for(status, headers={}, safe=safe)

        assert (error is None) == (200 <= status < 300)
