"""The files that CI, releases and editors read are what their readers expect."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted(GITHUB.glob("workflows/*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def steps(name: str) -> list[dict[str, Any]]:
    workflow = yaml.safe_load((GITHUB / "workflows" / name).read_text())
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.dependabot", [GITHUB / "dependabot.yml"]),
    ],
)
def test_github_can_read_it(schema: str, paths: Sequence[Path]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *paths],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_workflow_for_changes_releases_and_time() -> None:
    assert [each.stem for each in WORKFLOWS] == ["ci", "release", "weekly"]


def test_every_python_that_the_project_names_is_tried() -> None:
    matrix = yaml.safe_load((GITHUB / "workflows/ci.yml").read_text())["jobs"]["versions"]
    named = [
        each.rpartition(" ")[2]
        for each in PROJECT["classifiers"]
        if re.search(r"Python :: 3\.\d+$", each)
    ]

    tried = matrix["strategy"]["matrix"]["python"]

    assert set(named) <= set(tried)
    assert tried[0] == PROJECT["requires-python"].removeprefix(">=")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_nobody_gets_more_rights_than_needed(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())

    assert workflow["permissions"] == {"contents": "read"}
    more = {n: job["permissions"] for n, job in workflow["jobs"].items() if "permissions" in job}
    # PyPI's trust is asked for where nothing else runs.
    assert more == ({"publish": {"id-token": "write"}} if path.stem == "release" else {})
    assert "secrets." not in path.read_text()


@pytest.mark.parametrize("name", [each.name for each in WORKFLOWS])
def test_an_action_is_named_by_its_major_version_or_a_whole_hash(name: str) -> None:
    used = [each["uses"] for each in steps(name) if "uses" in each]

    assert used
    for each in used:
        assert re.search(r"@(v\d+|release/v\d+|[0-9a-f]{40})$", each), each


@pytest.mark.parametrize("name", [each.name for each in WORKFLOWS])
def test_the_scripts_are_shell_and_the_tests_are_there(name: str) -> None:
    for script in (each["run"] for each in steps(name) if "run" in each):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        for path in re.findall(r"\btests/[\w/.]+\.py", script):
            assert (ROOT / path).exists(), path


def test_a_release_checks_what_it_is_before_it_leaves() -> None:
    [script] = [each["run"] for each in steps("release.yml") if "tomllib" in each.get("run", "")]
    code = script.partition("<<'PY'\n")[2].rpartition("PY")[0]

    def said(tag: str, repository: str) -> str:
        environ = {
            "GITHUB_REF_NAME": tag,
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": repository,
        }
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=environ,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stderr.rpartition("AssertionError: ")[2]

    ours = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    version = PROJECT["version"]
    assert said("v99.0.0", ours).startswith(f"pyproject.toml says {version}")
    text = (ROOT / "CHANGELOG.md").read_text()
    if f"## {version} (unreleased)" in text:
        assert said(f"v{version}", ours).startswith("CHANGELOG.md has no dated section")
    else:
        assert said(f"v{version}", ours) == ""
        assert "[project.urls] is not" in said(f"v{version}", "someone/else")


def test_a_release_tries_the_wheel_on_each_python_that_the_project_names() -> None:
    [versions] = [
        each["with"]["python-version"].split()
        for each in steps("release.yml")
        if "\n" in each.get("with", {}).get("python-version", "")
    ]
    [script] = [each["run"] for each in steps("release.yml") if "-m build" in each.get("run", "")]

    assert set(versions) == {
        each.rpartition(" ")[2]
        for each in PROJECT["classifiers"]
        if re.search(r"Python :: 3\.\d+$", each)
    }
    # Without it, tests/test_release.py takes its own Python alone.
    assert "-m slow --long tests/test_release.py" in script


def test_the_changelog_begins_with_the_version_that_comes_next() -> None:
    first = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]

    version, state = first.split(" ")
    assert version == PROJECT["version"]
    assert re.fullmatch(r"\(unreleased\)|\(\d{4}-\d\d-\d\d\)", state)


def test_the_hooks_run_what_ci_runs() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    programs = [shlex.split(each["entry"])[:2] for each in hooks]

    ci = (ROOT / ".ci/run").read_text()
    assert [each[0] for each in programs] == [".venv/bin/ruff", ".venv/bin/ruff", ".venv/bin/mypy"]
    for program in programs:
        assert " ".join(program) in ci


@pytest.mark.slow
@pytest.mark.long
def test_the_hooks_pass(tmp_path: Path) -> None:
    git = ["git", "-C", str(ROOT)]
    if subprocess.run([*git, "rev-parse"], capture_output=True, check=False).returncode:
        pytest.skip("hooks belong to a repository")
    if not (ROOT / ".venv/bin/ruff").exists():
        pytest.skip("hooks run from .venv")

    done = subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--files", "relay/cli.py"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "SECURITY.md"])
def test_a_page_for_people_is_one_screen(name: str) -> None:
    lines = (ROOT / name).read_text().splitlines()

    assert len(lines) <= 50
    links = re.findall(r"\]\(([^)#:]+)", "\n".join(lines))
    assert [each for each in links if not (ROOT / each).exists()] == []
