"""Celery's beat, which asks for sweeps: in one process or several, alone or inside of a worker."""

from __future__ import annotations

from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from relay.cluster.hints import BrokerConnection, waiting


class Beat(Scheduler):
    """Keeps its schedule in memory; sends no sweep while another one waits for a worker."""

    def __init__(self, app: Any, **options: Any) -> None:
        self._broker = BrokerConnection(app)
        super().__init__(app, **options)

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, **options: Any) -> None:
        """Send a sweep; while the broker is away, skip this one."""
        try:
            with self._broker.producer() as ours:
                if not waiting(ours.channel, entry.options["queue"]):
                    super().apply_async(entry, producer=ours, **options)
        except Exception as error:  # each transport has errors of its own
            self._broker.note(error)
        else:
            self._broker.note(None)
