"""A day with trouble: a destination refuses, another is added, and a person mends it."""

from __future__ import annotations

import json

import pytest
from gofax import EXAMPLE

ROUTED = "to: [helpdesk, front-desk]"


@pytest.mark.slow
def test_what_died_is_resent_and_what_was_not_routed_is_replayed(relay, sandbox):
    with_helpdesk = relay.config.read_text()
    relay.config.write_text(with_helpdesk.replace(ROUTED, "to: [front-desk]"))
    process = relay.start()
    sandbox.fault(system="teams", status=400, times=2)
    for number in range(4):
        relay.post({**EXAMPLE, "messageId": f"m{number}", "messageBody": f"text {number}"})
    relay.settled()
    dead = [json.loads(line) for line in relay.command("dead", "--json").stdout.splitlines()]
    assert [each["message_id"] for each in dead] == ["m0", "m1"]

    resent = relay.command("resend", "--destination", "front-desk", "--yes", "--why", "mended")
    assert (resent.returncode, resent.stdout) == (0, "resent 2 deliveries\n")
    relay.settled()
    cards = [each["text"] for each in sandbox.records("teams")]
    assert [sum(f"text {number}" in card for card in cards) for number in range(4)] == [1] * 4

    process.stop()
    relay.config.write_text(with_helpdesk)
    replayed = relay.command("replay", "--since", "1h", "--yes")
    assert (replayed.returncode, replayed.stdout.splitlines()[0]) == (0, "added 4 deliveries")
    relay.start("work")
    relay.settled()

    made = sandbox.records("zendesk")
    # One conversation is one ticket, its messages in order, also when they come late.
    assert [each["kind"] for each in made] == ["ticket", "comment", "comment", "comment"]
    for number, each in enumerate(made):
        assert f"text {number}" in each["text"]
    assert len(sandbox.records("teams")) == 4
    explained = relay.command("explain", "m0").stdout
    assert "(mended)" in explained
    assert "helpdesk missing: added, late" in explained
