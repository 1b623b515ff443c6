"""Faults that a receiver offers to meet on request: ``/faults`` beside its ``/records``."""

from __future__ import annotations

import time

import requests

from sender.witness import direct_session

#: The systems that are asked to fail; a receiver refuses the names that it does not have.
SYSTEMS = ("hubspot", "zendesk", "teams", "webhook")
#: Seconds for each call.
TIMEOUT = 10.0
#: Seconds without a further fault after which no other is expected.
QUIET = 1.0


class Faults:
    """Lets the effects of the next event fail, as the sandbox does.

    ``POST`` orders a fault, ``GET`` lists those that nothing has met yet, ``DELETE`` withdraws
    them.
    """

    def __init__(self, records_url: str) -> None:
        self.url = records_url.rpartition("/")[0] + "/faults"

    def order(self) -> int:
        """Order one fault for each system; return how many wait, 0 if the receiver offers none."""
        with direct_session() as session:
            for system in SYSTEMS:
                self._call(session, "POST", json={"system": system, "status": 503})
        return self.waiting() or 0

    def waiting(self) -> int | None:
        """Return how many faults nothing has met yet; None if the receiver does not say."""
        with direct_session() as session:
            answer = self._call(session, "GET")
        try:
            listed = answer.json() if answer is not None and answer.ok else None
        except ValueError:
            return None
        return len(listed) if isinstance(listed, list) else None

    def met(self, ordered: int, *, patience: float) -> int:
        """Wait for *ordered* faults to be met, and return how many were.

        Stops when all were, when some were and :data:`QUIET` seconds bring no more, and after
        *patience* seconds.
        """
        ends_at = time.monotonic() + patience
        met = 0
        while met < ordered and time.monotonic() < ends_at:
            left = self.waiting()
            if left is None:
                return 0
            if ordered - left > met:
                met = ordered - left
                ends_at = min(ends_at, time.monotonic() + QUIET)
            time.sleep(0.05)
        return met

    def withdraw(self) -> None:
        """Withdraw what nothing has met, so that it spoils nothing later."""
        with direct_session() as session:
            self._call(session, "DELETE")

    def _call(
        self, session: requests.Session, method: str, json: object = None
    ) -> requests.Response | None:
        try:
            return session.request(method, self.url, json=json, timeout=TIMEOUT)
        except requests.RequestException:
            return None
