"""The sandbox: its Teams channel, its page, its records and its faults."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from flask.testing import FlaskClient
from teams_channel import message, post, records

from connectors.sandbox import create_app
from connectors.sandbox.app import serving
from connectors.teams import cards
from connectors.teams.cards import CardOptions
from connectors.testing import sample_event


@pytest.fixture
def client() -> FlaskClient:
    return create_app().test_client()


class TestTheTeamsChannel:
    def test_queues_a_card_and_says_no_more(self, client: FlaskClient) -> None:
        for count, path in enumerate(["/teams", "/teams/", "/teams/workflows/1/invoke?sig=x"], 1):
            answered = post(client, message(), path)

            assert (answered.status_code, answered.data) == (202, b"")
            assert len(records(client)) == count

    def test_records_what_the_card_says(self, client: FlaskClient) -> None:
        post(client, message(body="two\nlines"))

        (record,) = records(client)
        assert (record["system"], record["kind"]) == ("teams", "card")
        assert record["conversation"] == "+61400000000"
        assert record["text"] == (
            "SMS reply from +61400000000\ntwo\nlines\n"
            "From: +61400000000\nTo: +61700000000\nTime: 2025-12-04 00:24:07 UTC\n"
            "Message abc123"
        )

    def test_finds_the_customer_of_an_outbound_event_too(self, client: FlaskClient) -> None:
        post(
            client,
            message(
                type="SMS_SENT",
                customer="+61400000009",
                sender="+61700000000",
                recipient="+61400000009",
            ),
        )

        assert records(client)[0]["conversation"] == "+61400000009"

    def test_reads_escaped_facts_as_people_do(self, client: FlaskClient) -> None:
        post(client, message(sender="(04) 0000-0000", customer="(04) 0000-0000"))

        assert records(client)[0]["conversation"] == "(04) 0000-0000"

    def test_has_no_conversation_for_a_card_without_parties(self, client: FlaskClient) -> None:
        body = [{"type": "TextBlock", "text": "hello"}, {"type": "Image", "url": "x"}]
        bare = {"type": "AdaptiveCard", "version": "1.4", "body": body}

        post(client, json.dumps(bare).encode(), "/teams/bare")

        (record,) = records(client)
        assert (record["conversation"], record["text"]) == ("", "hello\n(Image)")

    def test_refuses_another_shape(self, client: FlaskClient) -> None:
        rows: list[bytes] = [
            b"",
            b"no json",
            b"[]",
            b"{}",
            b'{"type": "message", "attachments": []}',
            b'{"type": "message", "attachments": [{"contentType": "text/plain"}]}',
            b'{"text": "a MessageCard"}',
            message().replace(b"AdaptiveCard", b"MessageCard"),
            message().replace(b'"text":', b'"words":'),
            cards.encode(cards.message(sample_event(), options=CardOptions(), shape="card")),
        ]
        for posted in rows:
            assert post(client, posted).status_code == 400
            assert records(client) == []

    def test_wants_the_bare_card_on_a_bare_path(self, client: FlaskClient) -> None:
        bare = cards.encode(cards.message(sample_event(), options=CardOptions(), shape="card"))

        assert post(client, bare, "/teams/bare").status_code == 202
        assert post(client, message(), "/teams/bare").status_code == 400

    def test_refuses_an_authorization_header(self, client: FlaskClient) -> None:
        answered = post(client, message(), Authorization="Bearer anything")

        assert answered.status_code == 401
        assert records(client) == []

    def test_takes_posts_only(self, client: FlaskClient) -> None:
        assert client.get("/teams").status_code == 405


class TestThePage:
    def test_says_what_to_do_when_it_is_empty(self, client: FlaskClient) -> None:
        page = client.get("/").get_data(as_text=True)

        assert page.count('<section class="system"') == 4
        assert all(f"http://localhost/{name}" in page for name in ("hubspot", "zendesk", "teams"))

    def test_shows_the_card_as_a_person_would_see_it(self, client: FlaskClient) -> None:
        url = "https://relay.example/console/events/e1"
        post(client, message(body="line one\nline two", url=url))

        page = client.get("/").get_data(as_text=True)

        assert "<h3>SMS reply from +61400000000</h3>" in page
        assert "line one\nline two" in page
        assert "<dt>From</dt><dd>+61400000000</dd>" in page
        assert f'href="{url}"' in page

    def test_shows_the_newest_card_first(self, client: FlaskClient) -> None:
        post(client, message(body="the older"))
        post(client, message(body="the newer"))

        page = client.get("/").get_data(as_text=True)

        assert page.index("the newer") < page.index("the older")

    def test_escapes_what_strangers_wrote(self, client: FlaskClient) -> None:
        post(client, message(body="<script>alert(1)</script><img src=x>", sender="<i>x</i>"))

        page = client.get("/").get_data(as_text=True)

        assert "<script" not in page
        assert "<img" not in page
        assert "<i>" not in page

    def test_makes_no_button_of_a_script_address(self, client: FlaskClient) -> None:
        post(client, message(url="javascript:alert(1)"))

        assert "javascript:" not in client.get("/").get_data(as_text=True)

    def test_renews_itself_and_runs_no_script(self, client: FlaskClient) -> None:
        answered = client.get("/")
        policy = answered.headers["Content-Security-Policy"]

        assert '<meta http-equiv="refresh" content="2">' in answered.get_data(as_text=True)
        assert policy.startswith("default-src 'none'")
        assert "script-src" not in policy
        assert "unsafe" not in policy

    def test_finds_all_its_files(self, client: FlaskClient) -> None:
        page = client.get("/").get_data(as_text=True)
        links = re.findall(r'<link[^>]*href="(/[^"]+)"', page)

        assert links
        for link in links:
            with client.get(link) as found:
                assert found.status_code == 200


class TestRecords:
    def test_are_an_empty_list_at_first(self, client: FlaskClient) -> None:
        assert records(client) == []

    def test_have_a_number_and_a_time(self, client: FlaskClient) -> None:
        post(client, message())
        post(client, message())

        first, second = records(client)
        assert (first["number"], second["number"]) == (1, 2)
        assert first["reference"] != second["reference"]
        assert first["received_at"] <= second["received_at"]


class TestFaults:
    def inject(self, client: FlaskClient, **fault: Any) -> None:
        assert client.post("/faults", json={"system": "teams", **fault}).status_code == 204

    def test_answer_instead_of_the_stand_in(self, client: FlaskClient) -> None:
        self.inject(client, status=503, headers={"Retry-After": "9"}, body="busy")

        answered = post(client, message())

        assert (answered.status_code, answered.data) == (503, b"busy")
        assert answered.headers["Retry-After"] == "9"
        assert records(client) == []

    def test_happen_as_often_as_asked(self, client: FlaskClient) -> None:
        self.inject(client, status=500, times=2)

        waiting = [len(client.get("/faults").get_json())]
        statuses = []
        for _ in range(3):
            statuses.append(post(client, message()).status_code)
            waiting.append(len(client.get("/faults").get_json()))

        assert statuses == [500, 500, 202]
        assert waiting == [2, 1, 0, 0]

    def test_may_come_after_acting(self, client: FlaskClient) -> None:
        self.inject(client, status=502, act=True)

        assert post(client, message()).status_code == 502
        assert len(records(client)) == 1

    def test_may_only_delay(self, client: FlaskClient) -> None:
        self.inject(client, wait=0.2)

        began = time.monotonic()
        status = post(client, message()).status_code

        assert status == 202
        assert time.monotonic() - began >= 0.2

    def test_wait_for_their_path(self, client: FlaskClient) -> None:
        self.inject(client, status=500, path="/second")

        assert post(client, message(), "/teams/first").status_code == 202
        assert post(client, message(), "/teams/second").status_code == 500

    def test_wait_for_their_method(self, client: FlaskClient) -> None:
        headers = {"Authorization": "Bearer test"}
        fault = {"system": "hubspot", "status": 502, "method": "post"}
        assert client.post("/faults", json=fault).status_code == 204

        read = client.get("/hubspot/account-info/2026-09/details", headers=headers)
        written = client.post("/hubspot/crm/objects/2026-09/contacts", json={}, headers=headers)

        assert (read.status_code, written.status_code) == (200, 502)

    def test_may_be_taken_back(self, client: FlaskClient) -> None:
        self.inject(client, status=500, times=10_000)

        assert client.delete("/faults").status_code == 204

        assert post(client, message()).status_code == 202

    def test_may_be_brought_along_by_a_request(self, client: FlaskClient) -> None:
        fault = json.dumps({"status": 504, "act": True, "headers": {"X-Said": "so"}})

        met = client.post("/teams", data=message(), headers={"X-Sandbox-Fault": fault})
        spared = post(client, message())

        assert (met.status_code, met.headers["X-Said"]) == (504, "so")
        assert spared.status_code == 202
        assert len(records(client)) == 2

    def test_brought_along_must_make_sense(self, client: FlaskClient) -> None:
        for fault in ("500", "{", '{"status": 99}', '{"times": 2}'):
            headers = {"X-Sandbox-Fault": fault}
            assert client.post("/teams", data=message(), headers=headers).status_code == 400
        assert records(client) == []

        headers = {"X-Sandbox-Fault": ""}
        assert client.post("/teams", data=message(), headers=headers).status_code == 202

    def test_concern_one_system(self, client: FlaskClient) -> None:
        assert client.post("/faults", json={"system": "zendesk", "status": 500}).status_code == 204

        assert post(client, message()).status_code == 202

    def test_that_make_no_sense_are_refused(self, client: FlaskClient) -> None:
        rows: list[Any] = [
            {},
            [],
            {"status": 500},
            {"system": "fax", "status": 500},
            {"system": "teams", "stat": 500},
            {"system": "teams", "status": "bad"},
            {"system": "teams", "status": 500, "times": 0},
            {"system": "teams", "wait": 3600},
            {"system": "teams", "method": "GET /"},
        ]
        for fault in rows:
            answered = client.post("/faults", json=fault)

            assert answered.status_code == 400
            assert answered.get_json()["error"]


class TestHalfARequest:
    def test_holds_up_nobody_else(self) -> None:
        path = "/hubspot/crm/objects/2026-09/contacts/search"
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test\r\n"
        with serving() as url:
            with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0)) as half:
                half.sendall(
                    f"{head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{{".encode()
                )
                time.sleep(0.1)

                answer = requests.post(
                    url + path, json={}, headers={"Authorization": "Bearer test"}, timeout=3
                )

            assert answer.ok
