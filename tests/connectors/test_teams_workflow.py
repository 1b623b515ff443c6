"""Teams by a Workflow: its address, its answers, and flows that answer in threads."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import requests
from pydantic import ValidationError
from rawserver import Connection, RawServer, answer

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
from connectors.http import Http
from connectors.sandbox import serving
from connectors.teams.connector import Teams
from connectors.teams.options import TeamsOptions
from connectors.testing import sample_event

SIGNATURE = "sig" + "natureofaworkflow"
#: Bodies behind a 2xx: none of them says that the card was not accepted.
ACCEPTING = [
    b"",
    b"1",
    b" \r\n",
    b'{"id": "1700000000000"}',
    b"endpoint returned HTTP error 200 with",
    b"<html>Sign in to the network</html>",
    b'{"error": {"code": "Odd"}}',
    b"[" * 100_000,
    b"\xff\xfe\x00garbage",
]
FLOW = f"/workflows/1f/triggers/manual/paths/invoke?api-version=1&sp=%2Ftriggers&sig={SIGNATURE}"


@pytest.fixture
def sandbox_url() -> Iterator[str]:
    with serving() as url:
        yield url


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


def words(shown: dict[str, Any]) -> str:
    """The text of the SMS as it stands in a card."""
    return str(shown["body"][1]["inlines"][0]["text"])


class TestDelivery:
    def test_brings_a_card_into_the_channel(self, sandbox_url: str) -> None:
        deliver(f"{sandbox_url}/teams", sample_event(body="Hello there"))

        (record,) = records(sandbox_url)
        assert record["system"] == "teams"
        assert record["conversation"] == "+61400000000"
        assert "Hello there" in record["text"]

    def test_uses_an_address_of_any_form(self, sandbox_url: str) -> None:
        for path in ("/teams/", f"/teams{FLOW}"):
            deliver(sandbox_url + path)

        assert len(records(sandbox_url)) == 2

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
    def test_any_2xx_is_an_acceptance(self) -> None:
        for body in ACCEPTING:
            for status in (200, 201, 202):
                with RawServer(answer(status, body=body)) as server:
                    assert deliver(server.url + FLOW).reference.startswith(f"accepted ({status})")

    def test_an_answer_that_breaks_off_behind_its_status_is_an_acceptance(self) -> None:
        cut = b"HTTP/1.1 202 Accepted\r\nContent-Length: 100\r\n\r\nten bytes!"
        with RawServer(lambda connection: connection.say(cut)) as server:
            deliver(server.url + FLOW)

        assert len(server.requests) == 1

    # What the Workflow says, what the relay learns.
    def test_each_failure_has_its_meaning(self) -> None:
        rows: list[tuple[bytes, type[DeliveryError], int]] = [
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
            # No body turns a failure into a success.
            (answer(400, body=b'{"id": "1700000000000"}'), Refused, 400),
            (answer(500, body=b"1"), Transient, 500),
            (answer(503, body=b"endpoint returned HTTP error 200"), Transient, 503),
            # Nor is a status outside HTTP's classes a refusal.
            (answer(101), Ambiguous, 101),
            (answer(999), Ambiguous, 999),
            (answer(302, Location="http://127.0.0.1/"), Unauthorized, 302),
            (answer(307, Location="http://127.0.0.1/"), Unauthorized, 307),
            (answer(200, body=b"endpoint returned HTTP error 429 with"), Throttled, 429),
            (answer(200, body=b"endpoint returned HTTP error 403 with"), Unauthorized, 403),
            (answer(200, body=b"endpoint returned HTTP error 410 with"), Unauthorized, 410),
            (answer(200, body=b"endpoint returned HTTP error 502 with"), Transient, 502),
            (answer(200, body=b"endpoint returned HTTP error 413 with"), Refused, 413),
        ]
        for answered, kind, status in rows:
            error = failure(answered)

            assert type(error) is kind
            assert error.status == status

    def test_a_flow_that_is_off_pauses_the_destination(self) -> None:
        rows: list[bytes] = [
            b'{"error": {"code": "WorkflowTriggerIsNotEnabled", "message": "state Disabled"}}',
            b'{"code": "WorkflowTriggerIsNotEnabled", "message": "state Deleted"}',
        ]
        for body in rows:
            error = failure(answer(400, body=body))

            assert type(error) is Unauthorized
            assert "switched off" in str(error)

    def test_a_refusal_names_the_code_and_where_to_look(self) -> None:
        error = failure(answer(400, body=b'{"error": {"code": "TriggerInputSchemaMismatch"}}'))

        assert "TriggerInputSchemaMismatch" in str(error)
        assert "run history" in str(error)

    def test_a_refusal_quotes_nothing_else(self) -> None:
        rows: list[bytes] = [
            b'{"error": "text"}',
            b'{"error": {"code": 7}}',
            b"[]",
            b'{"error": {"code": "a b"}}',
        ]
        for body in rows:
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


class TestAFlowThatAnswersAfterwards:
    """``answers: posted``: the flow says what became of the card."""

    def test_confirms_that_the_card_is_there(self, sandbox_url: str) -> None:
        receipt = deliver(f"{sandbox_url}/teams/posted", answers="posted")

        assert receipt == Receipt(reference="posted (200)")
        assert len(records(sandbox_url)) == 1

    def test_confirms_nothing_by_the_202_of_its_trigger(self, sandbox_url: str) -> None:
        receipt = deliver(f"{sandbox_url}/teams", answers="posted")

        assert receipt == Receipt(reference="accepted (202), not confirmed")

    def test_passes_on_that_teams_takes_no_more(self, sandbox_url: str) -> None:
        teams = connector(f"{sandbox_url}/teams/posted", answers="posted")
        for number in range(25):
            event = sample_event(body=str(number))
            teams.deliver(event, key="k", thread=None, repeat=False, deadline=5)
        with pytest.raises(Throttled) as raised:
            teams.deliver(sample_event(), key="k", thread=None, repeat=False, deadline=5)
        teams.close()

        assert raised.value.retry_after is not None
        assert timedelta(seconds=200) < raised.value.retry_after <= timedelta(seconds=300)
        assert len(records(sandbox_url)) == 25

    @pytest.mark.parametrize("options", [{"answers": "posted"}, {"send_conversation": True}])
    def test_may_have_posted_before_it_failed(self, options: dict[str, Any]) -> None:
        kinds = []
        for status in (500, 502, 503):
            with RawServer(answer(status)) as server, pytest.raises(DeliveryError) as raised:
                deliver(server.url + FLOW, **options)
            kinds.append(type(raised.value))

        assert kinds == [Ambiguous, Ambiguous, Transient]


class TestTheAddress:
    def test_is_refused_if_unusable(self) -> None:
        rows: list[str] = [
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
        ]
        for url in rows:
            with pytest.raises(ValidationError) as raised:
                TeamsOptions(url=url)

            assert raised.value.errors()[0]["loc"] == ("url",)

    def test_is_not_repeated_when_refused(self) -> None:
        with pytest.raises(ValidationError) as raised:
            TeamsOptions(url=f"ftp://example.com/{SIGNATURE}")

        assert SIGNATURE not in str(raised.value)

    def test_of_any_host_is_accepted(self) -> None:
        rows: list[str] = [
            "env.18.environment.api.powerplatform.com:443",
            "prod-12.westeurope.logic.azure.com:443",
            "flow.microsoft.com",
            "example.webhook.office.com",
            "some.host.that.microsoft.may.choose",
        ]
        for host in rows:
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


class TestThreadsOfAFlow:
    """The recipe of docs/teams.md: a flow that is told the conversation, and names threads."""

    def test_are_kept(self, sandbox_url: str) -> None:
        teams = connector(f"{sandbox_url}/teams/threads", send_conversation=True)
        thread = None
        for body in ("one", "two", "three"):
            event = sample_event(body=body)
            receipt = teams.deliver(event, key=body, thread=thread, repeat=False, deadline=5)
            assert thread in (None, receipt.thread)
            thread = receipt.thread
        teams.close()

        found = records(sandbox_url)
        assert [each["kind"] for each in found] == ["card", "reply", "reply"]
        assert [each["conversation"] for each in found] == ["+61400000000"] * 3
        assert "From:" in found[0]["text"]
        assert "From:" not in found[1]["text"]

    def test_the_flow_learns_the_conversation(self) -> None:
        with RawServer(answer(202)) as server:
            teams = connector(server.url + FLOW, send_conversation=True)
            teams.deliver(sample_event(), key="k", thread="th-1", repeat=False, deadline=5)
            teams.close()

        posted = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
        assert set(posted) == {"type", "attachments", "conversation"}
        assert posted["conversation"] == {
            "id": "+61400000000~+61700000000",
            "customer": "+61400000000",
            "ours": "+61700000000",
            "thread": "th-1",
        }

    def test_a_flow_is_told_nothing_unless_it_is_to_be(self) -> None:
        with RawServer(answer(200, body=b'{"thread": "th-1"}')) as server:
            receipt = deliver(server.url + FLOW)

        posted = json.loads(server.requests[0].partition(b"\r\n\r\n")[2])
        assert set(posted) == {"type", "attachments"}
        assert receipt.thread is None

    def test_only_a_usable_thread_is_kept(self) -> None:
        rows: list[tuple[bytes, str | None]] = [
            (b"", None),
            (b"{}", None),
            (b'{"thread": 7}', None),
            (b'{"thread": ""}', None),
            (b'{"thread": "a b"}', None),
            (b'{"thread": "1700000000000"}', "1700000000000"),
        ]
        for body, thread in rows:
            with RawServer(answer(200, body=body)) as server:
                receipt = deliver(server.url + FLOW, send_conversation=True)

            assert receipt.thread == thread


class TestCheck:
    def test_warns_of_retired_hosts(self) -> None:
        rows: list[tuple[str, bool]] = [
            ("example.webhook.office.com", True),
            ("outlook.office.com", True),
            ("prod-1.westeurope.logic.azure.com", True),
            ("env.18.environment.api.powerplatform.com", False),
            ("notoffice.com", False),
            ("office.com.example.org", False),
        ]
        for host, warned in rows:
            teams = connector(f"https://{host}{FLOW}")

            sentence = teams.check()
            teams.close()

            assert ("warning" in sentence) is warned
            assert host in sentence
            assert "look in Teams" in sentence

    def test_warns_of_government_clouds_unless_the_flow_posts_as_a_user(self) -> None:
        said = []
        for posts_as in ("flow_bot", "user"):
            host = "env.18.environment.api.gov.powerplatform.microsoft.us"
            teams = connector(f"https://{host}{FLOW}", posts_as=posts_as)
            said.append("no Flow bot" in teams.check())
            teams.close()

        assert said == [True, False]

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
