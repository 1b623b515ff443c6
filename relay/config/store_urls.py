"""URLs of stores: written in the YAML file, checked, and shown without passwords."""

from __future__ import annotations

import importlib.util
import re
import urllib.parse
from pathlib import Path


def store_url(url: str, *, folder: Path) -> str:
    """Validate the URL of a store; a relative file is in *folder*. Raises ValueError."""
    if url.startswith(("postgresql:", "postgres:")):
        return _server_url(url)
    prefix = "sqlite:///"
    if not url.startswith(prefix) or url == prefix:
        raise ValueError(
            "write sqlite:///relay.db (beside this file), sqlite:////path "
            "or postgresql://user@host/db"
        )
    return prefix + str((folder / url.removeprefix(prefix)).absolute())


def without_password(url: str) -> str:
    """Return the URL of a store without its password, for people."""
    return re.sub(r"://([^:/?@]*):.*@", r"://\1:***@", url)


#: A host name or IP address, and an optional port.
_HOST = re.compile(r"([^:]*|\[[^\]]*\])(:\d{1,5})?", re.ASCII)


def _server_url(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        parts = urllib.parse.urlsplit("")
    if parts.path in ("", "/") or not parts.netloc:
        raise ValueError("write postgresql://user@host/db: host and name of the database")
    hosts = parts.netloc.rpartition("@")[2].split(",")
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError("write postgresql://user@host:5432/db: a port is a number")
    if "password=" in parts.query:
        raise ValueError("write the password before the host: postgresql://user:password@host/db")
    if importlib.util.find_spec("psycopg") is None:
        raise ValueError(
            'postgresql needs the package psycopg: pip install "gofax-relay[postgres]"'
        )
    return url
