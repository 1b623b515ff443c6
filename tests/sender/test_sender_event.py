from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from gofax import EXAMPLE

import sender
from sender import Event

MOMENT = datetime(2025, 12, 4, 0, 24, 7, 112733, tzinfo=UTC)


def test_an_event_is_gofaxs_example_to_the_field_and_its_order() -> None:
    event = Event(message_id="abc123", occurred_at=MOMENT)

    assert list(json.loads(event.encode()).items()) == list(EXAMPLE.items())


def test_every_event_has_an_id_of_its_own() -> None:
    assert len({Event().message_id for _ in range(1000)}) == 1000


def test_the_time_is_now_unless_given() -> None:
    before = datetime.now(UTC)
    event = Event()

    assert before <= event.occurred_at <= datetime.now(UTC)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        # Full seconds keep their six digits.
        (MOMENT.replace(microsecond=0), "2025-12-04T00:24:07.000000Z"),
        # Another zone is brought to UTC.
        (MOMENT.astimezone(timezone(timedelta(hours=10))), "2025-12-04T00:24:07.112733Z"),
    ],
)
def test_a_time_is_written_in_utc_with_microseconds(moment: datetime, expected: str) -> None:
    assert Event(occurred_at=moment).payload()["eventTimestamp"] == expected


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        Event(occurred_at=MOMENT.replace(tzinfo=None))


def test_the_direction_follows_the_type_unless_given() -> None:
    expected = {"SMS_REPLY": "reply", "SMS_RECEIVED": "inbound", "MMS_RECEIVED": "inbound"}

    assert {each: Event(type=each).payload()["direction"] for each in expected} == expected
    assert Event(direction="outbound").payload()["direction"] == "outbound"


def test_a_body_is_absent_empty_or_utf_8() -> None:
    assert "messageBody" not in Event(body=None).payload()
    assert Event(body="").payload()["messageBody"] == ""
    assert "👋🏽".encode() in Event(body="👋🏽").encode()


def test_an_integer_id_stays_an_integer() -> None:
    assert json.loads(Event(message_id=52336014).encode())["messageId"] == 52336014


def test_a_lone_surrogate_goes_out_as_json_spells_it() -> None:
    body = Event(body="a\ud83d").encode()

    assert rb'"a\ud83d"' in body
    assert json.loads(body)["messageBody"] == "a\ud83d"


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Event().body = "other"  # type: ignore[misc]


def test_the_public_names_are_these() -> None:
    assert sender.__all__ == [
        *("SCENARIO_NAMES", "Answer", "Event", "SenderError", "Status", "Trust", "deliver", "sign")
    ]
    assert all(hasattr(sender, name) for name in sender.__all__)
