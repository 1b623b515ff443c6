"""The Celery application: its messages say where work may be, and nothing else.

``celery -A relay.cluster worker`` needs no further argument, nor do ``beat``, ``inspect`` and
Flower: ``$GOFAX_RELAY_CONFIG`` names the config, which has the rest.

A message is a hint. The database alone knows what is due, who has claimed it and how it ended, so
a hint that is lost, doubled or late changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from celery import Celery, signals

from relay.cluster import node, settings
from relay.cluster.hints import Hints
from relay.cluster.settings import DELIVER, SWEEP
from relay.config.model import Config
from relay.store import StoreUnavailable
from relay.telling.metrics import Metrics

log = structlog.get_logger()

app = Celery("gofax-relay", set_as_current=False)
app.add_defaults(settings.of_config)
app.steps["worker"].add(node.Deliveries)
signals.setup_logging.connect(node.log_as_we_do)
signals.celeryd_init.connect(node.name)


def deliver(destination: str) -> None:
    """Deliver what is due at *destination*, if anything is."""
    node.here().serve(destination)


def sweep() -> None:
    """Give hints for everything that is due: earlier ones may have been lost."""
    try:
        node.here().sweep()
    except StoreUnavailable as error:
        log.warning("store.unavailable", error=str(error))


app.task(deliver, name=DELIVER)
app.task(sweep, name=SWEEP)


def hints(config: Config) -> Hints:
    """Return the hints with which a receiver tells the workers of *config* about work."""
    settings.use(config)
    return Hints(app, settings.concurrency_of(config))


def work(
    config: Config, ready: Callable[[], None] = lambda: None, metrics: Metrics | None = None
) -> int:
    """Run a worker with a beat in it until SIGTERM or SIGINT; return the exit code.

    *ready* is called when it takes messages. *metrics*: where it counts.
    """
    settings.use(config)
    signals.worker_ready.connect(lambda **_: ready(), weak=False)
    app.steps["worker"].add(node.EmbeddedBeat)
    worker = app.Worker(quiet=True, loglevel="WARNING")
    worker.metrics = metrics
    worker.start()
    code: int = worker.exitcode or 0
    return code
