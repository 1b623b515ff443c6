"""What the YAML file may say, as frozen settings; every fault is found at once, with its line."""

from __future__ import annotations

import difflib
import importlib.util
import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from connectors.base import Connector, Options
from relay import document, sentiment
from relay.delivery import DEFAULT_SCHEDULE, DEFAULT_WINDOW, Policy
from relay.document import ConfigError, Document, Where
from relay.engine import THREADS, Celery, Engine, Settings
from relay.payload import DedupeField, Format
from relay.routing import Route, When
from relay.signature import Encoding
from relay.units import Duration, Rate, Size

ModelT = TypeVar("ModelT", bound=BaseModel)

#: Keys must be kept for longer than the sender keeps what can be resent.
SHORTEST_HORIZON = timedelta(days=1)
#: Bytes of a destination's name for which there is room in the name of a queue.
LONGEST_NAME = 200
#: Paths that the relay keeps for itself.
RESERVED = ("/api", "/console", "/livez", "/metrics", "/readyz")

#: Finds a connector class by name; raises LookupError with words for people.
FindConnector = Callable[[str], type[Connector[Any]]]


def _listen(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("write host:port, such as 127.0.0.1:8080")
    return text


def _network(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"not a network such as 127.0.0.0/8: {error}") from None
    return text


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("empty: anybody could sign; use at least 32 random characters")
    return value


Secret = Annotated[SecretStr, AfterValidator(_secret)]


Positive = Annotated[Duration, Gt(timedelta())]


class Server(Settings):
    """The web server."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        "127.0.0.1:8080", description="Address and port of the web server; port 0: any free one"
    )
    trusted_proxies: int = Field(
        0, ge=0, le=10, description="How many reverse proxies in front of the relay to believe"
    )
    max_body: Size = Field(64 * 1024, description="Longest body that is read")
    threads: int = Field(512, ge=4, le=4096, description="Requests that are read at one time")
    rate_per_address: Rate | None = Field(
        None, description="Requests per time from one address; more are answered 429"
    )

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class SignatureScheme(Settings):
    """How the sender signs."""

    header: str = Field(
        "X-GoFax-Signature",
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header that carries the signature",
    )
    encoding: Encoding = Field("auto", description="auto, hex or base64")
    signs: Literal["body"] = Field("body", description="What is signed: the raw body")


class BasicAuth(Settings):
    """Name and password that the sender gives."""

    username: str
    password: Secret


class Endpoint(Settings):
    """An inbound URL of ours."""

    path: str = Field(pattern=r"^/[A-Za-z0-9/_.~-]*$", description="Path of the URL")
    name: str = Field("", description="What people call it; the path if not given")
    format: Format = Field("json", description="json, or form for legacy notifications")
    signing_secrets: tuple[Secret, ...] = Field(
        (), description="Secrets that may have signed, the newest first"
    )
    signature: SignatureScheme = SignatureScheme()
    basic_auth: BasicAuth | None = None
    allow_unsigned: bool = Field(False, description="Accept requests that nobody signed")
    on_duplicate: Literal["revive", "ignore"] = Field(
        "revive", description="Whether a resend from GoFax sends dead deliveries again"
    )
    dedupe_by: tuple[DedupeField, ...] = Field(
        ("messageId",), min_length=1, description="Fields that tell two events apart"
    )
    rate: Rate | None = Field(None, description="Requests per time; more are answered 429")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name"):
            return {**values, "name": str(values.get("path", ""))}
        return values

    @field_validator("path")
    @classmethod
    def _not_reserved(cls, path: str) -> str:
        if any(path == own or path.startswith(own + "/") for own in RESERVED):
            raise ValueError(f"the relay keeps this path for itself ({', '.join(RESERVED)})")
        return path

    @field_validator("dedupe_by")
    @classmethod
    def _with_message_id(cls, fields: tuple[DedupeField, ...]) -> tuple[DedupeField, ...]:
        if "messageId" not in fields:
            raise ValueError("must contain messageId: without it different events look alike")
        return fields

    @model_validator(mode="after")
    def _guarded(self) -> Endpoint:
        if not (self.signing_secrets or self.basic_auth or self.allow_unsigned):
            raise ValueError(
                "needs signing_secrets or basic_auth (or allow_unsigned: true: anybody may post)"
            )
        return self


class Retry(Settings):
    """When failed attempts are made again."""

    schedule: tuple[Positive, ...] = Field(
        DEFAULT_SCHEDULE, min_length=1, description="Longest waits; the last one repeats"
    )
    for_: Duration = Field(DEFAULT_WINDOW, alias="for", description="How long to go on")


class Destination(Settings):
    """A named, configured connector."""

    connector: str = Field(description="Kind of system: hubspot, zendesk, teams, …")
    rate: Rate | None = Field(None, description="Deliveries per time; default: the connector's")
    concurrency: int | None = Field(
        None, ge=1, le=256, description="Deliveries at one time; default: the connector's"
    )
    deadline: Positive = Field(
        timedelta(seconds=25), description="Longest time one attempt may take"
    )
    retry: Retry = Retry()
    on_ambiguous: Literal["retry", "hold"] = Field(
        "retry", description="When nobody knows whether it arrived: send again, or ask a person"
    )
    on_dead: Literal["skip", "hold"] = Field(
        "skip", description="When one is dead: go on with the conversation, or wait for a person"
    )
    #: The connector's own options, checked by its model.
    options: BaseModel = Field(exclude=True)

    @property
    def policy(self) -> Policy:
        return Policy(
            schedule=self.retry.schedule,
            window=self.retry.for_,
            on_ambiguous=self.on_ambiguous,
            on_dead=self.on_dead,
        )


class Outbound(Settings):
    """Where connectors may go."""

    allow: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
        (), description="Private networks that connectors may reach, over http too"
    )


def _installed(value: str) -> str:
    if fault := sentiment.missing():
        raise ValueError(fault)
    return value


class Config(Settings):
    """The whole file."""

    server: Server = Server()
    store: str = Field(
        "sqlite:///relay.db",
        description="URL of the database: sqlite:///relay.db or postgresql://user@host/db",
        repr=False,
    )
    retention: Annotated[Positive, Le(timedelta(days=36500))] = Field(
        timedelta(days=90), description="How long what events say is kept"
    )
    dedupe_horizon: Annotated[Duration, Ge(SHORTEST_HORIZON)] | None = Field(
        None,
        description="How long keys of events are kept; events older than that are stored as stale",
    )
    disk_reserve: Size = Field(
        64 << 20, description="Room on the store's disk below which nothing new is taken in"
    )
    engine: Engine = THREADS
    outbound: Outbound = Outbound()
    sentiment: Annotated[Literal["vader"], AfterValidator(_installed)] | None = Field(
        None, description="What judges how texts sound; needs the extra sentiment"
    )
    endpoints: tuple[Endpoint, ...] = Field(min_length=1)
    destinations: Mapping[str, Destination] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()

    @field_validator("store")
    @classmethod
    def _beside_the_file(cls, url: str, info: ValidationInfo) -> str:
        folder: Path = (info.context or {}).get("folder", Path())
        return store_url(url, folder=folder)

    @property
    def store_name(self) -> str:
        """The URL of the store, without its password."""
        return without_password(self.store)


def store_url(url: str, *, folder: Path) -> str:
    """Check the URL of a store; a file is looked for in *folder*. Raises ValueError."""
    if url.startswith(("postgresql:", "postgres:")):
        return _server_url(url)
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url == prefix:
        raise ValueError(
            "write sqlite:///relay.db (beside this file), sqlite:////path "
            "or postgresql://user@host/db"
        )
    return prefix + str((folder / url.removeprefix(prefix)).absolute())


def without_password(url: str) -> str:
    """Return the URL of a store as it may be shown."""
    return re.sub(r"://([^:/?@]*):.*@", r"://\1:***@", url)


def _server_url(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        parts = urllib.parse.urlsplit("")
    if parts.path in ("", "/") or not parts.netloc:
        raise ValueError("write postgresql://user@host/db: host and name of the database")
    if "password=" in parts.query:
        raise ValueError("write the password before the host: postgresql://user:password@host/db")
    if importlib.util.find_spec("psycopg") is None:
        raise ValueError(
            'postgresql needs the package psycopg: pip install "gofax-relay[postgres]"'
        )
    return url


def load(
    path: Path, *, find_connector: FindConnector, environ: Mapping[str, str] | None = None
) -> Config:
    """Read and check the file. Raises :class:`ConfigError` with every fault."""
    read = document.read(path, environ=environ)
    if not isinstance(read.values, dict):
        read.fault((), "this is no mapping of keys; config.example.yaml shows one")
        raise ConfigError(path, read.faults)
    values = dict(read.values)
    destinations = _destinations(read, values.get("destinations"), find_connector)
    routes = _named_routes(values.get("routes"))
    config = _checked(
        Config,
        {**values, "destinations": destinations, "routes": routes},
        at=(),
        read=read,
        context={"folder": path.absolute().parent},
    )
    _refer(read, values)
    if read.faults or config is None:
        raise ConfigError(path, read.faults)
    return config


def _destinations(
    read: Document, given: object, find_connector: FindConnector
) -> dict[str, Destination]:
    """Check each destination: our own keys by our model, the rest by the connector's."""
    if given is None:
        return {}
    if not isinstance(given, dict):
        read.fault(("destinations",), "write name: {connector: …} for each destination")
        return {}
    found = {}
    for name, values in given.items():
        at: Where = ("destinations", name)
        if not isinstance(values, dict):
            read.fault(at, "write {connector: …} and its options")
            continue
        destination = _destination(read, at, values, find_connector)
        if destination:
            found[name] = destination
    return found


def _destination(
    read: Document, at: Where, values: Mapping[str, Any], find_connector: FindConnector
) -> Destination | None:
    own = {key: value for key, value in values.items() if key in _common_keys()}
    rest = {key: value for key, value in values.items() if key not in _common_keys()}
    options: BaseModel | None = Options()
    try:
        connector = find_connector(str(values["connector"]))
    except KeyError:
        pass  # our own model says that the key is missing
    except LookupError as error:
        read.fault((*at, "connector"), str(error))
    else:
        options = _checked(
            connector.Options,
            rest,
            at=at,
            read=read,
            also=_common_keys(),
            context={"folder": read.path.absolute().parent},
        )
        own.setdefault("rate", connector.default_rate)
        own.setdefault("concurrency", connector.default_concurrency)
    return _checked(Destination, {**own, "options": options or Options()}, at=at, read=read)


def _common_keys() -> set[str]:
    return set(Destination.model_fields) - {"options"}


def _named_routes(given: object) -> object:
    if not isinstance(given, list):
        return given if given is not None else []
    return [
        {"name": f"route {position}", **route} if isinstance(route, dict) else route
        for position, route in enumerate(given, 1)
    ]


def _refer(read: Document, values: Mapping[str, Any]) -> None:
    """Check what one part of the file says of another, on the values as written."""
    destinations = values.get("destinations")
    known = list(destinations) if isinstance(destinations, dict) else []
    for index, route in enumerate(_mappings(values.get("routes"))):
        to = route.get("to")
        for position, name in enumerate(to if isinstance(to, list) else []):
            if name not in known:
                have = f"have: {', '.join(known)}" if known else "there are none"
                where = ("routes", index, "to", position)
                read.fault(where, f'no destination named "{name}" ({have})')
        if not values.get("sentiment"):
            for place in _named(route.get("when"), "sentiment", ("routes", index, "when")):
                read.fault(place, "no event has one unless the file says sentiment: vader")
    _tell_apart(read, list(_mappings(values.get("endpoints"))))
    _reach(read, values)


def _reach(read: Document, values: Mapping[str, Any]) -> None:
    """Check that a fleet can get at the store, and have a queue for each destination."""
    engine = values.get("engine")
    if not isinstance(engine, dict) or engine.get("celery") is None:
        return
    if str(values.get("store", "sqlite:")).startswith("sqlite:"):
        said = "a fleet cannot share a SQLite file; write store: postgresql://user@host/db"
        read.fault(("engine",), said)
    destinations = values.get("destinations")
    for name in destinations if isinstance(destinations, dict) else ():
        if len(str(name).encode()) > LONGEST_NAME:
            read.fault(("destinations", name), "too long to name a queue after it")


def _tell_apart(read: Document, endpoints: Sequence[Mapping[str, Any]]) -> None:
    """Check that no two endpoints share a path, or a name: events are known by it."""
    paths: list[object] = []
    names: list[object] = []
    for index, endpoint in enumerate(endpoints):
        path = endpoint.get("path")
        name = endpoint.get("name") or path
        if path is not None and path in paths:
            read.fault(("endpoints", index, "path"), f'two endpoints have the path "{path}"')
        elif name is not None and name in names:
            read.fault(("endpoints", index, "name"), f'two endpoints have the name "{name}"')
        paths.append(path)
        names.append(name)


def _named(conditions: object, key: str, at: Where) -> Iterator[Where]:
    """Yield every place at which *key* stands among *conditions*, those inside included."""
    if isinstance(conditions, dict):
        for name, inner in conditions.items():
            if name == key:
                yield (*at, name)
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
    read: Document,
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
                continue  # its items are there, but have faults of their own
            where = (*at, *each["loc"])
            read.fault(where, _words(each["type"], each["msg"], where, model, also or set()))
    return None


#: What pydantic says in Python's words.
_WORDS = {
    "missing": "this key is needed",
    "dict_type": "write a mapping of keys",
    "mapping_type": "write a mapping of keys",
    "model_type": "write a mapping of keys",
    "list_type": "write a list, such as [a, b]",
    "tuple_type": "write a list, such as [a, b]",
    "too_short": "needs at least one",
}


def _words(kind: str, message: str, where: Where, model: type[BaseModel], also: set[str]) -> str:
    """Say what is wrong in words that name the mend."""
    if kind == "extra_forbidden":
        known = also | set(_keys(model))
        close = difflib.get_close_matches(str(where[-1]), sorted(known), n=1)
        return f"unknown key; did you mean {close[0]}?" if close else "unknown key"
    if kind in _WORDS:
        return _WORDS[kind]
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


_PARTS: Mapping[type[BaseModel], tuple[type[BaseModel], ...]] = {
    Config: (Server, Endpoint, SignatureScheme, BasicAuth, Outbound, Route, When, Engine, Celery),
    Destination: (Retry,),
}


def _keys(model: type[BaseModel]) -> Iterator[str]:
    """Yield every key that *model* and the models inside it know."""
    for name, field in model.model_fields.items():
        yield field.alias or name
    for part in _PARTS.get(model, ()):
        yield from _keys(part)
