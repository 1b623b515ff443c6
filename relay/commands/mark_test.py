"""What to write under ``tests:`` so that events like a stored one are recognised as tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from connectors.base import Event
from relay.commands.tables import failure
from relay.commands.times import shown_time
from relay.config.model import Config
from relay.rules.tests import EventPattern, is_test, proposed
from relay.shapes.words import count
from relay.store import Queries
from relay.store.search import Unknown

#: How many of the newest stored events a pattern is tried with, unless told otherwise.
AMONG = 1000
#: How many of those that it finds are shown.
SHOWN = 5


def lines(config: Config, queries: Queries, name: str, *, among: int) -> Iterator[str]:
    """Yield the pattern for the event *name*, and what else it finds among the newest events."""
    event = _event(queries, name)
    if is_test(event, config.tests):
        yield f"{event.id}: the patterns under tests: find it already; nothing to add"
        return
    pattern = proposed(event)
    if pattern is None:
        raise failure(
            f"{event.id}: its messageId has no word, and it has no text: nothing tells it from a "
            "customer's; write a text into the test"
        )
    yield f"{event.id}: write this into the config, then gofax-relay reload:"
    yield ""
    yield "tests:"
    for each in (*config.tests, pattern):
        yield from _yaml(each)
    yield ""
    yield from _found(pattern, [view.event for view in queries.events(limit=among)], event)
    if pattern.message_id is None:
        yield "note: it looks at the text alone: a customer who writes this is taken for a test"


def _event(queries: Queries, name: str) -> Event:
    try:
        view = queries.event(name)
    except Unknown as error:
        raise failure(str(error)) from error
    if view is None:
        raise failure(f'no event "{name}" was accepted; gofax-relay events lists them')
    return view.event


def _found(pattern: EventPattern, events: Sequence[Event], event: Event) -> Iterator[str]:
    others = [each for each in events if each.id != event.id and pattern.finds(each)]
    among = f"of the newest {count(len(events), 'event', 'events')}"
    if not others:
        yield f"It finds this event and no other {among}."
        return
    yield f"It finds this event and {len(others)} more {among}. Are they tests, too?"
    for each in others[-SHOWN:]:
        yield f"  {shown_time(each.received_at)}  {each.id}  {each.message_id or ''}"


def _yaml(pattern: EventPattern) -> Iterator[str]:
    """Write an item of ``tests:``."""
    given = [(key, getattr(pattern, key)) for key in ("message_id", "text")]
    written = [f"{key}: {_quoted(value)}" for key, value in given if value is not None]
    for number, each in enumerate(written):
        yield f"  {'-' if number == 0 else ' '} {each}"


def _quoted(text: str) -> str:
    # Between single quotes YAML knows no escapes, and patterns are full of backslashes.
    return "'" + text.replace("'", "''") + "'"
