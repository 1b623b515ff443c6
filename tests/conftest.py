"""What every test may use: servers and tools that must not be missing in CI."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Sequence
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

# A shell starts what runs in its background without Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Servers and tools that a run insists on: what is missing then fails instead of being skipped.
REQUIRED = frozenset(filter(None, os.environ.get("GOFAX_TEST_REQUIRE", "").split(",")))


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


def pytest_collection_modifyitems(config: pytest.Config, items: Sequence[pytest.Item]) -> None:
    """Leave out what takes minutes, unless --long asks for it."""
    if not config.getoption("long"):
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes minutes: run with --long"))


def pytest_collection_finish() -> None:
    """Let the garbage collector look no more at what thousands of tests consist of."""
    gc.freeze()


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
