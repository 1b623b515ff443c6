"""The clock of sweeps: in a process of its own, beside a worker, or in several of them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery.beat import ScheduleEntry, Scheduler
from kombu import Producer

from relay.cluster.hints import waiting


class Beat(Scheduler):
    """Keeps its schedule in memory, and sends no sweep while another one waits for a worker."""

    def apply_async(
        self, entry: ScheduleEntry, producer: Producer | None = None, **options: Any
    ) -> Any:
        producer = producer or self.producer
        # A connection that broke is made again when the message is sent.
        with suppress(*producer.connection.connection_errors):
            if waiting(producer.channel, entry.options["queue"]):
                return None
        return super().apply_async(entry, producer=producer, **options)
