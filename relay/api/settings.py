"""What runs here, and what people did: ``/settings``, ``/audit``."""

from __future__ import annotations

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field, JsonValue
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

from relay.api import blueprint as parts
from relay.api.answers import answers
from relay.api.identity import needs
from relay.api.paging import Answer, Paged, answer, page, pages
from relay.api.reading import Moment, Text
from relay.api.services import services
from relay.config import installed
from relay.config.effective import effective, version_of
from relay.config.installed import Installed
from relay.node import version
from relay.rules.access import Scope
from relay.shapes.actions import EntryJson, entry_json
from relay.shapes.nodes import NodeJson, node_json
from relay.store.actions import Actions
from relay.store.nodes import Nodes


class InstalledJson(TypedDict):
    """A connector that a package brings."""

    name: str
    distribution: str
    version: str
    fault: str | None


class SettingsJson(TypedDict):
    """What runs here."""

    version: str
    config_version: str
    #: Every value of the config, without secrets.
    config: dict[str, JsonValue]
    nodes: list[NodeJson]
    connectors: list[InstalledJson]


class AuditQuery(Paged):
    who: Text | None = Field(None, description="Only what this person or token did")
    what: Text | None = Field(None, description="Only this: resend, pause, erase …")
    since: Moment | None = Field(None, description="Only since: 2h or 3d (ago), 2026-11-24")


def blueprint() -> APIBlueprint:
    made = parts.blueprint("settings", about="What runs here, and what people did")

    @made.get(
        "/settings",
        summary="Show the effective config without secrets, versions, nodes and connectors",
        responses=answers(SettingsJson),
    )
    @needs(Scope.READ)
    def get_settings() -> SettingsJson:
        found = services()
        return {
            "version": version(),
            "config_version": version_of(found.config),
            "config": to_jsonable_python(effective(found.config)),
            "nodes": [node_json(each) for each in Nodes(found.database).nodes()],
            "connectors": [_installed(each) for each in installed.connectors()],
        }

    @made.get(
        "/audit",
        summary="List what people did, the newest first",
        responses=pages(EntryJson),
    )
    @needs(Scope.ADMIN)
    def list_audit(query: AuditQuery) -> Answer:
        entries = Actions(services().database).newest(
            limit=query.limit + 1,
            before=query.before,
            who=query.who,
            what=query.what,
            since=query.since,
        )
        shown, following = page(entries, query, at=lambda entry: entry.seq)
        return answer([entry_json(each) for each in shown], following)

    return made


def _installed(found: Installed) -> InstalledJson:
    return {
        "name": found.name,
        "distribution": found.distribution,
        "version": found.version,
        "fault": found.fault,
    }
