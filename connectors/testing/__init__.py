"""Help for testing connectors, ours and other people's; it needs pytest."""

from connectors.testing.bench import Bench, Case, Effect, Line, StandIn
from connectors.testing.events import sample_event
from connectors.testing.gateway import Asked, Fault, Gateway, lasting, once
from connectors.testing.outcomes import BROKEN
from connectors.testing.suite import ConnectorSuite

__all__ = [
    "BROKEN",
    "Asked",
    "Bench",
    "Case",
    "ConnectorSuite",
    "Effect",
    "Fault",
    "Gateway",
    "Line",
    "StandIn",
    "lasting",
    "once",
    "sample_event",
]
