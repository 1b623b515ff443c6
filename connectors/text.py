"""What people read about an event, in words that every connector shares."""

from __future__ import annotations

from connectors.base import Event

#: Stands where a text should be when GoFax was told not to send it.
NO_BODY = "(no text: Include Message body is off for this webhook in GoFax)"


def spoken(event: Event) -> str:
    """Return the text of the SMS, or words that say why there is none."""
    if event.type == "SMS_STATUS":
        return event.body or "(no status text)"
    return event.body or NO_BODY


def title(event: Event) -> str:
    """Say in one line what happened and with whom."""
    customer = event.customer or "an unknown number"
    if event.type == "SMS_STATUS":
        return f"SMS status for {customer}"
    if event.type == "SMS_REPLY":
        return f"SMS reply from {customer}"
    if event.type == "SMS_RECEIVED":
        return f"SMS from {customer}"
    return f"{event.type or 'Event'}: {customer}"


def parties(event: Event) -> str:
    """Say who wrote to whom, as ``+61400000000 → +61700000000``."""
    return f"{event.sender or 'unknown'} → {event.recipient or 'unknown'}"
