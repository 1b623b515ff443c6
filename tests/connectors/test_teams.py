"""The Teams connector: its cards, and what it makes of a Workflow's answers."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import microsoft_teams.cards as models
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from rawserver import Connection, RawServer, answer
from werkzeug.serving import BaseWSGIServer

from connectors import cards
from connectors.base import (
    Ambiguous,
    DeliveryError,
    Event,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.cards import CardOptions
from connectors.http import Http
from connectors.sandbox import serve
from connectors.teams import Teams
from connectors.teams_options import TeamsOptions
from connectors.testing import sample_event
from connectors.text import NO_BODY

SIGNATURE = "sig" + "natureofaworkflow"
FLOW = f"/workflows/1f/triggers/manual/paths/invoke?api-version=1&sp=%2Ftriggers&sig={SIGNATURE}"
#: Models of everything that a card of ours may hold.
MODELS = {
    "AdaptiveCard": models.AdaptiveCard,
    "RichTextBlock": models.RichTextBlock,
    "TextRun": models.TextRun,
    "FactSet": models.FactSet,
    "Action.OpenUrl": models.OpenUrlAction,
}


@pytest.fixture
def sandbox() -> Iterator[BaseWSGIServer]:
    server = serve(port=0)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def sandbox_url(sandbox: BaseWSGIServer) -> str:
    return f"http://127.0.0.1:{sandbox.server_port}"


def connector(url: str, **options: Any) -> Teams:
    return Teams(TeamsOptions(url=url, **options), http=Http(allow=["127.0.0.0/8"]))


def deliver(
    url: str, event: Event | None = None, *, repeat: bool = False, **options: Any
) -> Receipt:
    teams = connector(url, **options)
    try:
        event = event or sample_event()
        return teams.deliver(event, key="k1", thread=None, repeat=repeat, deadline=5)
    finally:
        teams.close()


def failure(answered: bytes) -> DeliveryError:
    with RawServer(answered) as server, pytest.raises(DeliveryError) as raised:
        deliver(server.url + FLOW)
    return raised.value


def records(sandbox_url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = requests.get(f"{sandbox_url}/records", timeout=5).json()
    return found


def card(event: Event | None = None, *, repeat: bool = False, **options: Any) -> dict[str, Any]:
    return cards.message(
        event or sample_event(), options=CardOptions(**options), shape="card", repeat=repeat
    )


def words(shown: dict[str, Any]) -> str:
    """The text of the SMS as it stands in a card."""
    return str(shown["body"][1]["inlines"][0]["text"])


def facts(shown: dict[str, Any]) -> dict[str, str]:
    return {fact["title"]: fact["value"] for fact in shown["body"][2]["facts"]}


def small_print(shown: dict[str, Any]) -> str:
    return str(shown["body"][3]["inlines"][0]["text"])


class TestDelivery:
    def test_brings_a_card_into_the_channel(self, sandbox_url: str) -> None:
        deliver(f"{sandbox_url}/teams", sample_event(body="Hello there"))

        (record,) = records(sandbox_url)
        assert record["system"] == "teams"
        assert record["conversation"] == "+61400000000"
        assert "Hello there" in record["text"]

    @pytest.mark.parametrize("path", ["/teams/", f"/teams{FLOW}"])
    def test_uses_an_address_of_any_form(self, sandbox_url: str, path: str) -> None:
        deliver(sandbox_url + path)

        assert len(records(sandbox_url)) == 1

    def test_sends_the_bare_card_where_the_flow_wants_it(self, sandbox_url: str) -> None:
        deliver(f"{sandbox_url}/teams/bare", shape="card")

        assert len(records(sandbox_url)) == 1

    def test_is_refused_in_the_wrong_shape(self, sandbox_url: str) -> None:
        with pytest.raises(Refused, match="run history"):
            deliver(f"{sandbox_url}/teams", shape="card")

        assert records(sandbox_url) == []

    def test_receipt_claims_no_more_than_is_known(self, sandbox_url: str) -> None:
        receipt = deliver(f"{sandbox_url}/teams")

        assert receipt == Receipt(reference="accepted (202), not confirmed")

    def test_says_that_a_card_may_be_a_repeat(self, sandbox_url: str) -> None:
        deliver(f"{sandbox_url}/teams", repeat=True)

        assert "may be a repeat" in records(sandbox_url)[0]["text"]

    def test_posts_json_without_credentials_to_the_address_as_it_is(self) -> None:
        target = f"/A%2fb/%7e/../c?sp=%2Ftriggers%2fx&sv=1.0&sig=%41-_{SIGNATURE}"

        with RawServer(answer(202)) as server:
            deliver(server.url + target)

        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(f"POST {target} HTTP/1.1\r\n".encode())
        assert b"content-type: application/json" in head.lower()
        assert b"authorization" not in head.lower()
        assert json.loads(body)["attachments"][0]["content"]["type"] == "AdaptiveCard"

    def test_is_thread_safe(self) -> None:
        with RawServer(answer(202)) as server:
            teams = connector(server.url + FLOW)
            bodies = [f"number {number}" for number in range(50)]
            threads = [
                threading.Thread(
                    target=teams.deliver,
                    args=(sample_event(body=body),),
                    kwargs={"key": body, "thread": None, "repeat": False, "deadline": 10},
                )
                for body in bodies
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            teams.close()

        contents = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in server.requests]
        seen = sorted(words(each["attachments"][0]["content"]) for each in contents)
        assert seen == sorted(bodies)


class TestAnswers:
    @pytest.mark.parametrize(
        "answered",
        [
            answer(202),
            answer(200),
            answer(200, body=b"1"),
            answer(202, body=b" \r\n"),
            answer(200, body=b'{"id": "1700000000000"}'),
            answer(201, body=b"{}"),
        ],
    )
    def test_acceptance_takes_several_forms(self, answered: bytes) -> None:
        with RawServer(answered) as server:
            deliver(server.url + FLOW)

        assert len(server.requests) == 1

    # What the Workflow says, what the relay learns.
    @pytest.mark.parametrize(
        ("answered", "kind", "status"),
        [
            (answer(400), Refused, 400),
            (answer(401), Unauthorized, 401),
            (answer(403), Unauthorized, 403),
            (answer(404), Unauthorized, 404),
            (answer(410), Unauthorized, 410),
            (answer(408), Transient, 408),
            (answer(413), Refused, 413),
            (answer(422), Refused, 422),
            (answer(425), Transient, 425),
            (answer(429), Throttled, 429),
            (answer(500), Transient, 500),
            (answer(502), Transient, 502),
            (answer(503), Transient, 503),
            (answer(302, Location="http://127.0.0.1/"), Unauthorized, 302),
            (answer(307, Location="http://127.0.0.1/"), Unauthorized, 307),
            (answer(200, body=b"endpoint returned HTTP error 429 with"), Throttled, 429),
            (answer(200, body=b"endpoint returned HTTP error 403 with"), Unauthorized, 403),
            (answer(200, body=b"endpoint returned HTTP error 410 with"), Unauthorized, 410),
            (answer(200, body=b"endpoint returned HTTP error 502 with"), Transient, 502),
            (answer(200, body=b"endpoint returned HTTP error 413 with"), Refused, 413),
            (answer(200, body=b"endpoint returned HTTP error 200 with"), Ambiguous, 200),
            (answer(200, body=b"<html>Sign in to the network</html>"), Ambiguous, 200),
            (answer(200, body=b'{"error": {"code": "Odd"}}'), Ambiguous, 200),
            (answer(200, body=b"[" * 100_000), Ambiguous, 200),
            (answer(202, body=b"\xff\xfe\x00garbage"), Ambiguous, 202),
        ],
    )
    def test_each_failure_has_its_meaning(
        self, answered: bytes, kind: type[DeliveryError], status: int
    ) -> None:
        error = failure(answered)

        assert type(error) is kind
        assert error.status == status

    @pytest.mark.parametrize(
        "body",
        [
            b'{"error": {"code": "WorkflowTriggerIsNotEnabled", "message": "state Disabled"}}',
            b'{"code": "WorkflowTriggerIsNotEnabled", "message": "state Deleted"}',
        ],
    )
    def test_a_flow_that_is_off_pauses_the_destination(self, body: bytes) -> None:
        error = failure(answer(400, body=body))

        assert type(error) is Unauthorized
        assert "switched off" in str(error)

    def test_a_refusal_names_the_code_and_where_to_look(self) -> None:
        error = failure(answer(400, body=b'{"error": {"code": "TriggerInputSchemaMismatch"}}'))

        assert "TriggerInputSchemaMismatch" in str(error)
        assert "run history" in str(error)

    @pytest.mark.parametrize(
        "body",
        [b'{"error": "text"}', b'{"error": {"code": 7}}', b"[]", b'{"error": {"code": "a b"}}'],
    )
    def test_a_refusal_quotes_nothing_else(self, body: bytes) -> None:
        said = "answered 400: the flow's run history in Power Automate may say more"

        assert str(failure(answer(400, body=body))) == said

    def test_throttling_tells_the_seconds(self) -> None:
        error = failure(answer(429, Retry_After="17"))

        assert isinstance(error, Throttled)
        assert error.retry_after == timedelta(seconds=17)
        assert error.scope == "destination"

    def test_throttling_tells_the_seconds_to_a_date(self) -> None:
        error = failure(answer(429, Retry_After="Fri, 31 Dec 2100 00:00:00 GMT"))

        assert isinstance(error, Throttled)
        assert error.retry_after is not None
        assert error.retry_after > timedelta(days=365)

    def test_throttling_in_the_body_keeps_the_header(self) -> None:
        error = failure(answer(200, body=b"HTTP error 429", Retry_After="3"))

        assert isinstance(error, Throttled)
        assert error.retry_after == timedelta(seconds=3)

    def test_a_redirect_is_not_followed(self) -> None:
        with RawServer(answer(202)) as target:
            error = failure(answer(302, Location=f"{target.url}/elsewhere"))

        assert type(error) is Unauthorized
        assert target.requests == []

    def test_no_answer_is_ambiguous(self) -> None:
        def close(connection: Connection) -> None:
            pass

        with RawServer(close) as server, pytest.raises(Ambiguous):
            deliver(server.url + FLOW)

        assert len(server.requests) == 1

    def test_a_slow_answer_ends_at_the_deadline(self) -> None:
        with RawServer(Connection.hang) as server:
            teams = connector(server.url + FLOW)
            with pytest.raises(Ambiguous, match="time-out"):
                teams.deliver(sample_event(), key="k1", thread=None, repeat=False, deadline=0.3)
            teams.close()

    def test_too_many_cards_at_once_are_throttled(self, sandbox_url: str) -> None:
        teams = connector(f"{sandbox_url}/teams")
        outcomes = []
        for number in range(40):
            try:
                event = sample_event(body=str(number))
                teams.deliver(event, key="k", thread=None, repeat=False, deadline=5)
                outcomes.append("delivered")
            except Throttled as error:
                assert error.retry_after == timedelta(seconds=1)
                outcomes.append("throttled")
        teams.close()

        assert "throttled" in outcomes
        assert len(records(sandbox_url)) == outcomes.count("delivered")


class TestTheAddress:
    @pytest.mark.parametrize(
        "url",
        [
            "",
            "nonsense",
            "ftp://example.com/x",
            "https://",
            "https:///path",
            "https://example.com:port/",
            "https://example.com:0/",
            "https://[::1/",
            "https://example.com/a b",
            "https://example.com/a\n",
            " https://example.com/a",
            "https://example.com/caf\u00e9",
            "https://user:word@example.com/",
            "https://user@example.com/",
        ],
    )
    def test_is_refused_if_unusable(self, url: str) -> None:
        with pytest.raises(ValidationError) as raised:
            TeamsOptions(url=url)

        assert raised.value.errors()[0]["loc"] == ("url",)

    def test_is_not_repeated_when_refused(self) -> None:
        with pytest.raises(ValidationError) as raised:
            TeamsOptions(url=f"ftp://example.com/{SIGNATURE}")

        assert SIGNATURE not in str(raised.value)

    @pytest.mark.parametrize(
        "host",
        [
            "env.18.environment.api.powerplatform.com:443",
            "prod-12.westeurope.logic.azure.com:443",
            "flow.microsoft.com",
            "example.webhook.office.com",
            "some.host.that.microsoft.may.choose",
        ],
    )
    def test_of_any_host_is_accepted(self, host: str) -> None:
        assert TeamsOptions(url=f"https://{host}{FLOW}").shape == "envelope"

    def test_is_never_shown(self, caplog: pytest.LogCaptureFixture) -> None:
        shown = []
        teams = connector(f"https://env.example.invalid{FLOW}")
        shown += [repr(teams), str(teams.options), teams.check()]
        shown += [teams.options.model_dump_json()]
        teams.close()

        with caplog.at_level(logging.DEBUG, logger="urllib3.connectionpool"):
            for answered in (answer(202), answer(400), answer(302, Location="/x")):
                with RawServer(answered) as server:
                    try:
                        deliver(server.url + FLOW)
                    except DeliveryError as error:
                        shown += ["".join(traceback.format_exception(error))]
            with pytest.raises(Transient) as raised:
                deliver(f"https://env.example.invalid{FLOW}")
            shown += ["".join(traceback.format_exception(raised.value))]

        assert caplog.text
        assert SIGNATURE not in caplog.text + "".join(shown)

    def test_on_plain_http_needs_permission(self) -> None:
        with RawServer(answer(202)) as server:
            teams = Teams(TeamsOptions(url=server.url + FLOW), http=Http())
            with pytest.raises(Unauthorized, match="outbound.allow"):
                teams.deliver(sample_event(), key="k", thread=None, repeat=False, deadline=5)
            teams.close()

        assert server.connections == 0

    def test_gains_no_credentials_from_netrc(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login someone password anything\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))

        with RawServer(answer(202)) as server:
            deliver(server.url + FLOW)

        assert b"authorization" not in server.requests[0].lower()


class TestCheck:
    @pytest.mark.parametrize(
        ("host", "warned"),
        [
            ("example.webhook.office.com", True),
            ("outlook.office.com", True),
            ("prod-1.westeurope.logic.azure.com", True),
            ("env.18.environment.api.powerplatform.com", False),
            ("notoffice.com", False),
            ("office.com.example.org", False),
        ],
    )
    def test_warns_of_retired_hosts(self, host: str, warned: bool) -> None:
        teams = connector(f"https://{host}{FLOW}")

        sentence = teams.check()
        teams.close()

        assert ("warning" in sentence) is warned
        assert host in sentence
        assert "look in Teams" in sentence

    def test_posts_nothing(self) -> None:
        with RawServer(answer(202)) as server:
            teams = connector(server.url + FLOW)
            teams.check()
            teams.close()

        assert server.connections == 0

    def test_closing_twice_is_harmless(self) -> None:
        teams = connector(f"https://env.example.invalid{FLOW}")

        teams.close()
        teams.close()


def validated(element: dict[str, Any]) -> None:
    """Hold *element* and all in it against Microsoft's models; an unknown field is a fault."""
    model = MODELS[element["type"]]
    known = {field.alias or name for name, field in model.model_fields.items()}
    known |= {_camel(name) for name in model.model_fields} | {"$schema"}
    assert set(element) <= known, set(element) - known
    model.model_validate(element)
    for key in ("body", "inlines", "actions"):
        for inner in element.get(key, []):
            validated(inner)
    for fact in element.get("facts", []):
        assert set(fact) == {"title", "value"}
        models.Fact.model_validate(fact)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


class TestTheCard:
    def test_is_what_microsofts_models_accept(self) -> None:
        validated(card(sample_event(url="https://relay.example/console/events/e1"), repeat=True))

    def test_is_of_version_1_4_in_an_envelope(self) -> None:
        message = cards.message(sample_event(), options=CardOptions())

        (attachment,) = message["attachments"]
        assert message["type"] == "message"
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        assert attachment["content"] == card()
        assert card()["version"] == "1.4"

    def test_starts_with_who_wrote(self) -> None:
        title = card()["body"][0]["inlines"][0]

        assert title["text"] == "SMS reply from +61400000000"
        assert title["weight"] == "Bolder"

    def test_shows_parties_and_time(self) -> None:
        assert facts(card()) == {
            "From": "+61400000000",
            "To": "+61700000000",
            "Time": "2025-12-04 00:24:07 UTC",
        }

    def test_shows_the_time_in_utc(self) -> None:
        local = datetime(2026, 1, 1, 10, tzinfo=timezone(timedelta(hours=10)))

        assert facts(card(sample_event(occurred_at=local)))["Time"] == "2026-01-01 00:00:00 UTC"

    def test_falls_back_to_the_time_of_arrival(self) -> None:
        event = sample_event(occurred_at=None, received_at=datetime(2026, 1, 2, tzinfo=UTC))

        assert facts(card(event))["Time"] == "2026-01-02 00:00:00 UTC"

    def test_leaves_out_a_party_that_is_unknown(self) -> None:
        assert "From" not in facts(card(sample_event(sender=None)))

    def test_names_the_message_in_small_print(self) -> None:
        run = card()["body"][3]["inlines"][0]

        assert run["text"] == "Message abc123"
        assert run["isSubtle"] is True

    def test_names_the_event_if_the_message_has_no_id(self) -> None:
        assert small_print(card(sample_event(message_id=None))).startswith("Event evt_")

    def test_is_no_repeat_by_itself(self) -> None:
        assert "repeat" not in small_print(card(repeat=False))
        assert "may be a repeat" in small_print(card(repeat=True))

    def test_links_to_the_console_if_there_is_one(self) -> None:
        url = "https://relay.example/console/events/e1"

        (action,) = card(sample_event(url=url))["actions"]

        assert (action["type"], action["url"]) == ("Action.OpenUrl", url)
        assert "actions" not in card()

    @pytest.mark.parametrize(
        "text",
        [
            "line one\nline two\n\nline four",
            "thumbs up \U0001f44d\U0001f3fd and family \U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\u0645\u0631\u062d\u0628\u0627 \u4f60\u597d \u03b3\u03b5\u03b9\u03ac",
            "**not bold** _not italic_ # not a heading\n- not a list",
            "[no link](https://example.com) https://example.com/?a=1&b=2",
            '<b>"quoted"</b> & \\ back',
            "a < b at 5 > 3 @someone {curly} {{double}}",
            "  spaces  around\t",
        ],
    )
    def test_keeps_the_text_as_it_was_written(self, text: str) -> None:
        assert words(card(sample_event(body=text))) == text

    @pytest.mark.parametrize("body", [None, ""])
    def test_says_why_there_is_no_text(self, body: str | None) -> None:
        assert words(card(sample_event(body=body))) == NO_BODY

    def test_cleans_what_cannot_be_sent(self) -> None:
        event = sample_event(body="nul\x00 bell\x07 lone\ud83d pair\ud83d\ude00 end\r\nline\rline")

        assert words(card(event)) == "nul bell lone\ufffd pair\U0001f600 end\nline\nline"

    @pytest.mark.parametrize(
        "text", ["<at>Boss</at>", "<AT>Boss</AT>", "< at>Boss</ at>", '<at id="1">Boss</at>']
    )
    def test_the_text_mentions_nobody(self, text: str) -> None:
        shown = words(card(sample_event(body=text)))

        assert "<at" not in shown.lower().replace(" ", "")
        assert "</at" not in shown.lower().replace(" ", "")
        assert shown.replace(cards.WORD_JOINER, "") == text

    @pytest.mark.parametrize("function", ["{{DATE(2026-01-01T00:00:00Z)}}", "{{TIME(x)}}"])
    def test_the_text_calls_no_function(self, function: str) -> None:
        shown = words(card(sample_event(body=function)))

        assert "{{" not in shown
        assert shown.replace(cards.WORD_JOINER, "") == function

    @pytest.mark.parametrize(
        ("number", "shown"),
        [
            ("+61400000000", "+61400000000"),
            ("GoFax", "GoFax"),
            ("[x](https://e.example)", r"\[x\]\(https\:\/\/e\.example\)"),
            ("**5**", r"\*\*5\*\*"),
            ("1. list", r"1\. list"),
            ("line\nbreak", "line break"),
        ],
    )
    def test_facts_hold_no_markdown(self, number: str, shown: str) -> None:
        assert facts(card(sample_event(sender=number)))["From"] == shown

    @given(st.text(), st.text(min_size=1), st.text(min_size=1))
    def test_holds_against_any_text(self, body: str, number: str, message_id: str) -> None:
        event = sample_event(
            body=body, customer=number, sender=number, message_id=message_id, conversation="c"
        )

        shown = card(event)

        validated(shown)
        assert "<at" not in json.dumps(shown).lower()
        assert len(cards.encode(shown)) <= cards.LIMIT


class TestLongTexts:
    def test_are_shortened_honestly(self) -> None:
        shown = words(card(sample_event(body="x" * 100_000)))

        assert shown.startswith("x" * 20_000)
        assert shown.endswith("… shortened, 100,000 characters in all")

    def test_fill_the_message_and_no_more(self) -> None:
        event = sample_event(body="x" * 100_000)

        size = len(cards.encode(cards.message(event, options=CardOptions(), repeat=True)))

        assert cards.LIMIT - 8 < size <= cards.LIMIT

    @pytest.mark.parametrize("character", ["x", '"', "\\", "\n", "é", "語", "\U0001f600"])
    def test_are_measured_in_bytes_as_sent(self, sandbox_url: str, character: str) -> None:
        deliver(f"{sandbox_url}/teams", sample_event(body=character * 60_000))

        assert "60,000 characters in all" in records(sandbox_url)[0]["text"]

    def test_that_just_fit_are_whole(self) -> None:
        empty = len(cards.encode(card(sample_event(body="x")))) - 1
        body = "x" * (cards.LIMIT - empty)

        assert words(card(sample_event(body=body))) == body
        assert "shortened" in words(card(sample_event(body=body + "x")))

    def test_huge_numbers_and_ids_leave_room_for_the_text(self) -> None:
        event = sample_event(
            customer="9" * 20_000,
            sender="*" * 20_000,
            recipient="_" * 20_000,
            message_id="m" * 20_000,
            body="still here",
        )

        assert words(card(event)) == "still here"
        assert len(cards.encode(card(event))) < 5_000
