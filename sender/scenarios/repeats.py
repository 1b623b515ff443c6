"""Events that come more than once, late, or out of order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from sender.attempt import Attempt
from sender.event import Event
from sender.scenarios.base import Check, Skip, accepted, saw, scenario
from sender.scenarios.stage import Stage

RESEND = "GoFax's Resend delivers an event again; receivers recognise it by its messageId"
#: Copies of one event that come at the same time.
COPIES = 8
#: Longest wait before a resend in seconds, whatever the receiver asks for.
MAX_WAIT = 2.0
#: Seconds in which a receiver notices that a connection was cut.
NOTICED = 0.5
NEEDS_FAULTS = (
    "needs a receiver that fails on request: --records URL, with /faults beside it as the "
    "sandbox has it (docs/testing.md)"
)


@scenario(
    "duplicate",
    title="the same event three times in a row",
    right="2xx each time; one effect",
    why=RESEND,
)
def duplicate(stage: Stage) -> Iterator[Check]:
    event = stage.once(stage.event())
    for nth in ("first", "second", "third"):
        yield accepted(stage.post(event), f"the {nth} time")


@scenario(
    "duplicate-at-once",
    title=f"the same event {COPIES} times at the same moment",
    right="2xx each time; one effect",
    why="looking an event up and keeping it must be one step, or two copies slip in",
)
def duplicate_at_once(stage: Stage) -> Iterator[Check]:
    event = stage.once(stage.event())
    attempts = stage.post_together([event] * COPIES)
    good = sum(each.is_success for each in attempts)
    others = "; ".join(sorted({saw(each) for each in attempts if not each.is_success}))
    said = f"{good} of {COPIES} answered 2xx" + (f"; {others}" if others else "")
    yield Check(what="every copy: 2xx", passed=good == COPIES, saw=said)


@scenario(
    "duplicate-days-later",
    title="an event from three days ago is resent with a new time, then without its text",
    right="2xx each time; one effect",
    why="an event can be resent as long as the log has it; GoFax does not say whether the time "
    "is renewed, and Include Message body may have been turned off since",
)
def duplicate_days_later(stage: Stage) -> Iterator[Check]:
    old = stage.once(stage.event(occurred_at=datetime.now(UTC) - timedelta(days=3)))
    resent = replace(old, occurred_at=datetime.now(UTC))
    yield accepted(stage.post(old), "the event")
    yield accepted(stage.post(resent), "with a new time")
    yield accepted(stage.post(replace(resent, body=None)), "without text")


@scenario(
    "reorder",
    title="three events of one conversation arrive newest first",
    right="2xx for each; each takes effect",
    why="webhooks overtake each other: an older event is neither a duplicate nor a mistake",
)
def reorder(stage: Stage) -> Iterator[Check]:
    now = datetime.now(UTC)
    events = [stage.event(occurred_at=now - timedelta(minutes=age)) for age in range(3)]
    for age, event in enumerate(events):
        yield accepted(stage.post(stage.once(event)), f"the one of {age} min ago")


@scenario(
    "late",
    title="an event that is three days old",
    right="2xx; one effect",
    why="Resend may keep the event's time: refusing old times loses what was resent",
)
def late(stage: Stage) -> Iterator[Check]:
    event = stage.once(stage.event(occurred_at=datetime.now(UTC) - timedelta(days=3)))
    yield accepted(stage.post(event), "the event")


@scenario(
    "clock-skew",
    title="events an hour ahead of and an hour behind the clock",
    right="2xx; one effect each",
    why="clocks differ, and GoFax's REST API writes local times without a zone",
)
def clock_skew(stage: Stage) -> Iterator[Check]:
    for what, hours in (("an hour ahead", 1), ("an hour behind", -1)):
        event = stage.event(occurred_at=datetime.now(UTC) + timedelta(hours=hours))
        yield accepted(stage.post(stage.once(event)), what)


@scenario(
    "cut-before-the-answer",
    title="the connection is cut before the answer; then the event is resent",
    right="2xx for the resend; one effect",
    why="the sender cannot know whether it arrived, and sends it again",
)
def cut_before_the_answer(stage: Stage) -> Iterator[Check]:
    event = stage.once(stage.event())
    body = event.encode()
    with stage.wire() as wire:
        wire.open(stage.signed(body) | {"Content-Length": str(len(body))})
        wire.send([body])
    time.sleep(NOTICED)
    yield accepted(stage.post(event), "the resend")


@scenario(
    "cut-in-the-body",
    title="the connection is cut in the middle of the body; then the event comes whole",
    right="2xx for the whole one; one effect",
    why="half an event must neither take effect nor block the whole one as its duplicate",
)
def cut_in_the_body(stage: Stage) -> Iterator[Check]:
    event = stage.once(stage.event())
    body = event.encode()
    with stage.wire() as wire:
        wire.open(stage.signed(body) | {"Content-Length": str(len(body))})
        wire.send([body[: len(body) // 2]])
    time.sleep(NOTICED)
    yield accepted(stage.post(event), "the whole event")


@scenario(
    "resend-after-5xx",
    title="the effect of an event fails; it is resent until it is answered 2xx, and once more",
    right="2xx in the end; one effect",
    why="a 5xx says that nothing was kept, so the resend must count; what was half done must not "
    "be done twice",
)
def resend_after_5xx(stage: Stage) -> Iterator[Check]:
    faults = stage.setting.faults
    ordered = faults.order() if faults else 0
    if faults is None or not ordered:
        raise Skip(NEEDS_FAULTS)
    try:
        event = stage.once(stage.event())
        first = stage.post(event)
        last = until_accepted(stage, event) if first.is_worth_a_retry else first
        met = faults.met(ordered, patience=stage.setting.prompt)
    finally:
        faults.withdraw()
    if not met and first.is_success:
        raise Skip(f"nothing failed: the receiver has met none of the {ordered} faults ordered")
    yield accepted(last, "resent until it is accepted")
    yield accepted(stage.post(event), "resent once more, as if that answer had been lost")


def until_accepted(stage: Stage, event: Event, *, tries: int = 4) -> Attempt:
    """Post *event* until the answer is neither 429 nor 5xx, and return the last attempt."""
    attempt = stage.post(event)
    for _ in range(tries - 1):
        if not attempt.is_worth_a_retry:
            break
        time.sleep(min(MAX_WAIT, attempt.retry_after or 0.2))
        attempt = stage.post(event)
    return attempt


REPEATS = (
    duplicate,
    duplicate_at_once,
    duplicate_days_later,
    reorder,
    late,
    clock_skew,
    cut_before_the_answer,
    cut_in_the_body,
    resend_after_5xx,
)
