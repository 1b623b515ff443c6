"""The certificate of the receiver: read when a config is, and again when its files change."""

from __future__ import annotations

import time
from collections.abc import Callable

from relay.clock import wall
from relay.config import certificates
from relay.config.certificates import Identity, Mark
from relay.config.model import Tls

#: Seconds between looks at the files; they have to stay as they are from one to the next, because
#: certificate and key are not replaced at once. Seconds until a receiver that did not come to work
#: with a good certificate is tried again.
LOOK, AGAIN = 1.0, 60.0


class Renewal:
    """Reads the certificate, and notices when it was renewed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._look_at = 0.0
        #: The files as they were read, and as they were at the last look.
        self._read: tuple[Mark, Mark] | None = None
        self._seen: tuple[Mark, Mark] | None = None

    def identity(self, tls: Tls | None) -> Identity | None:
        """Read what *tls* names. Raises :class:`~relay.config.certificates.Unfit`."""
        if tls is None:
            return None
        # Before they are read: what is changed meanwhile is newer.
        self._read = self._seen = certificates.marks(tls)
        return certificates.read(tls, now=wall())

    def is_due(self, tls: Tls | None) -> bool:
        """Return whether the files were changed since they were read, and no longer change."""
        if tls is None or self._clock() < self._look_at:
            return False
        self._look_at = self._clock() + LOOK
        before, self._seen = self._seen, certificates.marks(tls)
        return self._seen == before != self._read

    def try_again(self) -> None:
        """Take the files for changed, after a while."""
        self._read = None
        self._look_at = self._clock() + AGAIN
