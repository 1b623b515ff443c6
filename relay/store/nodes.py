"""The nodes of a store: what they are, when each was last heard of, and what it holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa

from relay.store import schema
from relay.store.database import Database

#: A node is silent after this time without a beat: several beats, and less than a lease.
SILENT_AFTER = timedelta(seconds=20)
#: A silent node is forgotten after this time.
FORGOTTEN_AFTER = timedelta(days=1)

Role = Literal["web", "worker"]

_nodes, _d = schema.nodes, schema.deliveries.c
_LEASES = (
    sa.select(_d.node, sa.func.count().label("number"))
    .where(schema.IN_FLIGHT)
    .group_by(_d.node)
    .order_by(_d.node)
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Node:
    """A process that serves a store."""

    name: str
    role: Role
    version: str
    host: str
    pid: int
    #: None until its first beat.
    started_at: datetime | None = None
    #: Its loops that cannot go on, a line each.
    faults: str = ""
    #: The version of its config, and what that says in the end without secrets, as JSON.
    config: str = ""
    effective: str = "{}"
    #: The file on its host, and when that had been changed as the node read it.
    config_path: str = ""
    config_changed_at: datetime | None = None
    #: When the file was changed, as the node last saw it.
    file_changed_at: datetime | None = None

    @property
    def is_outdated(self) -> bool:
        """Whether its file is newer than what it runs."""
        read, now = self.config_changed_at, self.file_changed_at
        return read is not None and now is not None and read < now


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeView:
    """A node as others see it."""

    name: str
    #: None if nothing is known of it except its leases.
    node: Node | None
    beat_at: datetime | None
    #: Deliveries that it has claimed but not recorded.
    leases: int
    state: Literal["alive", "silent", "unknown"]


class Nodes:
    """The list of nodes, by their shared clock."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._clock = clock or database.clock

    def beat(self, node: Node) -> Node:
        """Note that *node* is alive, and return it with the time of its first beat.

        Nodes that were silent for a day are forgotten.
        """
        with self._database.writing_unsynced() as db:
            # Read within the transaction: a new connection has just heard the server's time.
            now = self._clock()
            node = replace(node, started_at=node.started_at or now)
            insert = self._database.insert(_nodes).values(**asdict(node), beat_at=now)
            known = {each.name: insert.excluded[each.name] for each in _nodes.c}
            db.execute(insert.on_conflict_do_update(index_elements=[_nodes.c.name], set_=known))
            db.execute(sa.delete(_nodes).where(_nodes.c.beat_at < now - FORGOTTEN_AFTER))
        return node

    def leave(self, name: str) -> None:
        """Take a stopped node off the list."""
        with self._database.writing_unsynced() as db:
            db.execute(sa.delete(_nodes).where(_nodes.c.name == name))

    def living(self, db: sa.Connection) -> Sequence[str]:
        """Return the names of the nodes that were heard of lately; none without tables."""
        if not sa.inspect(db).has_table(_nodes.name):
            return ()
        c = _nodes.c
        heard = c.beat_at >= self._clock() - SILENT_AFTER
        return db.scalars(sa.select(c.name).where(heard).order_by(c.name)).all()

    def nodes(self) -> Sequence[NodeView]:
        """Return the nodes by role and name, then unknown ones that hold leases."""
        with self._database.reading() as db:
            now = self._clock()
            leases: dict[str, int] = {row.node: row.number for row in db.execute(_LEASES)}
            rows = db.execute(sa.select(_nodes).order_by(_nodes.c.role, _nodes.c.name)).mappings()
            known = [_view(row, leases.pop(row["name"], 0), now=now) for row in rows]
        return known + [
            NodeView(name=name, node=None, beat_at=None, leases=count, state="unknown")
            for name, count in leases.items()
        ]


def _view(row: sa.RowMapping, leases: int, *, now: datetime) -> NodeView:
    values = {str(name): value for name, value in row.items()}
    beat_at: datetime = values.pop("beat_at")
    return NodeView(
        name=row["name"],
        node=Node(**values),
        beat_at=beat_at,
        leases=leases,
        state="silent" if now - beat_at > SILENT_AFTER else "alive",
    )
