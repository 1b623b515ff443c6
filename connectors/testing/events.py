"""Events to try connectors with."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from connectors.base import Event


def sample_event(**changes: Any) -> Event:
    """Make the reply that GoFax's help page shows, with *changes*."""
    fields: dict[str, Any] = {
        "id": "evt_0193a0000000sample",
        "endpoint": "/webhooks/gofax",
        "message_id": "abc123",
        "type": "SMS_REPLY",
        "direction": "reply",
        "customer": "+61400000000",
        "ours": "+61700000000",
        "sender": "+61400000000",
        "recipient": "+61700000000",
        "body": "Thanks for your message",
        "keyword": None,
        "occurred_at": datetime(2025, 12, 4, 0, 24, 7, 112733, tzinfo=UTC),
        "received_at": datetime(2025, 12, 4, 0, 24, 8, tzinfo=UTC),
        "account_id": "12345",
        "metadata": {"accountId": "12345"},
    }
    fields |= changes
    fields.setdefault("conversation", f"{fields['customer'] or ''}~{fields['ours'] or ''}")
    return Event(**fields)
