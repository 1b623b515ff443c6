"""GoFax in a test: what the fixture ``gofax_sender`` gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sender.attempt import Target
from sender.delivery import Answer, deliver, request_headers
from sender.errors import SenderError
from sender.event import Event, Status
from sender.payload import CONTENT_TYPES
from sender.scenarios import SCENARIOS, Setting
from sender.scenarios.base import Outcome
from sender.scenarios.run import confirm, run
from sender.scorecard import described
from sender.witness import Records


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedRequest(Mapping[str, Any]):
    """What GoFax would post, for the test client of a web framework.

    As a mapping it holds ``data`` and ``headers``: ``client.post(path, **request)``.
    """

    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    def __getitem__(self, name: str) -> Any:
        return {"data": self.body, "headers": self.headers}[name]

    def __iter__(self) -> Iterator[str]:
        return iter(("data", "headers"))

    def __len__(self) -> int:
        return 2


@dataclass(frozen=True, kw_only=True, slots=True)
class GofaxSender:
    """Plays GoFax with one signing secret."""

    secret: str = field(repr=False)
    #: Seconds for each call.
    timeout: float = 10.0

    def event(self, **fields: Any) -> Event:
        """Make an event under a new id; *fields* are those of :class:`sender.Event`."""
        return Event(**fields)

    def request(
        self,
        event: Event | bytes | None = None,
        *,
        secret: str | None = None,
        signed: bool = True,
        **fields: Any,
    ) -> SignedRequest:
        """Make the request for *event*, or for a new one with *fields*.

        *secret* signs instead of ours; with *signed* false nothing does. The same event twice is a
        duplicate, as GoFax's Resend makes it.
        """
        body = self._encoded(event, fields)
        key = (secret or self.secret) if signed else None
        headers = dict(request_headers(body, secret=key))
        # Test clients have no connection to close.
        headers.pop("Connection")
        return SignedRequest(body=body, headers=headers)

    def status_request(self, status: Status | None = None) -> SignedRequest:
        """Make the request for a legacy notification: form data, without a signature."""
        body = (status or Status()).encode()
        headers = {"User-Agent": "gofax-sender", "Content-Type": CONTENT_TYPES["form"]}
        return SignedRequest(body=body, headers=headers)

    def deliver(
        self,
        url: str,
        event: Event | bytes | None = None,
        *,
        secret: str | None = None,
        **fields: Any,
    ) -> Answer:
        """Post *event*, or a new one with *fields*, to a server that runs; return its answer."""
        body = self._encoded(event, fields)
        return deliver(url, body, secret=secret or self.secret, timeout=self.timeout)

    def play(self, url: str, *names: str, records: str | None = None) -> list[Outcome]:
        """Play scenarios to a server that runs, all of them if none is named.

        *records* is a URL that lists effects, as the sandbox's ``/records`` does.
        """
        unknown = set(names) - {each.name for each in SCENARIOS}
        if unknown:
            raise SenderError(
                f"no scenario {sorted(unknown)[0]!r}: see gofax-sender scenario list"
            )
        chosen = [each for each in SCENARIOS if not names or each.name in names]
        target = Target(url=url, secret=self.secret, timeout=self.timeout)
        outcomes = run(chosen, Setting(target=target))
        witness = Records(records) if records else None
        return confirm(outcomes, records=witness, patience=self.timeout)

    def check(self, url: str, *names: str, records: str | None = None) -> None:
        """Like :meth:`play`, and fail the test if a scenario fails, saying what and why."""
        failed = [e for e in self.play(url, *names, records=records) if e.verdict == "failed"]
        if failed:
            raise AssertionError("\n".join(described(each) for each in failed))

    def _encoded(self, event: Event | bytes | None, fields: Mapping[str, Any]) -> bytes:
        if event is not None and fields:
            raise TypeError(f"an event, or fields of a new one, not both: {', '.join(fields)}")
        if isinstance(event, bytes):
            return event
        return (event or Event(**fields)).encode()
