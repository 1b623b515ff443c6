"""The commands ``gofax-relay connectors``, and the packages that they write."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from relay import scaffold
from relay.cli import cli
from relay.config import installed

ROOT = Path(__file__).parents[2]
PROGRAM = Path(sys.executable).with_name("gofax-relay")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["connectors", *arguments])


class TestList:
    def test_names_options_with_what_must_be_known_of_them(self) -> None:
        shown = run("list").output

        teams = shown.split("\nteams  ")[1].split("\nzendesk  ")[0]
        assert teams.startswith("0.1.0  from gofax-relay\n")
        assert '\n  shape (default "envelope")  ' in teams
        assert "\n  client_secret (secret)  " in teams
        assert "\n  access_token (secret)  Service key" in shown

    def test_as_json_is_one_object_a_line(self) -> None:
        lines = [json.loads(line) for line in run("list", "--json").output.splitlines()]

        teams = next(each for each in lines if each["name"] == "teams")
        assert teams["class"] == "connectors.teams:Teams"
        assert teams["suite"] == "connectors.suites.teams"
        assert (teams["distribution"], teams["fault"]) == ("gofax-relay", None)
        shape = next(each for each in teams["options"] if each["name"] == "shape")
        assert (shape["default"], shape["required"], shape["secret"]) == ("envelope", False, False)

    def test_every_connector_of_ours_brings_its_suite(self) -> None:
        ours = [each for each in installed.connectors() if each.distribution == "gofax-relay"]

        assert {each.name for each in ours} >= {"hubspot", "zendesk", "teams"}
        assert [each.name for each in ours if each.suite is None] == []


class TestNew:
    def test_writes_a_package_and_says_what_to_do_next(self, tmp_path: Path) -> None:
        done = run("new", "acme-crm", "--folder", str(tmp_path / "acme"))

        assert done.exit_code == 0, done.output
        assert f"wrote {tmp_path}/acme/pyproject.toml" in done.output
        assert done.output.endswith("pip install -e '.[test]'\n     pytest\n")
        project = tomllib.loads((tmp_path / "acme/pyproject.toml").read_text())
        assert project["project"]["name"] == "gofax-relay-acme-crm"
        assert project["project"]["entry-points"] == {
            installed.GROUP: {"acme-crm": "gofax_relay_acme_crm:AcmeCrm"},
            installed.SUITES: {"acme-crm": "gofax_relay_acme_crm.suite:TestAcmeCrm"},
        }

    @pytest.mark.parametrize("like", scaffold.KINDS)
    def test_leaves_no_placeholder(self, like: str) -> None:
        texts = scaffold.package("acme-crm", like=like)

        assert {path for path, text in {**texts, "": " ".join(texts)}.items() if "@" in text} <= {
            "tests/test_acme_crm.py",
            ".github/workflows/tests.yml",
            "src/gofax_relay_acme_crm/__init__.py",
            "src/gofax_relay_acme_crm/suite.py",
        }
        for text in texts.values():
            assert re.findall(r"@\w+@", text) == []

    def test_workflow_runs_the_tests_and_the_checks(self) -> None:
        text = scaffold.package("acme")[".github/workflows/tests.yml"]

        steps = yaml.safe_load(text)["jobs"]["tests"]["steps"]
        assert [step["run"] for step in steps if "run" in step] == [
            "pip install -e '.[test]'",
            "pytest",
            "gofax-relay connectors test acme",
        ]

    @pytest.mark.parametrize("like", scaffold.KINDS)
    def test_code_is_as_tidy_as_ours(self, tmp_path: Path, like: str) -> None:
        pytest.importorskip("ruff")
        scaffold.write("acme-crm", tmp_path, like=like)
        ruff = [sys.executable, "-m", "ruff"]
        rules = ["--select", "E,F,I,B,UP,W,SIM,RET,PTH", "--line-length", "99", "--isolated"]

        linted = subprocess.run(
            [*ruff, "check", *rules, "."],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        formatted = subprocess.run(
            [*ruff, "format", "--check", "--isolated", "--line-length", "99", "."],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip

        assert linted.returncode == 0, linted.stdout
        assert formatted.returncode == 0, formatted.stderr

    @pytest.mark.slow
    @pytest.mark.parametrize("like", scaffold.KINDS)
    @pytest.mark.parametrize("chosen", ["not TestAcme", "TestAcme"])
    def test_tests_of_each_kind_pass(self, tmp_path: Path, like: str, chosen: str) -> None:
        done = run("new", "acme", "--folder", str(tmp_path / "acme"), "--like", like)
        assert done.exit_code == 0, done.output

        tested = subprocess.run(
            [sys.executable, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen],
            capture_output=True, text=True, check=False, cwd=tmp_path / "acme",
            env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300,
        )  # fmt: skip

        assert tested.returncode == 0, tested.stdout
        assert " passed" in tested.stdout
        assert " skipped" not in tested.stdout or like in ("note", "webhook"), tested.stdout

    def test_refuses_an_unknown_kind(self, tmp_path: Path) -> None:
        done = run("new", "acme", "--folder", str(tmp_path / "acme"), "--like", "fax")

        assert done.exit_code == 2
        assert "'note', 'chat', 'ticket', 'webhook'" in done.output

    @pytest.mark.parametrize(
        "name",
        ["", "Acme", "9lives", "a_b", "acme-", "a--b", "../acme", "akme\n", "über", "a" * 41, "."],
    )
    def test_refuses_what_is_no_name(self, name: str, tmp_path: Path) -> None:
        done = run("new", "--folder", str(tmp_path / "new"), "--", name)

        assert done.exit_code == 1
        assert "cannot name a connector: write lower-case letters" in done.output
        assert not (tmp_path / "new").exists()

    def test_refuses_a_name_that_is_taken(self, tmp_path: Path) -> None:
        done = run("new", "teams", "--folder", str(tmp_path / "new"))

        assert done.exit_code == 1
        assert "gofax-relay has a connector named teams; choose another name" in done.output

    def test_writes_over_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")

        done = run("new", "acme", "--folder", str(tmp_path))

        assert done.exit_code == 1
        assert "exists and is not empty" in done.output
        assert [each.name for each in tmp_path.iterdir()] == ["mine.txt"]

    def test_says_where_it_cannot_write(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")

        done = run("new", "acme", "--folder", str(tmp_path / "file" / "new"))

        assert done.exit_code == 1
        assert "Not a directory" in done.output


class TestTest:
    def test_an_unknown_name_is_told_what_there_is(self) -> None:
        done = run("test", "nobody")

        assert done.exit_code == 1
        assert 'no connector named "nobody" (installed: ' in done.output

    @pytest.mark.slow
    def test_passes_options_on_and_leaves_the_working_folder_alone(self, tmp_path: Path) -> None:
        for name in ("pytest", "connectors", "conftest"):
            (tmp_path / f"{name}.py").write_text(f'raise SystemExit("a {name} of its own")')

        done = subprocess.run(
            [PROGRAM, "connectors", "test", "teams", "-k", "C15 or C03"],
            capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120,
        )  # fmt: skip

        assert done.returncode == 0, done.stdout + done.stderr
        assert "C15 rate is declared: passed" in done.stdout
        assert "C03 same key twice has one effect: left out (exempt: " in done.stdout
        assert "C01" not in done.stdout


class TestSetup:
    CONFIG = (
        "endpoints: [{path: /hook, allow_unsigned: true}]\n"
        "destinations:\n"
        "  front-desk: {connector: teams, url: 'https://example.com/flow'}\n"
        "  back-desk: {connector: teams, url: 'https://example.com/other'}\n"
    )

    @pytest.mark.parametrize(
        ("name", "destinations"),
        [("teams", ["front-desk", "back-desk"]), ("back-desk", ["back-desk"])],
    )
    def test_concerns_a_connector_or_a_destination(
        self, tmp_path: Path, name: str, destinations: list[str]
    ) -> None:
        (tmp_path / "config.yaml").write_text(self.CONFIG)

        done = run("setup", name, "--config", str(tmp_path / "config.yaml"))

        assert done.exit_code == 0, done.output
        assert done.output.splitlines() == [
            f"✓ {each}: nothing to set up" for each in destinations
        ]

    def test_says_when_there_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text(self.CONFIG)

        done = run("setup", "hubspot", "--config", str(tmp_path / "config.yaml"))

        assert done.exit_code == 1
        assert "has no destination hubspot, and none of connector hubspot" in done.output
