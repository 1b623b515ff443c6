"""The rig of benchmarks with many processes: a PostgreSQL server, commands, and their CPU time.

The server is private, because other work in a shared one would be counted too. Its settings are
PostgreSQL's defaults, except for :data:`SETTINGS`.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg
import requests

# pip compiles what it installs. Where Python may not write bytecode beside the sources, each
# process would compile our modules again, which takes a quarter of a short command's time.
if sys.dont_write_bytecode:
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(Path(__file__).parents[1] / ".pytest_cache/bytecode")

# The server is that of the tests.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from cluster import Cluster

#: Debian's default; the server of the tests needs less.
SETTINGS = {"shared_buffers": "128MB", "max_connections": "100"}
#: For filling: a power cut may lose what can be filled again.
HASTY = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "8GB",
    "autovacuum": "off",
}
PATIENCE = 180.0


class Server(Cluster):
    """A PostgreSQL server in *folder*, and its CPU time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._conf = self._data / "postgresql.auto.conf"
        self._made = self._conf.read_text()
        self.configure()

    def configure(self, settings: Mapping[str, str] | None = None) -> None:
        """Write settings for the next start, beside :data:`SETTINGS`."""
        lines = [
            f"{name} = '{value}'\n" for name, value in {**SETTINGS, **(settings or {})}.items()
        ]
        self._conf.write_text(self._made + "".join(lines))

    def restart(self) -> None:
        """Stop cleanly, with everything written, and start again."""
        self._run("pg_ctl", "restart", "-w", "-m", "fast", "-t", "600", "-D", self._data,
                  "-l", self.folder / "log")  # fmt: skip

    def new_database(self, name: str) -> str:
        """Make a database and return its URL."""
        with psycopg.connect(self.url, autocommit=True) as server:
            server.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def drop_database(self, name: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as server:
            server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))

    @property
    def version(self) -> str:
        with psycopg.connect(self.url) as server:
            return f"{server.info.server_version // 10000}.{server.info.server_version % 10000}"


@contextmanager
def server(folder: Path | None = None) -> Iterator[Server]:
    """Start a server with its data in *folder*, and remove both at the end."""
    with tempfile.TemporaryDirectory(prefix="gofax-bench-", dir=folder) as name:
        Path(name).chmod(0o755)
        made = Server(Path(name) / "postgres")
        try:
            made.start()
            yield made
        finally:
            made.close()


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU time of a process and its children, ended ones included."""
    spent = process.cpu_times()
    gone = getattr(spent, "children_user", 0.0) + getattr(spent, "children_system", 0.0)
    return float(spent.user + spent.system + gone + sum(map(_of_child, process.children())))


def _of_child(process: psutil.Process) -> float:
    try:
        return cpu_seconds(process)
    except psutil.NoSuchProcess:
        # It ended just now: its time is its parent's from here on.
        return 0.0


def nanoseconds(*processes: psutil.Process) -> int:
    """Return the CPU time of processes and their living children, exactly (Linux)."""
    return sum(_on_cpu(each.pid) for process in processes for each in family(process))


def family(process: psutil.Process) -> Sequence[psutil.Process]:
    """Return a process with its living children, and theirs."""
    return [process, *process.children(recursive=True)]


def _on_cpu(pid: int) -> int:
    """Return the nanoseconds that the living threads of a process have run."""
    spent = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):
            spent += int(thread.read_text().split()[0])
    return spent


@contextmanager
def command(folder: Path, *arguments: str, name: str = "") -> Iterator[psutil.Popen]:
    """Run a command of the relay, with its log in a file in *folder*."""
    with (folder / f"{name or arguments[0]}.log").open("a") as log:
        call = [sys.executable, "-m", "relay.cli", *arguments]
        process = psutil.Popen(call, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=20)


def run(folder: Path, *arguments: str) -> str:
    """Run a command of the relay to its end, and return its output."""
    call = [sys.executable, "-m", "relay.cli", *arguments]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=folder)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr}")
    return done.stdout


def await_nodes(folder: Path, config: str, workers: int) -> None:
    """Wait until so many workers have registered in the store."""
    ends_at = time.monotonic() + PATIENCE
    while run(folder, "nodes", "--config", config, "--json").count('"worker"') < workers:
        if time.monotonic() > ends_at:
            raise SystemExit(f"no {workers} workers came")


def await_url(url: str) -> None:
    """Wait for an answer at *url*."""
    ends_at = time.monotonic() + PATIENCE
    while time.monotonic() < ends_at:
        try:
            requests.get(url, timeout=1)
        except (requests.ConnectionError, requests.Timeout):
            time.sleep(0.05)
        else:
            return
    raise SystemExit(f"nothing answers at {url}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def report(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what a benchmark found, with the day, the Python and the command."""
    said = {
        "date": datetime.now(UTC).date().isoformat(),
        "python": sys.version.split()[0],
        "command": " ".join(sys.argv),
        **found,
    }
    if as_json:
        print(json.dumps(said, indent=2))
        return
    for what, value in said.items():
        print(f"{what:34} {value}")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Format rows in columns, the first one aligned left."""
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if at == 0 else cell.rjust(w)
            for at, (cell, w) in enumerate(zip(row, widths, strict=True))
        )  # fmt: skip
        for row in cells
    )
