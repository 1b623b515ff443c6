"""The process of the inner listener, which takes no thread from those who send events."""

from __future__ import annotations

import gc
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from relay.admin_app import create_admin_app
from relay.api.services import Services
from relay.config.model import Admin, Config
from relay.processes.drain import Drain
from relay.processes.listening import Listener
from relay.processes.process import RETIRE, Ready, end_with, write_no_core_files
from relay.processes.web import GranianServer
from relay.rules.pages import CONSOLE
from relay.store import connect, figures
from relay.telling.counts import Counts
from relay.telling.exposition import Exposition

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

log = structlog.get_logger()

#: Requests that are answered at the same time.
THREADS = 8


def run_admin(config: Config, listener: Listener, counts: Counts, ready: Ready) -> None:
    """Serve the inner listener in this process and one child, until SIGTERM or SIGINT."""
    assert config.admin is not None
    write_no_core_files()
    here = f"http://{listener.address}"
    console = f"{config.admin.url or here}{CONSOLE}/"
    log.info("admin.served", console=console, metrics=f"{here}/metrics")
    # Nothing that receives or delivers waits for us.
    ready()
    gc.freeze()
    server = GranianServer(listener, threads=THREADS)
    load = partial(_load_app, config, config.admin, listener, counts, os.getpid())
    server.serve(target_loader=load, wrap_loader=False)


def _load_app(
    config: Config, admin: Admin, listener: Listener, counts: Counts, parent: int
) -> WSGIApplication:
    """Build the application in Granian's worker process."""
    end_with(parent)
    database = connect(config.store)
    exposition = Exposition(config, counts, partial(figures.read, database))
    services = Services(config, database)
    app = create_admin_app(admin, services, scrape=exposition.text)
    drain = Drain(app, listener, lambda: None)

    def retire(*_: Any) -> None:
        services.runner.close(within=0)
        drain.begin()

    signal.signal(RETIRE, retire)
    return drain
