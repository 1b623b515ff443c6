"""Machines of our own: a cable that is cut is silent, and nothing is left of them."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from forwarder import Forwarder
from network import Network, NoNamespaces, cabled
from programs import free_port

Missing = Callable[[str, str], None]

#: Says whatever it is told to the address that it was given, and what it hears.
TALK = """
import socket, sys
connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
for line in sys.stdin:
    connection.sendall(line.encode())
    print(connection.recv(100).decode().strip(), flush=True)
"""


@pytest.fixture
def network(missing: Missing) -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            network = stack.enter_context(cabled(["one"], ["a", "b"]))
        except NoNamespaces as error:
            missing("netns", str(error))
        yield network


def _left(network: Network) -> list[str]:
    """Return what there is of *network*."""
    name = network.inside("")[-1]
    links = [link for _, link in socket.if_nameindex() if link.startswith(name)]
    return links + [path.name for path in Path("/run/netns").glob(f"{name}*")]


def test_who_is_cut_off_hears_nothing_and_goes_on_when_the_cable_is_mended(
    network: Network,
) -> None:
    with socket.create_server((network.address("a"), 0)) as server:
        port = server.getsockname()[1]
        command = [*network.inside("one"), sys.executable, "-c", TALK]
        with subprocess.Popen(
            [*command, network.address("a"), str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        ) as talker:
            assert talker.stdin is not None and talker.stdout is not None
            ours, (theirs, _) = server.accept()
            with ours:
                assert theirs == network.address("a", "one")
                network.cut("one", "b")  # another one
                talker.stdin.write("hello\n")
                ours.settimeout(10)
                assert ours.recv(100) == b"hello\n"
                ours.sendall(b"you too\n")
                assert talker.stdout.readline() == "you too\n"

                network.cut("one", "a")
                talker.stdin.write("still there?\n")
                ours.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    ours.recv(100)

                network.mend("one", "a")
                ours.settimeout(10)
                assert ours.recv(100) == b"still there?\n"
                ours.sendall(b"yes\n")
                assert talker.stdout.readline() == "yes\n"
            talker.stdin.close()


def test_nothing_is_left_of_a_network_although_something_still_runs_in_it(
    network: Network,
) -> None:
    with cabled(["one", "two"], ["a"]) as other:
        assert other.ranges["a"] != network.ranges["a"]
        assert len(_left(other)) == 1 + 2 + 2
        sleeper = subprocess.Popen([*other.inside("two"), "sleep", "60"])

    assert _left(other) == []
    assert len(_left(network)) == 2 + 2 + 1
    sleeper.kill()
    sleeper.wait()


def test_a_network_is_removed_when_what_was_done_with_it_fails(network: Network) -> None:
    with pytest.raises(ZeroDivisionError), cabled(["one"], ["a"]) as other:
        raise ZeroDivisionError

    assert _left(other) == []


def test_a_server_behind_a_forwarder_is_gone_for_those_who_use_that_and_comes_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        upstream = server.getsockname()
        port = free_port()
        forwarder = Forwarder("127.0.0.1", port, upstream=upstream)
        for _ in range(2):
            forwarder.start()
            with socket.create_connection(("127.0.0.1", port), 10) as ours:
                theirs, _ = server.accept()
                with theirs:
                    ours.sendall(b"hello")
                    assert theirs.recv(100) == b"hello"
                    theirs.sendall(b"you too")
                    assert ours.recv(100) == b"you too"

                    forwarder.stop()

                    assert (ours.recv(100), theirs.recv(100)) == (b"", b"")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), 10)
