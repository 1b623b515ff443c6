"""How much room the disk has: intake stops while what was done can still be recorded."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

#: Seconds for which a look at the disk is believed.
BELIEVED = 0.5


class Disk:
    """The disk that *folder* is on, of which *reserve* bytes are not for everybody."""

    def __init__(self, folder: Path, *, reserve: int) -> None:
        self._folder = folder
        self._reserve = reserve
        self._free = 0
        self._looked_at = float("-inf")

    def lack(self, *, share: float) -> str:
        """Say what is missing if less than *share* of the reserve is free; else nothing."""
        if not self._reserve or (free := self.free()) >= self._reserve * share:
            return ""
        return (
            f"disk of {self._folder.name or self._folder}: {free >> 20} MiB free, "
            f"and disk_reserve is {self._reserve >> 20} MiB"
        )

    def free(self) -> int:
        """Return the bytes that are free, as of a moment ago."""
        now = time.monotonic()
        if now - self._looked_at >= BELIEVED:
            self._free = shutil.disk_usage(self._folder).free
            self._looked_at = now
        return self._free
