"""A process of its own that sends alerts by Apprise, and reaches only what it may.

Its notifiers bring their own way of connecting; a hook of the interpreter sees every address
before it is connected to. A process can be ended at its deadline, whatever it waits for.

It reads an :class:`Order` as JSON from standard input, and writes a line for each alert that it
tried: its number, and why it was not sent (null if it was). After one that failed it ends. An
order without alerts only asks whether the URL can be used.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import re
import sys
from collections.abc import Sequence
from typing import Any, TypedDict

import apprise

from connectors.wire import Addresses

#: Shortest part of a URL that is masked in what a notifier says.
SHORTEST_SECRET = 5
#: Longest reason that is passed on.
LONGEST_REASON = 300
#: What the interpreter calls connecting, and sending without a connection.
_CONNECTS = ("socket.connect", "socket.sendto", "socket.sendmsg")


class Message(TypedDict):
    """An alert as people read it."""

    number: int
    title: str
    body: str
    #: How Apprise shows it: info, success, warning or failure.
    type: str


class Order(TypedDict):
    """What to send, to whom, and which private networks may be reached."""

    url: str
    allow: Sequence[str]
    messages: Sequence[Message]


class _Guard:
    """Refuses connections to addresses that are neither public nor allowed."""

    def __init__(self, addresses: Addresses) -> None:
        self._addresses = addresses
        #: The address that was refused last.
        self.refused = ""

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in _CONNECTS or not isinstance(args[-1], tuple):
            return
        address = ipaddress.ip_address(str(args[-1][0]).partition("%")[0])
        # Whether it is encrypted is for the URL to say: mail begins in the clear, for instance.
        if not self._addresses.permits(address, tls=True):
            self.refused = str(address)
            raise ConnectionRefusedError("not allowed")


class _Reasons(logging.Handler):
    """Keeps what Apprise says last about a failure."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def fault(url: str) -> str:
    """Return why Apprise cannot use *url*; nothing if it can."""
    reasons = _listen()
    if apprise.Apprise.instantiate(url) is not None:
        return ""
    said = masked(reasons.last, url) or "there is no such service, or a part of it is missing"
    return f"Apprise cannot use this URL: {said}"


def send(order: Order) -> None:
    """Send the messages of *order*, one after the other, and write what became of each."""
    guard, reasons = _Guard(Addresses(order["allow"])), _listen()
    channel = apprise.Apprise()
    is_usable = channel.add(order["url"])
    # Only now: reading the URL may ask the system for its own addresses.
    sys.addaudithook(guard)
    for message in order["messages"]:
        sent = is_usable and channel.notify(
            body=message["body"],
            title=message["title"],
            notify_type=apprise.NotifyType(message["type"]),
            body_format=apprise.NotifyFormat.TEXT,
        )
        reason = None if sent else _reason(guard, masked(reasons.last, order["url"]))
        _write(message["number"], reason)
        if reason is not None:
            return


def _write(number: int, reason: str | None) -> None:
    sys.stdout.write(json.dumps([number, reason]) + "\n")
    sys.stdout.flush()


def _listen() -> _Reasons:
    reasons = _Reasons()
    logger = logging.getLogger("apprise")
    logger.handlers = [reasons]
    logger.propagate = False
    return reasons


def _reason(guard: _Guard, said: str) -> str:
    if guard.refused:
        return f"{guard.refused} is a private address: outbound.allow does not contain it"
    return said or "Apprise does not say why"


def masked(said: str, url: str) -> str:
    """Return what a notifier said without any part of its URL, which holds secrets."""
    parts = [each for each in re.split(r"[/:@?&=#,]+", url) if len(each) >= SHORTEST_SECRET]
    for part in sorted(parts, key=len, reverse=True):
        said = said.replace(part, "***")
    return " ".join(said.split())[:LONGEST_REASON]


def main(order: Order) -> None:
    """Do what *order* says."""
    if order["messages"]:
        send(order)
    else:
        _write(0, fault(order["url"]) or None)


if __name__ == "__main__":
    main(json.load(sys.stdin))
