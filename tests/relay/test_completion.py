"""Shells complete the commands: what they are given, and how long it takes."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from relay.cli import COMMANDS

PROGRAMS = Path(sys.executable).parent
SHELLS = ("bash", "zsh", "fish")
#: Seconds that a person who presses Tab hardly notices, on a machine that does other things too.
QUICK = 0.7


def complete(program: str, words: str, *, shell: str = "bash") -> list[str]:
    """Return what *program* proposes after *words*, the last of which has just begun."""
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"
    number = len(words.split(" ")) - 1
    last = words.split(" ")[-1]
    environ = {
        **os.environ,
        variable: f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": last if shell == "fish" else str(number),
    }
    done = subprocess.run(
        [PROGRAMS / program], env=environ, capture_output=True, text=True, check=True
    )
    between = r"\n" if shell == "zsh" else ","
    return re.findall(rf"^plain{between}(\S+)", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_are_completed(shell: str) -> None:
    found = complete("gofax-relay", "gofax-relay re", shell=shell)

    assert {"resend", "replay", "reload", "restore", "requests"} <= set(found)
    assert all(each.startswith("re") for each in found)


def test_all_commands_are_proposed() -> None:
    assert set(complete("gofax-relay", "gofax-relay ")) == set(COMMANDS)


def test_options_and_commands_of_commands_are_completed() -> None:
    assert "--dry-run" in complete("gofax-relay", "gofax-relay resend --d")
    assert complete("gofax-relay", "gofax-relay secrets g") == ["generate"]
    assert "scenario" in complete("gofax-sender", "gofax-sender sc")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("program", ["gofax-relay", "gofax-sender"])
def test_the_script_for_a_shell_is_printed(program: str, shell: str) -> None:
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"

    done = subprocess.run(
        [PROGRAMS / program], env={**os.environ, variable: f"{shell}_source"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert f"{variable}={shell}_complete" in done.stdout


@pytest.mark.slow
def test_it_is_quick() -> None:
    def seconds() -> float:
        started = time.monotonic()
        complete("gofax-relay", "gofax-relay re")
        return time.monotonic() - started

    assert statistics.median(seconds() for _ in range(5)) < QUICK
