"""A relay and a sandbox for each test, ended with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from processes import Relay, Sandbox


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def sandbox(tmp_path: Path, stack: ExitStack) -> Sandbox:
    started = Sandbox(tmp_path, stack)
    started.start()
    return started


@pytest.fixture
def relay(tmp_path: Path, stack: ExitStack, sandbox: Sandbox) -> Relay:
    return Relay(tmp_path, stack, sandbox=sandbox.url)
