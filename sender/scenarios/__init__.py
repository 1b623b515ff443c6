"""Scenarios: what happens to webhook receivers, and what a right one does."""

from sender.scenarios.base import Check, Effect, Outcome, Scenario, Skip, scenario
from sender.scenarios.bodies import BODIES
from sender.scenarios.repeats import REPEATS
from sender.scenarios.signatures import SIGNATURES
from sender.scenarios.stage import Setting, Stage
from sender.scenarios.transport import TRANSPORT

#: Every scenario, in the order of a run.
SCENARIOS = (*REPEATS, *SIGNATURES, *BODIES, *TRANSPORT)
#: Their names, ready for ``pytest.mark.parametrize``.
NAMES = tuple(each.name for each in SCENARIOS)

__all__ = [
    "NAMES",
    "SCENARIOS",
    "Check",
    "Effect",
    "Outcome",
    "Scenario",
    "Setting",
    "Skip",
    "Stage",
    "scenario",
]
