"""What today's config would make of a sample: each card, mail and ticket, and nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import JsonValue
from typing_extensions import TypedDict

from connectors.base import DeliveryError, Event, Preview
from relay import destinations, migrations
from relay.clock import wall
from relay.config.endpoints import Endpoint
from relay.config.model import Config
from relay.destinations import Destination
from relay.intake import Intake, trusted
from relay.rules import routing, sentiment
from relay.rules.hours import is_open
from relay.rules.payload import Unreadable, clean
from relay.rules.routing import Match
from relay.shapes.explanation import RouteJson, routes_json
from relay.store import Database, connect
from relay.store.connect import file_of
from relay.store.ids import new_id
from relay.store.line_up import delivery_key
from relay.store.recover import Recovery
from relay.store.refused import Refused
from relay.store.search import Unknown
from relay.store.values import Arrival, Request

#: The beginning of a request's id.
REQUEST = "req_"


class NoSample(Exception):
    """There is nothing to show, for the reason that the words give."""


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


class PreviewJson(TypedDict):
    """One card, mail or ticket that a destination would make."""

    kind: str
    when: str | None
    text: str | None
    content: JsonValue


class ShownJson(TypedDict):
    """What one destination would make of a sample."""

    destination: str
    connector: str
    refused: str | None
    previews: list[PreviewJson] | None


class SampleJson(TypedDict):
    """What today's config would make of a sample."""

    event_id: str
    message_id: str | None
    type: str
    endpoint: str
    standing: str
    test: bool
    hours: str | None
    routes: list[RouteJson]
    destinations: list[ShownJson]


def named(config: Config, name: str, *, endpoint: str | None) -> Sample:
    """Read the file *name*, or the stored event or refused request of that id.

    *endpoint*: the endpoint that the bytes of a file came to, if not the first that takes them.
    Raises :class:`NoSample`.
    """
    if Path(name).is_file():
        return _of_file(config, Path(name), endpoint)
    if endpoint is not None:
        raise NoSample(f"{name}: no such file, and what is stored has its endpoint")
    with _store(config, name) as database:
        name = clean(name)
        try:
            return of_stored(config, database, name)
        except Unknown as error:
            raise NoSample(f"{name}: no such file; {error}") from error


def of_stored(config: Config, database: Database, name: str) -> Sample:
    """Take the stored event or refused request *name*.

    Raises :class:`NoSample`, or :class:`~relay.store.search.Unknown` if there is no such event.
    """
    if name.startswith(REQUEST):
        return _of_request(config, database, name)
    found = Recovery(database).event_named(name)
    match = routing.match(found.event, config.routes, hours=config.hours)
    return Sample(event=found.event, key=found.key, match=match, standing=found.standing)


def of_bytes(
    config: Config, raw: bytes, *, endpoint: str | None = None, of: str = "the body"
) -> Sample:
    """Take *raw* as the body of a request that comes now.

    *endpoint*: the name or path of the endpoint that it comes to, if not the first that takes it;
    *of*: what the bytes are called in a fault. Raises :class:`NoSample`.
    """
    if len(raw) > config.server.max_body:
        most = f"{config.server.max_body:,} bytes (server.max_body)"
        raise NoSample(f"{of}: {len(raw):,} bytes, more than {most}: it would be answered 413")
    intake = Intake.of(config, _endpoint(config, raw, endpoint, of=of), judge=_judge(config))
    request = Request(
        id=new_id("req"),
        at=wall(),
        endpoint=intake.endpoint.name,
        method="POST",
        remote=None,
        headers={},
    )
    try:
        return _sample(intake.arrival(request, raw, charset=None))
    except Unreadable as error:
        raise NoSample(f"{of}: {intake.endpoint.name} could not read it: {error}") from error


def shown(config: Config, sample: Sample) -> list[Shown]:
    """Ask the connector of each destination what it would make of *sample*."""
    built = destinations.build(config)
    try:
        return [_shown(built[name], sample) for name in sample.match.destinations]
    finally:
        for each in built.values():
            each.connector.close()


def sample_json(config: Config, sample: Sample, found: Sequence[Shown]) -> SampleJson:
    """Return what becomes of *sample*, as ``check --sample --json`` prints it."""
    event = sample.event
    return {
        "event_id": event.id,
        "message_id": event.message_id,
        "type": event.type,
        "endpoint": event.endpoint,
        "standing": sample.standing,
        "test": event.test,
        "hours": open_or_closed(config, event) if config.hours else None,
        "routes": routes_json(routing.describe(sample.match.routes)),
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


def open_or_closed(config: Config, event: Event) -> str:
    """Return whether the business was open when *event* came."""
    return "open" if config.hours and is_open(event.received_at, config.hours) else "closed"


def _of_file(config: Config, path: Path, endpoint: str | None) -> Sample:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise NoSample(f"{path} cannot be read: {error.strerror}") from error
    return of_bytes(config, raw, endpoint=endpoint, of=str(path))


def _endpoint(config: Config, raw: bytes, name: str | None, *, of: str) -> Endpoint:
    """Return the endpoint *name*, or the first that takes what *raw* looks like."""
    looks = "json" if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"[") else "form"
    for each in config.endpoints:
        if each.format == looks if name is None else name in (each.name, each.path):
            return each
    have = ", ".join(f"{each.name} ({each.format})" for each in config.endpoints)
    is_json = "" if looks == "json" else "this is not JSON, and "
    wanted = f"{is_json}no endpoint takes {looks}"
    if name is not None:
        wanted = f'no endpoint is named "{name}"'
    raise NoSample(f"{of}: {wanted} (have: {have})")


def _of_request(config: Config, database: Database, name: str) -> Sample:
    found = Refused(database).named(name)
    if len(found) != 1:
        raise NoSample(
            f'"{name}" begins several ids'
            if found
            else f'no refused request "{name}"; of an accepted one, give the id of its event'
        )
    judge = _judge(config)
    intakes = [Intake.of(config, each, judge=judge) for each in config.endpoints]
    examined = trusted(found[0], intakes, who="", why="")
    if examined.arrival is None:
        raise NoSample(f"{found[0].id}: {examined.reason}")
    return _sample(examined.arrival)


def _sample(arrival: Arrival) -> Sample:
    return Sample(event=arrival.event, key=arrival.key, match=arrival.match)


def _judge(config: Config) -> sentiment.Judge | None:
    return sentiment.vader() if config.sentiment else None


@contextmanager
def _store(config: Config, name: str) -> Iterator[Database]:
    """Open the store as it is: to bring its tables up to date would be an effect."""
    file = file_of(config.store)
    nothing = NoSample(f"{name}: no such file, and there is no store yet with events")
    if file is not None and not file.exists():
        raise nothing
    with closing(connect(config.store, reserve=config.disk_reserve)) as database:
        found = migrations.revision(database)
        if found is None:
            raise nothing
        if found != migrations.newest():
            raise NoSample(f"{config.store_name} is of another version: name a file instead")
        yield database


def _shown(destination: Destination, sample: Sample) -> Shown:
    name, kind = destination.name, destination.settings.connector
    try:
        key = delivery_key(sample.key, name)
        previews = destination.connector.preview(destination.linked(sample.event), key=key)
    except DeliveryError as error:
        return Shown(destination=name, connector=kind, refused=str(error))
    except Exception as error:  # whatever somebody else's connector does
        said = f"its preview fails with {type(error).__name__}: {error}"
        return Shown(destination=name, connector=kind, refused=said)
    return Shown(destination=name, connector=kind, previews=previews)


def _preview_json(preview: Preview) -> PreviewJson:
    return {
        "kind": preview.kind,
        "when": preview.when or None,
        "text": preview.text or None,
        "content": cast(JsonValue, preview.content),
    }
