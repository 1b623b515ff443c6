"""The process of the inner listener, which takes no thread from those who send events."""

from __future__ import annotations

from functools import partial

import structlog

from relay.admin_app import create_admin_app
from relay.api.services import Services
from relay.config.model import Config
from relay.processes.granian import serve
from relay.processes.listening import Listener
from relay.processes.process import Ready, write_no_core_files
from relay.rules.pages import CONSOLE
from relay.store import connect, figures
from relay.telling.counts import Counts
from relay.telling.exposition import Exposition

log = structlog.get_logger()

#: Requests that are answered at the same time.
THREADS = 8


def run_admin(config: Config, listener: Listener, counts: Counts, ready: Ready) -> None:
    """Serve the inner listener in this process, until SIGTERM or SIGINT."""
    assert config.admin is not None
    write_no_core_files()
    here = f"http://{listener.address}"
    console = f"{config.admin.url or here}{CONSOLE}/"
    log.info("admin.served", console=console, metrics=f"{here}/metrics")
    # Nothing that receives or delivers waits for us.
    ready()
    database = connect(config.store)
    exposition = Exposition(config, counts, partial(figures.read, database))
    services = Services(config, database)
    app = create_admin_app(config.admin, services, scrape=exposition.text)
    serve(app, listener, threads=THREADS, retired=lambda: services.runner.close(within=0))
