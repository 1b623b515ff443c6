"""What today's config would make of a sample: each card, mail and ticket, and nothing is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.base import DeliveryError, Event, Preview
from relay import destinations, migrations
from relay.clock import wall
from relay.commands.explain import route_lines, text_of
from relay.commands.tables import failure, shown_time
from relay.config.model import Config
from relay.destinations import Destination
from relay.intake import Intake, trusted
from relay.rules import routing, sentiment
from relay.rules.hours import is_open
from relay.rules.payload import Unreadable, clean
from relay.rules.routing import Match
from relay.store import Database, connect
from relay.store.accept import delivery_key
from relay.store.connect import file_of
from relay.store.ids import new_id
from relay.store.recover import Recovery
from relay.store.refused import Refused
from relay.store.search import Unknown
from relay.store.values import Arrival, Request

#: The beginning of a request's id.
REQUEST = "req_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """An event, and where today's routes send it."""

    event: Event
    #: The event's key, of which the keys of its deliveries are made.
    key: bytes
    match: Match
    #: Of a stored event: what it is.
    standing: str = "accepted"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """What one destination would make of a sample."""

    destination: str
    connector: str
    #: None: the connector has no preview, or refuses.
    previews: Sequence[Preview] | None = None
    #: Why the connector cannot deliver it.
    refused: str | None = None


def read(config: Config, name: str, *, endpoint: str | None) -> Sample:
    """Read the file *name*, or the stored event or refused request of that id.

    *endpoint*: the endpoint that the bytes of a file came to, if not the first that takes them.
    """
    if Path(name).is_file():
        return _of_file(config, Path(name), endpoint)
    if endpoint is not None:
        raise failure(f"{name}: no such file, and what is stored has its endpoint")
    database, name = _store(config, name), clean(name)
    if name.startswith(REQUEST):
        return _of_request(config, database, name)
    try:
        found = Recovery(database).event_named(name)
    except Unknown as error:
        raise failure(f"{name}: no such file; {error}") from error
    match = routing.match(found.event, config.routes, hours=config.hours)
    return Sample(event=found.event, key=found.key, match=match, standing=found.standing)


def shown(config: Config, sample: Sample) -> list[Shown]:
    """Ask the connector of each destination what it would make of *sample*."""
    built = destinations.build(config)
    try:
        return [_shown(built[name], sample) for name in sample.match.destinations]
    finally:
        for each in built.values():
            each.connector.close()


def lines(config: Config, sample: Sample, found: Sequence[Shown]) -> Iterator[str]:
    """Yield what becomes of *sample*, for people."""
    event = sample.event
    yield f"{event.type}  {event.sender or '-'} → {event.recipient or '-'}"
    yield f"  messageId {event.message_id or '(none: known by its bytes)'}"
    marked = ", a test" if event.test else ""
    now = f", {_open(config, event)}" if config.hours else ""
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


def as_json(config: Config, sample: Sample, found: Sequence[Shown]) -> dict[str, Any]:
    """Return what becomes of *sample*, for programs."""
    event = sample.event
    return {
        "event_id": event.id,
        "message_id": event.message_id,
        "type": event.type,
        "endpoint": event.endpoint,
        "standing": sample.standing,
        "test": event.test,
        "hours": _open(config, event) if config.hours else None,
        "routes": routing.describe(sample.match.routes),
        "destinations": [
            {
                "destination": each.destination,
                "connector": each.connector,
                "refused": each.refused,
                "previews": None
                if each.previews is None
                else [_preview_json(preview) for preview in each.previews],
            }
            for each in found
        ],
    }


def _of_file(config: Config, path: Path, endpoint: str | None) -> Sample:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise failure(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > config.server.max_body:
        most = f"{config.server.max_body:,} bytes (server.max_body)"
        raise failure(f"{path}: {len(raw):,} bytes, more than {most}: it would be answered 413")
    looks = "json" if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") else "form"
    candidates = [
        each
        for each in config.endpoints
        if (each.format == looks if endpoint is None else endpoint in (each.name, each.path))
    ]
    if not candidates:
        have = ", ".join(f"{each.name} ({each.format})" for each in config.endpoints)
        wanted = f"takes {looks}" if endpoint is None else f'is named "{endpoint}"'
        raise failure(f"{path}: no endpoint {wanted} (have: {have})")
    intake = Intake.of(config, candidates[0], judge=_judge(config))
    request = Request(
        id=new_id("req"),
        at=wall(),
        endpoint=intake.endpoint.name,
        method="POST",
        remote=None,
        headers={},
    )
    try:
        return _sample(intake.arrival(request, raw, reason="a sample", charset=None))
    except Unreadable as error:
        raise failure(f"{path}: {intake.endpoint.name} could not read it: {error}") from error


def _of_request(config: Config, database: Database, name: str) -> Sample:
    found = Refused(database).named(name)
    if len(found) != 1:
        raise failure(
            f'"{name}" begins several ids'
            if found
            else f'no refused request "{name}"; of an accepted one, give the id of its event'
        )
    judge = _judge(config)
    intakes = [Intake.of(config, each, judge=judge) for each in config.endpoints]
    examined = trusted(found[0], intakes, who="", why="")
    if examined.arrival is None:
        raise failure(f"{found[0].id}: {examined.reason}")
    return _sample(examined.arrival)


def _sample(arrival: Arrival) -> Sample:
    return Sample(event=arrival.event, key=arrival.key, match=arrival.match)


def _judge(config: Config) -> sentiment.Judge | None:
    return sentiment.vader() if config.sentiment else None


def _store(config: Config, name: str) -> Database:
    """Open the store as it is: to bring its tables up to date would be an effect."""
    file = file_of(config.store)
    if file is not None and not file.exists():
        raise failure(f"{name}: no such file, and there is no store yet with events")
    database = connect(config.store, reserve=config.disk_reserve)
    if migrations.revision(database) != migrations.newest():
        raise failure(f"{config.store_name} is of another version: name a file instead")
    return database


def _shown(destination: Destination, sample: Sample) -> Shown:
    name, kind = destination.name, destination.settings.connector
    try:
        key = delivery_key(sample.key, name)
        previews = destination.connector.preview(sample.event, key=key)
    except DeliveryError as error:
        return Shown(destination=name, connector=kind, refused=str(error))
    except Exception as error:  # whatever somebody else's connector does
        said = f"its preview fails with {type(error).__name__}: {error}"
        return Shown(destination=name, connector=kind, refused=said)
    return Shown(destination=name, connector=kind, previews=previews)


def _open(config: Config, event: Event) -> str:
    return "open" if config.hours and is_open(event.received_at, config.hours) else "closed"


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


def _preview_json(preview: Preview) -> Mapping[str, Any]:
    return {
        "kind": preview.kind,
        "when": preview.when or None,
        "text": preview.text or None,
        "content": preview.content,
    }
