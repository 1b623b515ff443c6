"""What was removed as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.acts.erasing import Removal
from relay.shapes.times import iso
from relay.store.backup import Backup


class ElsewhereJson(TypedDict):
    """What a destination holds of a customer."""

    destination: str
    where: str | None


class BackupJson(TypedDict):
    """A backup that still holds what was erased."""

    at: str
    host: str
    file: str


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


def removal_json(removal: Removal) -> RemovalJson:
    """Return what was removed, as ``erase --json`` and ``prune --json`` print it."""
    removed = removal.removed
    return {
        "events": removed.events,
        "deliveries": removed.deliveries,
        "requests": removed.requests,
        "keys": removed.keys,
        "words": removed.words,
        "elsewhere": [
            {"destination": each.destination, "where": each.where} for each in removed.elsewhere
        ],
        "dry_run": removal.dry_run,
        "kept": removal.kept or None,
        "backups": [backup_json(each) for each in removal.backups],
    }


def backup_json(each: Backup) -> BackupJson:
    return {"at": iso(each.at), "host": each.host, "file": each.file}
