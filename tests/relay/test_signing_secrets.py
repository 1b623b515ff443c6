"""Signing secrets that end: until when they count, who is told, and how people tell them apart."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from config_files import Faults, Read
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from relay.app import create_app
from relay.cli import cli
from relay.config import installed, json_schema
from relay.config.effective import effective
from relay.config.load import load
from relay.intake import Intake, NotGenuine, examine
from relay.refused import Refusals
from relay.rules import probe
from relay.rules.probe import Probe
from relay.rules.signature import SigningKey, fingerprint
from relay.store import Database, Inbox, Queries
from relay.store.values import Request
from relay.telling.watch import OldSecrets

BODY = json.dumps({"messageId": "m1", "eventType": "SMS_REPLY"}).encode()
TEXT = "endpoints: [{{path: /x, signing_secrets: {}}}]"
NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)


def sign(secret: str, body: bytes = BODY) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class TestTime:
    KEY = SigningKey(key=b"x", not_after=date(2027, 1, 31))

    @pytest.mark.parametrize(
        ("now", "holds"),
        [
            (datetime(2027, 1, 31, 23, 59, 59, 999_999, tzinfo=UTC), True),
            (datetime(2027, 2, 1, tzinfo=UTC), False),
            # Late on that day in Sydney is still morning in UTC, and early on the next one counts.
            (datetime.fromisoformat("2027-02-01T10:59:00+11:00"), True),
            (datetime.fromisoformat("2027-02-01T11:00:00+11:00"), False),
        ],
    )
    def test_the_last_day_counts_whole(self, now: datetime, holds: bool) -> None:
        assert self.KEY.holds(now) is holds

    def test_the_last_week_is_soon(self) -> None:
        end = self.KEY.ends_at
        assert end is not None
        assert self.KEY.ends_soon(end - timedelta(days=7))
        assert not self.KEY.ends_soon(end - timedelta(days=7, seconds=1))

    @pytest.mark.parametrize("not_after", [None, date.max])
    def test_others_hold_for_good(self, not_after: date | None) -> None:
        key = SigningKey(key=b"x", not_after=not_after)

        assert key.holds(datetime(9999, 12, 31, tzinfo=UTC))
        assert not key.ends_soon(NOON)


class TestConfig:
    def test_plain_and_dated_ones_stand_in_one_list(self, read: Read) -> None:
        written = "[one, {secret: '${TWO}', not_after: 2027-01-31}, {secret: three}]"

        [endpoint] = read(TEXT.format(written), TWO="two").endpoints

        assert endpoint.signing_keys == (
            SigningKey(key=b"one"),
            SigningKey(key=b"two", not_after=date(2027, 1, 31)),
            SigningKey(key=b"three"),
        )

    def test_the_date_may_be_a_variable(self, read: Read) -> None:
        written = "[{secret: one, not_after: '${END}'}]"

        [endpoint] = read(TEXT.format(written), END="2027-01-31").endpoints

        assert endpoint.signing_keys[0].not_after == date(2027, 1, 31)

    @pytest.mark.parametrize(
        ("written", "fault"),
        [
            ("[{secret: x, not_after: soon}]", "[0].not_after: write a date such as 2026-12-25"),
            ("[{secret: x, not_after: 2027-01-31 10:00:00}]", "[0].not_after: write a date"),
            ("[{not_after: 2027-01-31}]", "[0].secret: this key is needed"),
            ("[one, {secret: ' '}]", "[1].secret: empty: anybody could sign"),
            ("[{secret: x, not_afer: 2027-01-31}]", "[0].not_afer: unknown key; did you mean not"),
            ("[{secret: [x]}]", "[0].secret: input should be a valid string"),
        ],
    )
    def test_faults_name_their_place(self, faults: Faults, written: str, fault: str) -> None:
        [found] = faults(TEXT.format(written))

        assert f"endpoints[0].signing_secrets{fault}" in found

    def test_nothing_shows_the_secret(self, read: Read) -> None:
        config = read(TEXT.format("[{secret: hushhush, not_after: 2027-01-31}]"))

        shown = json.dumps(effective(config)) + repr(config)

        assert "hushhush" not in shown
        assert "2027-01-31" in shown

    def test_editors_know_both_forms(self) -> None:
        validator = jsonschema.Draft202012Validator(json_schema.schema({}))

        def faults_of(secrets: object) -> int:
            config = {"endpoints": [{"path": "/x", "signing_secrets": secrets}]}
            return len(list(validator.iter_errors(config)))

        assert not faults_of(["one", {"secret": "credential:two", "not_after": "2027-01-31"}])
        assert faults_of([{"secret": "one", "until": "2027-01-31"}])
        assert faults_of([{"not_after": "2027-01-31"}])


@pytest.fixture
def intake(read: Read) -> Intake:
    config = read(TEXT.format("[{secret: first, not_after: 2027-01-31}, second]"))
    return Intake.of(config, config.endpoints[0], judge=None)


class TestIntake:
    def verified(self, intake: Intake, *secrets: str, now: datetime) -> str:
        header = ",".join(sign(each) for each in secrets)
        return intake.verify(lambda name: header, BODY, now=now).reason

    def test_it_counts_until_its_end(self, intake: Intake) -> None:
        assert self.verified(intake, "first", now=NOON) == "signature matches secret 1"

        reason = r"signature matches secret 1, which was accepted until 2027-01-31 \(UTC\)"
        with pytest.raises(NotGenuine, match=reason):
            self.verified(intake, "first", now=NOON + timedelta(days=1))

    def test_a_sender_who_signs_with_both_stays_welcome(self, intake: Intake) -> None:
        later = NOON + timedelta(days=1)

        # The position is that of the config.
        assert self.verified(intake, "first", "second", now=later) == "signature matches secret 2"

    def test_no_secret_left_is_not_the_same_as_unsigned(self, intake: Intake) -> None:
        alone = replace(intake, keys=intake.keys[:1])

        with pytest.raises(NotGenuine, match="signature matches none of 0 secrets"):
            self.verified(alone, "second", now=NOON + timedelta(days=1))

    def test_a_probe_needs_one_that_counts(self, intake: Intake) -> None:
        later = NOON + timedelta(days=1)

        def probed(secret: bytes, now: datetime) -> bool:
            sent = probe.made(
                Probe(id="req_" + "0" * 24, at=now),
                scheme=intake.scheme,
                secret=secret,
                format="json",
            )
            header = {name.lower(): value for name, value in sent.headers.items()}
            return (
                intake.probe(
                    lambda name: header.get(name.lower()),
                    sent.body,
                    now=now,
                    otherwise=lambda: b"",
                )
                is not None
            )

        assert probed(b"first", NOON)
        assert not probed(b"first", later)
        assert probed(b"second", later)

    def test_one_that_ended_lets_nothing_in_later(self, intake: Intake) -> None:
        header = {"x-gofax-signature": sign("first")}
        request = Request(
            id="req_1", at=NOON, endpoint="/x", method="POST", remote="192.0.2.1",
            headers=header, body=BODY, status=401, outcome="refused", reason="x", whole=True,
        )  # fmt: skip

        in_time = examine(request, [intake], now=NOON, who="ann", why=None)
        late = examine(request, [intake], now=NOON + timedelta(days=1), who="ann", why=None)

        assert in_time.arrival is not None
        assert late.arrival is None
        assert "accepted until 2027-01-31" in late.reason


Post = Callable[[str], TestResponse]


class TestReceiver:
    @pytest.fixture
    def old_secrets(self) -> OldSecrets:
        return OldSecrets()

    @pytest.fixture
    def post(
        self, tmp_path: Path, database: Database, inbox: Inbox, old_secrets: OldSecrets
    ) -> Iterator[Post]:
        today = datetime.now(UTC).date()
        ends = {name: today + timedelta(days=days) for name, days in
                [("far", 30), ("near", 3), ("over", -1)]}  # fmt: skip
        path = tmp_path / "config.yaml"
        path.write_text("endpoints:\n" + "".join(
            f"  - {{path: /{name}, signing_secrets: [{{secret: {name}, not_after: {end}}}]}}\n"
            for name, end in ends.items()
        ))  # fmt: skip
        config = load(path, find_connector=installed.find)
        with closing(Refusals(inbox.refuse)) as refusals:
            app = create_app(
                config, database=database, inbox=inbox, refusals=refusals, old_secrets=old_secrets
            )
            client: FlaskClient = app.test_client()

            def post(name: str) -> TestResponse:
                headers = {"X-GoFax-Signature": sign(name), "Content-Type": "application/json"}
                return client.post(f"/{name}", data=BODY, headers=headers)

            yield post

    def test_what_a_secret_signs_after_its_end_is_refused(
        self, post: Post, database: Database
    ) -> None:
        assert [post(name).status_code for name in ("far", "near", "over")] == [200, 200, 401]
        # Nothing tells the caller that it was once right.
        assert b"until" not in post("over").data
        taken = Queries(database).requests(limit=9)
        assert {each.reason for each in taken if each.status == 200} == {
            "signature matches secret 1"
        }

    def test_the_use_of_one_that_ends_soon_is_noted(
        self, post: Post, old_secrets: OldSecrets
    ) -> None:
        for name in ("far", "near", "over"):
            post(name)

        assert set(old_secrets.take()) == {("/near", b"near")}


class TestCommands:
    def test_check_shows_fingerprints_and_ends_and_no_secret(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_text(TEXT.format("[hushhush, {secret: silence, not_after: 2099-01-31}]"))

        done = CliRunner().invoke(cli, ["check", "--config", str(path)])

        assert done.exit_code == 0, done.output
        # What `printf %s hushhush | sha256sum | cut -c1-8` prints.
        known = hashlib.sha256(b"hushhush").hexdigest()[:8]
        assert f"  secret 1 has the fingerprint {known}\n" in done.output
        second = f"secret 2 has the fingerprint {fingerprint('silence')}"
        assert f"  {second}, and is accepted until 2099-01-31 (UTC)\n" in done.output
        assert "hushhush" not in done.output and "silence" not in done.output

    @pytest.mark.parametrize(
        ("args", "form"), [([], r"[0-9a-f]{64}"), (["--as", "urlsafe"], r"[A-Za-z0-9_-]{43}")]
    )
    def test_a_new_secret_is_printed_alone(self, args: list[str], form: str) -> None:
        first, second = (CliRunner().invoke(cli, ["secrets", "generate", *args]) for _ in range(2))

        assert re.fullmatch(form + r"\n", first.stdout)
        assert first.stdout != second.stdout
        assert first.stderr == f"fingerprint {fingerprint(first.stdout.strip())}\n"
