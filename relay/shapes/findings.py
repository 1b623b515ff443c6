"""What a check finds, how bad that is, and where the documentation says more."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from relay.rules.kinds import Kind
from relay.rules.pages import mending_page

SIGNS = {"good": "✓", "notice": "!", "degraded": "!!", "broken": "✗"}

#: *notice*: advice; *degraded*: some events are not delivered, or do not come in; *broken*: events
#: are refused or may be lost.
Severity = Literal["good", "notice", "degraded", "broken"]

#: Where the documentation says more, by check.
DOCS = {
    "events": "mending.md",
    "leases": "watching.md#nodes",
    "conversations": "reliability.md#known-limits",
    "work": "mending.md#what-stops-a-delivery",
    "destinations": "mending.md#what-stops-a-delivery",
    "signatures": "mending.md#requests-that-were-refused",
    "paths": "mending.md#requests-that-were-refused",
    "alerts": "watching.md#problems-and-alerts",
    "nodes": "watching.md#nodes",
    "loops": "watching.md#nodes",
    "config": "hosting.md#change-the-config",
    "schema": "upgrading.md",
    "copy": "upgrading.md#from-sqlite-to-postgresql",
    "disk": "hosting.md#the-store",
    "wal": "hosting.md#the-store",
    "files": "hosting.md#the-store",
    "texts": "watching.md#find-it",
    "connections": "hosting.md#the-store",
    "standbys": "hosting.md#the-store",
    "server clock": "hosting.md#the-store",
    "clock": "watching.md#doctor",
    "proxy": "hosting.md#in-front-of-it",
    "dns": "hosting.md#the-public-address",
    "tcp": "hosting.md#the-public-address",
    "tls": "hosting.md#the-public-address",
    "probe": "hosting.md#the-public-address",
    "certificate": "hosting.md#the-public-address",
    "silence": "watching.md#problems-and-alerts",
    "secrets": "configuration.md#endpoints",
}

#: The check that finds a problem, by its kind.
CHECKS = {
    Kind.UNAUTHORIZED: "destinations",
    Kind.FAILING: "destinations",
    Kind.PAUSED: "destinations",
    Kind.DEAD: "destinations",
    Kind.HELD: "destinations",
    Kind.BACKLOG: "work",
    Kind.NO_WORKER: "nodes",
    Kind.SILENT_NODE: "nodes",
    Kind.SIGNATURES: "signatures",
    Kind.UNKNOWN_PATH: "paths",
    Kind.CONFIG: "config",
    Kind.STORE: "disk",
    Kind.ALERTS: "alerts",
    Kind.CERTIFICATE: "certificate",
    Kind.OLD_SECRET: "secrets",
    Kind.SILENCE: "silence",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    severity: Severity
    #: The observation, and what to do about it.
    said: str
    #: The kind of problem that it is, if it is one.
    kind: Kind | None = None

    @property
    def docs(self) -> str:
        """Return the section of the documentation that says more."""
        return mending_page(self.kind) if self.kind else f"docs/{DOCS[self.check]}"
