"""The signed receipt of an erasure: what was removed, and what is left elsewhere."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from relay.rules import text
from relay.shapes.times import iso
from relay.store.actions import Act
from relay.store.backup import Backup
from relay.store.prune import Removed

#: What keeps keys for receipts apart from others that come from the same secret.
SALT = b"gofax-relay receipt of an erasure"


class ElsewhereJson(TypedDict):
    """What a destination holds of a customer."""

    destination: str
    where: str | None


class BackupJson(TypedDict):
    """A backup that still holds what was erased."""

    at: str
    host: str
    file: str


class ErasedJson(TypedDict):
    """How many of each kind were removed."""

    events: int
    deliveries: int
    requests: int
    words: int


class ReceiptJson(TypedDict):
    """The receipt of an erasure, signed with a key that only its store can compute."""

    act: str
    at: str
    by: str
    origin: str | None
    why: str | None
    customer: str
    customer_digest: str
    removed: ErasedJson
    complete: bool
    elsewhere: list[ElsewhereJson]
    backups: list[BackupJson]
    signature: str


_RECEIPT = TypeAdapter(ReceiptJson)


def receipt(
    removed: Removed,
    act: Act,
    *,
    number: str,
    complete: bool,
    backups: Sequence[Backup],
    secret: bytes,
) -> ReceiptJson:
    """Make the receipt of an erasure of *number*; *secret*: that of the store."""
    made: ReceiptJson = {
        "act": act.id or "",
        "at": iso(act.at),
        "by": act.who,
        "origin": act.origin,
        "why": act.why,
        "customer": text.masked(number),
        "customer_digest": _digest(secret, number.encode()),
        "removed": {
            "events": removed.events,
            "deliveries": removed.deliveries,
            "requests": removed.requests,
            "words": removed.words,
        },
        "complete": complete,
        "elsewhere": elsewhere_json(removed),
        "backups": [backup_json(each) for each in backups],
        "signature": "",
    }
    made["signature"] = _signature(made, secret)
    return made


def read_receipt(written: str | bytes) -> ReceiptJson:
    """Read what somebody calls a receipt. Raises ValueError."""
    try:
        _RECEIPT.validate_json(written, strict=True)
    except ValidationError:
        raise ValueError("this is no receipt of an erasure") from None
    # As it stands, with keys that no receipt has, so that these break the signature.
    given: ReceiptJson = json.loads(written)
    return given


def is_ours(given: ReceiptJson, secret: bytes) -> bool:
    """Return whether the store with *secret* signed a receipt as it stands here."""
    return hmac.compare_digest(given["signature"].encode(), _signature(given, secret).encode())


def is_of(given: ReceiptJson, number: str, secret: bytes) -> bool:
    """Return whether a receipt is about *number*."""
    return hmac.compare_digest(
        given["customer_digest"].encode(), _digest(secret, number.encode()).encode()
    )


def written_receipt(given: ReceiptJson) -> str:
    """Write a receipt as a file has it."""
    return json.dumps(given, indent=2) + "\n"


def elsewhere_json(removed: Removed) -> list[ElsewhereJson]:
    return [{"destination": each.destination, "where": each.where} for each in removed.elsewhere]


def backup_json(each: Backup) -> BackupJson:
    return {"at": iso(each.at), "host": each.host, "file": each.file}


def _signature(given: Mapping[str, object], secret: bytes) -> str:
    said = {name: value for name, value in given.items() if name != "signature"}
    return _digest(secret, json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


def _digest(secret: bytes, said: bytes) -> str:
    key = hmac.digest(secret, SALT, "sha256")
    return f"hmac-sha256:{hmac.digest(key, said, 'sha256').hex()}"
