"""``check --sample`` and ``send-test``: trying a config, with no effect and with a marked one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import NOON, Scripted, accept, arrival, request
from pydantic import TypeAdapter

from connectors import sandbox
from connectors.sandbox.records import Records
from relay.acts import trying
from relay.cli import cli
from relay.commands import sample
from relay.config import installed
from relay.config.load import load
from relay.rules.tests import SENDER, is_test
from relay.shapes import sample as samples
from relay.shapes.sample import Shown
from relay.shapes.trying import answer_json
from relay.store import Inbox

CONFIG = """\
store: sqlite:///relay.db
time_zone: Australia/Sydney
business_hours: {{days: {{mon-sun: "0:00-24:00"}}}}
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints:
  - {{path: /webhooks/gofax, allow_unsigned: true}}
  - {{path: /status, format: form, allow_unsigned: true}}
destinations:
  chat: {{connector: teams, url: "{url}/teams"}}
  flow: {{connector: webhook, url: "{url}/webhook", content_type: text/plain,
          body: "{{{{ metadata.campaign }}}} {{{{ text }}}}"}}
  gone: {{connector: webhook, url: "{url}/nowhere"}}
routes:
  - {{name: talk, when: {{hours: open, not: {{event: SMS_STATUS}}}}, to: [chat, flow]}}
  - {{name: tests, when: {{test: true}}, to: [gone]}}
"""
MESSAGE = {"messageId": "m1", "eventType": "SMS_REPLY", "direction": "reply",
           "from": "0412 345 678", "to": "+61700000000", "messageBody": "Is it on?",
           "metadata": {"campaign": "spring"}}  # fmt: skip

Run = Callable[..., Result]


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def run(path: Path, records: Records) -> Iterator[Run]:
    """Run a command with a config whose destinations are stand-ins."""
    with sandbox.serving(sandbox.create_app(records)) as url:
        (path.parent / "config.yaml").write_text(CONFIG.format(url=url))

        def run(*arguments: str) -> Result:
            given = [*arguments, "--config", str(path.parent / "config.yaml")]
            return CliRunner().invoke(cli, given)

        yield run


def save(path: Path, text: str) -> str:
    file = path.parent / "sample"
    file.write_text(text)
    return str(file)


def test_a_file_is_shown_as_it_would_be_sent(run: Run, path: Path, records: Records) -> None:
    said = run("check", "--sample", save(path, json.dumps(MESSAGE)))

    assert said.exit_code == 0, said.output
    lines = said.stdout.splitlines()
    assert lines[0] == "SMS_REPLY  +61412345678 → +61700000000"
    assert "at /webhooks/gofax, open" in lines[2]
    assert "route talk: yes → chat, flow" in lines
    assert lines[-2:] == ["  body:", "    spring Is it on?"]
    assert '"type": "AdaptiveCard"' in said.stdout
    assert "first message of a conversation" in said.stdout
    assert records.listing() == []


def test_a_template_that_lacks_a_key_is_a_fault(run: Run, path: Path) -> None:
    file = save(path, json.dumps(MESSAGE | {"metadata": {"campain": "spring"}}))

    said = run("check", "--sample", file)

    assert said.exit_code == 1
    assert "✗ to flow (webhook): refused: body: the template does not work for" in said.stdout
    assert "there is no campaign; try | default(…)" in said.stdout
    assert "✓ to chat (teams):" in said.stdout
    [_, flow] = json.loads(run("check", "--sample", file, "--json").stdout)["destinations"]
    assert flow["previews"] is None
    assert "campaign" in flow["refused"]


def test_a_form_goes_to_the_endpoint_that_takes_forms(run: Run, path: Path) -> None:
    said = run("check", "--sample", save(path, "Recipient=61412345678&ID=7&Success=True"))

    assert said.exit_code == 0
    assert "at /status" in said.stdout
    assert said.stdout.endswith("no route matches: nothing would be sent\n")


def test_what_is_stored_is_shown_by_its_ids(run: Run, path: Path, inbox: Inbox) -> None:
    accept(inbox, "m7", body="hello")
    body = json.dumps(MESSAGE).encode()
    refused = request(
        outcome="refused",
        status=401,
        body=body,
        whole=True,
        signed=True,
        endpoint="/webhooks/gofax",
    )
    inbox.refuse([refused])

    stored = json.loads(run("check", "--sample", "m7", "--json").stdout)
    let_in = json.loads(run("check", "--sample", refused.id, "--json").stdout)

    assert (stored["message_id"], let_in["message_id"]) == ("m7", "m1")
    assert [each["destination"] for each in let_in["destinations"]] == ["chat", "flow"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nobody",), 1, "nobody: no such file; "),
        (("req_1",), 1, 'no refused request "req_1"'),
        (("FILE", "--endpoint", "/other"), 1, 'no endpoint is named "/other" (have: /webhooks'),
        (("FILE", "--endpoint", "/webhooks/gofax"), 1, "could not read it: not JSON"),
        (("FILE", "--live"), 2, "--sample goes with neither"),
        (("LONG",), 1, "70,000 bytes, more than 65,536 bytes (server.max_body)"),
        (("b\udcffd",), 1, "no such file"),
    ],
)
def test_what_is_no_sample_is_one_line(
    run: Run, path: Path, inbox: Inbox, arguments: tuple[str, ...], code: int, words: str
) -> None:
    files = {"FILE": save(path, "a=b"), "LONG": str(path.parent / "long")}
    (path.parent / "long").write_text("x" * 70_000)

    said = run("check", "--sample", *(files.get(each, each) for each in arguments))

    assert said.exit_code == code
    assert words in " ".join(said.stderr.split())


def test_a_connector_without_a_preview_says_so(run: Run, path: Path) -> None:
    config = load(path.parent / "config.yaml", find_connector=installed.find)
    read = sample.read(config, save(path, json.dumps(MESSAGE)), endpoint=None)

    said = list(sample.lines(config, read, [Shown(destination="d", connector="own")]))

    assert said[-1].startswith("? to d (own): its connector has no preview")


def test_what_contradicts_an_event_is_said_to_be_no_more_than_kept(run: Run, inbox: Inbox) -> None:
    accept(inbox, "m7", body="hello")
    conflict = inbox.accept(arrival("m7", body="something else"))

    said = run("check", "--sample", conflict.event_id).stdout

    assert "stored as conflict: kept, and not delivered by itself" in said


def test_a_test_is_sent_to_one_destination(run: Run, records: Records) -> None:
    said = run("send-test", "chat", "--json")

    assert said.exit_code == 0, said.output
    outcome = json.loads(said.stdout)
    assert outcome["outcome"] == "delivered"
    [card] = records.listing()
    assert "This is a test of gofax-relay, sent by" in card["text"]
    assert outcome["message_id"] in str(card)


def test_a_test_that_fails_says_why_and_ends_with_1(run: Run) -> None:
    said = run("send-test", "gone")

    assert said.exit_code == 1
    assert said.stdout.startswith("✗ gone: unauthorized: answered 404")


def test_an_unknown_destination_names_those_that_exist(run: Run) -> None:
    said = run("send-test", "chatt")

    assert said.exit_code == 1
    assert 'no destination named "chatt" (have: chat, flow, gone)' in said.stderr


def test_what_is_sent_is_recognised_as_a_test() -> None:
    event = trying.sent(
        by="me", customer="+61491570006", ours="+61700000000", endpoint="x", now=NOON
    )

    assert event.test
    assert is_test(event, (SENDER,))


def test_pasted_bytes_are_a_sample_too(run: Run, path: Path) -> None:
    config = load(path.parent / "config.yaml", find_connector=installed.find)

    pasted = samples.of_bytes(config, json.dumps(MESSAGE).encode())
    found = samples.sample_json(config, pasted, samples.shown(config, pasted))

    assert TypeAdapter(samples.SampleJson).validate_python(found, strict=True) == found
    assert (found["endpoint"], found["message_id"]) == ("/webhooks/gofax", "m1")
    assert [each["destination"] for each in found["destinations"]] == ["chat", "flow"]


@pytest.mark.parametrize(
    ("raw", "endpoint", "fault"),
    [
        (b"[]", None, "the body: /webhooks/gofax could not read it"),
        (b"{", "/webhooks/gofax", "the body: /webhooks/gofax could not read it"),
        (b"{}", "nowhere", 'the body: no endpoint is named "nowhere"'),
        (b"x" * 70_000, None, "the body: 70,000 bytes, more than 65,536"),
    ],
)
def test_pasted_bytes_that_are_no_sample_are_named(
    run: Run, path: Path, raw: bytes, endpoint: str | None, fault: str
) -> None:
    config = load(path.parent / "config.yaml", find_connector=installed.find)

    with pytest.raises(samples.NoSample) as error:
        samples.of_bytes(config, raw, endpoint=endpoint)

    assert str(error.value).startswith(fault)


def test_one_destination_is_asked_whether_it_works(run: Run, path: Path) -> None:
    config = load(path.parent / "config.yaml", find_connector=installed.find)

    good, gone = (answer_json(trying.check(config, name)) for name in ("flow", "gone"))

    assert (good["destination"], good["good"]) == ("flow", True)
    assert good["said"] and gone["said"]
    with pytest.raises(trying.UnknownDestination, match="have: chat, flow, gone"):
        trying.check(config, "nowhere")


def test_a_connector_that_breaks_when_it_is_asked_says_so() -> None:
    def broken(connector: object) -> str:
        raise ZeroDivisionError("it was so")

    answer = trying.ask("chat", Scripted(), broken)

    assert (answer.is_good, answer.said) == (False, "it fails with ZeroDivisionError: it was so")
