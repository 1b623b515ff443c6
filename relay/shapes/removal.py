"""What was removed as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.acts.erasing import Removal
from relay.shapes.receipt import (
    BackupJson,
    ElsewhereJson,
    ReceiptJson,
    backup_json,
    elsewhere_json,
)


class RemovalJson(TypedDict):
    """How much was removed, or would be."""

    events: int
    deliveries: int
    requests: int
    keys: int
    words: int
    elsewhere: list[ElsewhereJson]
    dry_run: bool
    kept: str | None
    backups: list[BackupJson]
    receipt: ReceiptJson | None


def removal_json(removal: Removal) -> RemovalJson:
    """Return what was removed, as ``erase --json`` and ``prune --json`` print it."""
    removed = removal.removed
    return {
        "events": removed.events,
        "deliveries": removed.deliveries,
        "requests": removed.requests,
        "keys": removed.keys,
        "words": removed.words,
        "elsewhere": elsewhere_json(removed),
        "dry_run": removal.dry_run,
        "kept": removal.kept or None,
        "backups": [backup_json(each) for each in removal.backups],
        "receipt": removal.receipt,
    }
