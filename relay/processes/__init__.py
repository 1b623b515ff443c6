"""The processes of the relay: started together, watched, replaced, stopped together."""

from relay.processes.child import run_apart
from relay.processes.control import Reloaded, ask_for_reload
from relay.processes.handover import TRIAL
from relay.processes.listening import PortTaken
from relay.processes.process import run_until_stopped
from relay.processes.run import run
from relay.processes.supervisor import NotTaken

__all__ = [
    "TRIAL",
    "NotTaken",
    "PortTaken",
    "Reloaded",
    "ask_for_reload",
    "run",
    "run_apart",
    "run_until_stopped",
]
