"""Refused requests: why their signature did not match, and letting them in."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask.testing import FlaskClient
from pydantic import TypeAdapter

from relay.acts import admitting, bulk
from relay.acts.person import Person
from relay.app import create_app
from relay.cli import cli
from relay.config.load import load
from relay.refused import Refusals
from relay.rules.units import rate
from relay.shapes.diagnosis import DiagnosisJson
from relay.store import Database, Inbox, Queries
from relay.store.actions import Actions
from relay.store.refused import Refused
from relay.store.values import EventView

#: What is configured by mistake, and what GoFax signs with.
WRONG, RIGHT = "old secret", "new secret"


def sign(body: bytes, secret: str = RIGHT) -> str:
    return hmac.digest(secret.encode(), body, hashlib.sha256).hex()


def event(number: int, **more: object) -> bytes:
    return json.dumps(
        {
            "eventType": "SMS_REPLY",
            "messageId": f"m{number}",
            "direction": "reply",
            "from": f"+6140000{number:04}",
            "to": "+61700000000",
            "messageBody": f"text {number}",
        }
        | more
    ).encode()


@dataclass
class Relay:
    """A relay in this process, whose config a test changes as an operator would."""

    folder: Path
    database: Database

    def configure(self, endpoints: str, more: str = "") -> None:
        text = f"store: '{self.database.url}'\nendpoints:\n{endpoints}\n{more}"
        self.file.write_text(text)

    @property
    def file(self) -> Path:
        return self.folder / "config.yaml"

    def post(self, *bodies: bytes, path: str = "/hook", **headers: str) -> list[int]:
        """Post *bodies*, signed, to a receiver of the config of now; return its answers."""
        config = load(self.file, find_connector=lambda name: pytest.fail(name))
        inbox = Inbox(self.database)
        with closing(inbox), closing(Refusals(inbox.refuse)) as refusals:
            app = create_app(config, database=self.database, inbox=inbox, refusals=refusals)
            client: FlaskClient = app.test_client()
            return [
                client.post(path, data=body, headers=_named(headers, body)).status_code
                for body in bodies
            ]

    def run(self, *arguments: str) -> Result:
        named = [*arguments, "--config", str(self.file)]
        return CliRunner().invoke(cli, ["requests", *named])

    def events(self) -> list[EventView]:
        return list(Queries(self.database).events())

    def refused(self) -> list[str]:
        return [each.id for each in Queries(self.database).requests() if each.outcome == "refused"]


def _named(given: Mapping[str, str], body: bytes) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    headers |= {name.replace("_", "-"): value for name, value in given.items()}
    return headers if given else headers | {"X-GoFax-Signature": sign(body)}


@pytest.fixture
def relay(tmp_path: Path, database: Database) -> Iterator[Relay]:
    yield Relay(tmp_path, database)


def signed(secret: str = RIGHT, more: str = "") -> str:
    return f"  - {{path: /hook, name: gofax, signing_secrets: [{secret}]{more}}}"


def test_a_wrong_secret_is_mended_and_everything_comes_in_in_order(relay: Relay) -> None:
    relay.configure(signed(WRONG))
    answers = relay.post(*(event(number) for number in range(20)))
    assert answers == [401] * 20
    received = {each.id: each.at for each in Refused(relay.database).admissible()}

    relay.configure(signed(RIGHT))
    run = relay.run("admit", "--yes", "--who", "ann", "--why", "wrong secret")

    assert run.exit_code == 0, run.output
    assert "20 requests of 20 can come in" in run.output
    views = relay.events()
    assert [view.event.message_id for view in views] == [f"m{number}" for number in range(20)]
    assert [view.event.received_at for view in views] == list(received.values())
    assert all(view.standing == "accepted" for view in views)
    assert relay.refused() == []
    view = Queries(relay.database).event("m7")
    assert view is not None
    assert "let in later by ann" in view.requests[0].reason
    [action] = view.actions
    assert (action.who, action.what, action.why) == ("ann", "admit", "wrong secret")
    assert action.detail.startswith("accepted; was refused with 401: signature does not match")


def test_what_was_let_in_is_let_in_once(relay: Relay) -> None:
    relay.configure(signed(WRONG))
    relay.post(event(1), event(1), event(2))
    relay.configure(signed(RIGHT))
    relay.post(event(2))

    first, again = relay.run("admit", "--yes", "--json"), relay.run("admit", "--yes")

    lines = [json.loads(line) for line in first.output.splitlines()]
    assert [line["outcome"] for line in lines] == ["accepted", "duplicate", "duplicate"]
    assert "0 requests of 0 can come in" in again.output
    assert [(v.event.message_id, v.duplicates) for v in relay.events()] == [("m2", 1), ("m1", 1)]


def test_only_a_signature_over_the_stored_bytes_lets_in(relay: Relay) -> None:
    relay.configure(signed(WRONG))
    relay.post(event(1))
    relay.post(event(2), X_GoFax_Signature="0" * 64)
    relay.post(event(3), X_GoFax_Signature=sign(event(4)))
    relay.configure(signed(RIGHT))

    run = relay.run("admit", "--yes")

    assert "1 request of 3 can come in" in run.output
    assert "2 stay out: gofax: signature does not match the secret" in run.output
    assert [view.event.message_id for view in relay.events()] == ["m1"]
    assert len(relay.refused()) == 2


def test_a_dry_run_changes_nothing_and_without_a_yes_it_is_asked(relay: Relay) -> None:
    relay.configure(signed(WRONG))
    relay.post(event(1))
    relay.configure(signed(RIGHT))

    dry, unasked = relay.run("admit", "--dry-run"), relay.run("admit")

    assert (dry.exit_code, "would come in" in dry.output) == (0, True)
    assert (unasked.exit_code, "--yes" in unasked.output) == (2, True)
    assert relay.events() == []
    assert len(relay.refused()) == 1


@pytest.mark.parametrize(
    ("url", "headers", "status"),
    [
        ("/hook", {"X-Signature": "{sign}"}, 401),
        ("/hook", {"X-Signature": "{sign}", "Content-Type": "text/plain"}, 415),
        ("/hook/", {"X-GoFax-Signature": "{sign}"}, 404),
        ("/webhook", {"X-GoFax-Signature": "{sign}"}, 404),
    ],
)
def test_another_header_type_or_path_leaves_everything(
    relay: Relay, url: str, headers: dict[str, str], status: int
) -> None:
    relay.configure(signed())
    body = event(1)
    given = {name: value.format(sign=sign(body)) for name, value in headers.items()}
    assert relay.post(body, path=url, **given) == [status]
    relay.configure(
        signed(more=", signature: {header: X-Signature}") if status != 404 else signed()
    )

    run = relay.run("admit", "--yes")

    assert "1 request of 1 can come in" in run.output, run.output
    assert [view.event.message_id for view in relay.events()] == ["m1"]
    assert relay.events()[0].event.endpoint == "gofax"


def test_a_body_with_a_signature_field_is_kept(relay: Relay) -> None:
    relay.configure(signed())
    plain = event(1)
    body = json.dumps(json.loads(plain) | {"signature": sign(plain)}).encode()
    assert relay.post(body, Content_Type="application/json") == [401]

    [request] = relay.refused()
    run = relay.run("diagnose", request)
    assert "signature: {field: signature, signs: body-without-field}" in run.output
    relay.configure(signed(more=", signature: {field: signature, signs: body-without-field}"))

    assert relay.run("admit", "--yes").exit_code == 0
    assert [view.event.message_id for view in relay.events()] == ["m1"]
    assert relay.post(body.replace(b"m1", b"m2"), Content_Type="application/json") == [401]


def test_without_a_signature_only_a_persons_word_lets_in(relay: Relay) -> None:
    relay.configure("  - {path: /hook, allow_unsigned: true}")
    relay.post(b"not json", Content_Type="application/json")
    relay.post(event(1), X_GoFax_Signature=sign(event(1)), Content_Encoding="gzip")
    _, request = relay.refused()

    unproven = relay.run("admit", "--yes")
    silent = relay.run("admit", "--unverified", request, "--yes")
    told = relay.run("admit", "--unverified", request, "--why", "GoFax told us", "--yes")

    assert "stays out: /hook: this endpoint asks for no signature" in unproven.output
    assert (silent.exit_code, "--why" in silent.output) == (2, True)
    assert told.exit_code == 0, told.output
    [view] = relay.events()
    assert view.event.message_id == "m1"
    whole = Queries(relay.database).event("m1")
    assert whole is not None
    assert whole.actions[0].why == "GoFax told us"
    assert "unverified, on the word of" in whole.requests[0].reason


@pytest.mark.parametrize("kind", ["too long", "method", "cut"])
def test_what_is_not_whole_never_comes_in(relay: Relay, kind: str) -> None:
    relay.configure(signed(), "server: {max_body: 1KiB}")
    body = event(1, padding="x" * 2000) if kind == "too long" else event(1)
    config = load(relay.file, find_connector=lambda name: pytest.fail(name))
    inbox = Inbox(relay.database)
    with closing(inbox), closing(Refusals(inbox.refuse)) as refusals:
        app = create_app(config, database=relay.database, inbox=inbox, refusals=refusals)
        announced = {"CONTENT_LENGTH": str(len(body) + 5)} if kind == "cut" else {}
        answer = app.test_client().open(
            "/hook",
            method="PUT" if kind == "method" else "POST",
            data=body,
            headers={"X-GoFax-Signature": sign(body)},
            environ_overrides=announced,
        )
    assert answer.status_code in (405, 408, 413)
    [request] = relay.refused()

    run = relay.run("admit", "--unverified", request, "--why", "me", "--yes")

    assert "its body is not here whole" in run.output
    assert run.exit_code == 1
    assert relay.events() == []


def test_the_age_of_a_signed_time_counts_when_it_comes_and_not_later(relay: Relay) -> None:
    timed = ", signature: {signs: timestamp.body, timestamp_header: X-Time, tolerance: 5m}"
    relay.configure(signed(more=timed))
    body, then = event(1), "1600000000"
    signature = sign(then.encode() + b"." + body)
    assert relay.post(body, X_GoFax_Signature=signature, X_Time=then) == [401]
    [late] = [each for each in Queries(relay.database).requests()]
    assert "and tolerance is 300 s" in late.reason

    assert relay.run("admit", "--yes").exit_code == 0
    assert len(relay.events()) == 1


def test_a_wrong_path_is_listed_with_the_endpoint_that_was_meant(relay: Relay) -> None:
    relay.configure(signed())
    relay.post(event(1), path="/hook/")
    relay.post(event(1), path="/xmlrpc.php")

    reasons = [request.reason for request in Queries(relay.database).requests()]

    assert reasons == [
        "no endpoint has the path /hook/; /hook was probably meant",
        "no endpoint has the path /xmlrpc.php, only /hook",
    ]
    listed: Any = relay.run()
    assert "/hook was probably meant" in listed.output


def test_many_are_let_in_by_one_act_that_is_kept_with_its_origin(relay: Relay) -> None:
    relay.configure(signed(WRONG))
    relay.post(*(event(number) for number in range(5)))
    relay.post(event(9), X_GoFax_Signature="0" * 64)
    relay.configure(signed(RIGHT))
    config = load(relay.file, find_connector=lambda name: pytest.fail(name))
    ann = Person(who="ann", why="wrong secret", origin="192.0.2.7")

    found = admitting.examined(config, Refused(relay.database), ann)
    look = bulk.admit(config, relay.database, found, ann, dry_run=True)
    assert look.run() and not relay.events()
    act = bulk.admit(config, relay.database, found, ann, rate=rate("1000/1s"))

    assert act.run()
    assert (act.progress.total, act.progress.seen, act.progress.done) == (6, 6, 5)
    assert look.progress.done == 5
    assert len(relay.events()) == 5 and len(relay.refused()) == 1
    entry = Actions(relay.database).newest(limit=1)[0].action
    assert (entry.who, entry.what, entry.origin) == ("ann", "admit", "192.0.2.7")


class TestDiagnose:
    def test_tells_programs_the_same(self, relay: Relay) -> None:
        relay.configure(f"{signed(WRONG)}\n  - {{path: /other, signing_secrets: [{RIGHT}]}}")
        relay.post(event(1), X_Hub_Signature_256=f"sha256={sign(event(1))}")
        [request] = relay.refused()

        told = relay.run("diagnose", request).output.splitlines()
        found = json.loads(relay.run("diagnose", request, "--json").output)

        assert TypeAdapter(DiagnosisJson).validate_python(found, strict=True) == found
        assert found["says"] == told
        [best] = found["matches"]
        assert best["recommended"]
        assert best["yaml"] == "signature: {header: X-Hub-Signature-256}"
        assert RIGHT not in json.dumps(found)

    def test_names_secret_and_header(self, relay: Relay) -> None:
        relay.configure(f"{signed(WRONG)}\n  - {{path: /other, signing_secrets: [{RIGHT}]}}")
        relay.post(event(1), X_Hub_Signature_256=f"sha256={sign(event(1))}")
        [request] = relay.refused()

        run = relay.run("diagnose", request[:20])

        assert run.exit_code == 0, run.output
        assert "header X-Hub-Signature-256 is of the body, made with secret 1 of /other" in (
            " ".join(run.output.split())
        )
        assert "    signature: {header: X-Hub-Signature-256}" in run.output
        assert RIGHT not in run.output

    def test_tries_a_further_secret(
        self, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        relay.configure(signed(WRONG))
        relay.post(event(1))
        [request] = relay.refused()
        (tmp_path / "secret").write_text(RIGHT + "\n")
        monkeypatch.setenv("GOFAX_NEW_SECRET", RIGHT)

        by_file = relay.run("diagnose", request, "--secret-from", f"file:{tmp_path}/secret")
        by_name = relay.run("diagnose", request, "--secret-from", "GOFAX_NEW_SECRET")
        unset = relay.run("diagnose", request, "--secret-from", "GOFAX_NO_SECRET")
        none = relay.run("diagnose", request)

        assert "made with file:" in by_file.output
        assert "made with GOFAX_NEW_SECRET" in by_name.output
        assert (unset.exit_code, "GOFAX_NO_SECRET is not set" in unset.output) == (2, True)
        assert "No secret explains the signature in" in none.output

    def test_never_recommends_what_leaves_the_message_open(self, relay: Relay) -> None:
        relay.configure(signed())
        relay.post(event(1), X_GoFax_Signature=sign(b"m1"))
        [request] = relay.refused()

        run = relay.run("diagnose", request)

        assert "only the field messageId" in " ".join(run.output.split())
        assert "What the message says is not signed" in run.output
        assert "signature: {" not in run.output

    def test_names_what_it_does_not_find(self, relay: Relay) -> None:
        relay.configure(signed())

        run = relay.run("diagnose", "req_nobody")

        assert (run.exit_code, 'no refused request "req_nobody"' in run.output) == (1, True)
