"""On what it depends what comes next with a delivery; many pages share it."""

from __future__ import annotations

from relay.api.services import services
from relay.shapes.explanation import Circumstances


def circumstances() -> Circumstances:
    """Return the circumstances of now."""
    found = services()
    return found.shared.get(
        "circumstances", lambda: Circumstances.of(found.config, found.queries, now=found.now())
    )
