"""Where storms take place: one machine with SQLite, or nodes that share servers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import brokers
from cluster import Cluster, new_folder
from forwarder import Forwarder
from network import Network, cabled
from plan import BROKER, SERVERS, STORE, Plan
from proxy import Proxy, running
from stage import Relay

#: The switch at which nodes meet senders and systems; each server has a switch of its own.
WORLD = "world"
#: Six nodes with up to 26 connections each.
CONNECTIONS = 200
BROKER_PORT = 5672
ENGINE = """\
engine: {{celery: {{broker: "{broker}"}}}}
"""


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
def on_a_fleet(plan: Plan, proxy: Proxy, folder: Path) -> Iterator[Scene]:
    """Run each process on a machine of its own, on a PostgreSQL server. Raises NoNamespaces."""
    shared = SERVERS[plan.kind]
    with ExitStack() as stack:
        network = stack.enter_context(cabled(list(plan.commands), [WORLD, *shared]))
        systems = stack.enter_context(running(proxy, network.address(WORLD)))
        cluster = stack.enter_context(_postgres(network, stack.enter_context(new_folder())))
        servers: dict[str, Server] = {STORE: cluster}
        more = ""
        if BROKER in shared:
            vhost = urlsplit(stack.enter_context(brokers.new_vhost()))
            servers[BROKER] = stack.enter_context(_rabbitmq(network, vhost))
            user = vhost.netloc.rpartition("@")[0]
            here = vhost._replace(netloc=f"{user}@{network.address(BROKER)}:{BROKER_PORT}")
            more = ENGINE.format(broker=here.geturl())
        nodes = {
            name: _node(network, name, folder / name, systems=systems, more=more)
            for name in plan.commands
        }
        doors = [nodes[name] for name, command in plan.commands.items() if command == "web"]
        scene = Scene(nodes=nodes, doors=doors, servers=servers, network=network)
        stack.callback(scene.stop)
        yield scene


def _node(network: Network, name: str, folder: Path, *, systems: str, more: str) -> Relay:
    folder.mkdir()
    return Relay(
        folder,
        systems=systems,
        server=_url(network),
        address=network.address(WORLD, name),
        inside=network.inside(name),
        more=more,
    )


def _url(network: Network) -> str:
    return f"postgresql://postgres@{network.address(STORE)}/postgres"


@contextmanager
def _postgres(network: Network, folder: Path) -> Iterator[Cluster]:
    """Start a server; the first node that gets there makes the tables."""
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


@contextmanager
def _rabbitmq(network: Network, server: SplitResult) -> Iterator[Forwarder]:
    """Let the server of all tests be reached, and be gone for our nodes alone."""
    upstream = server.hostname or "127.0.0.1", server.port or BROKER_PORT
    forwarder = Forwarder(network.address(BROKER), BROKER_PORT, upstream=upstream)
    forwarder.start()
    try:
        yield forwarder
    finally:
        forwarder.stop()
