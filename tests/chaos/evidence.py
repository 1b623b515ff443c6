"""Gathers what is left after a run, for the verdict."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stage import Relay
from verdict import Evidence, Stored


def collect(
    relay: Relay, records: Sequence[Mapping[str, Any]], *, acknowledged: Iterable[str]
) -> Evidence:
    """Put together what the sender, the relay and the systems (*records*) can tell."""
    effects: dict[str, list[str]] = {"hubspot": [], "zendesk": [], "teams": []}
    for record in records:
        effects[record["system"]] += re.findall(r"this is \[([^]]+)\]", record["text"])
    stored = [
        Stored(
            name=view.event.message_id or "",
            conversation=view.event.conversation,
            standing=view.standing,
            states={each.destination: each.state.value for each in view.deliveries},
        )
        for view in relay.events()
    ]
    return Evidence(acknowledged=frozenset(acknowledged), stored=stored, effects=effects)
