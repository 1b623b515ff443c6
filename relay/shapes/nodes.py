"""Nodes as JSON."""

from __future__ import annotations

from typing_extensions import TypedDict

from relay.shapes.times import iso
from relay.store.nodes import NodeView


class NodeJson(TypedDict):
    """A process that uses the store, or did so lately."""

    name: str
    role: str | None
    host: str | None
    pid: int | None
    version: str | None
    started_at: str | None
    beat_at: str | None
    leases: int
    state: str


def node_json(view: NodeView) -> NodeJson:
    """Return a node as ``nodes --json`` prints it."""
    node = view.node
    return {
        "name": view.name,
        "role": node.role if node else None,
        "host": node.host if node else None,
        "pid": node.pid if node else None,
        "version": node.version if node else None,
        "started_at": iso(node.started_at if node else None),
        "beat_at": iso(view.beat_at),
        "leases": view.leases,
        "state": view.state,
    }
