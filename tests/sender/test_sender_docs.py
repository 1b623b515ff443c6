"""The pages about the sender say what is so."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sender.cli import main
from sender.scenarios import SCENARIOS

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("sender.md", "testing.md")}
README = (ROOT / "README.md").read_text()


def _fenced(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def _commands() -> Iterator[tuple[str, list[str]]]:
    for page, text in PAGES.items():
        shown = re.findall(r"`(gofax-sender [^`]+)`", text)
        shown += re.findall(
            r"^(?:.*\| )?(gofax-sender [^#\n]+)", "".join(_fenced(page, "sh")), re.M
        )
        for each in shown:
            yield page, shlex.split(re.sub(r'"?\$\([^)]*\)"?(/\S*)?', "PATH", each))[1:]


COMMANDS = sorted({(page, tuple(words)) for page, words in _commands()})


def _fault(words: tuple[str, ...]) -> str | None:
    """Say what is wrong with a command, if anything is."""
    command: click.Command = main
    rest = list(words)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    unknown = {each for each in rest if each.startswith("--")} - known
    return "no such command" if command is main else ", ".join(unknown) or None


def test_every_command_on_a_page_is_one() -> None:
    assert len(COMMANDS) > 50
    found = {f"{page}: {' '.join(words)}": _fault(words) for page, words in COMMANDS}

    assert {command: fault for command, fault in found.items() if fault} == {}


def _leaves(group: click.Group, *names: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _leaves(command, *names, name)
            if not command.invoke_without_command:
                continue
        yield " ".join((*names, name))


def test_every_command_is_on_a_page_and_in_the_readme() -> None:
    shown = {" ".join(words) + " " for _, words in COMMANDS}
    for name in _leaves(main):
        assert any(each.startswith(f"{name} ") for each in shown), name
        assert name.split()[0] in README.partition("## Commands")[2], name


def test_the_table_of_scenarios_is_that_of_the_program() -> None:
    table = PAGES["testing.md"].partition("| scenario |")[2].partition("\n\n")[0]

    named = re.findall(r"^\| `([a-z0-9-]+)` \|", table, re.M)

    assert named == [each.name for each in SCENARIOS]


@pytest.mark.slow
def test_the_tests_on_the_page_pass(tmp_path: Path) -> None:
    tests = [each for each in _fenced("testing.md", "python") if "def test_" in each]
    (tmp_path / "test_page.py").write_text("\n".join(tests))

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_python_on_a_page_runs() -> None:
    for page in PAGES:
        for code in _fenced(page, "python"):
            if "def test_" not in code:
                done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
                assert done.returncode == 0, code
