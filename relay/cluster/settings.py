"""What Celery wants to know, from our config: queues, threads, and how to treat the broker."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NoReturn

import structlog
from celery.worker.consumer import Consumer
from kombu import Exchange, Queue

from relay import destinations
from relay.config.document import ConfigError, config_path
from relay.config.load import load
from relay.config.model import Celery, Config

log = structlog.get_logger()

#: The tasks.
DELIVER, SWEEP = "relay.deliver", "relay.sweep"
#: The queue of sweeps; destinations have theirs below it.
QUEUE = "gofax"
#: Seconds between two sweeps of one beat.
SWEEP_EVERY = 1.0
#: Seconds after which a message that nobody took is dropped: a sweep gives better ones.
STALE_AFTER = 10.0
#: Seconds between heartbeats of connections to RabbitMQ, by which one that is gone is found out.
HEARTBEAT = 20
#: Seconds after which Redis gives a message of a worker that was lost to another one.
UNSEEN = 60

_given: list[Config] = []


def use(config: Config) -> None:
    """Let the fleet's config be *config* instead of the one that the environment names."""
    _given[:] = [config]
    config_of_fleet.cache_clear()


@cache
def config_of_fleet() -> Config:
    """Return the config. Exits with every fault of the file, and if it wants no fleet."""
    if _given:
        return _given[0]
    path = config_path()
    try:
        config = load(path, find_connector=destinations.find)
    except ConfigError as error:
        _refuse(str(error))
    if config.engine.celery is None:
        _refuse(f"{path}: engine: no fleet is wanted; write {{celery: {{broker: amqp://host}}}}")
    return config


def _refuse(words: str) -> NoReturn:
    sys.stderr.write(f"{words}\n")
    sys.exit(2)


def queue_of(destination: str) -> str:
    """Name the queue of a destination's hints."""
    return f"{QUEUE}.{destination}"


def concurrency_of(config: Config) -> Mapping[str, int]:
    """Return how many deliveries go to each destination at one time, from one worker."""
    # The config fills in the connectors' own.
    return {name: each.concurrency or 1 for name, each in config.destinations.items()}


def declared(name: str) -> Queue:
    """Describe a queue: on RabbitMQ one that outlives a node of the broker.

    Messages go to it by its name alone. A binding could get lost, as Redis keeps those with the
    messages.
    """
    return Queue(name, Exchange(""), routing_key=name, queue_arguments={"x-queue-type": "quorum"})


#: What Celery's consumers do beside: ask and hear other workers, and make 28 queues for messages
#: with a delay. There are no such messages, and workers have nothing to tell each other.
UNUSED = ("mingle", "gossip", "delayed_delivery")


class SteadyConsumer(Consumer):
    """A consumer that a broker which went away cannot end, whatever Celery stumbles over then."""

    class Blueprint(Consumer.Blueprint):
        default_steps = [
            step for step in Consumer.Blueprint.default_steps if not any(map(step.count, UNUSED))
        ]

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        # On Redis this tries to delete queues by way of a connection that is gone.
        _harmless(super().on_connection_error_after_connected)(exc)
        self.connection = None

    def call_soon(self, act: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return super().call_soon(_harmless(act), *arguments, **options)

    def call_soon_ack(self, act: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return super().call_soon_ack(_harmless(act), *arguments, **options)


def _harmless(act: Callable[..., Any]) -> Callable[..., Any]:
    """Do it, and do without if that fails: what the broker is not told, it finds out."""

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
        # A worker that was cut off comes back while the broker still has its connection of before:
        # its queue for commands would be locked to that one, and the worker would end.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        "task_queues": [declared(name) for name in names],
        "task_default_queue": QUEUE,
        "task_create_missing_queues": False,
        "task_ignore_result": True,
        # A slot that is at work takes no further message.
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
