"""Celery's settings, made from our config: queues, threads, and how to treat the broker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NoReturn

import structlog
from celery.worker.consumer import Consumer
from kombu import Exchange, Queue

from relay.config import installed
from relay.config.document import ConfigError, config_path
from relay.config.load import load
from relay.config.model import Celery, Config

log = structlog.get_logger()

#: The tasks.
DELIVER, SWEEP = "relay.deliver", "relay.sweep"
#: The queue of sweeps; each destination has its own below it.
QUEUE = "gofax"
#: Seconds between two sweeps of one beat.
SWEEP_EVERY = 1.0
#: Seconds after which a waiting message is dropped: a sweep gives a better one.
STALE_AFTER = 10.0
#: Seconds between heartbeats on connections to RabbitMQ: they find connections that are gone.
HEARTBEAT = 20
#: Seconds after which Redis gives a lost worker's message to another worker.
UNSEEN = 60

_given: list[Config] = []


def use(config: Config) -> None:
    """Use *config* instead of the one that the environment names."""
    _given[:] = [config]
    config_of_fleet.cache_clear()


@cache
def config_of_fleet() -> Config:
    """Return the config. Exits with every fault of the file, or if its engine is not Celery."""
    if _given:
        return _given[0]
    path = config_path()
    try:
        config = load(path, find_connector=installed.find)
    except ConfigError as error:
        _refuse(str(error))
    if config.engine.celery is None:
        _refuse(f"{path}: engine: must name a broker here: {{celery: {{broker: amqp://host}}}}")
    return config


def _refuse(words: str) -> NoReturn:
    sys.stderr.write(f"{words}\n")
    sys.exit(2)


def queue_of(destination: str) -> str:
    """Name the queue of a destination's hints."""
    return f"{QUEUE}.{destination}"


def concurrency_of(config: Config) -> Mapping[str, int]:
    """Return how many deliveries each destination takes at one time from one worker."""
    # The config fills in the connectors' own.
    return {name: each.concurrency or 1 for name, each in config.destinations.items()}


def declared(name: str) -> Queue:
    """Describe a queue; on RabbitMQ it outlives the loss of one of the broker's nodes.

    Messages reach it by its name alone: a binding could get lost, because Redis keeps bindings
    with the messages.
    """
    return Queue(name, Exchange(""), routing_key=name, queue_arguments={"x-queue-type": "quorum"})


#: Steps of Celery's consumer that we leave out: workers have nothing to tell each other, and no
#: message is delayed (which would take 28 queues).
UNUSED = ("mingle", "gossip", "delayed_delivery")


class SteadyConsumer(Consumer):
    """A consumer that survives a broker that goes away, whatever Celery trips over then."""

    class Blueprint(Consumer.Blueprint):
        default_steps = [
            step for step in Consumer.Blueprint.default_steps if not any(map(step.count, UNUSED))
        ]

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        # On Redis this tries to delete queues over the connection that is gone.
        _harmless(super().on_connection_error_after_connected)(exc)
        self.connection = None

    def call_soon(self, act: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return super().call_soon(_harmless(act), *arguments, **options)

    def call_soon_ack(self, act: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return super().call_soon_ack(_harmless(act), *arguments, **options)


def _harmless(act: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap *act* so that its errors are only logged: the broker finds out by itself."""

    def acted(*arguments: Any, **options: Any) -> Any:
        try:
            return act(*arguments, **options)
        except Exception as error:  # an AttributeError, for one, from deep inside
            log.debug("broker.not_told", error=f"{type(error).__name__}: {error}")
            return None

    return acted


def of_config() -> Mapping[str, Any]:
    """Return Celery's settings."""
    config = config_of_fleet()
    engine: Celery | None = config.engine.celery
    assert engine is not None
    broker = engine.broker.get_secret_value()
    names = [QUEUE, *map(queue_of, config.destinations)]
    return {
        "broker_url": broker,
        "broker_transport_options": {"visibility_timeout": UNSEEN, "socket_keepalive": True}
        if broker.startswith("redis")
        else {},
        "broker_heartbeat": HEARTBEAT,
        # For as long as it takes: deliveries wait in the database.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        # A worker that was cut off may return while the broker still keeps its old connection. An
        # exclusive queue for commands would be locked to that one, and the worker would end.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        "task_queues": [declared(name) for name in names],
        "task_default_queue": QUEUE,
        "task_create_missing_queues": False,
        "task_ignore_result": True,
        # A busy thread takes no further message.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_prefetch_count_reduction": False,
        "worker_consumer": f"{__name__}:{SteadyConsumer.__name__}",
        "worker_pool": "threads",
        # One more for sweeps.
        "worker_concurrency": sum(concurrency_of(config).values()) + 1,
        "beat_scheduler": "relay.cluster.beat:Beat",
        "beat_schedule": {
            "sweep": {
                "task": SWEEP,
                "schedule": SWEEP_EVERY,
                "options": {"queue": QUEUE, "expires": STALE_AFTER, "retry": False},
            }
        },
    }
