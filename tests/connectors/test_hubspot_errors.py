"""HubSpot's answers: what is read of any JSON, and what each error means."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from connectors import (
    Ambiguous,
    DeliveryError,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.hubspot.answers import dicts, new_id, parsed, properties, record_id, text
from connectors.hubspot.errors import (
    DAILY_PROBE,
    POLICY_WAITS,
    Fault,
    Invalid,
    blamed,
    error_of,
    error_of_part,
    faults_in,
    policy_wait,
)

CONTACTS = "/crm/objects/2026-09/contacts"
TICKETS = "/crm/objects/2026-09/tickets"
REQUIRED, CONDITIONAL = "MISSING_REQUIRED_PROPERTY", "MISSING_CONDITIONAL_REQUIRED_PROPERTY"
TAKEN = "CONFLICTING_UNIQUE_VALUE"

#: Bodies that are no record, however they are encoded.
GARBAGE = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"id"',
    b"<html>Welcome to the hotel Wi-Fi</html>",
    b'{"id": null}',
    b'{"id": {}}',
    b'{"id": true}',
    b'{"id": "../1"}',
    b"[" * 100_000,
    b'{"id": ' + b"9" * 10_000 + b"}",
    b"\xff\xfe\x00\x9f",
]


def test_garbage_is_no_record_and_no_error_of_another_kind() -> None:
    for found in map(parsed, GARBAGE):
        assert (new_id(found), properties(found), dicts(found, "results")) == (None, {}, [])
        with pytest.raises(Transient):
            record_id(found)


def test_fields_are_read_as_text_whatever_plain_value_they_are() -> None:
    answer = parsed(b'{"id": 7, "name": "x", "empty": "", "rows": [1, {"a": 2}]}')

    assert (record_id(answer), text(answer, "name"), text(answer, "empty")) == ("7", "x", None)
    assert dicts(answer, "rows") == [{"a": 2}]


STATUSES = [
    # status, of a read or an upsert, of a request that may be made once
    (302, Unauthorized, Unauthorized),
    (400, Refused, Refused),
    (401, Unauthorized, Unauthorized),
    (403, Unauthorized, Unauthorized),
    (404, Refused, Refused),
    (408, Transient, Transient),
    (409, Refused, Refused),
    (415, Refused, Refused),
    (423, Throttled, Throttled),
    (425, Transient, Transient),
    (429, Throttled, Throttled),
    (477, Throttled, Throttled),
    (500, Transient, Ambiguous),
    (502, Transient, Ambiguous),
    (503, Transient, Ambiguous),
    (521, Transient, Ambiguous),
]


def test_the_status_says_what_an_error_is_whatever_the_body() -> None:
    bodies = [*GARBAGE, b'{"status": "success", "id": "7", "category": "OBJECT_NOT_FOUND"}']
    for (status, of_read, of_once), body in itertools.product(STATUSES, bodies):
        for safe, wanted in ((True, of_read), (False, of_once)):
            error = failed(status, body, safe=safe)

            assert (type(error), error.status) == (wanted, status), body[:80]
            assert str(status) in str(error)


class TestWaits:
    @pytest.mark.parametrize(
        ("said", "seconds"),
        [
            ({"policyName": "SECONDLY"}, 1),
            ({"policyName": "TEN_SECONDLY_ROLLING"}, 10),
            ({"policyName": "DAILY"}, 3600),
            ({"policyName": "SOMETHING_NEW"}, 10),
            ({"policyName": None}, 10),
            # A search names its limit in this sentence only.
            ({"message": "You have reached your secondly limit."}, 1),
            ({"message": "the customer wrote: You have reached your secondly limit."}, 10),
        ],
    )
    def test_a_limit_waits_as_its_policy_wants(self, said: dict[str, Any], seconds: int) -> None:
        error = failed(429, said)

        assert isinstance(error, Throttled)
        assert (error.retry_after, error.scope) == (timedelta(seconds=seconds), "destination")

    @pytest.mark.parametrize("safe", [True, False])
    def test_a_wait_that_hubspot_names_is_kept(self, safe: bool) -> None:
        for status in (423, 429, 477, 503):
            error = failed(status, headers={"Retry-After": "77"}, safe=safe)

            assert error.retry_after == timedelta(seconds=77), status

    def test_a_locked_record_holds_up_its_conversation_only(self) -> None:
        error = failed(423, headers={"Retry-After": "1"})

        assert isinstance(error, Throttled)
        assert (error.retry_after, error.scope) == (timedelta(seconds=2), "conversation")

    @pytest.mark.parametrize(
        ("zone", "now", "hours"),
        [
            ("UTC", datetime(2026, 3, 1, 21, tzinfo=UTC), 3),
            ("Australia/Brisbane", datetime(2026, 3, 1, 13, tzinfo=UTC), 1),
            ("Australia/Brisbane", datetime(2026, 3, 1, 14, tzinfo=UTC), 24),
            # Clocks go back in that night: it has an hour more.
            ("Europe/Berlin", datetime(2026, 10, 24, 23, tzinfo=UTC), 24),
            (None, datetime(2026, 3, 1, 13, tzinfo=UTC), 1),
        ],
    )
    def test_the_daily_limit_ends_at_midnight_where_the_account_is(
        self, zone: str | None, now: datetime, hours: int
    ) -> None:
        known = ZoneInfo(zone) if zone else None

        assert policy_wait("DAILY", now=now, zone=known) == timedelta(hours=hours)

    def test_the_zone_is_that_of_the_options(self) -> None:
        zone = ZoneInfo("Pacific/Kiritimati")
        unknown, known = (failed(429, {"policyName": "DAILY"}, zone=each) for each in (None, zone))

        assert isinstance(unknown, Throttled)
        assert isinstance(known, Throttled)
        assert unknown.retry_after == DAILY_PROBE
        assert known.retry_after is not None
        end = datetime.now(zone) + known.retry_after + timedelta(minutes=1)
        assert (end.hour, end.minute // 5) == (0, 0)

    def test_waits_are_those_of_hubspots_own_client(self) -> None:
        assert [wait.total_seconds() for wait in POLICY_WAITS.values()] == [1, 10]


class TestFaults:
    @pytest.mark.parametrize(
        ("said", "found"),
        [
            # The codes of the changelog of September 2026.
            (
                {"errors": [{"code": REQUIRED, "context": {"propertyName": ["firstname"]}}]},
                [Fault(name="firstname", code=REQUIRED)],
            ),
            # The context as a plain text, and two properties at once.
            (
                {"errors": [{"code": "A", "context": {"propertyName": "x"}}, {"code": "B"}]},
                [Fault(name="x", code="A"), Fault(name="", code="B")],
            ),
            # Bodies without errors[] have the same as JSON within the message.
            (
                {
                    "message": "Property values were not valid: "
                    '[{"isValid":false,"message":"no","error":"INVALID_OPTION","name":"stage"}]'
                },
                [Fault(name="stage", code="INVALID_OPTION", message="no")],
            ),
            ({"message": "Property values were not valid: [{"}, []),
            ({"message": f"{REQUIRED} {TAKEN} hubspot_owner_id hs_pipeline"}, []),
            ({"errors": [{"message": REQUIRED}, 7, None], "context": {"a": 1}}, []),
            ({"errors": [{"code": "A", "context": {"propertyName": [None, 7]}}]},
             [Fault(name="", code="A")]),
        ],
    )  # fmt: skip
    def test_they_are_read_from_codes_and_context_only(
        self, said: dict[str, Any], found: list[Fault]
    ) -> None:
        assert list(faults_in(said)) == found

    def test_a_refusal_of_values_tells_missing_taken_and_wrong_apart(self) -> None:
        error = failed(400, faulty((REQUIRED, "a"), (CONDITIONAL, "b"), (TAKEN, "c"), ("X", "d")))

        assert isinstance(error, Invalid)
        assert error.missing == {"a", "b"}
        assert [error.is_taken(name) for name in "abcd"] == [False, False, True, False]
        assert error.wrong_of("a", "b", "c") is None
        assert error.wrong_of("c", "d") == "d"

    @pytest.mark.parametrize("status", [401, 403, 404, 500])
    def test_another_status_is_no_refusal_of_values(self, status: int) -> None:
        assert not isinstance(failed(status, faulty((REQUIRED, "a"))), Invalid)

    @pytest.mark.parametrize("code", [REQUIRED, CONDITIONAL])
    def test_a_required_owner_or_stage_is_no_wrong_option(self, code: str) -> None:
        advice = {"hubspot_owner_id": "is owner_id right?", "hs_pipeline_stage": "is it?"}
        for name in advice:
            error = failed(400, faulty((code, name)))

            assert isinstance(error, Invalid)
            assert blamed(error, advice) is error

    def test_a_wrong_option_is_one_for_every_event(self) -> None:
        error = failed(400, faulty(("INVALID_OPTION", "hs_pipeline_stage")))
        assert isinstance(error, Invalid)

        found = blamed(error, {"hs_pipeline_stage": "is ticket.stage right?"})

        assert isinstance(found, Unauthorized)
        assert str(found).endswith("(is ticket.stage right?)")


class TestParts:
    @pytest.mark.parametrize(
        ("said", "wanted"),
        [
            ({"category": "OBJECT_NOT_FOUND"}, None),
            ({"category": "VALIDATION_ERROR"}, Invalid),
            ({"category": "INTERNAL_ERROR", "message": "try later"}, Transient),
            ({}, Transient),
            ({"errors": [{"code": REQUIRED, "context": {"propertyName": ["a"]}}]}, Invalid),
        ],
    )
    def test_a_part_of_a_batch_is_told_by_its_category(
        self, said: dict[str, Any], wanted: type[DeliveryError] | None
    ) -> None:
        error = error_of_part(said, request=("POST", CONTACTS + "/batch/upsert"))

        assert (type(error) if error else None) is wanted


class TestWords:
    @pytest.mark.parametrize(
        ("request_", "code", "words"),
        [
            (
                ("POST", CONTACTS + "/batch/upsert"),
                REQUIRED,
                "contact property city is required in HubSpot (MISSING_REQUIRED_PROPERTY): give "
                "it a value in contact.properties, or change the rule under Settings > Objects > "
                'Contacts > Customize the "Create contact" form',
            ),
            (
                ("PATCH", CONTACTS + "/{id}"),
                CONDITIONAL,
                "contact property city is required in HubSpot "
                "(MISSING_CONDITIONAL_REQUIRED_PROPERTY): fill it in on the contact, or change "
                "the rule under Settings > Properties > Contact properties > Conditional logic",
            ),
            (
                ("POST", TICKETS),
                CONDITIONAL,
                "ticket property city is required in HubSpot "
                "(MISSING_CONDITIONAL_REQUIRED_PROPERTY): give it a value in ticket.properties, "
                "or change the rule under Settings > Properties > Ticket properties > Conditional "
                "logic",
            ),
        ],
    )
    def test_a_required_property_is_named_with_the_place_of_its_rule(
        self, request_: tuple[str, str], code: str, words: str
    ) -> None:
        assert (
            str(failed(400, faulty((code, "city")), request=request_)) == f"answered 400: {words}"
        )

    def test_scopes_are_named_in_both_forms(self) -> None:
        scope = "crm.objects.contacts.read"
        forms: list[dict[str, Any]] = [
            {"category": "MISSING_SCOPES", "context": {"missingScopes": [scope]}},
            {"errors": [{"context": {"requiredGranularScopes": [scope]}}]},
        ]
        for said in forms:
            assert f"missing scopes: {scope}" in str(failed(403, said))

    def test_numbers_are_left_out_and_the_correlation_id_is_named(self) -> None:
        said = {"message": "+61400000000 is not valid", "correlationId": "c-1"}

        assert str(failed(400, said)) == "answered 400: (number) is not valid; correlation id c-1"


def faulty(*faults: tuple[str, str]) -> dict[str, Any]:
    """Return a body with faults, given by code and name of property."""
    return {
        "category": "VALIDATION_ERROR",
        "errors": [
            {"code": code, "message": "no", "context": {"propertyName": [name]}}
            for code, name in faults
        ],
    }


def failed(
    status: int,
    said: bytes | dict[str, Any] = b"",
    *,
    headers: dict[str, str] | None = None,
    request: tuple[str, str] = ("POST", CONTACTS),
    safe: bool = True,
    zone: ZoneInfo | None = None,
) -> DeliveryError:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return error_of(status, body, headers or {}, request=request, safe=safe, zone=zone)
