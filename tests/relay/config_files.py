"""Config files for tests: two connectors, what is hidden, and how a file is read."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, Field, SecretStr, model_validator

from connectors.base import Connector, Event, Options, Receipt
from relay.config.model import (
    Config,
)

Read = Callable[..., Config]
Faults = Callable[..., list[str]]

EXAMPLE = Path(__file__).parents[2] / "config.example.yaml"
#: What must never be shown, in a piece that no scanner takes for a secret.
HIDDEN = "hush" * 3
ENVIRON = {
    "GOFAX_SIGNING_SECRET": HIDDEN,
    "GOFAX_STATUS_PASSWORD": HIDDEN,
    "HUBSPOT_ACCESS_TOKEN": HIDDEN,
    "ZENDESK_CLIENT_SECRET": HIDDEN,
    "TEAMS_WORKFLOW_URL": f"https://example.com/flow?sig={HIDDEN}",
}
#: What is needed only when everything in the example is switched on.
FURTHER = {
    "SMTP_PASSWORD": HIDDEN,
    "GOFAX_METRICS_TOKEN": HIDDEN,
    "FLOW_URL": f"https://example.com/flow?sig={HIDDEN}",
    "FLOW_SECRET": "whsec_" + base64.b64encode(HIDDEN.encode() * 2).decode(),
    "FLOW_TOKEN": HIDDEN,
    "ALERTS_URL": f"json://example.com/{HIDDEN}",
    "HEARTBEAT_URL": f"https://example.com/{HIDDEN}",
}
ENDPOINT = "endpoints: [{path: /hook, signing_secrets: [one]}]\n"


class MailOptions(Options):
    token: SecretStr
    port: int = Field(25, ge=1)
    color: Literal["red", "green"] = "red"
    mode: str = "a"

    @model_validator(mode="after")
    def _consistent(self) -> MailOptions:
        if self.mode == "b" and self.port == 25:
            raise ValueError("mode b needs another port")
        return self


class Mail(Connector[MailOptions]):
    Options: ClassVar[type[BaseModel]] = MailOptions
    default_rate: ClassVar[str | None] = "4/1s"
    default_concurrency = 3

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        return Receipt(reference=key)

    def check(self) -> str:
        return "fine"


class Plain(Mail):
    """One without options or limits of its own."""

    Options = Options
    default_rate = None


def find_connector(name: str) -> type[Connector[Any]]:
    known = {"mail": Mail, "plain": Plain}
    if name not in known:
        raise LookupError(f'no connector named "{name}" (installed: mail, plain)')
    return known[name]
