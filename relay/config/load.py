"""Reads the YAML file into the model, and finds every fault at once, with its line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from connectors.base import Connector, Options
from relay.config.document import ConfigError, Document, Where, read
from relay.config.endpoints import DATED, PLAIN
from relay.config.model import Config, DestinationConfig, Origin
from relay.config.retention import BY_TYPE, ONE_AGE
from relay.rules.hours import is_always_open

#: Bytes of a destination's name that fit into the name of a queue.
LONGEST_NAME = 200

#: Finds a connector class by name; raises LookupError with words for people.
FindConnector = Callable[[str], type[Connector[Any]]]

ModelT = TypeVar("ModelT", bound=BaseModel)


def load(
    path: Path, *, find_connector: FindConnector, environ: Mapping[str, str] | None = None
) -> Config:
    """Read and check the file. Raises :class:`ConfigError` with every fault."""
    config, _ = load_document(path, find_connector=find_connector, environ=environ)
    return config


class Need(StrEnum):
    """What a command needs of a file: its values, and those to which it refers."""

    ALL = "all"
    #: All but the destinations' options.
    ENDPOINTS = "endpoints"
    #: Neither those nor the endpoints' secrets.
    NO_SECRETS = "no secrets"
    #: Nor what only connectors know of: no connector is imported, and options are not checked.
    STORE = "store"

    def may_lack(self, where: Where) -> bool:
        """Return whether the value of *where* may be missing."""
        match where:
            case ("destinations", _, _, *_):
                return self is not Need.ALL
            case ("alerts", *_) | ("heartbeat",) | ("admin", "metrics_token"):
                return self is not Need.ALL
            case ("endpoints", _, "signing_secrets", _, "not_after"):
                return False
            case ("endpoints", _, "signing_secrets" | "basic_auth", *_):
                return self in (Need.NO_SECRETS, Need.STORE)
        return False


def load_document(
    path: Path,
    *,
    find_connector: FindConnector,
    environ: Mapping[str, str] | None = None,
    need: Need = Need.ALL,
) -> tuple[Config, Document]:
    """Read and check the file as :func:`load` does; return its lines and references, too.

    A destination with a value that is missing, and not in *need*, has no options, and none has
    any with :attr:`Need.STORE`; an endpoint has secrets that nobody knows instead.
    """
    # Before it is read: what is changed meanwhile is newer.
    origin = Origin.of(path) if path.exists() else None
    document = read(path, environ=environ, may_lack=need.may_lack)
    if not isinstance(document.values, dict):
        document.fault((), "this is not a mapping of keys; config.example.yaml shows one")
        raise ConfigError(path, document.faults)
    telling = [key for key in ("alerts", "heartbeat") if document.lacks((key,))]
    values = {key: value for key, value in document.values.items() if key not in telling}
    find = None if need is Need.STORE else find_connector
    destinations = _destinations(document, values.get("destinations"), find)
    routes = _named_routes(values.get("routes"))
    config = _checked(
        Config,
        {**values, "destinations": destinations, "routes": routes},
        at=(),
        document=document,
        context={"folder": path.absolute().parent},
    )
    _refer(document, values)
    if config is not None and config.hours is not None and is_always_open(config.hours):
        _never_closed(document, values)
    if document.faults or config is None:
        raise ConfigError(path, document.faults)
    if origin is not None:
        config.read_from(origin)
    return config, document


def _destinations(
    document: Document, given: object, find_connector: FindConnector | None
) -> dict[str, DestinationConfig]:
    """Check each destination: our own keys by our model, the rest by the connector's.

    None for *find_connector*: the rest is not looked at.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        document.fault(("destinations",), "write name: {connector: …} for each destination")
        return {}
    found = {}
    for name, values in given.items():
        at: Where = ("destinations", name)
        if not isinstance(values, dict):
            document.fault(at, "write {connector: …} and its options")
            continue
        destination = _destination(document, at, values, find_connector)
        if destination:
            found[name] = destination
    if find_connector is not None:
        lacking = [name for name in found if document.lacks(("destinations", name))]
        _agree(document, {name: found[name] for name in found if name not in lacking})
    return found


def _agree(document: Document, destinations: Mapping[str, DestinationConfig]) -> None:
    """Check that destinations which share a connection have one rate."""
    first: dict[str, str] = {}
    for name, each in destinations.items():
        other = first.setdefault(each.connection, name) if each.connection else name
        ours, theirs = each.limit or "none", destinations[other].limit or "none"
        if ours != theirs:
            said = f"{other} shares it and has another rate ({theirs}; here {ours}); write one"
            document.fault(("destinations", name, "connection"), said)


def _destination(
    document: Document,
    at: Where,
    values: Mapping[str, Any],
    find_connector: FindConnector | None,
) -> DestinationConfig | None:
    own = {
        key: value
        for key, value in values.items()
        if key in _common_keys() and not document.lacks((*at, key))
    }
    rest = {key: value for key, value in values.items() if key not in _common_keys()}
    options: BaseModel | None = Options()
    connector = _connector(document, at, values, find_connector)
    if connector is not None:
        if not document.lacks(at):
            options = _checked(
                connector.Options,
                rest,
                at=at,
                document=document,
                also=_common_keys(),
                context={"folder": document.path.absolute().parent},
            )
            if options is not None:
                own.setdefault("rate", connector.rate_for(options))
        own.setdefault("burst", connector.default_burst)
        own.setdefault("concurrency", connector.default_concurrency)
    return _checked(
        DestinationConfig, {**own, "options": options or Options()}, at=at, document=document
    )


def _connector(
    document: Document,
    at: Where,
    values: Mapping[str, Any],
    find_connector: FindConnector | None,
) -> type[Connector[Any]] | None:
    # Our own model reports a missing key.
    if find_connector is None or "connector" not in values:
        return None
    try:
        return find_connector(str(values["connector"]))
    except LookupError as error:
        document.fault((*at, "connector"), str(error))
        return None


def _common_keys() -> set[str]:
    return set(DestinationConfig.model_fields) - {"options"}


def _named_routes(given: object) -> object:
    if not isinstance(given, list):
        return given if given is not None else []
    return [
        {"name": f"route {position}", **route} if isinstance(route, dict) else route
        for position, route in enumerate(given, 1)
    ]


def _refer(document: Document, values: Mapping[str, Any]) -> None:
    """Check what one part of the file says about another, using the values as written."""
    destinations = values.get("destinations")
    known = list(destinations) if isinstance(destinations, dict) else []
    endpoints = [
        str(each.get("name") or each.get("path")) for each in _mappings(values.get("endpoints"))
    ]
    for index, route in enumerate(_mappings(values.get("routes"))):
        to = route.get("to")
        for position, name in enumerate(to if isinstance(to, list) else []):
            if name not in known:
                have = f"have: {', '.join(known)}" if known else "there are none"
                where = ("routes", index, "to", position)
                document.fault(where, f'no destination named "{name}" ({have})')
        for place, said in _named(route.get("when"), "endpoint", ("routes", index, "when")):
            for name in said if isinstance(said, list) else [said]:
                if name not in endpoints:
                    have = ", ".join(endpoints) or "none"
                    document.fault(place, f'no endpoint named "{name}" (have: {have})')
        for place, _ in _named(route.get("when"), "test", ("routes", index, "when")):
            if len(place) > len(("routes", index, "when", "test")):
                said = "tests match a route as a whole, or not: write it beside the others of when"
                document.fault(place, said)
            if values.get("tests") == []:
                document.fault(place, "no event is a test with tests: []")
        for key, needs, said in (
            ("sentiment", "sentiment", "no event has a sentiment without sentiment: vader"),
            ("hours", "business_hours", "nobody knows the hours without business_hours"),
        ):
            if not values.get(needs):
                for place, _ in _named(route.get("when"), key, ("routes", index, "when")):
                    document.fault(place, f"{said} at the top of the file")
    _tell_apart(document, list(_mappings(values.get("endpoints"))))
    _reach(document, values)


def _never_closed(document: Document, values: Mapping[str, Any]) -> None:
    """Name the conditions that never hold, because the business is always open."""
    for index, route in enumerate(_mappings(values.get("routes"))):
        for place, said in _named(route.get("when"), "hours", ("routes", index, "when")):
            if said == "closed":
                document.fault(place, "never holds: business_hours have no end")


def _reach(document: Document, values: Mapping[str, Any]) -> None:
    """Check that a fleet can reach the store and can have a queue for each destination."""
    engine = values.get("engine")
    if not isinstance(engine, dict) or engine.get("celery") is None:
        return
    if str(values.get("store", "sqlite:")).startswith("sqlite:"):
        said = "a fleet cannot share a SQLite file; write store: postgresql://user@host/db"
        document.fault(("engine",), said)
    destinations = values.get("destinations")
    for name in destinations if isinstance(destinations, dict) else ():
        if len(str(name).encode()) > LONGEST_NAME:
            document.fault(("destinations", name), "too long to name a queue after it")


def _tell_apart(document: Document, endpoints: Sequence[Mapping[str, Any]]) -> None:
    """Check that no two endpoints share a path, or a name, by which events are known."""
    paths: list[object] = []
    names: list[object] = []
    for index, endpoint in enumerate(endpoints):
        path = endpoint.get("path")
        name = endpoint.get("name") or path
        if path is not None and path in paths:
            document.fault(("endpoints", index, "path"), f'two endpoints have the path "{path}"')
        elif name is not None and name in names:
            document.fault(("endpoints", index, "name"), f'two endpoints have the name "{name}"')
        paths.append(path)
        names.append(name)


def _named(conditions: object, key: str, at: Where) -> Iterator[tuple[Where, object]]:
    """Yield every place of *key* among *conditions*, nested ones included, with its value."""
    if isinstance(conditions, dict):
        for name, inner in conditions.items():
            if name == key:
                yield (*at, name), inner
            yield from _named(inner, key, (*at, name))
    elif isinstance(conditions, list):
        for position, inner in enumerate(conditions):
            yield from _named(inner, key, (*at, position))


def _mappings(given: object) -> Iterator[Mapping[str, Any]]:
    for each in given if isinstance(given, list) else []:
        yield each if isinstance(each, dict) else {}


def _checked(
    model: type[ModelT],
    values: object,
    *,
    at: Where,
    document: Document,
    also: set[str] | None = None,
    context: Mapping[str, Any] | None = None,
) -> ModelT | None:
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        outer = {each["loc"][:depth] for each in errors for depth in range(len(each["loc"]))}
        for each in errors:
            if each["type"] == "too_short" and each["loc"] in outer:
                continue  # its items exist, but have faults of their own
            where = (*at, *(part for part in each["loc"] if part not in _MARKS))
            words = _words(
                each["type"], each["msg"], where, model, depth=len(at), also=also or set()
            )
            document.fault(where, words)
    return None


#: What pydantic puts into a place: a fault of a key, as opposed to its value; the kind of a value.
_MARKS = ("[key]", PLAIN, DATED, ONE_AGE, BY_TYPE)

#: Plain words for what pydantic says in Python's terms.
_WORDS = {
    "missing": "this key is needed",
    "dict_type": "write a mapping of keys",
    "mapping_type": "write a mapping of keys",
    "model_type": "write a mapping of keys",
    "list_type": "write a list, such as [a, b]",
    "tuple_type": "write a list, such as [a, b]",
    "too_short": "needs at least one",
}


def _words(
    kind: str, message: str, where: Where, model: type[BaseModel], *, depth: int, also: set[str]
) -> str:
    """Describe a fault in words that name its mend."""
    if kind == "extra_forbidden":
        known = _keys_at(model, where[depth:-1]) | (also if len(where) == depth + 1 else set())
        close = difflib.get_close_matches(str(where[-1]), sorted(known), n=1)
        return f"unknown key; did you mean {close[0]}?" if close else "unknown key"
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _keys_at(model: type[BaseModel], where: Sequence[str | int]) -> set[str]:
    """Return the keys that *model* knows at *where*, a place inside it."""
    models = {model}
    for part in where:
        fields = [
            field.annotation
            for each in models
            for name, field in each.model_fields.items()
            if part == (field.alias or name)
        ]
        # Positions in a list, and names of destinations, lead to no other model.
        models = {inner for each in fields for inner in _models_in(each)} if fields else models
    return {field.alias or name for each in models for name, field in each.model_fields.items()}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that values of *annotation* may be, or hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)
