"""The outbox: posts payloads, keeps each attempt in the log, and reports it."""

from __future__ import annotations

from collections.abc import Iterable

import click

from sender import report
from sender.attempt import Attempt, Retries, Target, attempts
from sender.log import Log
from sender.payload import Payload
from sender.store import Store, StoreError
from sender.terminal import say, wrapped


class Outbox:
    """The posts of one run of a command."""

    def __init__(self, store: Store, *, retries: Retries, as_json: bool) -> None:
        self._log = Log(store)
        self._retries = retries
        self._as_json = as_json
        #: Why attempts were not kept, as far as the person was told.
        self._told: set[str] = set()
        self.tally = report.Tally()

    def post(self, payload: Payload, target: Target, *, resend_of: int | None = None) -> None:
        """Post *payload*, again and again as the retries say; the last attempt counts."""
        last = None
        for last in attempts(payload, target, retries=self._retries, resend_of=resend_of):
            self._say(last, self._keep(last))
        if last is not None:
            self.tally.add(last)

    def post_all(self, letters: Iterable[tuple[Payload, Target]]) -> None:
        """Post each payload to its target, one after the other."""
        for payload, target in letters:
            self.post(payload, target)

    def finish(self, *, summary: bool) -> None:
        """Sum up, and exit 1 unless everything was answered 2xx."""
        for hint in self.tally.hints():
            note(hint)
        if summary:
            note(self.tally.summary())
        if not self.tally.is_success:
            raise click.exceptions.Exit(1)

    def _keep(self, attempt: Attempt) -> int | None:
        try:
            return self._log.record(attempt)
        except StoreError as error:
            # It was sent: a log that is full or busy must not hide that.
            if str(error) not in self._told:
                self._told.add(str(error))
                note(f"not kept: {error}")
            return None

    def _say(self, attempt: Attempt, entry_id: int | None) -> None:
        if self._as_json:
            say(report.as_json(attempt, entry_id=entry_id))
        elif attempt.answer is not None:
            say(report.line(attempt, attempt.answer))
        if attempt.error is not None:
            note(f"error: {report.label_of(attempt.payload)}: {attempt.error}")


def note(text: str) -> None:
    """Tell the person something on stderr, beside the output."""
    lines = (report.harmless(each) for each in text.split("\n"))
    click.echo("\n".join(wrapped("", each, err=True) for each in lines), err=True)
