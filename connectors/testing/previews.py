"""Checks of what a connector says that it would do: C18."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import pytest

from connectors.base import Connector, Preview, Refused
from connectors.http import Http
from connectors.testing.bench import LOOPBACK, Bench, Case, Line
from connectors.testing.findings import Findings, check, kind_of
from connectors.testing.hooks import Hooks
from connectors.testing.outcomes import ODD_BODIES, ODD_EVENTS

#: Where colleagues could look at the event; a connector may say so.
PAGE = "https://relay.example.com/console/events/evt_1"


class PreviewChecks(Hooks):
    """Compares a preview with what the system is then asked for."""

    @check
    def test_C18_preview_shows_what_delivery_sends(self) -> None:
        findings = Findings()
        with self.bench() as bench:
            with bench.line() as line:
                self._compare(findings, bench, line)
            self._try_odd_events(findings, bench)
            self._try_broken_templates(findings, bench)
        findings.report()

    def _compare(self, findings: Findings, bench: Bench, line: Line) -> None:
        case = bench.first(url=PAGE)
        previews = _previewed(line.connector, case)
        if previews is None:
            pytest.skip("not applicable: the connector has no preview")
        if isinstance(previews, Exception):
            findings.judge(False, previews, wanted="previews", at="first event", by="preview()")
            return
        asked = line.gateway.connections if line.gateway else 0
        findings.expect(not asked, "preview() makes a request")
        findings.expect(not bench.effects(), "preview() leaves something in the system")
        findings.expect(previews, "preview() shows nothing of an event that is delivered")

        bench.settle(line.connector, case)

        if line.gateway:
            sent = [each.body for each in line.gateway.requests]
            for each in previews:
                there = each.when or any(holds(body, each.content) for body in sent)
                findings.expect(there, "what is sent differs from the preview", at=each.kind)
            return
        shown = "\n".join(f"{each.text}\n{_text(each.content)}" for each in previews)
        for effect in bench.stand_in.effects():
            for words in effect.text.splitlines():
                there = words.strip() in shown
                findings.expect(there, "the preview lacks what people find", at=effect.kind)

    def _try_odd_events(self, findings: Findings, bench: Bench) -> None:
        bodies = {name: {"body": body} for name, body in ODD_BODIES.items()}
        with _made(bench, {}) as connector:
            for name, changes in (ODD_EVENTS | bodies).items():
                outcome = _previewed(connector, bench.first(**changes))
                fits = isinstance(outcome, Refused) or not isinstance(outcome, Exception)
                findings.judge(fits, outcome, wanted="Refused", at=name, by="preview()")

    def _try_broken_templates(self, findings: Findings, bench: Bench) -> None:
        for name, changes in self.templates.items():
            with _made(bench, changes) as connector:
                outcome = _previewed(connector, bench.first())
            refused = isinstance(outcome, Refused) and name in str(outcome)
            findings.judge(refused, outcome, wanted="Refused", at=name, by="preview()")


def _made(bench: Bench, changes: Mapping[str, Any]) -> closing[Connector[Any]]:
    """Make a connector that is asked for nothing but previews."""
    options = {**bench.options(bench.stand_in.url), **changes}
    http = Http(allow=LOOPBACK, default_deadline=bench.deadline)
    return closing(bench.kind(bench.kind.Options.model_validate(options), http=http))


def _previewed(connector: Connector[Any], case: Case) -> Sequence[Preview] | Exception | None:
    try:
        found = connector.preview(case.event, key=case.key)
        if found is None:
            return None
        wrong = [each for each in found if not _is_whole(each)]
        return TypeError(f"preview() returned {kind_of(wrong[0])}") if wrong else list(found)
    except Exception as error:
        return error


def _is_whole(preview: object) -> bool:
    """Return whether it is a preview whose content can go out."""
    if not isinstance(preview, Preview):
        return False
    json.dumps(preview.content)
    return True


def _text(content: str | Mapping[str, Any]) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def holds(body: bytes, content: str | Mapping[str, Any]) -> bool:
    """Return whether what was sent has *content* somewhere in it."""
    if isinstance(content, str):
        return content in body.decode("utf-8", "replace")
    try:
        return any(_contains(each, content) for each in _parts(json.loads(body)))
    except ValueError:
        return False


def _parts(sent: Any) -> Iterator[Any]:
    """Yield every value in *sent*, at any depth."""
    yield sent
    inner: Iterable[Any] = ()
    if isinstance(sent, (dict, list)):
        inner = sent.values() if isinstance(sent, dict) else sent
    for each in inner:
        yield from _parts(each)


def _contains(sent: Any, shown: Any) -> bool:
    """Return whether *sent* says all that *shown* says; it may say more."""
    if isinstance(shown, Mapping):
        return isinstance(sent, dict) and all(
            name in sent and _contains(sent[name], each) for name, each in shown.items()
        )
    if isinstance(shown, (list, tuple)):
        return (
            isinstance(sent, list) and len(sent) == len(shown) and all(map(_contains, sent, shown))
        )
    return bool(sent == shown)
