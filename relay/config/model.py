"""The model of the YAML file: every key, its type and its default."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    GetJsonSchemaHandler,
    PrivateAttr,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from relay.config.business_hours import BusinessHours, TimeZone, zone
from relay.config.endpoints import Endpoint
from relay.config.retention import LONGEST_AGE, AgeOrRetention, Retention
from relay.config.section import Network, Positive, Secret, Section
from relay.config.store_urls import store_url, without_password
from relay.rules import sentiment
from relay.rules.delivery import DEFAULT_SCHEDULE, DEFAULT_WINDOW, Policy
from relay.rules.hours import Hours, Silence
from relay.rules.kinds import Change, Kind
from relay.rules.routing import Route
from relay.rules.tests import SENDER, EventPattern
from relay.rules.units import Duration, Rate, RateLimit, Size

#: Keys must outlive whatever the sender can still resend.
SHORTEST_HORIZON = timedelta(days=1)
#: Schemes of brokers, and the packages that each needs beside Celery.
BROKERS = {"amqp": (), "amqps": (), "redis": ("redis",), "rediss": ("redis",)}


def _listen(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ValueError("write host:port, such as 127.0.0.1:8080")
    return text


class Address(Section):
    """Where something of ours listens."""

    listen: Annotated[str, AfterValidator(_listen)]

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return _is_loopback(self.host)


class Server(Address):
    """The web server."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        "127.0.0.1:8080", description="Address and port of the web server; port 0: any free one"
    )
    trusted_proxies: int = Field(
        0,
        ge=0,
        le=10,
        description="Number of reverse proxies in front of the relay whose word is taken",
    )
    max_body: Size = Field(64 * 1024, description="Longest body that is accepted")
    workers: int = Field(
        1,
        ge=1,
        le=8,
        description="Processes that receive, each on a processor of its own; rates are counted in "
        "each of them",
    )
    threads: int = Field(
        512, ge=4, le=4096, description="Requests that each of them reads at the same time"
    )
    rate_per_address: Rate | None = Field(
        None, description="Requests from one address in any span of time; more are answered 429"
    )


def _beside(value: Path, info: ValidationInfo) -> Path:
    folder: Path = (info.context or {}).get("folder", Path())
    return folder / value


class Tls(Section):
    """What the web server shows who calls it by https."""

    cert: Annotated[Path, AfterValidator(_beside)] = Field(
        description="PEM file with its certificate and, after that, the rest of the chain"
    )
    key: Annotated[Path, AfterValidator(_beside)] = Field(
        description="PEM file with the certificate's private key"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _or_off(schema: dict[str, Any]) -> None:
    """Replace null in the JSON schema: off is written as a word, or as YAML's false."""
    schema["anyOf"] = [each for each in schema["anyOf"] if each != {"type": "null"}]
    schema["anyOf"].append({"enum": ["off", False]})


def _console_url(value: str) -> str:
    try:
        parts = urllib.parse.urlsplit(value)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("https", "http") or not value.isascii():
        raise ValueError("write the address of the console, such as https://relay.example.com")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("write scheme and host alone, such as https://relay.example.com")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise ValueError("passwords go to it: write https, and put a proxy with TLS before it")
    return value.rstrip("/")


class Admin(Address):
    """The inner listener, which senders never reach: console, API and metrics."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        "127.0.0.1:8081", description="Its address and port; port 0: any free one"
    )
    metrics_token: Secret | None = Field(
        None, description="Bearer token for /metrics; needed beyond loopback"
    )

    url: Annotated[str, AfterValidator(_console_url)] | None = Field(
        None, description="Address of the console as people reach it; links begin with it"
    )
    mask: bool = Field(
        False, description="Whether viewers see numbers and texts only after they say why"
    )

    @property
    def address(self) -> str:
        """Return where people reach the console: its URL, or where it listens."""
        return self.url or f"http://{self.listen}"

    @property
    def is_chosen(self) -> bool:
        """Whether the config says where to listen."""
        return "listen" in self.model_fields_set

    @model_validator(mode="after")
    def _guarded(self) -> Admin:
        if self.metrics_token is None and not self.is_local:
            raise ValueError(
                "metrics_token is needed: other machines reach this address; "
                "or listen on 127.0.0.1:8081"
            )
        return self


class Retry(Section):
    """When a failed delivery is tried again."""

    schedule: tuple[Positive, ...] = Field(
        DEFAULT_SCHEDULE,
        min_length=1,
        description="Longest wait before each further attempt; the last one repeats",
    )
    for_: Duration = Field(
        DEFAULT_WINDOW, alias="for", description="How long to keep trying after the first failure"
    )


class Backups(Section):
    """Backups that the relay makes by itself, before it changes a store as a whole."""

    for_: Annotated[Positive, Le(LONGEST_AGE)] = Field(
        timedelta(days=7), alias="for", description="How long they are kept"
    )


class DestinationConfig(Section):
    """A named, configured connector."""

    connector: str = Field(description="Kind of system: hubspot, zendesk, teams, …")
    rate: Rate | None = Field(
        None, description="Deliveries in any span of time; default: the connector's"
    )
    burst: int | None = Field(
        None,
        ge=1,
        description="How many of the rate may start at once; the rest is spread evenly. "
        "Default: the connector's, or all",
    )
    connection: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Destinations that name one connection share its rate",
    )
    concurrency: int | None = Field(
        None, ge=1, le=256, description="Deliveries at the same time; default: the connector's"
    )
    deadline: Positive = Field(timedelta(seconds=25), description="Longest time for one attempt")
    retry: Retry = Retry()
    on_ambiguous: Literal["retry", "hold"] = Field(
        "retry", description="If nobody knows whether it arrived: send again, or hold for a person"
    )
    on_dead: Literal["skip", "hold"] = Field(
        "skip", description="After a dead delivery: continue the conversation, or hold it"
    )
    #: The connector's own options, validated by its model.
    options: BaseModel = Field(exclude=True)

    @property
    def limit(self) -> RateLimit | None:
        """The rate, with its burst."""
        return self.rate and replace(self.rate, burst=self.burst)

    @property
    def policy(self) -> Policy:
        return Policy(
            schedule=self.retry.schedule,
            window=self.retry.for_,
            on_ambiguous=self.on_ambiguous,
            on_dead=self.on_dead,
        )


_SAY = "write threads, or {celery: {broker: amqp://user@host}}"


def _broker(value: SecretStr) -> SecretStr:
    try:
        parts = urllib.parse.urlsplit(value.get_secret_value())
        named, scheme = bool(parts.hostname and parts.port != 0), parts.scheme
    except ValueError:
        named, scheme = False, ""
    if not named or scheme not in BROKERS:
        raise ValueError("write amqp://user@host/vhost or redis://host/0")
    for package in ("celery", *BROKERS[scheme]):
        if importlib.util.find_spec(package) is None:
            raise ValueError(
                f'celery needs the package {package}: pip install "gofax-relay[celery]"'
            )
    return value


class Celery(Section):
    """A fleet of Celery workers."""

    broker: Annotated[SecretStr, AfterValidator(_broker)] = Field(
        description="URL of RabbitMQ (amqp, amqps) or Redis (redis, rediss), which tells workers "
        "that there is work"
    )


class Engine(Section):
    """What runs the deliveries: by default, threads of the worker process."""

    celery: Celery | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, given: Any) -> Any:
        if given == "threads":
            return {}
        if isinstance(given, cls) or isinstance(given, dict) and given.get("celery") is not None:
            return given
        raise ValueError(_SAY)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        fleet = handler.resolve_ref_schema(handler(schema))
        (celery, _) = fleet["properties"]["celery"]["anyOf"]
        fleet |= {"properties": {"celery": celery}, "required": ["celery"]}
        return {"anyOf": [{"type": "string", "enum": ["threads"]}, fleet]}


THREADS = Engine.model_validate("threads")


class Requests(Section):
    """How long refused requests that carry a signature can be let in."""

    keep: Size = Field(64 << 20, description="Bytes of them that are kept")
    for_: Annotated[Positive, Le(LONGEST_AGE)] = Field(
        timedelta(days=30), alias="for", description="How long they are kept"
    )


class Outbound(Section):
    """Which addresses connectors may reach."""

    allow: tuple[Network, ...] = Field(
        (), description="Private networks that connectors may reach, over http too"
    )


def _channel(value: SecretStr) -> SecretStr:
    scheme, found, rest = value.get_secret_value().partition("://")
    if not (found and rest and scheme.isalnum()):
        raise ValueError("write a URL of Apprise, such as mailto://… or json://…")
    if importlib.util.find_spec("apprise") is None:
        raise ValueError('alerts need the package apprise: pip install "gofax-relay[alerts]"')
    return value


class AlertChannel(Section):
    """Whom to tell about problems, and by what."""

    url: Annotated[SecretStr, AfterValidator(_channel)] = Field(
        description="URL of Apprise: mail, Teams, Slack and many more; it is a secret"
    )
    name: str = Field("", max_length=100, description="Its name; default: its kind and position")
    kinds: tuple[Kind, ...] = Field((), description="Kinds of problems to tell; default: all")
    changes: tuple[Change, ...] = Field(
        ("opened", "escalated", "resolved"), min_length=1, description="When to tell"
    )

    def wants(self, kind: Kind, change: Change) -> bool:
        """Return whether it is told when a problem of *kind* changes so."""
        return change in self.changes and (not self.kinds or kind in self.kinds)


def _public_url(value: str) -> str:
    try:
        parts = urllib.parse.urlsplit(value)
        host = parts.hostname or "."
        is_whole = not host.startswith(".") and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or parts.scheme not in ("https", "http") or not value.isascii():
        raise ValueError("write the address that GoFax posts to, such as https://sms.example.com")
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("write it without user, ? and #: paths of endpoints are added to it")
    return value.rstrip("/")


def _heartbeat(value: SecretStr) -> SecretStr:
    parts = urllib.parse.urlsplit(value.get_secret_value())
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ValueError("write an https URL")
    return value


class Logs(Section):
    """The lines on standard error."""

    format: Literal["json", "text"] | None = Field(
        None, description="json for machines, text for people; default: text in a terminal"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important lines that are written"
    )

    @property
    def as_text(self) -> bool | None:
        return None if self.format is None else self.format == "text"

    @property
    def threshold(self) -> int:
        return logging.getLevelNamesMapping()[self.level.upper()]


def _installed(value: str) -> str:
    if fault := sentiment.missing():
        raise ValueError(fault)
    return value


@dataclass(frozen=True, slots=True)
class Origin:
    """A file, and when it had been changed as it was read."""

    path: Path
    changed_at: datetime

    @classmethod
    def of(cls, path: Path) -> Origin:
        """Look at *path* as it is now. Raises OSError."""
        return cls(path.resolve(), datetime.fromtimestamp(path.stat().st_mtime, UTC))


class Config(Section):
    """The whole file."""

    server: Server = Server()
    tls: Tls | None = Field(
        None, description="Serve https without a proxy; renewed files are taken by themselves"
    )
    admin: Admin | None = Field(
        Admin(), json_schema_extra=_or_off, description="The inner listener, or off"
    )
    store: str = Field(
        "sqlite:///relay.db",
        description="URL of the database: sqlite:///relay.db or postgresql://user@host/db",
        repr=False,
    )
    retention: AgeOrRetention = Field(
        timedelta(days=90),
        description="How long the contents of events are kept: a time, or one for each event type",
    )
    dedupe_horizon: Annotated[Duration, Ge(SHORTEST_HORIZON), Le(LONGEST_AGE)] | None = Field(
        None,
        description="How long keys of events are kept; older events are stored as stale",
    )
    requests: Requests = Requests()
    backups: Backups = Backups()
    disk_reserve: Size = Field(
        64 << 20, description="Free disk space below which no new event is accepted"
    )
    engine: Engine = THREADS
    outbound: Outbound = Outbound()
    alerts: tuple[AlertChannel, ...] = Field(
        (), description="Channels to which problems are told; needs the extra alerts"
    )
    heartbeat: Annotated[SecretStr, AfterValidator(_heartbeat)] | None = Field(
        None, description="URL that is called every minute while no problem is open"
    )
    silence: Positive | None = Field(
        None,
        description="Time without an event, within business_hours, that is a problem; "
        "default: none is",
    )
    logs: Logs = Logs()
    time_zone: TimeZone = Field(
        "UTC", description="Time zone of what people read, such as Australia/Sydney"
    )
    tests: tuple[EventPattern, ...] = Field(
        (SENDER,),
        description="What is a test: patterns of which all must be found; default: what "
        "gofax-sender test sends",
    )
    business_hours: BusinessHours | None = Field(
        None, description="When the business is open; default: nobody knows"
    )
    sentiment: Annotated[Literal["vader"], AfterValidator(_installed)] | None = Field(
        None, description="What rates the tone of texts; needs the extra sentiment"
    )
    endpoints: tuple[Endpoint, ...] = Field(min_length=1)
    public_url: Annotated[str, AfterValidator(_public_url)] | None = Field(
        None, description="Address that GoFax posts to, before the paths of endpoints"
    )
    destinations: Mapping[str, DestinationConfig] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()

    _origin: Origin | None = PrivateAttr(None)

    @property
    def origin(self) -> Origin | None:
        """The file that this was read from."""
        return self._origin

    def read_from(self, origin: Origin) -> None:
        self._origin = origin

    @field_validator("admin", mode="before")
    @classmethod
    def _off(cls, given: Any) -> Any:
        if given is None:
            raise ValueError("write off, or {listen: 127.0.0.1:8081}")
        return None if given is False or given == "off" else given

    @field_validator("store")
    @classmethod
    def _beside_the_file(cls, url: str, info: ValidationInfo) -> str:
        folder: Path = (info.context or {}).get("folder", Path())
        return store_url(url, folder=folder)

    @field_validator("alerts")
    @classmethod
    def _named(cls, alerts: tuple[AlertChannel, ...]) -> tuple[AlertChannel, ...]:
        """Give each channel a name that tells it from the others."""
        named = []
        for number, each in enumerate(alerts, 1):
            kind = each.url.get_secret_value().partition("://")[0]
            named.append(each.model_copy(update={"name": each.name or f"{kind}-{number}"}))
        names = [each.name for each in named]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two channels are named {twice[0]}")
        return tuple(named)

    @property
    def kept(self) -> Retention:
        """How long the contents of events are kept, by type."""
        given = self.retention
        return given if isinstance(given, Retention) else Retention(default=given)

    @property
    def zone(self) -> tzinfo:
        """Return the time zone of what people read."""
        return zone(self.time_zone)

    @property
    def hours(self) -> Hours | None:
        """The hours of the business; None: the file does not say."""
        given = self.business_hours
        return None if given is None else given.resolved(time_zone=self.time_zone)

    @property
    def longest_silence(self) -> Silence | None:
        """How long a silence may be; None: as long as it likes."""
        if self.silence is None:
            return None
        return Silence(longest=self.silence, hours=self.hours)

    @property
    def store_name(self) -> str:
        """Return the URL of the store without its password."""
        return without_password(self.store)
