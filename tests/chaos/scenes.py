"""Where storms take place: one machine with SQLite, or nodes that share servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cluster import Cluster
from network import Network, cabled
from plan import SERVERS, STORE, Plan
from proxy import Proxy, running
from stage import Relay

from relay import migrations
from relay.store import Database

#: The switch at which nodes meet senders and systems; each server has a switch of its own.
WORLD = "world"
#: Six nodes with up to 26 connections each.
CONNECTIONS = 200


class Server(Protocol):
    """What nodes share, and can lose."""

    def stop(self, mode: str) -> None:
        """Stop in order (fast) or not (immediate)."""

    def start(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Which relay each process of a plan belongs to, and what can be taken from it."""

    nodes: Mapping[str, Relay]
    #: Those that senders may knock at.
    doors: Sequence[Relay]
    servers: Mapping[str, Server] = field(default_factory=dict)
    network: Network | None = None

    @property
    def any(self) -> Relay:
        """One of the relays: all see the same store."""
        return self.doors[0]

    def cut(self, node: str, server: str) -> None:
        assert self.network is not None
        self.network.cut(node, server)

    def mend(self, node: str, server: str) -> None:
        assert self.network is not None
        self.network.mend(node, server)

    def stop(self) -> None:
        for relay in self.nodes.values():
            relay.stop()


@contextmanager
def on_one_machine(plan: Plan, proxy: Proxy, folder: Path) -> Iterator[Scene]:
    """Run everything here, on a SQLite file."""
    with running(proxy) as systems:
        relay = Relay(folder, systems=systems)
        scene = Scene(nodes=dict.fromkeys(plan.commands, relay), doors=[relay])
        try:
            yield scene
        finally:
            scene.stop()


@contextmanager
def on_a_fleet(plan: Plan, proxy: Proxy, folder: Path, *, server: Path) -> Iterator[Scene]:
    """Run each process on a machine of its own, on a PostgreSQL in the folder *server*.

    Raises NoNamespaces.
    """
    with (
        cabled(list(plan.commands), [WORLD, *SERVERS[plan.kind]]) as network,
        running(proxy, network.address(WORLD)) as systems,
        _postgres(network, server) as store,
    ):
        url = f"postgresql://postgres@{network.address(STORE)}/postgres"
        with closing(Database(url)) as database:
            migrations.upgrade(database)
        nodes = {
            name: _node(network, name, folder / name, systems=systems, server=url)
            for name in plan.commands
        }
        doors = [nodes[name] for name, command in plan.commands.items() if command == "web"]
        scene = Scene(nodes=nodes, doors=doors, servers={STORE: store}, network=network)
        try:
            yield scene
        finally:
            scene.stop()


def _node(network: Network, name: str, folder: Path, *, systems: str, server: str) -> Relay:
    folder.mkdir()
    return Relay(
        folder,
        systems=systems,
        server=server,
        address=network.address(WORLD, name),
        inside=network.inside(name),
    )


@contextmanager
def _postgres(network: Network, folder: Path) -> Iterator[Cluster]:
    cluster = Cluster(
        folder / "postgres",
        listen=network.address(STORE),
        neighbours=network.ranges[STORE],
        connections=CONNECTIONS,
    )
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
