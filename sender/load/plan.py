"""The plan of a load: how many events, how fast, and what they hold."""

from __future__ import annotations

import ipaddress
import json
import secrets
import socket
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from sender.attempt import Target
from sender.errors import SenderError
from sender.event import Event
from sender.witness import new_run

#: Placeholders for what differs from event to event.
_ID, _CUSTOMER = "the-id-of-the-event", "the-number-of-the-customer"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A load of *count* events, *rate* a second, over at most *connections* connections."""

    target: Target
    rate: float
    count: int
    connections: int = 32
    #: Customers that write: one conversation is delivered in order, different ones in parallel.
    customers: int = 1000
    run: str = field(default_factory=lambda: new_run("load"))

    @property
    def seconds(self) -> float:
        """How long it takes, if the receiver keeps up."""
        return self.count / self.rate

    def message_id(self, number: int) -> str:
        """Return the id of the event of that number, from 0."""
        return f"{self.run}-{number:05d}"

    def ids(self) -> list[str]:
        """Return the id of every event."""
        return [self.message_id(number) for number in range(self.count)]


class Mould:
    """Makes the events of a plan, each in a few microseconds."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # Of this run alone, so that two runs share no conversation.
        self._first = secrets.randbelow(10**7)
        event = Event(message_id=_ID, sender=_CUSTOMER, body=f"{_ID} of gofax-sender load")
        text = json.dumps(event.payload()).replace("%", "%%")
        self._text = text.replace(_ID, "%(id)s").replace(_CUSTOMER, "%(customer)s")

    def body(self, number: int) -> bytes:
        """Return the raw body of the event of that number."""
        customer = (self._first + number % self._plan.customers) % 10**7
        values = {"id": self._plan.message_id(number), "customer": f"+6149{customer:07d}"}
        return (self._text % values).encode("ascii")


def check_is_ours(url: str) -> None:
    """Raise :class:`SenderError` unless *url* leads to this machine alone."""
    host = urlsplit(url).hostname or ""
    try:
        found = {each[4][0] for each in socket.getaddrinfo(host, None)}
    except OSError as error:
        raise SenderError(f"{host}: host name not found: check the URL") from error
    foreign = [each for each in found if not ipaddress.ip_address(each).is_loopback]
    if foreign:
        raise SenderError(
            f"{host} is not this machine ({foreign[0]}): load goes to loopback only, "
            "unless --i-own-this-host says that the host is yours"
        )
