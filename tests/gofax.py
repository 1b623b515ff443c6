"""What GoFax posts: the example of its help page, "SMS Webhooks", and how it is signed."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

#: The example as it stands there, its fields in their order.
EXAMPLE: dict[str, Any] = {
    "eventType": "SMS_REPLY",
    "eventTimestamp": "2025-12-04T00:24:07.112733Z",
    "messageId": "abc123",
    "direction": "reply",
    "from": "+61400000000",
    "to": "+61700000000",
    "messageBody": "Thanks for your message",
    "metadata": {"accountId": "12345"},
    "signature": "HMAC_SHA256",
}


def sign(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
