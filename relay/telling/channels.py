"""Sending alerts to a channel, within a deadline and outside of this process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from relay.config.model import AlertChannel, Config
from relay.rules.pages import REPOSITORY, mending_page, problem_page
from relay.store.problems import Alert

if TYPE_CHECKING:
    # Apprise stays out of processes that live long.
    from relay.telling.sender import Message, Order

#: Seconds that the alerts of one claim get; less than its lease.
DEADLINE = 45.0
#: How Apprise shows each change and level.
_TYPES = {"resolved": "success", "error": "failure", "warning": "warning"}


def message_of(alert: Alert, *, console: str | None = None) -> Message:
    """Return *alert* as people read it; *console*: its address, if people can reach it."""
    lines = [alert.said, f"{alert.change} {alert.at:%Y-%m-%d %H:%M:%SZ}, told by {_host()}"]
    if alert.repeat:
        lines.append("This may be a repetition: nobody knows whether it was sent before.")
    if alert.change == "resolved":
        lines[0] = f"This is over: {alert.said}"
    if alert.change != "resolved":
        lines.append(f"How to mend it: {REPOSITORY}/{mending_page(alert.kind)}")
    if console is not None:
        lines.append(f"{console}{problem_page(alert.kind, alert.subject)}")
    return {
        "number": alert.seq,
        "title": f"gofax-relay: {alert.kind.replace('_', ' ')}: {alert.change}",
        "body": "\n".join(lines),
        "type": _TYPES["resolved" if alert.change == "resolved" else alert.level],
    }


def fault(config: Config, channel: AlertChannel) -> str:
    """Return why the URL of *channel* cannot be used; nothing is sent."""
    return send(config, channel, []).get(0, "Apprise cannot be asked") or ""


def test(config: Config, channel: AlertChannel, *, at: datetime) -> str:
    """Send a message that says that it is a test; return why that failed, or nothing."""
    message: Message = {
        "number": 0,
        "title": "gofax-relay: test",
        "body": f"Problems will be told here. Sent {at:%Y-%m-%d %H:%M:%SZ} by {_host()}.",
        "type": "info",
    }
    return send(config, channel, [message]).get(0, "no answer in time") or ""


def send(
    config: Config,
    channel: AlertChannel,
    messages: Sequence[Message],
    *,
    deadline: float = DEADLINE,
) -> Mapping[int, str | None]:
    """Send *messages*, and return what became of each: None if it was sent, or why not.

    One that has no result may have been sent.
    """
    order: Order = {
        "url": channel.url.get_secret_value(),
        "allow": config.outbound.allow,
        "messages": messages,
    }
    # Neither secrets nor proxies of our environment: the guard would not see past a proxy.
    environment = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "relay.telling.sender"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    try:
        said, _ = process.communicate(json.dumps(order), timeout=deadline)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
    return dict(_results(said.splitlines()))


def _results(lines: Iterable[str]) -> Iterable[tuple[int, str | None]]:
    for line in lines:
        # The last line may be torn, if the process was ended.
        with suppress(ValueError):
            number, reason = json.loads(line)
            yield number, reason


def _host() -> str:
    return socket.gethostname()
