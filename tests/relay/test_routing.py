"""Every condition, every combination of them, and what the reasons say and do not say."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors.base import Event
from relay.rules.hours import Hours, span
from relay.rules.payload import UNREADABLE
from relay.rules.routing import Check, Route, RouteCheck, When, compiled, describe, finds, match

TEXT = "Please cancel order 4711"
EVENT = Event(
    id="evt_1",
    endpoint="main",
    message_id="abc123",
    type="SMS_REPLY",
    direction="reply",
    customer="+61412345678",
    ours="+61731234567",
    sender="+61412345678",
    recipient="+61731234567",
    body=TEXT,
    keyword="STOP",
    sentiment="negative",
    occurred_at=None,
    received_at=datetime(2026, 11, 24, tzinfo=UTC),
    account_id="12345",
    conversation="+61412345678~+61731234567",
)
#: An event that says nothing.
SILENT = replace(
    EVENT, type="UNKNOWN", direction=None, sender=None, recipient=None, body=None, keyword=None,
    account_id=None, sentiment=None,
)  # fmt: skip


def route(when: object = None, *, to: str = "crm", name: str = "r", stop: bool = False) -> Route:
    given = {} if when is None else {"when": when}
    return Route.model_validate({"name": name, "to": to.split(), "stop": stop, **given})


def holds(when: dict[str, Any], event: Event = EVENT) -> bool:
    [asked] = match(event, [route(when)]).routes
    return asked.matched


def checks(when: dict[str, Any], event: Event = EVENT) -> tuple[Check, ...]:
    [asked] = match(event, [route(when)]).routes
    return asked.checks


def test_it_matches() -> None:
    rows = [
        {},  # no condition: every event
        {"event": "SMS_REPLY"},
        {"event": "sms_reply"},  # case says nothing
        {"event": ["SMS_STATUS", "SMS_REPLY"]},  # any of a list
        {"direction": "Reply"},
        {"from": "+61412345678"},
        {"from": "0412 345 678"},  # normalised as events are
        {"from": "\u202a+61\u00a0412\u2011345\u2011678\u202c"},  # as copied from a phone
        {"event": "sms_reply\u200b"},
        {"body": "order\u00a0[0-9]+"},
        {"from": 61412345678},  # what YAML makes of a bare number
        {"from": ["+61400000000", 61412345678]},
        {"to": "(07) 3123 4567"},
        {"account": "12345"},
        {"account": 12345},
        {"account": [1, 12345]},
        {"body": "cancel"},  # found anywhere
        {"body": r"^Please .*\d{4}$"},
        {"body": "(?i)CANCEL"},
        {"body": ["refund", "order [0-9]+"]},
        {"keyword": "stop"},
        {"keyword": ["HELP", "STOP"]},
        {"sentiment": "negative"},
        {"sentiment": ["neutral", "negative"]},
        {"has_body": True},
        {"event": "SMS_REPLY", "direction": "reply", "body": "order", "has_body": True},
        {"any": [{"event": "x"}, {"event": "SMS_REPLY"}]},
        {"all": [{"event": "SMS_REPLY"}, {"body": "order"}]},
        {"not": {"event": "SMS_STATUS"}},
        {"not": {"event": "SMS_REPLY", "direction": "inbound"}},  # not both
        {"not": {"not": {"event": "SMS_REPLY"}}},
        {"not": {"any": [{"event": "x"}, {"all": [{"event": "SMS_REPLY"}, {"to": "1"}]}]}},
        {"any": [{"all": [{"event": "SMS_REPLY"}, {"not": {"keyword": "HELP"}}]}]},
    ]

    assert [when for when in rows if not holds(when)] == []


def test_it_does_not_match() -> None:
    rows = [
        {"event": "SMS"},  # whole values, not parts of them
        {"event": ["SMS_STATUS", "SMS_RECEIVED"]},
        {"direction": "inbound"},
        {"from": "+61731234567"},  # the other way round
        {"to": "+61412345678"},
        {"from": "+6141234567"},
        {"account": "123456"},
        {"account": " 12345"},  # an id is compared as it came
        {"body": "CANCEL"},  # the case of a text counts
        {"body": "^order"},
        {"body": ["refund", "return"]},
        {"keyword": "HELP"},
        {"sentiment": ["positive", "neutral"]},
        {"has_body": False},
        {"event": "SMS_REPLY", "direction": "inbound"},  # all conditions must hold
        {"any": [{"event": "x"}, {"event": "y"}]},
        {"all": [{"event": "SMS_REPLY"}, {"event": "y"}]},
        {"not": {"event": "SMS_REPLY"}},
        {"event": "x", "any": [{"event": "SMS_REPLY"}]},  # a group beside a condition
        {"any": [{"event": "SMS_REPLY"}], "all": [{"event": "x"}]},  # and beside a group
        {"any": [{"event": "SMS_REPLY"}], "not": {"event": "SMS_REPLY"}},
        {"all": [{"event": "SMS_REPLY"}], "not": {"event": "SMS_REPLY"}},
    ]

    assert [when for when in rows if holds(when)] == []


def test_a_value_that_is_missing_equals_nothing() -> None:
    for condition in ("direction", "from", "to", "account"):
        for wanted in ("None", "null", "~", "-"):
            assert not holds({condition: wanted}, SILENT)
            assert holds({"not": {condition: wanted}}, SILENT)


def test_a_body_is_searched() -> None:
    rows = [
        (None, {"has_body": False}, True),
        (None, {"has_body": True}, False),
        (None, {"body": "."}, False),
        (None, {"body": "^$"}, True),  # as if it were empty
        ("two\nlines", {"body": "^lines"}, False),
        ("two\nlines", {"body": "(?m)^lines"}, True),
    ]

    wrong = [
        (body, got)
        for body, when, expected in rows
        if (got := holds(when, replace(EVENT, body=body))) != expected
    ]

    assert wrong == []


@pytest.mark.parametrize("case", ["ß", "İstanbul", "STRASSE"])
def test_case_is_ignored_beyond_ascii(case: str) -> None:
    assert holds({"event": case.lower()}, replace(EVENT, type=case))
    assert holds({"event": case}, replace(EVENT, type=case.casefold()))


@pytest.mark.parametrize("sender", ["Test Sender", "12345"])
def test_a_sender_that_is_no_number_can_be_named(sender: str) -> None:
    assert holds({"from": sender.lower()}, replace(EVENT, sender=sender))


class TestMatch:
    def test_every_route_that_matches_adds_its_destinations_in_order(self) -> None:
        routes = [
            route(to="b a"),
            route({"event": "x"}, to="never"),
            route({"event": "SMS_REPLY"}, to="a c b"),
        ]

        assert match(EVENT, routes).destinations == ("b", "a", "c")

    def test_a_route_that_stops_is_the_last_one_asked(self) -> None:
        routes = [route(to="a", name="first", stop=True), route(to="b", name="second")]

        found = match(EVENT, routes)

        assert found.destinations == ("a",)
        assert [each.route for each in found.routes] == ["first"]

    def test_a_route_that_stops_but_does_not_match_stops_nothing(self) -> None:
        routes = [route({"event": "x"}, to="a", stop=True), route(to="b")]

        assert match(EVENT, routes).destinations == ("b",)

    def test_a_route_that_matches_goes_on_by_default(self) -> None:
        assert match(EVENT, [route(to="a"), route(to="b")]).destinations == ("a", "b")

    def test_without_routes_an_event_goes_nowhere(self) -> None:
        found = match(EVENT, [])

        assert (found.destinations, found.routes) == ((), ())

    def test_an_event_that_could_not_be_read_matches_nothing(self) -> None:
        odd = replace(EVENT, type=UNREADABLE)

        found = match(odd, [route(), route({"not": {"has_body": True}})])

        assert (found.destinations, found.routes) == ((), ())


SIMPLE = st.sampled_from(
    [
        {"event": "SMS_REPLY"},
        {"event": ["SMS_STATUS", "sms_reply"]},
        {"direction": "inbound"},
        {"from": "0412 345 678"},
        {"body": "order [0-9]+"},
        {"body": "refund"},
        {"keyword": "STOP", "has_body": True},
        {"sentiment": "positive"},
        {"has_body": False},
    ]
)
WHENS = st.recursive(
    SIMPLE,
    lambda inner: (
        st.builds(lambda when: {"not": when}, inner)
        | st.builds(lambda whens: {"any": whens}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda whens: {"all": whens}, st.lists(inner, min_size=1, max_size=3))
    ),
    max_leaves=6,
)


@given(st.lists(WHENS, min_size=1, max_size=3), st.sampled_from([EVENT, SILENT]))
def test_conditions_combine_as_their_words_say(whens: list[dict[str, Any]], event: Event) -> None:
    alone = [holds(when, event) for when in whens]

    assert holds({"any": whens}, event) is any(alone)
    assert holds({"all": whens}, event) is all(alone)
    assert holds({"not": {"any": whens}}, event) is not any(alone)
    assert holds({"not": whens[0]}, event) is not alone[0]
    assert holds({**whens[0], "account": "12345"}, event) is (alone[0] and event is EVENT)


@given(WHENS, st.sampled_from([EVENT, SILENT]))
def test_a_route_matches_if_all_its_checks_held(when: dict[str, Any], event: Event) -> None:
    [asked] = match(event, [route(when)]).routes

    assert asked.matched is all(each.held for each in asked.checks)
    assert json.loads(json.dumps(describe([asked])))[0]["matched"] is asked.matched
    # Reasons are shown to more people than texts are.
    assert TEXT not in repr(asked)


@given(st.lists(st.tuples(st.lists(st.sampled_from("abcd"), min_size=1), st.booleans())))
def test_destinations_are_unique_and_in_order_of_first_mention(
    rules: list[tuple[list[str], bool]],
) -> None:
    routes = [route(to=" ".join(to), stop=stop) for to, stop in rules]

    found = match(EVENT, routes)

    asked = []
    for to, stop in rules:
        asked += to
        if stop:
            break
    assert list(found.destinations) == list(dict.fromkeys(asked))


class TestReasons:
    def test_each_condition_says_what_it_wanted_and_saw(self) -> None:
        when = {
            "event": ["SMS_REPLY", "SMS_RECEIVED"],
            "direction": "inbound",
            "from": "0412 345 678",
            "to": "+61700000000",
            "account": 7,
            "keyword": "STOP",
            "body": ["refund", "order"],
            "has_body": True,
        }

        said = {c.condition: (c.wanted, c.saw, c.held) for c in checks(when)}

        assert said == {
            "event": ("SMS_REPLY or SMS_RECEIVED", "SMS_REPLY", True),
            "direction": ("inbound", "reply", False),
            "from": ("+61412345678", "+61412345678", True),
            "to": ("+61700000000", "+61731234567", False),
            "account": ("7", "12345", False),
            "keyword": ("STOP", "STOP", True),
            "body": ("refund or order", "the text", True),
            "has_body": ("true", "true", True),
        }

    def test_what_is_missing_is_seen_as_nothing(self) -> None:
        when = {"from": "1", "body": "x", "has_body": True}

        assert [(c.condition, c.saw, c.held) for c in checks(when, SILENT)] == [
            ("from", None, False),
            ("body", None, False),
            ("has_body", "false", False),
        ]

    def test_a_group_shows_its_parts(self) -> None:
        when = {
            "any": [{"event": ["A", "B"]}, {"direction": "reply", "has_body": True}],
            "all": [{"from": 61412345678}, {"body": ["x", "y"]}],
            "not": {"keyword": "HELP"},
        }

        assert checks(when) == (
            Check(
                condition="any",
                wanted="event: A or B | direction: reply, has_body: true",
                saw="event=SMS_REPLY; direction=reply; has_body=true",
                held=True,
            ),
            Check(
                condition="all",
                wanted="from: +61412345678 | body: x or y",
                saw="from=+61412345678; body=the text",
                held=False,
            ),
            Check(condition="not", wanted="keyword: HELP", saw="keyword=STOP", held=True),
        )

    def test_groups_inside_groups_are_written_for_people(self) -> None:
        [check] = checks({"all": [{"any": [{"event": "A"}, {"body": "x"}]}, {"not": {"to": "1"}}]})

        assert check.wanted == "any: (event: A) or (body: x) | not: (to: 1)"
        assert check.saw == "any=event=SMS_REPLY; body=the text; not=to=+61731234567"

    def test_they_never_hold_the_text(self) -> None:
        when = {"body": ".", "any": [{"body": "x"}], "all": [{"not": {"body": "y"}}]}

        asked = match(EVENT, [route(when), route({"not": {"has_body": False}})]).routes

        assert TEXT not in repr(asked)
        assert TEXT not in json.dumps(describe(asked))

    def test_a_route_that_did_not_match_has_its_say_too(self) -> None:
        found = match(EVENT, [route({"event": "x"}, to="a b", name="no"), route(name="yes")])

        assert found.routes == (
            RouteCheck(
                route="no",
                matched=False,
                to=("a", "b"),
                checks=(Check(condition="event", wanted="x", saw="SMS_REPLY", held=False),),
            ),
            RouteCheck(route="yes", matched=True, to=("crm",), checks=()),
        )

    def test_they_are_described_as_plain_values(self) -> None:
        asked = match(EVENT, [route({"event": "x"}, name="no"), route(name="yes")]).routes

        described = describe(asked)

        assert described == [
            {
                "route": "no",
                "matched": False,
                "to": ["crm"],
                "checks": [
                    {"condition": "event", "wanted": "x", "saw": "SMS_REPLY", "held": False}
                ],
            },
            {"route": "yes", "matched": True, "to": ["crm"], "checks": []},
        ]
        assert json.loads(json.dumps(described)) == described


class TestRoute:
    def test_only_name_and_to_are_needed(self) -> None:
        plain = Route.model_validate({"name": "all", "to": ["crm"]})

        assert (plain.to, plain.stop) == (("crm",), False)
        assert match(EVENT, [plain]).destinations == ("crm",)

    def test_a_fault_is_found_in_its_place(self) -> None:
        rows = [
            ({"name": "r", "to": []}, ("to",)),  # a route to nowhere
            ({"name": "r", "to": "crm"}, ("to",)),
            ({"name": "r"}, ("to",)),
            ({"to": ["crm"]}, ("name",)),
            ({"name": "r", "to": ["crm"], "if": {}}, ("if",)),
            ({"name": "r", "to": ["crm"], "when": None}, ("when",)),
            ({"name": "r", "to": ["crm"], "when": {"evnt": "x"}}, ("when", "evnt")),
            # The names that Python needs are no names of ours.
            ({"name": "r", "to": ["crm"], "when": {"from_": "x"}}, ("when", "from_")),
            ({"name": "r", "to": ["crm"], "when": {"not_": {}}}, ("when", "not_")),
            ({"name": "r", "to": ["crm"], "when": {"event": True}}, ("when", "event", 0)),
            ({"name": "r", "to": ["crm"], "when": {"account": 1.5}}, ("when", "account", 0)),
            ({"name": "r", "to": ["crm"], "when": {"has_body": "maybe"}}, ("when", "has_body")),
            ({"name": "r", "to": ["crm"], "when": {"any": {"event": "x"}}}, ("when", "any")),
            ({"name": "r", "to": ["crm"], "when": {"not": [{"event": "x"}]}}, ("when", "not")),
        ]

        for values, place in rows:
            with pytest.raises(ValidationError) as caught:
                Route.model_validate(values)
            assert [error["loc"] for error in caught.value.errors()] == [place]

    def test_a_condition_that_says_nothing_is_a_fault(self) -> None:
        for condition in [each.alias or name for name, each in When.model_fields.items()]:
            for empty in (None, [], {}):
                with pytest.raises(ValidationError, match="empty: give a value, or leave the "):
                    route({condition: empty})

    @pytest.mark.parametrize(
        ("pattern", "fault"),
        [
            ("(", "missing ): ("),
            ("[a", "missing ]: [a"),
            ("*x", "no argument for repetition operator: *"),
            ("(?=a)", "invalid perl operator: (?="),
        ],
    )
    def test_a_bad_regular_expression_is_a_fault(
        self, pattern: str, fault: str, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(ValidationError) as raised:
            route({"body": ["fine", pattern]})

        said = raised.value.errors()[0]["msg"]
        assert said == f"Value error, not a regular expression of RE2: {fault}"
        # Its library would write to the terminal, past all logs.
        assert capfd.readouterr() == ("", "")

    def test_what_can_never_hold_is_a_fault(self) -> None:
        rows = [
            ({"keyword": "unsubscribe"}, "STOP, START, HELP; unsubscribe counts as STOP"),
            ({"keyword": ["STOP", "PAUSE"]}, "the keywords are STOP, START, HELP"),
            ({"event": "unreadable"}, "an event that cannot be read matches no route"),
            ({"from": "\u200b"}, "empty: nothing in it can be seen"),
            ({"direction": " "}, "empty: nothing in it can be seen"),
            ({"keyword": "STOP", "has_body": False}, "never holds: an event without a text"),
            ({"sentiment": "neutral", "has_body": False}, "never holds: an event without a text"),
            ({"body": ["a", "b+"], "has_body": False}, "never holds: an event without a text"),
            ({"keyword": "STOP", "sentiment": "neutral"}, "never holds: a keyword has no sentim"),
        ]
        for when, words in rows:
            for whole in (when, {"not": when}, {"any": [{"event": "x"}, when]}):
                with pytest.raises(ValidationError, match=re.escape(words)):
                    route(whole)

    def test_what_may_hold_is_none(self) -> None:
        assert holds({"body": "^$", "has_body": False}, SILENT)
        assert route({"keyword": "stop\u200b"}).when.keyword == ("STOP",)

    def test_routes_do_not_change(self) -> None:
        with pytest.raises(ValidationError, match="frozen"):
            route().stop = True  # type: ignore[misc]  # that is the point
        with pytest.raises(ValidationError, match="frozen"):
            route().when.has_body = True  # type: ignore[misc]  # that is the point


def test_no_text_keeps_a_regular_expression_busy() -> None:
    route = Route(name="r", when={"body": "(a+)+$"}, to=("a",))
    event = replace(EVENT, body="a" * 50_000 + "b")

    started = time.monotonic()
    found = match(event, [route])

    assert found.destinations == ()
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ({"from": "\u200b"}, "Value error, empty: nothing in it can be seen"),
        ({"event": UNREADABLE}, "Value error, an event that cannot be read matches no route"),
        (
            {"keyword": "end"},
            "Value error, the keywords are STOP, START, HELP; end counts as STOP",
        ),
        ({"keyword": "hello"}, "Value error, the keywords are STOP, START, HELP"),
    ],
)
def test_what_cannot_hold_is_a_fault_in_these_words(when: dict[str, str], fault: str) -> None:
    with pytest.raises(ValidationError) as caught:
        route(when)

    assert fault in [each["msg"] for each in caught.value.errors()]


def test_a_body_is_searched_without_what_cannot_be_seen() -> None:
    hidden = replace(EVENT, body="can\u200bcel")

    assert holds({"body": "cancel"}, hidden)
    assert match(hidden, [route({"body": "cancel"})]).destinations == ("crm",)
    assert hidden.body == "can\u200bcel"


TAGGED = replace(EVENT, metadata={"campaign": "Spring", "n": 7, "vip": True, "deep": {"a": 1}})


@pytest.mark.parametrize(
    ("when", "held"),
    [
        ({"metadata.campaign": "spring"}, True),
        ({"metadata.campaign": ["autumn", "SPRING"]}, True),
        ({"metadata.campaign": "autumn"}, False),
        ({"metadata.n": 7}, True),
        ({"metadata.vip": "true"}, True),
        ({"metadata.deep": "{'a': 1}"}, False),
        ({"metadata.none": "x"}, False),
        ({"metadata.campaign": "spring", "metadata.n": 8}, False),
        ({"not": {"metadata.none": "x"}}, True),
        ({"any": [{"metadata.n": 8}, {"metadata.campaign": "spring"}]}, True),
        ({"endpoint": "main"}, True),
        ({"endpoint": ["other", "main"]}, True),
        ({"endpoint": "Main"}, False),
    ],
)
def test_metadata_and_endpoint_are_compared(when: dict[str, Any], held: bool) -> None:
    assert holds(when, TAGGED) is held


def test_identifiers_keep_their_case() -> None:
    event = replace(TAGGED, endpoint="Main", account_id="AB-7")

    assert holds({"endpoint": "Main", "account": "AB-7"}, event)
    assert not holds({"account": "ab-7"}, event)


def test_a_reason_names_the_key_of_metadata_and_what_it_saw() -> None:
    assert checks({"metadata.campaign": ["a", "b"]}, TAGGED) == (
        Check(condition="metadata.campaign", wanted="a or b", saw="Spring", held=False),
    )
    [check] = checks({"not": {"metadata.n": "7"}}, TAGGED)
    assert (check.wanted, check.saw) == ("metadata.n: 7", "metadata.n=7")
    [check] = checks({"metadata.vip": "TRUE"}, TAGGED)
    assert (check.held, check.saw) == (True, "true")


@pytest.mark.parametrize("when", [{"metadata.": "x"}, {"metadata.a": None}, {"metadata.a": []}])
def test_metadata_without_key_or_value_is_a_fault(when: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"empty: give"):
        route(when)


OFFICE = Hours(
    zone=ZoneInfo("Australia/Sydney"), week={0: (span("9:00-17:00"),)}, holidays=frozenset()
)


@pytest.mark.parametrize(
    ("received_at", "condition", "held"),
    [
        (datetime(2026, 11, 22, 22, tzinfo=UTC), {"hours": "open"}, True),  # Monday, 9:00
        (datetime(2026, 11, 22, 22, tzinfo=UTC), {"hours": "closed"}, False),
        (datetime(2026, 11, 23, 6, tzinfo=UTC), {"hours": "closed"}, True),
        (datetime(2026, 11, 23, 6, tzinfo=UTC), {"not": {"hours": "open"}}, True),
    ],
)
def test_the_moment_of_receipt_is_within_the_hours_or_not(
    received_at: datetime, condition: dict[str, Any], held: bool
) -> None:
    happened = datetime(2026, 11, 22, 23, tzinfo=UTC)
    event = replace(EVENT, received_at=received_at, occurred_at=happened)

    [asked] = match(event, [route(condition)], hours=OFFICE).routes

    assert asked.matched is held


def test_a_reason_says_whether_it_was_open() -> None:
    event = replace(EVENT, received_at=datetime(2026, 11, 23, 6, tzinfo=UTC))

    [asked] = match(event, [route({"hours": "open"})], hours=OFFICE).routes

    assert asked.checks == (Check(condition="hours", wanted="open", saw="closed", held=False),)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("^test-[0-9]", "test-1"),
        ("^ab?c", "ac"),
        ("^ab*", "a"),
        ("^ab{0}c", "ac"),
        ("^ab|c", "c"),
        ("^a|^b", "b"),
        ("^(?i)ab", "AB"),
        ("^Cafe\u0301", "Café au lait"),
        ("^ab+", "abb"),
        ("ab", "cab"),
        ("^", ""),
    ],
)
def test_what_is_found_does_not_depend_on_the_look_at_the_beginning(
    pattern: str, text: str
) -> None:
    assert finds(pattern, text)


@given(
    st.text("^ab?*+{}|()[].0", max_size=8).filter(lambda text: _is_pattern(text)),
    st.text("ab0", max_size=5),
)
def test_a_pattern_is_found_where_re2_finds_it(pattern: str, text: str) -> None:
    assert finds(pattern, text) == (compiled(pattern).search(text) is not None)


def _is_pattern(text: str) -> bool:
    try:
        compiled(text)
    except re2.error:
        return False
    return True
