"""What ``connectors test`` prints: a line for each check, each cause once, and what mends it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay import scaffold

#: A deliver() that fails in nearly every check, and a fault that one check finds.
BROKEN = {"return _receipt(note)": "return _receipt(note['note'])", '"10/1s"': '"fast"'}


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A connector with one fault that many checks meet."""
    folder = tmp_path_factory.mktemp("kit") / "faulty"
    scaffold.write("faulty", folder)
    path = folder / "src/gofax_relay_faulty/__init__.py"
    text = path.read_text(encoding="utf-8")
    for right, wrong in BROKEN.items():
        assert right in text
        text = text.replace(right, wrong)
    path.write_text(text, encoding="utf-8")
    return folder


def checked(package: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the checks as ``connectors test`` does."""
    suite = package / "src/gofax_relay_faulty/suite.py"
    command = [sys.executable, "-P", "-m", "pytest", "-p", "connectors.testing.report"]
    command += ["-p", "no:cacheprovider", "-c", "/dev/null", "--no-header", "-q", "-rN", "--tb=no"]
    return subprocess.run(
        [*command, str(suite), *options],
        capture_output=True, text=True, check=False, timeout=120,
        cwd=package, env={"PYTHONPATH": f"{package / 'src'}:{_ROOT}"},
    )  # fmt: skip


_ROOT = Path(str(importlib.util.find_spec("connectors").origin)).parents[1]  # type: ignore[union-attr]  # it is there


@pytest.mark.slow
def test_each_cause_is_told_once_with_what_mends_it(package: Path) -> None:
    done = checked(package, "-k", "C01_secrets_are_not_shown or C03_same or C09_odd or C13 or C15")

    said = done.stdout.partition("checks of TestFaulty")[2].splitlines()[1:]
    assert done.returncode == 1
    assert [re.sub(r"__init__.py:\d+", "__init__.py:LINE", line) for line in said[:-1]] == [
        "C01 secrets are not shown: FAILED",
        "    raised KeyError('note') in __init__.py:LINE",
        "    mend: correct that line, or raise an error of the contract there",
        "C03 same key twice has one effect: FAILED (as C01)",
        "C09 odd events are delivered or refused: FAILED (as C01)",
        "    mend: use spoken(event), which says why there is no text; raise Refused for what "
        "cannot be",
        "C13 construction has no effect: passed",
        "C13 construction makes no request: passed",
        "C15 rate is declared: FAILED",
        "    a rate cannot be read: write such as 4/1s",
        "      'fast'",
        "    mend: declare default_rate: what the system takes, such as 100/10s, or None for no "
        "limit",
    ]


@pytest.mark.parametrize("asked", ["C19", "C03 or C99", "C03_no_such_check"])
@pytest.mark.slow
def test_unknown_check_is_an_error(package: Path, asked: str) -> None:
    done = checked(package, "-k", asked)

    assert done.returncode == 4
    assert f"there is no check {asked.split(' or ')[-1]}: the checks are C01 to C18" in done.stderr
