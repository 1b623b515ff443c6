"""HubSpot: each call fails in its own way, ends in time, and tells no secrets."""

from __future__ import annotations

import logging
import subprocess
import sys
import time

import pytest
from hubspot_portal import (
    COMMUNICATIONS,
    CONTACTS,
    NUMBER,
    OURS,
    TASKS,
    TICKETS,
    TOKEN,
    UPSERT,
    Open,
    Portal,
    deliver,
)

from connectors import (
    Ambiguous,
    DeliveryError,
    Event,
    Http,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.hubspot.connector import HubSpot
from connectors.hubspot.options import HubSpotOptions
from connectors.testing import sample_event

SEARCH = f"POST {CONTACTS}/search"
#: Every call of a new customer's delivery with ticket and task: what a 500 to it means, and
#: whether the SMS is in HubSpot by then.
CALLS: list[tuple[str, type[DeliveryError], bool]] = [
    (f"GET {CONTACTS}/{NUMBER}", Transient, False),
    (SEARCH, Transient, False),
    (f"POST {UPSERT}", Transient, False),
    (f"POST {COMMUNICATIONS}", Ambiguous, False),
    (f"POST {CONTACTS}/batch/update", Transient, True),
    (f"GET {TICKETS}/{NUMBER}~{OURS}", Transient, True),
    (f"POST {TICKETS}", Transient, True),
    ("POST /crm/associations/2026-09/contacts/tasks/batch/read", Transient, True),
    (f"POST {TASKS}", Ambiguous, True),
]
#: Those that read something, and so cannot go on without the answer.
READS = [call for call, _, _ in CALLS if call.startswith("GET") or "read" in call] + [SEARCH]
WRITES = [call for call, _, _ in CALLS if call not in READS]
STATUSES = {400: Refused, 401: Unauthorized, 403: Unauthorized, 429: Throttled, 302: Unauthorized}
GARBAGE = ["", "null", "[]", "{}", "<html>", '{"id": null}', '{"results": 7}', "[" * 100_000]


#: In a process of its own: use the connector, and print what it imports of the SDK meanwhile.
USE = """
import sys
from connectors import Http
from connectors.hubspot import HubSpot
from connectors.hubspot.options import HubSpotOptions

before = set(sys.modules)
options = HubSpotOptions(access_token=sys.argv[1], base_url=sys.argv[2])
HubSpot(options, http=Http(allow=["127.0.0.0/8"])).check()
print(*[name for name in sys.modules.keys() - before if name.startswith("hubspot")])
"""


def everything(portal: Portal) -> HubSpot:
    return portal.connector(ticket={}, task={}, opt_out_property="sms_opted_out")


def event_for(call: str) -> Event:
    """Return an event whose delivery makes *call*; START marks the contact and opens nothing."""
    return sample_event(keyword="START" if "batch/update" in call else None)


class TestErrors:
    @pytest.mark.parametrize(("call", "lost", "acted"), CALLS)
    def test_each_call_says_what_its_error_means(
        self, portal: Portal, call: str, lost: type[DeliveryError], acted: bool
    ) -> None:
        statuses: dict[int, type[DeliveryError]] = {500: lost, **STATUSES}
        if call == SEARCH:
            del statuses[400]  # one of its properties is left out
        for status, wanted in statuses.items():
            portal.fail(status, only=call)

            with pytest.raises(DeliveryError, match=str(status)) as caught:
                deliver(everything(portal), event_for(call), key=f"key-{status}")

            assert type(caught.value) is wanted, status
            assert caught.value.acted is acted, status
            for contact in portal.stand_in.page():
                portal.ask("DELETE", f"{CONTACTS}/{contact.contact}")
            for ticket in portal.rows("tickets"):
                portal.ask("DELETE", f"{TICKETS}/{ticket['id']}")

    def test_a_refused_request_is_not_repeated_by_itself(self, portal: Portal) -> None:
        portal.fail(429, path="/contacts/", headers={"Retry-After": "0"}, times=5)

        with pytest.raises(Throttled):
            deliver(portal.connector())

        assert len(portal.calls) == 1

    def test_a_redirect_is_not_followed(self, portal: Portal) -> None:
        elsewhere = portal.url.replace("/hubspot", "/elsewhere")
        portal.fail(307, path="communications", headers={"Location": elsewhere})

        with pytest.raises(Unauthorized, match="redirect"):
            deliver(portal.connector())

        assert portal.calls[-1] == f"POST {COMMUNICATIONS}"

    def test_missing_scopes_are_named(self, portal: Portal) -> None:
        token = "scopes:crm.objects.contacts.read"
        with pytest.raises(Unauthorized, match=r"missing scopes: crm\.objects\.contacts\.write"):
            deliver(portal.connector(access_token=token))

        with pytest.raises(Unauthorized, match=r"missing scopes: crm\.objects\.contacts\.read"):
            deliver(portal.connector(access_token="unscoped"))

    def test_an_address_that_is_not_allowed_is_not_reached(self, portal: Portal) -> None:
        options = HubSpotOptions.model_validate({"access_token": TOKEN, "base_url": portal.url})
        connector = HubSpot(options, http=Http())
        portal.connectors.append(connector)

        with pytest.raises(Unauthorized, match=r"outbound\.allow"):
            deliver(connector)

        assert portal.calls == []

    def test_nobody_listening_is_transient(self, portal: Portal) -> None:
        with pytest.raises(Transient, match="not reached"):
            deliver(portal.connector(base_url="http://127.0.0.1:9"))


class TestGarbage:
    @pytest.mark.parametrize("call", READS)
    def test_a_look_up_without_a_usable_answer_is_transient(
        self, portal: Portal, call: str
    ) -> None:
        for number, garbage in enumerate(GARBAGE):
            portal.fail(200, only=call, body=garbage)

            with pytest.raises(Transient):
                deliver(everything(portal), key=f"key-{number}")

    @pytest.mark.parametrize("call", WRITES)
    def test_a_write_that_was_taken_is_done_whatever_its_answer_says(
        self, portal: Portal, call: str
    ) -> None:
        headers = {"Content-Type": "application/json; charset=no-such-charset"}
        portal.fail(200, only=call, body="<html>", act=True, headers=headers)

        receipt = deliver(everything(portal), event_for(call))

        answered = 0 if event_for(call).keyword else 1
        kinds = ("communication", "ticket", "task")
        assert [len(portal.made(kind)) for kind in kinds] == [1, answered, answered]
        assert receipt.thread == portal.timeline().contact


class TestDeadline:
    @pytest.mark.parametrize(
        ("path", "expected"), [("/search", Transient), ("communications", Ambiguous)]
    )
    def test_a_slow_answer_ends_with_the_deadline(
        self, portal: Portal, path: str, expected: type[DeliveryError]
    ) -> None:
        portal.fail(None, path=path, wait=6.0)
        started = time.monotonic()

        with pytest.raises(expected):
            deliver(portal.connector(), deadline=1.0)

        assert time.monotonic() - started < 4

    def test_many_slow_answers_share_one_deadline(self, portal: Portal) -> None:
        portal.fail(None, wait=0.25, times=9)
        started = time.monotonic()

        with pytest.raises((Transient, Ambiguous)):
            deliver(portal.connector(), deadline=0.6)

        assert time.monotonic() - started < 2


class TestSecrets:
    def test_the_token_is_in_no_repr_error_or_log(
        self, portal: Portal, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        connector = portal.connector()
        deliver(connector, sample_event(body="my pin is 9421"))
        portal.fail(500, body={"message": f"no such token: {TOKEN}"})
        with pytest.raises(Transient) as caught:
            deliver(connector, key="key-2")

        seen = [repr(connector.options), repr(connector), repr(caught.value), caplog.text]
        assert "no such token: (token)" in str(caught.value)
        assert all(TOKEN not in each for each in seen)
        assert caught.value.__cause__ is None

    def test_a_token_that_is_a_part_of_words_spoils_no_answer(self, portal: Portal) -> None:
        deliver(portal.connector(access_token="t"))
        portal.fail(400, path="communications", body={"message": "not this"})

        with pytest.raises(Refused, match="not this"):
            deliver(portal.connector(access_token="t"), key="key-2")

    def test_bodies_and_numbers_are_in_no_log(
        self, portal: Portal, caplog: pytest.LogCaptureFixture
    ) -> None:
        connector = portal.connector()
        caplog.set_level(logging.DEBUG)

        deliver(connector, sample_event(body="my pin is 9421"))

        ours = [each for each in caplog.records if not each.name.startswith("werkzeug")]
        said = " ".join(each.getMessage() for each in ours)
        assert "9421" not in said
        assert NUMBER not in said

    @pytest.mark.parametrize("kind", ["tickets", "tasks", "communications"])
    def test_what_people_wrote_is_left_out_of_errors(self, portal: Portal, kind: str) -> None:
        bodies = {"my pin is 9421": "my pin is 9421", "<b> & 9421": "&lt;b&gt; &amp; 9421"}
        connector = portal.connector(ticket={}, task={})
        for number, (body, written) in enumerate(bodies.items()):
            for quoted in ("{}", "SMS reply ... {} ..."):
                said = f'not valid: "{quoted.format(written)}"'
                call = f"POST /crm/objects/2026-09/{kind}"
                portal.fail(400, only=call, body={"message": said})
                ours = f"+617{number:08}"

                with pytest.raises(Refused, match=r"not valid: .*\(text\)") as caught:
                    deliver(connector, sample_event(body=body, ours=ours, conversation=ours))

                assert "9421" not in str(caught.value)

    @pytest.mark.parametrize("body", [None, "", "ok", "v"])
    def test_what_says_nothing_leaves_errors_whole(self, portal: Portal, body: str | None) -> None:
        portal.fail(400, path="communications", body={"message": "is not valid, ok"})

        with pytest.raises(Refused, match="is not valid, ok"):
            deliver(portal.connector(), sample_event(body=body))

    def test_two_destinations_share_nothing(self, portal: Portal, open_portal: Open) -> None:
        other = open_portal()
        deliver(portal.connector())

        deliver(other.connector(access_token="other"), key="key-2")

        assert len(portal.records.listing()) == len(other.records.listing()) == 1


def test_what_calls_need_of_the_sdk_is_imported_with_the_connector(portal: Portal) -> None:
    command = [sys.executable, "-c", USE, TOKEN, portal.url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)

    assert (run.stdout, run.stderr) == ("\n", "")
