"""What a message would make in Zendesk, said without asking Zendesk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from connectors.base import Preview
from connectors.zendesk.client import new_comment, new_ticket
from connectors.zendesk.message import Message
from connectors.zendesk.options import ZendeskOptions
from connectors.zendesk.people import new_user

NOBODY, SOMEBODY = "if no end user has the number", "if an end user has the number"


def previews(message: Message, options: ZendeskOptions) -> Iterator[Preview]:
    """Yield what *message* makes as the first one of its conversation, in its order."""
    tag = options.opt_out_tag
    if tag is not None and message.opts_out is not None:
        if message.opts_out:
            yield from _user(message, options)
        kind = "tag on the profile" if message.opts_out else "tag off the profile"
        needs = not message.opts_out or options.unknown_customer == "skip"
        yield Preview(kind=kind, content={"tags": [tag]}, when=SOMEBODY if needs else "")
    if message.opens_nothing:
        if options.on_stop == "comment":
            comment = _known(new_comment(message, options, author=None))
            content = {"ticket": {"comment": comment, "metadata": message.metadata}}
            yield Preview(kind="comment", content=content, when="if a ticket is open")
        return
    if tag is None or not message.opts_out:
        yield from _user(message, options)
    ticket = _known(new_ticket(message, options, person=None))
    needs = options.unknown_customer == "skip"
    yield Preview(kind="ticket", content={"ticket": ticket}, when=SOMEBODY if needs else "")


def _user(message: Message, options: ZendeskOptions) -> Iterator[Preview]:
    if options.unknown_customer == "create":
        user = _known(new_user(message, phone=message.phone))
        yield Preview(kind="end user", content={"user": user}, when=NOBODY)


def _known(made: Any) -> dict[str, Any]:
    """Return what goes out as JSON, without what only a delivery knows."""
    known: dict[str, Any] = _without_none(made.to_dict(serialize=True))
    return known


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    return value
