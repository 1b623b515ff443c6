"""How often an address may guess."""

from __future__ import annotations

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter

#: Wrong guesses from one address in any five minutes.
_ALLOWED = RateLimitItemPerMinute(10, 5)


class Guesses:
    """Counts wrong guesses by address, in this process."""

    def __init__(self) -> None:
        self._limiter = MovingWindowRateLimiter(MemoryStorage())

    def are_too_many(self, address: str) -> bool:
        """Return whether *address* has to wait, whatever it sends."""
        return not self._limiter.test(_ALLOWED, address)

    def add(self, address: str) -> None:
        """Count one wrong guess of *address*."""
        self._limiter.hit(_ALLOWED, address)
