"""The fixture, as integrators get it: in their own project, by installing ours."""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from receivers import SECRETS, Endpoint, serving

from sender.harness import GofaxSender

FLASK_TEST = """
import hashlib, hmac
from flask import Flask, request
import pytest

@pytest.fixture
def gofax_signing_secret():
    return "theirs"

@pytest.fixture
def client():
    app, seen = Flask(__name__), set()

    @app.post("/hook")
    def hook():
        good = hmac.new(b"theirs", request.get_data(), hashlib.sha256).hexdigest()
        if request.headers.get("X-GoFax-Signature") != good:
            return "", 401
        known = request.json["messageId"] in seen
        seen.add(request.json["messageId"])
        return {"known": known, "text": request.json.get("messageBody")}

    return app.test_client()

def test_signed(client, gofax_sender):
    answer = client.post("/hook", **gofax_sender.request(body="Hi"))
    assert answer.json == {"known": False, "text": "Hi"}

def test_duplicate(client, gofax_sender):
    event = gofax_sender.event()
    answers = [client.post("/hook", **gofax_sender.request(event)).json for _ in range(2)]
    assert [each["known"] for each in answers] == [False, True]

@pytest.mark.parametrize("how", [{"signed": False}, {"secret": "another"}])
def test_forged(client, gofax_sender, how):
    assert client.post("/hook", **gofax_sender.request(**how)).status_code == 401
"""

LIGHT_TEST = """
import sys

def test_of_somebody_who_does_not_care():
    heavy = {"requests", "urllib3", "rich", "click", "jinja2", "aiohttp", "sqlite3"}
    assert not heavy & set(sys.modules)
    assert not [each for each in sys.modules if each.startswith(("relay", "connectors"))]
"""

#: Plugins that integrators need not have: they import what they like, which takes long.
OTHERS = ("anyio", "cov", "hypothesispytest", "randomly", "schemathesis", "xdist")


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    others = (f"-pno:{name}" for name in OTHERS)
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", *others, *arguments]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        # Coverage would import what it needs, and this is about who imports what.
        env={name: value for name, value in os.environ.items() if "COV" not in name},
    )


def test_it_is_there_without_any_import_and_takes_another_secret(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(FLASK_TEST)

    done = _pytest(tmp_path)

    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def test_it_costs_nothing_where_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(LIGHT_TEST)

    done = _pytest(tmp_path)

    assert done.returncode == 0, done.stdout


def test_it_can_be_switched_off(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text("def test_it(gofax_sender): pass\n")

    done = _pytest(tmp_path, "-p", "no:gofax-sender")

    assert "fixture 'gofax_sender' not found" in done.stdout


def test_it_signs_as_gofax_does(gofax_sender: GofaxSender, gofax_signing_secret: str) -> None:
    request = gofax_sender.request(body="né 👋", type="SMS_RECEIVED")

    good = hmac.new(gofax_signing_secret.encode(), request.body, hashlib.sha256).hexdigest()
    assert request.headers["X-GoFax-Signature"] == good
    assert request.headers["Content-Type"] == "application/json"
    assert request.json["messageBody"] == "né 👋"
    assert request.json["direction"] == "inbound"


def test_it_makes_legacy_forms(gofax_sender: GofaxSender) -> None:
    request = gofax_sender.status_request()

    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.body.startswith(b"Recipient=61400000000&ID=")


def test_an_event_and_fields_exclude_each_other(gofax_sender: GofaxSender) -> None:
    with pytest.raises(TypeError, match="not both: body"):
        gofax_sender.request(gofax_sender.event(), body="Hi")


class TestAgainstAServer:
    @pytest.fixture
    def gofax_signing_secret(self) -> str:
        return "the present secret"

    @pytest.fixture
    def gofax_previous_secret(self) -> str:
        return "the one before"

    def test_it_delivers(self, gofax_sender: GofaxSender) -> None:
        with serving(Endpoint()) as endpoint:
            good = gofax_sender.deliver(endpoint.url, body="Hi")
            forged = gofax_sender.deliver(endpoint.url, secret="another")

        assert (good.status, forged.status) == (200, 401)

    def test_a_right_receiver_passes_its_check(self, gofax_sender: GofaxSender) -> None:
        with serving(Endpoint()) as endpoint:
            gofax_sender.check(
                endpoint.url, "duplicate", "signature-bad", records=endpoint.records
            )

    def test_a_wrong_one_fails_with_the_reason(self, gofax_sender: GofaxSender) -> None:
        with (
            serving(Endpoint(knows_duplicates=False)) as endpoint,
            pytest.raises(AssertionError, match="3 in inbox(.|\n)*GoFax's Resend"),
        ):
            gofax_sender.check(endpoint.url, "duplicate", records=endpoint.records)

    def test_the_secrets_are_not_shown(self, gofax_sender: GofaxSender) -> None:
        assert "present" not in repr(gofax_sender)
        assert "before" not in repr(gofax_sender)


SCENARIO_TEST = """
import pytest
from sender import SCENARIO_NAMES

@pytest.fixture
def gofax_signing_secret():
    return {present!r}

@pytest.fixture
def gofax_previous_secret():
    return {previous!r}

@pytest.mark.parametrize("name", SCENARIO_NAMES)
def test_scenario(gofax_sender, name):
    gofax_sender.check({url!r}, name)
"""


def test_scenarios_are_one_test_each_with_both_secrets_and_short_tracebacks(
    tmp_path: Path,
) -> None:
    present, previous = SECRETS
    endpoint = Endpoint(max_age=timedelta(minutes=2))
    with serving(endpoint):
        text = SCENARIO_TEST.format(present=present, previous=previous, url=endpoint.url)
        (tmp_path / "test_theirs.py").write_text(text)
        # "late" is in "duplicate-days-later", too.
        chosen = "secret-rotated or late or certificate or resend-after-5xx"
        done = _pytest(tmp_path, "-k", chosen, "-rs", "-p", "no:randomly")

    assert "2 failed, 1 passed, 2 skipped" in done.stdout, done.stdout
    assert "the URL is http" in done.stdout
    assert "needs a receiver that fails on request" in done.stdout
    # The call in their test and what was seen, but no line of ours.
    assert "an event that is three days old" in done.stdout
    assert "harness.py" not in done.stdout.partition("short test summary")[0]
