"""Bodies of events: with more than is known, with less, and with nonsense."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sender.scenarios.base import Check, accepted, answered, scenario
from sender.scenarios.stage import Stage

EVOLVES = "GoFax's page: payloads may evolve"
#: Bytes of a body that is too long for any receiver, and the depth of nested objects.
HUGE, DEPTH = 1 << 20, 10_000


@scenario(
    "unknown-fields",
    title="unknown fields in the event and in its metadata",
    right="2xx; one effect",
    why=EVOLVES,
)
def unknown_fields(stage: Stage) -> Iterator[Check]:
    event = stage.once(stage.event())
    new = {"segments": [{"part": 1, "of": None}], "priority": 1.5, "isTest": True, "": "nameless"}
    fields = {**new, **event.payload(), "metadata": {"accountId": "12345", "tags": ["a"]}}
    yield accepted(stage.post(_encoded(fields)), "an event with more fields")


@scenario(
    "unknown-event",
    title="an unknown event type",
    right="2xx; its effect is up to the receiver",
    why=EVOLVES + "; an error would only bring it back",
)
def unknown_event(stage: Stage) -> Iterator[Check]:
    event = stage.event(type="SMS_SOMETHING_NEW", direction="sideways")
    yield accepted(stage.post(stage.at_most_once(event)), "SMS_SOMETHING_NEW")


@scenario(
    "missing-body",
    title="no messageBody; one that is null; one that is empty",
    right="2xx; one effect each",
    why="Include Message body is a setting of the webhook and may be off",
)
def missing_body(stage: Stage) -> Iterator[Check]:
    yield accepted(stage.post(stage.once(stage.event(text=None))), "absent")
    for what, value in (("null", None), ("empty", "")):
        event = stage.once(stage.event(text=None))
        yield accepted(stage.post(_encoded(event.payload() | {"messageBody": value})), what)


@scenario(
    "odd-values",
    title="numbers for ids, names for numbers, NUL, half an emoji, a number of 20,000 digits",
    right="2xx or a 4xx, never a 5xx; the next event is accepted",
    why="an SMS holds what customers type; a receiver that trips over one event stops for all",
)
def odd_values(stage: Stage) -> Iterator[Check]:
    for what, changes in (
        ("from is a name", {"from": "Test Sender"}),
        ("NUL and half an emoji", {"messageBody": "a\x00b\ud83d"}),
        ("a time that is not one", {"eventTimestamp": "yesterday"}),
        ("metadata is a list", {"metadata": ["12345"]}),
    ):
        event = stage.at_most_once(stage.event())
        yield answered(stage.post(_encoded(event.payload() | changes)), what)
    event = stage.at_most_once(stage.event())
    long = _encoded(event.payload() | {"cost": 0}).replace(
        b'"cost": 0', b'"cost": ' + b"9" * 20_000
    )
    yield answered(stage.post(long), "a number of 20,000 digits")
    yield stage.still_works()


@scenario(
    "huge",
    title="a signed body of 1 MiB",
    right="413, another 4xx, or 2xx; the next event is accepted",
    why="a body read without a limit fills the memory",
)
def huge(stage: Stage) -> Iterator[Check]:
    event = stage.at_most_once(stage.event("x" * HUGE))
    body = event.encode()
    framing = {"Content-Length": str(len(body))}
    pieces = (body[at : at + 65536] for at in range(0, len(body), 65536))
    yield answered(stage.post_pieces(body, pieces, headers=framing), "1 MiB")
    yield stage.still_works()


@scenario(
    "deep",
    title=f"{DEPTH:,} nested objects",
    right="2xx or a 4xx, never a 5xx; the next event is accepted",
    why="parsers that follow every level run out of stack",
)
def deep(stage: Stage) -> Iterator[Check]:
    event = stage.at_most_once(stage.event())
    nested = b'{"a":' * DEPTH + b"1" + b"}" * DEPTH
    body = event.encode().replace(b'{"accountId": "12345"}', nested)
    yield answered(stage.post(body), f"{DEPTH:,} levels")
    yield stage.still_works()


@scenario(
    "bad-utf-8",
    title="a text with bytes that are not UTF-8",
    right="2xx or a 4xx, never a 5xx; the next event is accepted",
    why="it was signed as it is: read it tolerantly or refuse it, but do not crash",
)
def bad_utf_8(stage: Stage) -> Iterator[Check]:
    event = stage.at_most_once(stage.event("here"))
    yield answered(
        stage.post(event.encode().replace(b"here", b"caf\xe9 \xff\xfe")), "broken UTF-8"
    )
    yield stage.still_works()


@scenario(
    "not-an-event",
    title="signed bytes that are not a JSON object",
    right="a 4xx or 2xx, never a 5xx; the next event is accepted",
    why="an unreadable body is the sender's fault, not the receiver's",
)
def not_an_event(stage: Stage) -> Iterator[Check]:
    for what, body in (("empty", b""), ("a list", b"[1]"), ("half an object", b'{"messageId": "')):
        yield answered(stage.post(body), what)
    yield stage.still_works()


def _encoded(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace")


BODIES = (
    unknown_fields,
    unknown_event,
    missing_body,
    odd_values,
    huge,
    deep,
    bad_utf_8,
    not_an_event,
)
