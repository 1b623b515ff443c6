"""A clock for whole processes that can be put forward and back while they run."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


class NoCompiler(Exception):
    """There is no C compiler, or it cannot make what processes are to load."""


class MachineClock:
    """What processes started with :attr:`environ` take for the machine's clock."""

    def __init__(self, folder: Path) -> None:
        """Compile the library in *folder*. Raises NoCompiler."""
        library = folder / "clock.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise NoCompiler(getattr(error, "stderr", "") or str(error)) from error
        self._file = folder / "clock"
        self._file.write_bytes(struct.pack("=q", 0))
        self.environ: Mapping[str, str] = {
            **os.environ,
            "LD_PRELOAD": str(library),
            "CLOCK_SHIFT": str(self._file),
        }

    def put(self, seconds: int) -> None:
        """Let the clock be so many seconds ahead of (or, below zero, behind) the real one."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))
