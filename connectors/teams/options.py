"""Options of a Teams destination: where, as whom, and how its cards look."""

from __future__ import annotations

import re
from typing import Literal, Self
from urllib.parse import unquote, urlsplit
from uuid import UUID

from pydantic import Field, SecretStr, field_validator, model_validator

from connectors.base import Options
from connectors.teams import cards

#: Addresses of Microsoft's public cloud.
SERVICE_URL = "https://smba.trafficmanager.net/teams"
LOGIN_URL = "https://login.microsoftonline.com"

_CHANNEL = re.compile(r"19:[A-Za-z0-9_.-]{1,200}@thread\.[a-z0-9]{1,20}")
_BY_MODE = {
    "workflow": ("url", "shape", "send_conversation", "answers", "posts_as"),
    "bot": ("tenant_id", "client_id", "client_secret", "channel", "service_url", "login_url"),
}
_NEEDED = {"workflow": ("url",), "bot": ("tenant_id", "client_id", "client_secret", "channel")}


class Place(Options):
    """Where cards go, and as whom they are posted."""

    mode: Literal["workflow", "bot"] = Field(
        default="workflow",
        description="`workflow` posts each card by itself; `bot` keeps a thread per conversation.",
    )
    url: SecretStr | None = Field(
        default=None,
        description="workflow: the webhook's address, whole and unchanged: it is the credential.",
    )
    shape: cards.Shape = Field(
        default="envelope",
        description="workflow: `envelope` for the templates of Workflows; `card` for flows that "
        "want the bare Adaptive Card.",
    )
    send_conversation: bool = Field(
        default=False,
        description="workflow: give the flow the conversation and its thread beside the card, "
        "for flows that answer in threads.",
    )
    answers: Literal["accepted", "posted"] = Field(
        default="accepted",
        description="workflow: `posted` for a flow that answers when Teams has taken the card, so "
        "that delivered means posted.",
    )
    posts_as: Literal["flow_bot", "user"] = Field(
        default="flow_bot",
        description="workflow: as whom the flow posts. Microsoft takes 25 cards in 5 minutes from "
        "the Flow bot, 300 from a user; that is the default `rate`.",
    )
    tenant_id: UUID | None = Field(
        default=None, description="bot: id of the Microsoft 365 tenant."
    )
    client_id: UUID | None = Field(default=None, description="bot: application id of the bot.")
    client_secret: SecretStr | None = Field(
        default=None, min_length=1, description="bot: client secret of the application."
    )
    channel: str | None = Field(
        default=None,
        description="bot: the channel's link, as Teams copies it, or its id `19:…@thread.tacv2`.",
    )
    service_url: str = Field(
        default=SERVICE_URL, description="bot: where Teams takes messages of bots."
    )
    login_url: str = Field(default=LOGIN_URL, description="bot: where tokens are given out.")

    @field_validator("url")
    @classmethod
    def _usable(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and (fault := _fault(url.get_secret_value(), what="a webhook")):
            raise ValueError(fault)
        return url

    @field_validator("service_url", "login_url")
    @classmethod
    def _usable_base(cls, url: str) -> str:
        if fault := _fault(url, what="a service"):
            raise ValueError(fault)
        if urlsplit(url).query or urlsplit(url).fragment:
            raise ValueError("must end with its path")
        return url.rstrip("/")

    @field_validator("channel")
    @classmethod
    def _channel_id(cls, channel: str | None) -> str | None:
        """Take the id out of a link such as ``https://teams.microsoft.com/l/channel/19%3A…``."""
        if channel is None:
            return None
        is_link = channel.startswith("https://")
        found = _CHANNEL.search(unquote(channel)) if is_link else _CHANNEL.fullmatch(channel)
        if not found:
            raise ValueError("is neither a channel's link nor an id such as 19:…@thread.tacv2")
        return found[0]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        missing = [key for key in _NEEDED[self.mode] if getattr(self, key) is None]
        if missing:
            raise ValueError(f"mode {self.mode} needs {' and '.join(missing)}")
        other = "bot" if self.mode == "workflow" else "workflow"
        stray = [key for key in _BY_MODE[other] if key in self.model_fields_set]
        if stray:
            raise ValueError(
                f"{stray[0]} belongs to mode {other}; this destination has {self.mode}"
            )
        if self.send_conversation and self.shape == "card":
            raise ValueError("send_conversation needs shape envelope: a bare card has no room")
        return self


# Fields of the last base come first.
class TeamsOptions(cards.CardOptions, Place):
    """Options of the connector ``teams``."""


def _fault(url: str, *, what: str) -> str | None:
    """Return why *url* is unusable, without repeating it; None if it is usable."""
    if not re.fullmatch(r"[!-~]+", url):
        return "contains spaces, control characters or letters outside ASCII; copy it again"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("https", "http") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        return f"must be the http(s) address of {what}"
    if "@" in parts.netloc:
        return "must not contain a user name: Microsoft refuses such an Authorization header"
    return None
