"""The processes of the relay: started together, watched, restarted, stopped together."""

from relay.processes.listening import PortTaken, settle_port
from relay.processes.process import run_until_stopped
from relay.processes.supervisor import serve
from relay.processes.web import run_web
from relay.processes.worker import run_worker

__all__ = ["PortTaken", "run_until_stopped", "run_web", "run_worker", "serve", "settle_port"]
