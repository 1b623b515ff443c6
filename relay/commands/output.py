"""What listings have in common: marks of states, ids, and lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from relay.commands.tables import is_terminal
from relay.rules import jsontext
from relay.rules.delivery import State
from relay.store import Queries

SIGNS = {
    State.DELIVERED: "✓",
    State.DEAD: "✗",
    State.HELD: "?",
    State.PENDING: "…",
    State.IN_FLIGHT: "→",
    State.WAITING: "·",
}


def short_ids(queries: Queries, ids: Sequence[str]) -> Mapping[str, str]:
    """Return ids as a table shows them: a program gets them whole."""
    return queries.short_ids(ids) if is_terminal() else {each: each for each in ids}


def print_json(value: Any) -> None:
    """Print *value* as one line of JSON."""
    click.echo(jsontext.printable(value))
