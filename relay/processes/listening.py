"""The address that the relay listens on."""

from __future__ import annotations

import socket

from relay.config.model import Config


class PortTaken(Exception):
    """Somebody else listens where we should."""


def settle_port(config: Config) -> Config:
    """Return *config* with the port that will be listened on, chosen now if it was 0.

    Raises :class:`PortTaken` if the address cannot be had.
    """
    host, port = config.server.host, config.server.port
    try:
        # Names like localhost are resolved here: the server takes addresses only.
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            host, port = probe.getsockname()[:2]
    except OSError as error:
        raise PortTaken(f"server.listen: {host}:{port}: {error.strerror}") from error
    listen = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
    server = config.server.model_copy(update={"listen": listen})
    return config.model_copy(update={"server": server})
