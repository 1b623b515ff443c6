"""What every test may use: servers and tools that must not be missing in CI."""

from __future__ import annotations

import gc
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# For searches by hand: `--hypothesis-profile=long`.
settings.register_profile("long", max_examples=2500, deadline=None)
# Other tests run at the same time: how long an example takes says nothing.
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

# Tests start hundreds of processes. Where no bytecode is to be left beside the sources, each of
# them would compile all that it imports.
if sys.dont_write_bytecode:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Nobody else can put bytecode there.
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache/bytecode")

# Thousands of tests are collected, and nothing of that is garbage. Whoever runs some begins below;
# whoever only hands them out goes on without, and makes hardly any.
gc.disable()

# Some tests start pytest, which would load this for longer than all the rest.
os.environ["PYTEST_ADDOPTS"] = f"{os.environ.get('PYTEST_ADDOPTS', '')} -p no:schemathesis"

# A shell starts what runs in its background without Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Servers and tools that a run insists on: what is missing then fails instead of being skipped.
REQUIRED = frozenset(filter(None, os.environ.get("GOFAX_TEST_REQUIRE", "").split(",")))

#: What a file says that has slow tests or storms.
SLOW = re.compile(r"mark\.(?:slow|chaos)|ConnectorSuite")
#: What a file says in which every test is slow.
ALL_SLOW = re.compile(r"^pytestmark = pytest\.mark\.slow$", re.MULTILINE)


def missing(what: str, reason: str) -> None:
    """Skip a test that needs *what*, or fail it where *what* is required."""
    if what in REQUIRED:
        pytest.fail(f"{what} is required here: {reason}")
    pytest.skip(f"needs {what}: {reason}")


@pytest.fixture(name="missing", scope="session")
def how_to_miss() -> Callable[[str, str], None]:
    """Give :func:`missing` to tests in folders whose conftest is another."""
    return missing


def pytest_xdist_auto_num_workers() -> int:
    """Return how many processes run tests: more than cores, because many tests wait."""
    return 2 * (os.cpu_count() or 1)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Import no file for nothing: most files have nothing slow, and some have nothing else."""
    if collection_path.suffix != ".py":
        return None
    if config.option.markexpr == "not slow":
        return True if _is_slow(collection_path) else None
    asked_for = set(re.findall(r"\w+", config.option.markexpr)) - {"or"}
    if not asked_for or asked_for - {"slow", "chaos"}:
        return None
    return None if _may_be_slow(collection_path) else True


@cache
def _is_slow(file: Path) -> bool:
    return ALL_SLOW.search(file.read_text()) is not None


@cache
def _may_be_slow(file: Path) -> bool:
    return SLOW.search(file.read_text()) is not None


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """See to it that no slow test is in a file that would not be looked at for it."""
    for item in items:
        if item.get_closest_marker("slow") and not _may_be_slow(item.path):
            raise pytest.UsageError(f"{item.nodeid} is slow, and its file does not say so")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what takes minutes, unless --long asks for it; let storms begin at once."""
    if not config.getoption("long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --long"))
    items[:] = _storms_apart(items)


def _storms_apart(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """Put storms at equal distances, the first at the beginning.

    `--dist worksteal` gives each process as many tests, in this order: a storm that began last
    would keep everybody waiting for a minute or two.
    """
    storms = [item for item in items if item.get_closest_marker("chaos")]
    ordered = [item for item in items if not item.get_closest_marker("chaos")]
    for number, storm in enumerate(storms):
        ordered.insert(math.ceil(number * len(items) / len(storms)), storm)
    return ordered


def pytest_collection_finish() -> None:
    """Let the garbage collector begin, and not look at what thousands of tests consist of."""
    gc.freeze()
    gc.enable()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run what takes minutes, too")
    group = parser.getgroup("chaos", "what goes wrong in tests/chaos")
    group.addoption(
        "--chaos-seeds",
        type=int,
        default=0,
        metavar="N",
        help="run the seeds 1 to N (default: none)",
    )
    group.addoption(
        "--chaos-seed", type=int, action="append", metavar="S", help="run this seed, any number"
    )
    group.addoption(
        "--chaos-stage",
        choices=["sqlite", "fleet", "celery", "all"],
        default="sqlite",
        help="what storms hit: one machine, or six that share PostgreSQL (default: sqlite)",
    )
