"""In which time zone a command reads and writes times: that of its config."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo

import click

from relay.shapes.times import full_time

#: Under which key a command keeps the time zone of its config.
ZONE = "gofax_relay.time_zone"


def zone() -> tzinfo:
    """Return the time zone for people, which the config of this command names."""
    context = click.get_current_context(silent=True)
    found: tzinfo = context.meta.get(ZONE, UTC) if context else UTC
    return found


def shown_time(time: datetime) -> str:
    """Write a time in full."""
    return full_time(time, zone=zone())
