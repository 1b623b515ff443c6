"""A stand-in of a receiver of webhooks: checks as Standard Webhooks says, and acts once per id."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from connectors.sandbox.records import Record, Records

#: Most seconds between a signed time and now.
TOLERANCE = 300


class StandIn:
    """Takes POST and PUT at any path; safe to use from many threads."""

    def __init__(
        self,
        records: Records,
        *,
        secret: bytes | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """*secret*: the key that must have signed; without it nothing is checked."""
        self._records = records
        self._secret = secret
        self._clock = clock
        self._lock = threading.Lock()
        self._taken: dict[str, Record] = {}

    def page(self) -> Sequence[Record]:
        """Return what arrived, the newest first."""
        with self._lock:
            return list(self._taken.values())[::-1]

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("webhook", __name__)
        for rule in ("/", "/<path:_>"):
            routes.add_url_rule(
                rule, view_func=self._take, methods=["POST", "PUT"], strict_slashes=False
            )
        return routes

    def _take(self, _: str = "") -> ResponseReturnValue:
        body = request.get_data()
        id = request.headers.get("webhook-id", "")
        if self._secret is not None and not self._is_genuine(id, body, self._secret):
            return jsonify(error="the signature is wrong, missing or too old"), 401
        with self._lock:
            # A sender repeats itself when it has not heard the first answer.
            if not id or id not in self._taken:
                record = self._record(body, id)
                self._taken[id or record.reference] = record
        return "", 204

    def _is_genuine(self, id: str, body: bytes, secret: bytes) -> bool:
        timestamp = request.headers.get("webhook-timestamp", "")
        if not (id and timestamp.isdigit()):
            return False
        digest = hmac.digest(secret, f"{id}.{timestamp}.".encode() + body, "sha256")
        wanted = f"v1,{base64.b64encode(digest).decode()}"
        given = request.headers.get("webhook-signature", "").split(" ")
        fresh = abs(self._clock() - int(timestamp)) <= TOLERANCE
        return fresh and any(hmac.compare_digest(wanted.encode(), g.encode()) for g in given)

    def _record(self, body: bytes, id: str) -> Record:
        text = body.decode("utf-8", "replace")
        event = _event(text)
        return self._records.add(
            system="webhook",
            kind="event",
            text=str(event.get("text") or text),
            conversation=str(event.get("customer") or ""),
            reference=id or f"request-{self._records.new_id()}",
        )


def _event(body: str) -> dict[str, Any]:
    """Return the event in a body of any form; nothing if there is none."""
    try:
        read = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    inner = read.get("data", read) if isinstance(read, dict) else {}
    return inner if isinstance(inner, dict) else {}
