"""One access token for all threads of a destination: fetched once, renewed in time."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from connectors.base import Transient

PRINTABLE = re.compile(r"[!-~]+")


class AccessToken:
    """Keeps what *fetch* answers, as RFC 6749 (5.1) has it: ``access_token``, ``expires_in``.

    *margin*: seconds before its end at which a token is replaced; of a short-lived one it is half
    of its life. One that names no end is kept until it is refused.
    """

    def __init__(self, fetch: Callable[[], Mapping[str, Any]], *, margin: float) -> None:
        self._fetch = fetch
        self._margin = margin
        self._lock = threading.Lock()
        self._token: str | None = None
        self._renew_at = 0.0

    def get(self, *, ends_at: float, refused: str | None = None) -> str:
        """Return a token other than *refused*, by the monotonic time *ends_at* at the latest.

        Threads that ask at once share one request. Raises :class:`DeliveryError`.
        """
        if not self._lock.acquire(timeout=max(0.0, ends_at - time.monotonic())):
            raise Transient("no access token in time: another delivery still waits for one")
        try:
            if self._token in (None, refused) or time.monotonic() >= self._renew_at:
                self._token, self._renew_at = self._fetched()
            assert self._token is not None
            return self._token
        finally:
            self._lock.release()

    def _fetched(self) -> tuple[str, float]:
        asked_at = time.monotonic()
        answer = self._fetch()
        token, life = answer.get("access_token"), _seconds(answer.get("expires_in"))
        if not isinstance(token, str) or not PRINTABLE.fullmatch(token):
            raise Transient("the answer about an access token holds none")
        if life is None:
            return token, float("inf")
        return token, asked_at + max(life - self._margin, life / 2)


def _seconds(life: object) -> float | None:
    """Read a life, which some write as a string; None if it is no time that ends."""
    try:
        seconds = float(str(life))
    except ValueError:
        return None
    return seconds if seconds > 0 else None
