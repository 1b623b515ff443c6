"""Where the socket of the inner listener comes from."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import structlog

from relay.config.model import Admin
from relay.processes.listening import Listener, PortTaken, listen_inside

log = structlog.get_logger()

#: Seconds between tries to listen while somebody else has the port.
AGAIN = 10.0


class Door:
    """Gets the socket of the inner listener, now or as soon as its port is free."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._again_at = -math.inf
        self._has_told = False

    def opened(self, admin: Admin | None) -> Listener | None:
        """Listen; None if the default port is taken, or the last try was just now.

        Raises :class:`PortTaken` if the config says where to listen.
        """
        if admin is None or self._clock() < self._again_at:
            return None
        try:
            return listen_inside(admin)
        except PortTaken as error:
            if admin.is_chosen:
                raise
            self._again_at = self._clock() + AGAIN
            if not self._has_told:
                self._has_told = True
                log.warning("admin.not_served", reason=str(error), again_in=f"{AGAIN:.0f} s")
        return None
