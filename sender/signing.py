"""How GoFax signs: HMAC-SHA256 over the raw body, as bare lower-case hex."""

from __future__ import annotations

import hashlib
import hmac

from sender.errors import SenderError

SIGNATURE_HEADER = "X-GoFax-Signature"


def sign(body: bytes, secret: str | bytes) -> str:
    """Return the value of ``X-GoFax-Signature`` for *body*.

    Text is taken as its UTF-8 bytes. Raises :class:`SenderError` for an empty secret: with that,
    anybody could sign.
    """
    # Bytes from the command line or the environment that are not UTF-8 stay as they are.
    key = secret.encode("utf-8", "surrogateescape") if isinstance(secret, str) else secret
    if not key:
        raise SenderError("the signing secret is empty: give one, or none at all to send unsigned")
    return hmac.new(key, body, hashlib.sha256).hexdigest()
