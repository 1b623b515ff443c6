"""The stage of a scenario: the receiver, the credentials, and the events it made."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sender.attempt import Attempt, Target
from sender.delivery import deliver, request_headers
from sender.errors import SenderError
from sender.event import Event
from sender.faults import Faults
from sender.payload import Payload
from sender.scenarios.base import Check, Effect, accepted, saw
from sender.signing import SIGNATURE_HEADER, sign
from sender.wire import Wire
from sender.witness import new_run


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a run of scenarios may use, and how long it waits."""

    target: Target
    #: A secret that the receiver still accepts beside the first.
    previous_secret: str | None = None
    #: Seconds within which an answer is prompt.
    prompt: float = 5.0
    #: Events of a burst.
    burst: int = 50
    #: Lets the receiver's effects fail, if it offers that.
    faults: Faults | None = None


def new_customer() -> str:
    """Make a number that hardly any other event comes from."""
    return f"+6149{secrets.randbelow(10**7):07d}"


class Stage:
    """The stage of one scenario: its own events, in a conversation of its own."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.effects: list[Effect] = []
        self._numbers = itertools.count(1)
        self._run = new_run("scenario")
        self._customer = new_customer()

    def event(self, text: str | None = "", **fields: Any) -> Event:
        """Make an event; *text* follows its id in the body. None: no body."""
        message_id = f"{self._run}-{next(self._numbers):05d}"
        body = None if text is None else f"{message_id} {text}".rstrip()
        given = {"message_id": message_id, "sender": self._customer, "body": body}
        return Event(**given | fields)

    def post(
        self,
        event: Event | bytes,
        *,
        secret: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Attempt:
        """Post *event*, signed with our secret or another one; *headers* replace any of ours."""
        target = self.setting.target
        body = event if isinstance(event, bytes) else event.encode()
        sent = dict(request_headers(body, secret=secret or target.secret, headers=headers))
        return self._attempt(
            body,
            sent,
            lambda: deliver(
                target.url, body, headers=sent, timeout=target.timeout, trust=target.trust
            ),
        )

    def post_unsigned(self, event: Event) -> Attempt:
        """Post *event* without a signature."""
        unsigned = replace(self.setting, target=replace(self.setting.target, secret=None))
        return Stage(unsigned).post(event)

    def post_together(self, events: Sequence[Event]) -> list[Attempt]:
        """Post *events* at the same time, each over a connection of its own."""
        pool = ThreadPoolExecutor(len(events))
        try:
            return list(pool.map(self.post, events))
        finally:
            # Ctrl-C must not wait for the answers.
            pool.shutdown(wait=False, cancel_futures=True)

    def post_pieces(
        self, body: bytes, pieces: Iterable[bytes], *, headers: Mapping[str, str]
    ) -> Attempt:
        """Post *body* in *pieces*, framed as *headers* say."""
        sent = self.signed(body) | dict(headers)

        def call() -> Any:
            with self.wire() as wire:
                wire.open(sent)
                wire.send(pieces)
                return wire.answer()

        return self._attempt(body, sent, call)

    def wire(self) -> Wire:
        """Open a connection that can be misused."""
        target = self.setting.target
        return Wire(target.url, timeout=target.timeout, trust=target.trust)

    def signed(self, body: bytes, *, secret: str | None = None) -> dict[str, str]:
        """Return the headers that *body* goes out with."""
        return dict(request_headers(body, secret=secret or self.setting.target.secret))

    def signature(self, body: bytes) -> dict[str, str]:
        """Return the one header that signs *body*."""
        return {SIGNATURE_HEADER: sign(body, self.setting.target.secret or "unsigned")}

    def once(self, event: Event) -> Event:
        """Expect *event* to take effect exactly once."""
        return self._expect(event, least=1, most=1)

    def at_most_once(self, event: Event) -> Event:
        """Expect *event* to take effect once, or not at all."""
        return self._expect(event, least=0, most=1)

    def never(self, event: Event) -> Event:
        """Expect *event* to take no effect."""
        return self._expect(event, least=0, most=0)

    def as_answered(self, event: Event, attempt: Attempt) -> Event:
        """Expect *event* to take effect once if *attempt* was accepted, and never if not."""
        return (self.once if attempt.is_success else self.never)(event)

    def still_works(self) -> Check:
        """Check that an honest event is still accepted."""
        attempt = self.post(self.once(self.event("after that")))
        return accepted(attempt, "an honest event after that")

    def prompt(self, attempt: Attempt, what: str) -> Check:
        """Check for a 2xx that came in time."""
        limit = self.setting.prompt
        answer = attempt.answer
        passed = (
            answer is not None and answer.is_success and answer.duration.total_seconds() <= limit
        )
        return Check(what=f"{what} within {limit:g} s", passed=passed, saw=saw(attempt))

    def _expect(self, event: Event, *, least: int, most: int) -> Event:
        message_id = str(event.message_id)
        is_in_text = event.body is not None and message_id in event.body
        effect = Effect(message_id=message_id, is_in_text=is_in_text, least=least, most=most)
        self.effects.append(effect)
        return event

    def _attempt(
        self, body: bytes, headers: Mapping[str, str], call: Callable[[], Any]
    ) -> Attempt:
        payload = Payload(body=body, message_id=None)
        made = Attempt(
            payload=payload, url=self.setting.target.url, at=datetime.now(UTC), headers=headers
        )
        try:
            return replace(made, answer=call())
        except SenderError as error:
            return replace(made, error=str(error))
