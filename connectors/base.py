"""The contract of a connector: what it is given, what it returns, what it raises.

    DeliveryError
    ├── Transient      nothing happened; the relay tries again
    ├── Throttled      too fast; the relay waits, and counts no attempt
    ├── Ambiguous      it may have happened; the relay repeats it as such, or asks a person
    ├── Refused        this event can never work here; the delivery is dead
    └── Unauthorized   no event can work here now; the relay pauses the destination

Anything else that a connector raises counts as :class:`Ambiguous` and is logged as a bug. That
includes :class:`ContractError`, raised by receipts and errors that are given a wrong value.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    TypeVar,
    runtime_checkable,
)

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from connectors.http import Http

Scope = Literal["conversation", "destination"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One accepted request: what a connector is asked to deliver."""

    #: Our id, ``evt_…``.
    id: str
    #: Name of the endpoint it came in by.
    endpoint: str
    #: The sender's id as text; None if it gave no usable one.
    message_id: str | None
    #: ``SMS_REPLY``, ``SMS_RECEIVED``, ``SMS_STATUS``, or whatever the sender wrote.
    type: str
    #: ``reply``, ``inbound``, …, as the sender wrote it.
    direction: str | None
    #: The customer's number: E.164, or as it came.
    customer: str | None
    #: Our number in the conversation; status events have none.
    ours: str | None
    #: ``from`` and ``to`` of the payload, normalised.
    sender: str | None
    recipient: str | None
    #: The text; None when the sender did not include it.
    body: str | None
    #: ``STOP``, ``START`` or ``HELP`` if the text is one of their synonyms.
    keyword: str | None
    #: When it happened, by the sender's clock (aware UTC); None if unreadable.
    occurred_at: datetime | None
    #: When we accepted it (aware UTC).
    received_at: datetime
    account_id: str | None
    #: ``metadata`` of the payload, as it came.
    metadata: Mapping[str, Any] = field(default_factory=dict)
    #: The whole parsed payload, as it came.
    payload: Mapping[str, Any] = field(default_factory=dict)
    #: What order and threads hang on: customer number and our number.
    conversation: str
    #: The page of the relay's console that shows it, for colleagues; None if there is none that
    #: they can reach. A customer is never shown it.
    url: str | None = None
    #: How the text sounds, if the config asks for that; None if it does not, or has no text.
    sentiment: Literal["positive", "neutral", "negative"] | None = None
    #: Whether somebody tries the relay, and no customer wrote it.
    test: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Preview:
    """One thing that a delivery makes in the system, as the system would be asked for it."""

    #: What it is, for people: ``card``, ``mail``, ``ticket``, …
    kind: str
    #: What goes out: a text as it is, or what goes out as JSON, without the ids of things that
    #: only a delivery finds or makes.
    content: str | Mapping[str, Any]
    #: What people read there, if *content* does not show it.
    text: str = ""
    #: On what it depends, such as ``if no contact has the number``; empty: it is made.
    when: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Disclosure:
    """What a destination is told of customers, for who answers for their data."""

    #: Hosts, addresses or folders that get it; never a credential.
    to: tuple[str, ...]
    #: What of an event, in words for people: ``customer's number``, ``text``, …
    what: tuple[str, ...]


class ContractError(TypeError):
    """A connector handed over what the contract has no place for: a bug of the connector.

    The message names the field and the type of its value, never the value.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What a successful delivery left in the destination. Ids may be numbers: they become texts.

    Raises :class:`ContractError`.
    """

    #: The remote id of what was made, for people and logs.
    reference: str
    #: Where a person can look at it.
    url: str | None = None
    #: The remote ticket or contact to hand to this conversation's next delivery.
    thread: str | None = None

    def __post_init__(self) -> None:
        for name in ("reference", "url", "thread"):
            value = getattr(self, name)
            if value is not None or name == "reference":
                object.__setattr__(self, name, _text(f"Receipt.{name}", value))


class DeliveryError(Exception):
    """Why a delivery did not succeed. The message is shown to people: no secrets, no bodies.

    Raises :class:`ContractError`.
    """

    #: HTTP status of the answer, if there was one.
    status: int | None = None
    #: Shortest wait that the destination asked for (Retry-After); None if it did not say.
    retry_after: timedelta | None = None
    #: A part of the delivery is done: the next attempt comes with ``repeat=True``, whatever
    #: kind of error this is.
    acted: bool = False

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        retry_after: timedelta | float | None = None,
    ) -> None:
        """*retry_after*: a timedelta, or seconds."""
        super().__init__(message)
        self.status = _status(status)
        self.retry_after = _wait(retry_after)


class Transient(DeliveryError):
    """Nothing happened; the same call may work later."""


class Throttled(DeliveryError):
    """The destination asks us to slow down; nothing happened."""

    #: What has to wait: this conversation, or everything for this destination.
    scope: Scope = "destination"

    def __init__(
        self,
        message: str,
        *,
        retry_after: timedelta | float | None = None,
        scope: Scope = "destination",
        status: int | None = None,
    ) -> None:
        super().__init__(message, status=status, retry_after=retry_after)
        self.scope = _scope(scope)


class Ambiguous(DeliveryError):
    """It may have happened: no answer, a broken one, or an error after acting."""


class Refused(DeliveryError):
    """This event can never work here."""


class Unauthorized(DeliveryError):
    """No event can work here until a person mends credentials, scopes or addresses."""


def checked_receipt(value: object) -> Receipt:
    """Return what ``deliver`` returned, as the relay reads it. Raises :class:`ContractError`."""
    if not isinstance(value, Receipt):
        raise ContractError(f"deliver() returned {type(value).__name__}, not a Receipt")
    return Receipt(reference=value.reference, url=value.url, thread=value.thread)


def checked_error(error: DeliveryError) -> DeliveryError:
    """Return *error* as the relay reads it. Raises :class:`ContractError`.

    Its attributes may have been set after it was made, or by a class of the connector's own.
    """
    error.status, error.retry_after = _status(error.status), _wait(error.retry_after)
    if isinstance(error, Throttled):
        error.scope = _scope(error.scope)
    return error


def _text(name: str, value: object) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ContractError(f"{name} takes text or a number, not {type(value).__name__}")


def _status(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 999:
        return int(value)
    kind = "another number" if isinstance(value, int) else type(value).__name__
    raise ContractError(f"status takes a number of three digits, not {kind}")


def _wait(value: object) -> timedelta | None:
    if value is None or isinstance(value, timedelta):
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        kind = "NaN" if isinstance(value, float) else type(value).__name__
        raise ContractError(f"retry_after takes seconds or a timedelta, not {kind}")
    try:
        return timedelta(seconds=value)
    except OverflowError:
        return timedelta.max if value > 0 else timedelta.min


def _scope(value: object) -> Scope:
    if value == "conversation" or value == "destination":
        return value
    raise ContractError('scope takes "conversation" or "destination"')


class Options(BaseModel):
    """Base of a connector's YAML options: unknown keys are faults, values stay hidden."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


OptionsT = TypeVar("OptionsT", bound=BaseModel)


class Connector(ABC, Generic[OptionsT]):
    """How to talk to one kind of system. An instance serves one destination, from many threads.

    A connector keeps nothing on disk: what it must remember of a conversation it returns as
    ``Receipt.thread`` and is given back as *thread*.
    """

    #: The YAML options: types, defaults, descriptions; secrets are ``SecretStr``.
    Options: ClassVar[type[BaseModel]]
    #: Deliveries per time (``"4/1s"``) unless the destination says otherwise; None: no limit.
    default_rate: ClassVar[str | None] = None
    #: How many of the rate may start at once unless the destination says otherwise, the rest being
    #: spread evenly; None: all of them.
    default_burst: ClassVar[int | None] = None
    #: Deliveries at the same time unless the destination says otherwise.
    default_concurrency: ClassVar[int] = 8
    #: With *repeat*, finds what an earlier attempt wrote, and never writes it twice. When a backup
    #: was put back, a person decides what is repeated through a connector that cannot.
    looks_first: ClassVar[bool] = False

    def __init__(self, options: OptionsT, *, http: Http) -> None:
        self.options = options
        self.http = http

    @classmethod
    def rate_for(cls, options: OptionsT) -> str | None:
        """Return the rate of a destination with *options* that names none."""
        return cls.default_rate

    @abstractmethod
    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        """Bring *event* into the system and say what was made.

        *key* is the same for every attempt at this event and destination. *thread* is what the
        last receipt of this conversation gave. *repeat*: an earlier attempt under *key* may have
        acted, so look before writing. *deadline*: seconds that the whole call may take.

        Raises :class:`DeliveryError`.
        """

    @abstractmethod
    def check(self) -> str:
        """Ask the system whether our credentials work, change nothing, and say who we are there.

        Raises :class:`Unauthorized` or :class:`Transient`.
        """

    def preview(self, event: Event, *, key: str) -> Sequence[Preview] | None:
        """Return what ``deliver`` would make of *event*, in its order, and ask nobody.

        What depends on things in the system is what the first message of a conversation makes
        there. None: this connector has no preview.

        Raises :class:`Refused` where ``deliver`` would before it asks anybody.
        """
        return None

    @classmethod
    def discloses(cls, options: OptionsT) -> Disclosure | None:
        """Return what a destination with *options* is told, and where that is; ask nobody.

        None: this connector does not say.
        """
        return None

    def setup(self) -> str:
        """Make in the system, once, what deliveries there rely on, and say what was made.

        ``gofax-relay connectors setup`` calls it; a person may do so twice. What is there
        already stays as it is.

        Raises :class:`DeliveryError`.
        """
        return "nothing to set up"

    def close(self) -> None:
        """Release connections; may be called more than once."""


@runtime_checkable
class Rolls(Protocol):
    """What a connector has beside the rest if it keeps rows that can be put together by day."""

    def roll(self, *, before: date) -> Iterator[str]:
        """Put together each day *before*, and say so day by day.

        Raises :class:`DeliveryError`.
        """
