"""A PostgreSQL server of a test's own, to be stopped, started and replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Where Debian keeps what is not in PATH.
BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))

#: Small, and quick to stop; what is committed is on disk all the same.
CONF = """
listen_addresses = '{listen}'
unix_socket_directories = '{folder}'
shared_buffers = 16MB
max_connections = {connections}
"""


def unavailable() -> str:
    """Say why there can be no server; nothing, if there can."""
    if not BINARIES:
        return "no binaries in /usr/lib/postgresql"
    if os.getuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return ""


@contextmanager
def new_folder() -> Iterator[Path]:
    """Make a folder that the server's user can get at, and remove it.

    It is none of pytest's: those are closed to others whenever somebody starts a run.
    """
    with tempfile.TemporaryDirectory(prefix="gofax-pg-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


class Cluster:
    """A server in *folder*, reached by a socket in it, and at the address *listen*, if given.

    There, whoever comes from its *neighbours* (a network such as 10.0.0.0/24) is trusted.
    """

    def __init__(
        self,
        folder: Path,
        *,
        standby_of: Cluster | None = None,
        listen: str = "",
        neighbours: str = "",
        connections: int = 40,
    ) -> None:
        self.folder = folder
        self._data = folder / "data"
        folder.mkdir(mode=0o777)
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        if standby_of is None:
            self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-N")
        else:
            source = f"host={standby_of.folder} user=postgres"
            self._run("pg_basebackup", "-D", self._data, "-R", "-c", "fast", "-d", source)
        conf = self._data / "postgresql.auto.conf"
        with conf.open("a") as file:
            file.write(CONF.format(folder=folder, listen=listen, connections=connections))
        if neighbours:
            with (self._data / "pg_hba.conf").open("a") as file:
                file.write(f"host all all {neighbours} trust\n")

    @property
    def url(self) -> str:
        return f"postgresql://postgres@/postgres?host={self.folder}"

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self.folder / "log")

    def stop(self, mode: str = "immediate") -> None:
        """Stop as if the power went; or in order, but waiting for nobody (*mode* fast)."""
        self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", self._data)

    def promote(self) -> None:
        """Make a standby the server that is written to."""
        self._run("pg_ctl", "promote", "-w", "-D", self._data)

    def close(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self.stop()

    def _run(self, command: str, *arguments: object) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        call = [*user, str(BINARIES[-1] / command), *map(str, arguments)]
        # Its output goes to a file: a pipe would be held open by the server that it starts.
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            subprocess.run(call, check=True, stdout=log, stderr=log, cwd="/", timeout=120)
