"""What customers wrote and their numbers, hidden from who may only look, if the config says so."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from relay.api.identity import asking
from relay.api.services import services
from relay.rules.access import masked_number, masked_sentence

T = TypeVar("T")

#: In the place of a text.
HIDDEN = "…"

#: The keys of JSON whose values are numbers of people, texts of people, all of a message, and
#: sentences in which a number may stand.
_NUMBERS = {"from", "to", "customer"}
_TEXTS = {"body", "keyword", "text", "conversation"}
_WHOLE = {"payload", "content"}
_SENTENCES = {"error", "detail", "reason", "said", "says", "next", "why", "fault", "thread"}
_SENTENCES |= {"saw", "why_no_deliveries", "reference", "message_id", "waits_for_message"}


def is_masked() -> bool:
    """Return whether numbers and texts are hidden from who asks."""
    admin = services().config.admin
    return bool(admin and admin.mask) and asking().only_looks


def shown(value: T) -> T:
    """Return JSON as who asks may see it."""
    return cast(T, masked(value)) if is_masked() else value


def masked(value: Any) -> Any:
    """Return JSON without numbers and texts."""
    if isinstance(value, dict):
        return {key: _masked(key, each) for key, each in value.items()}
    if isinstance(value, list):
        return [masked(each) for each in value]
    return value


def _masked(key: str, value: Any) -> Any:
    if key in _WHOLE:
        return None
    if not isinstance(value, str):
        return masked(value)
    if key in _NUMBERS:
        return masked_number(value)
    if key in _TEXTS:
        return HIDDEN
    if key in _SENTENCES:
        return masked_sentence(value)
    return value
