"""``check --sample`` shows the very things that are then received, and sends none of them."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest
from gofax import EXAMPLE
from processes import COMMON, SECRET, Relay, Sandbox

from connectors.suites.mailbox import Mailbox
from connectors.testing import Gateway
from connectors.testing.previews import holds

CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: ["{secret}"]}}]
destinations:
  hubspot:
    {{connector: hubspot, access_token: test, base_url: "{url}/hubspot", {common},
      text: "{{{{ text }}}} ({{{{ metadata.campaign }}}})", ticket: {{}}, task: {{}}}}
  zendesk:
    {{connector: zendesk, subdomain: test, access_token: test, base_url: "{url}/zendesk", {common},
      tags: [sms], custom_fields: {{7: "{{{{ ours }}}}"}}}}
  teams: {{connector: teams, url: "{url}/teams", {common}}}
  email:
    {{connector: email, host: 127.0.0.1, port: {smtp}, security: none,
      from: sms@example.com, to: [desk@example.com], {common}}}
  webhook: {{connector: webhook, url: "{url}/webhook", {common}}}
  archive: {{connector: archive, url: archive}}
routes:
  - {{name: all, to: [hubspot, zendesk, teams, email, webhook, archive]}}
"""
MESSAGE = {
    **EXAMPLE,
    "messageBody": "Grüße 👍🏽 <b>{{7*7}}</b>",
    "metadata": {"campaign": "spring"},
}


@pytest.mark.slow
def test_what_a_sample_shows_is_what_is_received(
    relay: Relay, sandbox: Sandbox, stack: ExitStack, tmp_path: Path
) -> None:
    gateway = stack.enter_context(Gateway(sandbox.url))
    mailbox = stack.enter_context(Mailbox())
    config = CONFIG.format(
        port=relay.port, secret=SECRET, url=gateway.url, smtp=mailbox.port, common=COMMON
    )
    relay.config.write_text(config)
    file = tmp_path / "message.json"
    file.write_text(json.dumps(MESSAGE))

    of_file = relay.command("check", "--sample", str(file), "--json")

    assert of_file.returncode == 0, of_file.stderr
    assert not (gateway.connections or mailbox.taken)
    assert not (tmp_path / "relay.db").exists()
    assert not (tmp_path / "archive").exists()

    relay.start()
    assert relay.post(MESSAGE).status_code == 200
    [event] = relay.settled()
    assert {each["state"] for each in event["deliveries"]} == {"delivered"}, event
    calls = len(gateway.requests)

    of_event = relay.command("check", "--sample", event["id"], "--json")

    assert len(gateway.requests) == calls
    assert len(mailbox.taken) == 1
    shown = json.loads(of_event.stdout)["destinations"]
    kinds = {
        "hubspot": ["contact", "timeline entry", "ticket", "task"],
        "zendesk": ["end user", "ticket"],
        "teams": ["card"],
        "email": ["mail"],
        "webhook": ["body"],
        "archive": ["row"],
    }
    for found in (shown, json.loads(of_file.stdout)["destinations"]):
        made = {each["destination"]: [p["kind"] for p in each["previews"]] for each in found}
        assert made == kinds
    rows = [each.read_bytes() for each in (tmp_path / "archive").rglob("*.jsonl")]
    received = {"email": mailbox.taken, "archive": [row.rstrip(b"\n") for row in rows]}
    for system in ("hubspot", "zendesk", "teams", "webhook"):
        received[system] = [
            each.body for each in gateway.requests if each.target.startswith(f"/{system}")
        ]
    for each in shown:
        for preview in each["previews"]:
            bodies, content = received[each["destination"]], preview["content"]
            if isinstance(content, str):
                assert content.encode() in bodies, preview
            else:
                assert any(holds(body, content) for body in bodies), preview
    said = relay.command("check", "--sample", event["id"]).stdout
    assert "Grüße 👍🏽" in said
    assert "contact, if no contact has the customer's number:" in said
