"""``serve --watch``: the relay starts again when the files that it was started with change."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click
import watchfiles

from relay.config import document, installed
from relay.config.document import ConfigError
from relay.processes.process import ENDING, KILL_AFTER

#: Names of folders in which packages lie that nobody edits.
INSTALLED = frozenset({"site-packages", "dist-packages"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What is watched: single files, and the Python files in folders."""

    files: frozenset[Path]
    folders: frozenset[Path]

    @property
    def places(self) -> frozenset[Path]:
        """Return the folders in which something may change; an editor replaces whole files."""
        return frozenset(each for each in self.folders | _parents(self.files) if each.is_dir())

    def accepts(self, change: watchfiles.Change, path: str) -> bool:
        """Return whether a change of *path* counts."""
        file = Path(path)
        return file in self.files or (file.suffix == ".py" and file.parent in self.folders)


def run(config: Path) -> int:
    """Serve, and start again at each change, until SIGTERM or SIGINT; return the exit code."""
    end = threading.Event()
    for number in ENDING:
        signal.signal(number, lambda *_: end.set())
    relay = _start(config)
    watched = watched_by(config)
    while not end.is_set():
        for changes in watchfiles.watch(
            *watched.places,
            watch_filter=watched.accepts,
            recursive=False,
            stop_event=end,
            raise_interrupt=False,
        ):
            changed = sorted({os.path.relpath(path) for _, path in changes})
            click.echo(f"changed: {', '.join(changed)}; starting again", err=True)
            _stop(relay)
            relay = _start(config)
            if (now := watched_by(config, before=watched)) != watched:
                watched = now
                break
    return _stop(relay)


def watched_by(config: Path, *, before: Watched | None = None) -> Watched:
    """Return what *config* depends on; if it cannot be read now, also what it depended on."""
    files, folders = {_absolute(config)}, set[Path]()
    try:
        read = document.read(config)
    except ConfigError:
        return before or Watched(files=frozenset(files), folders=frozenset())
    files |= {_absolute(each) for each in read.references.values() if each is not None}
    for name in _connectors(read.values):
        for place in _sources(name):
            if place.is_dir():
                folders |= {place, *_folders_in(place)}
            else:
                files.add(place)
    return Watched(files=frozenset(files), folders=frozenset(folders))


def _connectors(values: object) -> Iterator[str]:
    """Yield the names of the connectors in a config that may be faulty."""
    named = values.get("destinations") if isinstance(values, dict) else None
    for each in named.values() if isinstance(named, dict) else ():
        if isinstance(each, dict) and isinstance(each.get("connector"), str):
            yield each["connector"]


def _sources(connector: str) -> Iterator[Path]:
    """Yield the folder or the file of a connector's package, unless it is only installed."""
    package = installed.package_of(connector)
    spec = find_spec(package) if package else None
    if spec is None:
        return
    for place in spec.submodule_search_locations or [spec.origin or ""]:
        path = Path(place).resolve()
        if path.exists() and not INSTALLED & set(path.parts):
            yield path


def _folders_in(folder: Path) -> Iterator[Path]:
    found = (each for each in folder.rglob("*") if each.is_dir())
    return (each for each in found if each.name != "__pycache__")


def _parents(files: frozenset[Path]) -> frozenset[Path]:
    return frozenset(each.parent for each in files)


def _absolute(file: Path) -> Path:
    """Return the place of *file*, which may be a link that is exchanged."""
    return file.parent.resolve() / file.name


def _start(config: Path) -> subprocess.Popen[bytes]:
    # A process of its own: what was imported before does not change with its file.
    command = [sys.executable, "-P", "-m", "relay.cli", "serve", "--config", str(config)]
    return subprocess.Popen(command)


def _stop(relay: subprocess.Popen[bytes]) -> int:
    relay.terminate()
    try:
        return relay.wait(KILL_AFTER + 1)
    except subprocess.TimeoutExpired:
        relay.kill()
        return relay.wait()
