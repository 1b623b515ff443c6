"""Is the file what runs? Compared with what the living nodes say of their configs."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator, Sequence

import click

from relay.config.effective import differences, effective, version_of
from relay.config.model import Config
from relay.store import Database
from relay.store.nodes import Node, Nodes, NodeView


def point_out_changes(config: Config, database: Database) -> None:
    """Say on standard error if the file is newer than what runs."""
    if said := newer(config, Nodes(database).nodes()):
        click.echo(f"note: {said}", err=True)


def newer(config: Config, views: Sequence[NodeView]) -> str:
    """Return for people that the file is newer than what nodes of this machine run, or nothing."""
    origin, here = config.origin, socket.gethostname()
    if origin is None:
        return ""
    behind = [
        node.name
        for node in _living(views)
        if (node.host, node.config_path) == (here, str(origin.path))
        and node.config_changed_at is not None
        and node.config_changed_at < origin.changed_at
    ]
    if not behind:
        return ""
    verb = "runs an older one" if len(behind) == 1 else "run an older one"
    return (
        f"{origin.path.name} was changed {origin.changed_at:%Y-%m-%d %H:%M:%SZ}, and"
        f" {' and '.join(behind)} {verb}: gofax-relay check --diff shows what changes,"
        " gofax-relay reload takes it"
    )


def changes(config: Config, views: Sequence[NodeView]) -> Iterator[str]:
    """Yield for people what would change at each living node if it took *config*."""
    ours, living = version_of(config), _living(views)
    if not living:
        yield "nothing runs at this store"
    for version in sorted({node.config for node in living}):
        nodes = [node for node in living if node.config == version]
        names = ", ".join(node.name for node in nodes)
        if version == ours:
            yield f"{names}: config {version}, nothing changes (secrets are not compared)"
            continue
        yield f"{names}: config {version} → {ours}"
        before = json.loads(nodes[0].effective)
        yield from (f"  {line}" for line in differences(before, effective(config)))


def _living(views: Sequence[NodeView]) -> list[Node]:
    return [view.node for view in views if view.node and view.state == "alive"]
