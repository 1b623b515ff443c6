"""The model of the YAML file: every key, its type and its default."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from annotated_types import Ge, Gt, Le
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
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

from relay.rules import hours, scheme, sentiment
from relay.rules.delivery import DEFAULT_SCHEDULE, DEFAULT_WINDOW, Policy
from relay.rules.hours import DAYS_PATTERN, HOURS_PATTERN, Hours
from relay.rules.payload import DedupeField, Format
from relay.rules.problems import Change, Kind, Silence
from relay.rules.routing import Route
from relay.rules.scheme import Scheme, SecretEncoding, Signs
from relay.rules.signature import Encoding
from relay.rules.tests import SENDER, EventPattern
from relay.rules.units import Duration, Rate, RateLimit, Size

#: A longer age would lie before the first date that Python knows.
LONGEST_AGE = timedelta(days=36_500)
#: Keys must outlive whatever the sender can still resend.
SHORTEST_HORIZON = timedelta(days=1)
#: Paths that the relay uses itself.
RESERVED = ("/api", "/console", "/livez", "/metrics", "/readyz")
#: Schemes of brokers, and the packages that each needs beside Celery.
BROKERS = {"amqp": (), "amqps": (), "redis": ("redis",), "rediss": ("redis",)}


class Section(BaseModel):
    """Base of every part of the file: frozen, without unknown keys or values in messages."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )


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


class Address(Section):
    """Where something of ours listens."""

    listen: Annotated[str, AfterValidator(_listen)]

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


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
    threads: int = Field(512, ge=4, le=4096, description="Requests that are read at the same time")
    rate_per_address: Rate | None = Field(
        None, description="Requests from one address in any span of time; more are answered 429"
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


class Admin(Address):
    """The inner listener, which senders never reach: metrics."""

    listen: Annotated[str, AfterValidator(_listen)] = Field(
        "127.0.0.1:8081", description="Its address and port; port 0: any free one"
    )
    metrics_token: Secret | None = Field(
        None, description="Bearer token for /metrics; needed beyond loopback"
    )

    @property
    def is_chosen(self) -> bool:
        """Whether the config says where to listen."""
        return "listen" in self.model_fields_set

    @model_validator(mode="after")
    def _guarded(self) -> Admin:
        if self.metrics_token is None and not _is_loopback(self.host):
            raise ValueError(
                "metrics_token is needed: other machines reach this address; "
                "or listen on 127.0.0.1:8081"
            )
        return self


class SignatureScheme(Section):
    """How the sender signs; ``gofax-relay requests diagnose`` finds it out."""

    header: str = Field(
        "X-GoFax-Signature",
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header that carries the signature, unless only field says where it is",
    )
    field: str | None = Field(
        None,
        min_length=1,
        description="Field of the JSON body that carries the signature; beside header: the field "
        "that is not signed",
    )
    encoding: Encoding = Field("auto", description="auto, hex or base64")
    signs: Signs = Field("body", description="What is signed: the raw body, or more, or less")
    timestamp_header: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]+$", description="Header whose time is signed with the body"
    )
    tolerance: Positive | None = Field(
        None, description="Age of that time above which a request is refused; default: any age"
    )
    secret_encoding: SecretEncoding = Field(
        "text", description="How signing_secrets are written: text, hex or base64"
    )

    @property
    def scheme(self) -> Scheme:
        return Scheme(
            header=None if self._is_in_body else self.header,
            field=self.field or DEFAULT_SCHEME.field,
            encoding=self.encoding,
            signs=self.signs,
            timestamp_header=self.timestamp_header,
        )

    @property
    def _is_in_body(self) -> bool:
        return self.field is not None and "header" not in self.model_fields_set

    @model_validator(mode="after")
    def _possible(self) -> SignatureScheme:
        if self.signs == "timestamp.body" and self.timestamp_header is None:
            raise ValueError("signs: timestamp.body needs timestamp_header")
        if self._is_in_body and self.signs not in ("body-without-field", "sorted-json"):
            raise ValueError(
                "a signature in the body cannot be of the whole body: "
                "write signs: body-without-field, or sorted-json"
            )
        return self


DEFAULT_SCHEME = Scheme()


class BasicAuth(Section):
    """The sender's name and password."""

    username: str
    password: Secret


class Endpoint(Section):
    """An inbound URL of ours."""

    path: str = Field(pattern=r"^/[A-Za-z0-9/_.~-]*$", description="Path of the URL")
    name: str = Field("", description="Its name in logs and commands; default: the path")
    format: Format = Field("json", description="json, or form for legacy notifications")
    signing_secrets: tuple[Secret, ...] = Field(
        (), description="Secrets, newest first; any of them may have signed"
    )
    signature: SignatureScheme = SignatureScheme()
    basic_auth: BasicAuth | None = None
    allow_unsigned: bool = Field(False, description="Accept unsigned requests")
    on_duplicate: Literal["revive", "ignore"] = Field(
        "revive", description="Whether a resend from GoFax sends dead deliveries again"
    )
    dedupe_by: tuple[DedupeField, ...] = Field(
        ("messageId",), min_length=1, description="Fields that distinguish two events"
    )
    rate: Rate | None = Field(
        None, description="Requests in any span of time; more are answered 429"
    )

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
            raise ValueError(f"the relay uses this path itself ({', '.join(RESERVED)})")
        return path

    @field_validator("dedupe_by")
    @classmethod
    def _with_message_id(cls, fields: tuple[DedupeField, ...]) -> tuple[DedupeField, ...]:
        if "messageId" not in fields:
            raise ValueError("must contain messageId: without it, different events look alike")
        return fields

    @property
    def guard(self) -> str:
        """Say what a request must bring to be accepted."""
        number = len(self.signing_secrets)
        signed = (
            "signed with its secret" if number == 1 else f"signed with any of {number} secrets"
        )
        guards = [*([signed] if number else []), *(["Basic auth"] if self.basic_auth else [])]
        return f"{self.format}, {' and '.join(guards) or 'UNSIGNED: anybody may post'}"

    @property
    def signing_keys(self) -> tuple[bytes, ...]:
        """The signing secrets as bytes."""
        encoding = self.signature.secret_encoding
        return tuple(scheme.key(s.get_secret_value(), encoding) for s in self.signing_secrets)

    @model_validator(mode="after")
    def _readable_secrets(self) -> Endpoint:
        for number, secret in enumerate(self.signing_secrets, 1):
            try:
                scheme.key(secret.get_secret_value(), self.signature.secret_encoding)
            except ValueError as error:
                raise ValueError(f"signing_secrets: secret {number} {error}") from None
        return self

    @model_validator(mode="after")
    def _signed_json(self) -> Endpoint:
        if self.format == "form" and self.signature.signs in ("body-without-field", "sorted-json"):
            raise ValueError(f"signature: {self.signature.signs} is of JSON, and format is form")
        return self

    @model_validator(mode="after")
    def _guarded(self) -> Endpoint:
        if not (self.signing_secrets or self.basic_auth or self.allow_unsigned):
            raise ValueError(
                "needs signing_secrets or basic_auth (or allow_unsigned: true: anybody may post)"
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

    allow: tuple[Annotated[str, AfterValidator(_network)], ...] = Field(
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


def _time_zone(value: str) -> str:
    try:
        if value != "UTC":
            ZoneInfo(value)
    except (ValueError, OSError, ZoneInfoNotFoundError) as error:
        raise ValueError(
            "this system knows no such time zone: write one such as Australia/Sydney"
        ) from error
    return value


TimeZone = Annotated[str, AfterValidator(_time_zone)]


def _zone(name: str) -> tzinfo:
    # A system without a time zone database knows this one, too.
    return UTC if name == "UTC" else ZoneInfo(name)


def _days(written: str) -> str:
    hours.days(written)
    return written


def _span(written: str) -> str:
    hours.span(written)
    return written


def _date(given: object) -> date:
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    try:
        return date.fromisoformat(given if isinstance(given, str) else "")
    except ValueError:
        raise ValueError("write a date such as 2026-12-25") from None


Days = Annotated[str, AfterValidator(_days), Field(json_schema_extra={"pattern": DAYS_PATTERN})]
DayHours = Annotated[
    str, AfterValidator(_span), Field(json_schema_extra={"pattern": HOURS_PATTERN})
]
Several = Annotated[tuple[DayHours, ...], Field(min_length=1)]
DayHoursOrMore = Annotated[
    Several,
    BeforeValidator(
        lambda given: given if isinstance(given, list | tuple) else [given],
        json_schema_input_type=DayHours | Several,
    ),
]


class BusinessHours(Section):
    """When the business is open, for ``when: {hours: …}`` and for what is unusual then."""

    time_zone: TimeZone | None = Field(
        None, description="Time zone of the hours; default: the time_zone of the file"
    )
    days: Mapping[Days, DayHoursOrMore] = Field(
        min_length=1,
        description="Hours by days, such as mon-fri; a day that is not here is closed",
        json_schema_extra={"additionalProperties": False},
    )
    holidays: tuple[Annotated[date, BeforeValidator(_date)], ...] = Field(
        (), description="Dates on which no hours begin"
    )

    @field_validator("days")
    @classmethod
    def _each_once(cls, given: Mapping[str, Several]) -> Mapping[str, Several]:
        of_day: dict[int, str] = {}
        for names in given:
            for day in hours.days(names):
                if day in of_day:
                    name = hours.WEEKDAYS[day]
                    raise ValueError(
                        f"{name} is in {of_day[day]} and in {names}: write its hours as one list"
                    )
                of_day[day] = names
        return given

    def resolved(self, *, time_zone: str) -> Hours:
        """Return them for the rules; *time_zone* counts if they name none."""
        return Hours(
            zone=_zone(self.time_zone or time_zone),
            week={
                day: tuple(map(hours.span, spans))
                for names, spans in self.days.items()
                for day in hours.days(names)
            },
            holidays=frozenset(self.holidays),
        )


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
    admin: Admin | None = Field(
        Admin(), json_schema_extra=_or_off, description="The inner listener, or off"
    )
    store: str = Field(
        "sqlite:///relay.db",
        description="URL of the database: sqlite:///relay.db or postgresql://user@host/db",
        repr=False,
    )
    retention: Annotated[Positive, Le(LONGEST_AGE)] = Field(
        timedelta(days=90), description="How long the contents of events are kept"
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
    def zone(self) -> tzinfo:
        """Return the time zone of what people read."""
        return _zone(self.time_zone)

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


def store_url(url: str, *, folder: Path) -> str:
    """Validate the URL of a store; a relative file is in *folder*. Raises ValueError."""
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
    """Return the URL of a store without its password, for people."""
    return re.sub(r"://([^:/?@]*):.*@", r"://\1:***@", url)


#: A host name or IP address, and an optional port.
_HOST = re.compile(r"([^:]*|\[[^\]]*\])(:\d{1,5})?", re.ASCII)


def _server_url(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        parts = urllib.parse.urlsplit("")
    if parts.path in ("", "/") or not parts.netloc:
        raise ValueError("write postgresql://user@host/db: host and name of the database")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError("write postgresql://user@host:5432/db: a port is a number")
    if "password=" in parts.query:
        raise ValueError("write the password before the host: postgresql://user:password@host/db")
    if importlib.util.find_spec("psycopg") is None:
        raise ValueError(
            'postgresql needs the package psycopg: pip install "gofax-relay[postgres]"'
        )
    return url
