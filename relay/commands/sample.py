"""What today's config would make of a sample, as lines for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from connectors.base import Preview
from relay.commands.explain import route_lines
from relay.commands.tables import failure
from relay.commands.times import shown_time
from relay.config.model import Config
from relay.rules import routing
from relay.shapes import sample as samples
from relay.shapes.explanation import text_of
from relay.shapes.sample import NoSample, Sample, Shown


def read(config: Config, name: str, *, endpoint: str | None) -> Sample:
    """Read what *name* names, or fail with the reason why it is no sample."""
    try:
        return samples.named(config, name, endpoint=endpoint)
    except NoSample as error:
        raise failure(str(error)) from error


def lines(config: Config, sample: Sample, found: Sequence[Shown]) -> Iterator[str]:
    """Yield what becomes of *sample*, for people."""
    event = sample.event
    yield f"{event.type}  {event.sender or '-'} → {event.recipient or '-'}"
    yield f"  messageId {event.message_id or '(none: known by its bytes)'}"
    marked = ", a test" if event.test else ""
    now = f", {samples.open_or_closed(config, event)}" if config.hours else ""
    yield f"  received {shown_time(event.received_at)} at {event.endpoint}{marked}{now}"
    yield f"  {text_of(event)}"
    if sample.standing != "accepted":
        yield f"  stored as {sample.standing}: kept, and not delivered by itself"
    yield from route_lines(routing.describe(sample.match.routes))
    if not found:
        yield "no route matches: nothing would be sent"
        return
    yield "What stands below is what the first message of a conversation makes; nothing was sent."
    for each in found:
        yield ""
        yield from _destination_lines(each)


def _destination_lines(found: Shown) -> Iterator[str]:
    to = f"to {found.destination} ({found.connector})"
    if found.refused is not None:
        yield f"✗ {to}: refused: {found.refused}"
    elif found.previews is None:
        yield f"? {to}: its connector has no preview, so nobody knows before it is delivered"
    elif not found.previews:
        yield f"✓ {to}: nothing, by its options"
    else:
        yield f"✓ {to}:"
        for each in found.previews:
            yield from _preview_lines(each)


def _preview_lines(preview: Preview) -> Iterator[str]:
    when = f", {preview.when}" if preview.when else ""
    yield f"  {preview.kind}{when}:"
    content = preview.text or preview.content
    if not isinstance(content, str):
        content = json.dumps(content, indent=2, ensure_ascii=False)
    yield from (f"    {line}".rstrip() for line in content.splitlines())
