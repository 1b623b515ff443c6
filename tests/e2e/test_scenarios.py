"""Every scenario of the sender, played to the real relay with the sandbox behind it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from processes import PATIENCE, SECRET, Relay, Sandbox

PREVIOUS = "the secret before it"


@pytest.mark.slow
def test_the_relay_passes_every_scenario(relay: Relay, sandbox: Sandbox, tmp_path: Path) -> None:
    config = relay.config.read_text()
    secrets = json.dumps([SECRET, PREVIOUS])
    relay.config.write_text(config.replace(f'["{SECRET}"]', secrets))
    relay.start()

    done = subprocess.run(
        [
            *(sys.executable, "-m", "sender", "scenario", "run", "--all", "--json"),
            *("--url", f"{relay.url}/webhooks/gofax"),
            *("--secret", SECRET, "--previous-secret", PREVIOUS),
            *("--relay-config", str(relay.config), "--records", f"{sandbox.url}/records"),
            *("--burst", "10", "--patience", str(2 * PATIENCE), "--timeout", "20"),
            *("--answer-within", "15"),
        ],
        env=os.environ | {"GOFAX_SENDER_STORE": str(tmp_path / "sender.db")},
        capture_output=True,
        text=True,
        timeout=6 * PATIENCE,
        check=False,
    )

    outcomes: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    failed = [each for each in outcomes if each["verdict"] == "failed"]
    skipped = [each["name"] for each in outcomes if each["verdict"] == "skipped"]
    assert done.returncode == 0, f"{failed} {done.stderr}"
    assert failed == []
    # TLS ends before the relay.
    assert skipped == ["certificate"]
    effects = [
        check
        for each in outcomes
        for check in each["checks"]
        if check["what"].startswith("effects, by ")
    ]
    assert len(effects) > 2 * 20  # each scenario that was played, by both witnesses


@pytest.mark.slow
def test_every_event_of_a_load_is_in_the_relay_and_behind_it(
    relay: Relay, sandbox: Sandbox, tmp_path: Path
) -> None:
    relay.start()

    done = subprocess.run(
        [
            *(sys.executable, "-m", "sender", "load", "--json", "--timeout", "30"),
            *("--url", f"{relay.url}/webhooks/gofax", "--secret", SECRET),
            *("--rate", "100/s", "--count", "100", "--patience", str(PATIENCE)),
            *("--relay-config", str(relay.config), "--records", f"{sandbox.url}/records"),
        ],
        env=os.environ | {"GOFAX_SENDER_STORE": str(tmp_path / "sender.db")},
        capture_output=True,
        text=True,
        timeout=6 * PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(done.stdout)
    assert measured["accepted"] == 100
    store, records = measured["verified"]
    assert (store["found"], records["found"]) == (100, 100)

    # What the relay exports means what it was given: all duplicates, no conflict.
    exported = relay.command("events", "--json", "--limit", "5").stdout
    replayed = subprocess.run(
        [
            *(sys.executable, "-m", "sender", "replay", "-", "--json", "--store", ":memory:"),
            *("--url", f"{relay.url}/webhooks/gofax", "--secret", SECRET, "--timeout", "30"),
        ],
        input=exported,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    answers = [json.loads(json.loads(line)["answer"]) for line in replayed.stdout.splitlines()]
    assert [each["status"] for each in answers] == ["duplicate"] * 5, replayed.stderr
