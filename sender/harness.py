"""GoFax in a test: the fixture ``gofax_sender``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from sender.attempt import Target
from sender.delivery import Answer, deliver, request_headers
from sender.errors import SenderError
from sender.event import Event, Status
from sender.faults import Faults
from sender.payload import CONTENT_TYPES
from sender.scenarios import NAMES, SCENARIOS, Setting
from sender.scenarios.base import Outcome
from sender.scenarios.run import confirm, run
from sender.scorecard import described
from sender.witness import Records


@dataclass(frozen=True, kw_only=True, slots=True)
class SignedRequest(Mapping[str, Any]):
    """A request of GoFax's, for the test client of a web framework.

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
    #: A second secret that the receiver still accepts, for ``secret-rotated``.
    previous_secret: str | None = field(default=None, repr=False)
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

        *secret* signs instead of ours; *signed* false leaves the signature out. The same event
        twice is a duplicate, as GoFax's Resend makes it.
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
        """Post *event*, or a new one with *fields*, to a running server, and return its answer."""
        body = self._encoded(event, fields)
        return deliver(url, body, secret=secret or self.secret, timeout=self.timeout)

    def play(self, url: str, *names: str, records: str | None = None) -> list[Outcome]:
        """Play scenarios to a running server, all of them if none is named.

        *records* is a URL that lists effects, as the sandbox's ``/records`` does.
        """
        unknown = set(names) - set(NAMES)
        if unknown:
            raise SenderError(
                f"no scenario {sorted(unknown)[0]!r}: see gofax-sender scenario list"
            )
        chosen = [each for each in SCENARIOS if not names or each.name in names]
        setting = Setting(
            target=Target(url=url, secret=self.secret, timeout=self.timeout),
            previous_secret=self.previous_secret,
            faults=Faults(records) if records else None,
        )
        witness = Records(records) if records else None
        return confirm(run(chosen, setting), records=witness, patience=self.timeout)

    def check(self, url: str, *names: str, records: str | None = None) -> None:
        """Like :meth:`play`, and fail the test if a scenario fails, saying what and why.

        The test is skipped if none of the scenarios can be played.
        """
        # The reader looks for what the receiver did, not for our frames.
        __tracebackhide__ = True
        outcomes = self.play(url, *names, records=records)
        failed = [each for each in outcomes if each.verdict == "failed"]
        if failed:
            raise AssertionError("\n".join(described(each) for each in failed))
        if all(each.skipped for each in outcomes):
            pytest.skip("; ".join(f"{e.scenario.name}: {e.skipped}" for e in outcomes))

    def _encoded(self, event: Event | bytes | None, fields: Mapping[str, Any]) -> bytes:
        if event is not None and fields:
            raise TypeError(f"an event, or fields of a new one, not both: {', '.join(fields)}")
        if isinstance(event, bytes):
            return event
        return (event or Event(**fields)).encode()
