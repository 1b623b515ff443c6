"""The conformance suites of our own connectors, for ``gofax-relay connectors test``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from connectors import sandbox
from connectors.sandbox.records import Records
from connectors.testing import Effect, StandIn

PAGES = Path(__file__).parents[2] / "docs"


def page(name: str) -> str:
    """Return the page docs/*name*.md, or skip the check if the sources are not there."""
    path = PAGES / f"{name}.md"
    if not path.exists():
        pytest.skip("the pages in docs/ are part of the sources only")
    return path.read_text(encoding="utf-8")


@contextmanager
def served(
    system: str,
    make: Callable[[Records], Any],
    *,
    more: Callable[[Any], list[Effect]] = lambda _: [],
) -> Iterator[StandIn]:
    """Serve the stand-in from *make* for *system*; *more* adds effects to its records."""
    records = Records()
    stand_in = make(records)

    def effects() -> list[Effect]:
        found = [each for each in records.listing() if each["system"] == system]
        return [Effect(each["kind"], each["text"]) for each in found] + more(stand_in)

    with sandbox.serving(sandbox.create_app(records, **{system: stand_in})) as url:
        yield StandIn(url=f"{url}/{system}", effects=effects)
