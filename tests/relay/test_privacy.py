"""``check --privacy`` says what a config keeps of customers, and who is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from config_files import ENVIRON, EXAMPLE, FURTHER, HIDDEN
from pydantic import TypeAdapter

from relay.cli import cli
from relay.shapes.privacy import PrivacyJson

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"
CONFIG = """\
store: postgresql://relay:{secret}@db.example.com/sms
retention: {{default: 30d, SMS_STATUS: 7d}}
dedupe_horizon: 400d
requests: {{keep: 1MiB, for: 60d}}
backups: {{for: 3d}}
admin: {{listen: "127.0.0.1:8081", mask: true, url: "https://relay.example.com"}}
logs: {{level: warning}}
heartbeat: "https://hc.example.com/{secret}"
endpoints: [{{path: /hook, signing_secrets: ["{secret}"]}}]
destinations:
  quiet: {{connector: webhook, url: "https://flow.example.com/{secret}", body: "something came"}}
  whole: {{connector: webhook, url: "https://other.example.com/{secret}"}}
  files: {{connector: archive, url: kept}}
  desk:
    connector: email
    host: smtp.example.com
    from: a@example.com
    to: [b@example.com]
    subject: "SMS"
    body: "{{{{ text }}}}"
  card:
    connector: teams
    url: "https://teams.example.com/?sig={secret}"
    text: "{{{{ keyword }}}}"
    title: "An SMS"
    facts: {{}}
"""


def told(found: PrivacyJson) -> dict[str, tuple[list[str], list[str]]]:
    return {each["who"]: (each["where"], each["what"]) for each in found["told"]}


def kept(found: PrivacyJson) -> dict[str, str]:
    return {each["what"]: each["how_long"] for each in found["kept"]}


def checked(config: Path, *arguments: str) -> str:
    done = CliRunner().invoke(cli, ["check", "--privacy", "--config", str(config), *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def found(tmp_path: Path) -> PrivacyJson:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(secret=HIDDEN))
    said = checked(file, "--json")
    assert HIDDEN not in said + checked(file)
    return TypeAdapter(PrivacyJson).validate_json(said, strict=True)


def test_the_page_has_what_the_example_makes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (ENVIRON | FURTHER).items():
        monkeypatch.setenv(name, value)

    said = checked(EXAMPLE)

    page = PAGE.read_text(encoding="utf-8")
    _, _, rest = page.partition("<!-- check --privacy -->\n")
    shown, _, _ = rest.partition("<!-- end of check --privacy -->")
    assert shown.strip() == said.strip()


def test_each_time_is_the_configs(found: PrivacyJson) -> None:
    times = kept(found)

    assert times["messages (events)"].startswith("30d; SMS_STATUS 7d; ")
    assert times["refused requests that carry a signature"] == "30d, at most 1 MiB"
    assert times["keys, which tell repeated messages"] == "400d"
    assert times["backups that the relay makes before it changes a store"] == "3d"
    assert {each["where"] for each in found["kept"] if each["what"] == "users and tokens"} == {
        "store: postgresql://relay:***@db.example.com/sms"
    }


def test_a_destination_is_told_what_its_templates_use(found: PrivacyJson) -> None:
    destinations = told(found)

    assert destinations["quiet"] == (["flow.example.com"], [])
    assert destinations["whole"][0] == ["other.example.com"]
    assert "everything that GoFax sent" in destinations["whole"][1]
    assert destinations["files"][0] == ["kept"]
    assert destinations["desk"] == (["smtp.example.com", "b@example.com"], ["text"])
    assert destinations["card"] == (["teams.example.com"], ["keyword"])
    assert destinations["heartbeat"][0] == ["hc.example.com"]


def test_who_may_read_follows_from_the_config(found: PrivacyJson, tmp_path: Path) -> None:
    assert "until they say why" in found["seen_by"][0]
    file = tmp_path / "off.yaml"
    file.write_text("admin: off\nendpoints: [{path: /a, allow_unsigned: true}]\n")

    said = json.loads(checked(file, "--json"))

    assert said["told"] == []
    assert "off" in said["seen_by"][0]
    assert "Nothing leaves the relay" in checked(file)


@pytest.mark.parametrize("other", [["--live"], ["--diff"], ["--sample", "x"]])
def test_it_goes_alone(tmp_path: Path, other: list[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("endpoints: [{path: /a, allow_unsigned: true}]\n")

    done = CliRunner().invoke(cli, ["check", "--privacy", "--config", str(file), *other])

    assert done.exit_code == 2
