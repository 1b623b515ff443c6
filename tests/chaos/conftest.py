"""One relay after the other for tests that break it, and the seeds of what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plan import Kind
from stage import Relay


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "chaos_seed" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("chaos_seed")
        count = metafunc.config.getoption("chaos_seeds")
        metafunc.parametrize("chaos_seed", chosen or range(1, count + 1))
    if "chaos_stage" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("chaos_stage")
        kinds = list(Kind) if chosen == "all" else [Kind(chosen)]
        metafunc.parametrize("chaos_stage", kinds, ids=str)


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay whose destinations cannot be reached."""
    relay = Relay(tmp_path)
    yield relay
    relay.stop()
