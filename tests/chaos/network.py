"""Machines of our own on this one: network namespaces, cabled to switches that can be cut off."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

#: Where the networks are: one of 256 addresses for each run, a quarter of it for each switch.
EVERYBODY = "10.213.0.0/16"


class NoNamespaces(Exception):
    """Network namespaces cannot be made here."""


class Network:
    """Machines, each with a cable to each switch. We are at the first address of each switch.

    A cable that is cut tells neither side: what is sent vanishes, and connections hang.
    """

    def __init__(self, number: int, machines: Sequence[str], switches: Sequence[str]) -> None:
        self._number = number
        self._machines = list(machines)
        self._switches = list(switches)
        whole = list(ipaddress.ip_network(EVERYBODY).subnets(new_prefix=24))[number]
        quarters = [str(each) for each in whole.subnets(new_prefix=26)]
        #: The addresses at each switch, such as 10.213.7.0/26.
        self.ranges = dict(zip(switches, quarters, strict=False))

    def address(self, switch: str, machine: str | None = None) -> str:
        """Return the address of *machine*, or ours, at *switch*."""
        place = 1 if machine is None else 2 + self._machines.index(machine)
        return str(ipaddress.ip_network(self.ranges[switch])[place])

    def inside(self, machine: str) -> Sequence[str]:
        """Return what a command starts with that is to run on *machine*."""
        return ("ip", "netns", "exec", self._namespace(machine))

    def cut(self, machine: str, switch: str) -> None:
        _run("link", "set", "dev", self._plug(machine, switch), "down")

    def mend(self, machine: str, switch: str) -> None:
        _run("link", "set", "dev", self._plug(machine, switch), "up")

    def build(self) -> None:
        """Make everything. Raises NoNamespaces."""
        for switch in self._switches:
            name = self._switch(switch)
            ours = f"{self.address(switch)}/26"
            _batch(f"link add {name} type bridge", f"addr add {ours} dev {name}")
            _batch(f"link set dev {name} up")
        for machine in self._machines:
            self._install(machine)

    def clear(self) -> None:
        """Remove everything that is there."""
        prefix = self._namespace("")
        # With one end of a cable the other goes too, whoever still runs in its namespace.
        ours = [name for _, name in socket.if_nameindex() if name.startswith(prefix)]
        for name in ours:
            _run("link", "delete", "dev", name)
        for path in Path("/run/netns").glob(f"{prefix}*"):
            _run("netns", "delete", path.name)

    def _install(self, machine: str) -> None:
        namespace = self._namespace(machine)
        _run("netns", "add", namespace)
        cables, inside = [], ["link set dev lo up"]
        for switch in self._switches:
            plug, bridge = self._plug(machine, switch), self._switch(switch)
            cables += [
                f"link add {plug} master {bridge} type veth peer name {switch} netns {namespace}",
                f"link set dev {plug} up",
            ]
            inside += [
                f"addr add {self.address(switch, machine)}/26 dev {switch}",
                f"link set dev {switch} up",
            ]
        _batch(*cables)
        _batch(*inside, namespace=namespace)

    # The names of interfaces have at most 15 characters.
    def _switch(self, switch: str) -> str:
        return f"gofax{self._number}-{self._switches.index(switch)}"

    def _plug(self, machine: str, switch: str) -> str:
        return f"{self._switch(switch)}-{self._machines.index(machine)}"

    def _namespace(self, machine: str) -> str:
        return f"gofax{self._number}-{machine}"


@contextmanager
def cabled(machines: Sequence[str], switches: Sequence[str]) -> Iterator[Network]:
    """Make a network that no other run has, and remove it. Raises NoNamespaces."""
    if os.geteuid() != 0:
        raise NoNamespaces("only root may make network namespaces")
    number, lock = _free_number()
    with lock:
        network = Network(number, machines, switches)
        # Who had this number before may have been killed.
        network.clear()
        try:
            network.build()
            yield network
        finally:
            network.clear()


def _free_number() -> tuple[int, TextIO]:
    """Return a number, and the open file whose lock, which dies with us, makes it ours."""
    folder = Path(tempfile.gettempdir(), "gofax-networks")
    folder.mkdir(exist_ok=True)
    for number in range(1, 255):
        file = (folder / str(number)).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return number, file
    raise NoNamespaces("254 networks are in use")


def _batch(*lines: str, namespace: str | None = None) -> None:
    where = ("-n", namespace) if namespace else ()
    _run(*where, "-batch", "-", said="\n".join(lines))


def _run(*arguments: str, said: str = "") -> None:
    command = ["ip", *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, input=said)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or error
        raise NoNamespaces(f"{' '.join(command)}: {why}".strip()) from error
