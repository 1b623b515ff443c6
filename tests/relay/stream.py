"""A sender that posts at a steady rate, each time on a new connection, and keeps every answer."""

from __future__ import annotations

import http.client
import json
import ssl
import threading
import time
from collections import Counter
from types import TracebackType

#: Threads that post: enough for a receiver that keeps some of them waiting.
SENDERS = 16
#: Seconds that one call may take.
LONGEST_CALL = 30.0


class Stream:
    """Posts messages ``m0``, ``m1``, … of eight conversations; a context manager.

    *prefix* is what their names begin with. *trust*: for https.
    """

    def __init__(
        self,
        port: int,
        *,
        per_second: float,
        path: str = "/open",
        prefix: str = "m",
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._trust = trust
        self._prefix = prefix
        self._port, self._path = port, path
        self._interval = 1 / per_second
        self._stop = threading.Event()
        self._guard = threading.Lock()
        self._next = 0
        #: What became of each message: its status, or the error instead of an answer.
        self.answers: dict[str, str] = {}
        self.slowest = 0.0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(SENDERS)]

    def __enter__(self) -> Stream:
        self._started = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LONGEST_CALL * 2)

    @property
    def kinds(self) -> Counter[str]:
        """Return how often which answer came."""
        return Counter(list(self.answers.values()))

    @property
    def accepted(self) -> set[str]:
        return {name for name, answer in list(self.answers.items()) if answer == "accepted"}

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._guard:
                number = self._next
                self._next += 1
            due = self._started + number * self._interval
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            began = time.monotonic()
            self.answers[f"{self._prefix}{number}"] = self._post(number)
            self.slowest = max(self.slowest, time.monotonic() - began)

    def _post(self, number: int) -> str:
        said = {
            "messageId": f"{self._prefix}{number}",
            "eventType": "SMS_REPLY",
            "from": f"+6140000000{number % 8}",
            "to": "+617",
        }
        connection = self._connection()
        try:
            head = {"Content-Type": "application/json"}
            connection.request("POST", self._path, json.dumps(said), head)
            answer = connection.getresponse()
            body = answer.read()
            return str(json.loads(body)["status"]) if answer.status == 200 else str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            return type(error).__name__
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if self._trust is None:
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=LONGEST_CALL)
        return http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=LONGEST_CALL, context=self._trust
        )
