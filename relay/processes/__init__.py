"""The processes of the relay: started together, watched, replaced, stopped together."""

from relay.processes.child import apart
from relay.processes.control import NotTaken, Reloaded, ask_for_reload
from relay.processes.handover import TRIAL
from relay.processes.listening import PortTaken
from relay.processes.process import run_until_stopped
from relay.processes.run import imported, run

__all__ = [
    "TRIAL",
    "NotTaken",
    "PortTaken",
    "Reloaded",
    "apart",
    "ask_for_reload",
    "imported",
    "run",
    "run_until_stopped",
]
