"""Explanations: "why was it not delivered?" always has an answer, and the right one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from fakes import (
    NOON,
    accept,
    arrival,
    delivered,
    failed,
    finish,
    lose,
    request,
    take_one,
)
from pydantic import TypeAdapter

from connectors.base import Options
from relay.cli import cli
from relay.commands import explain as explanation
from relay.config.model import DestinationConfig
from relay.rules import recovery, routing
from relay.rules.delivery import OutcomeKind as Outcome
from relay.rules.delivery import Policy, State
from relay.rules.routing import Route, When
from relay.shapes.explanation import Circumstances, ExplanationJson, explanation_json, what_next
from relay.store import Database, Inbox, Queries, Queue, Recovery
from relay.store.actions import Act
from relay.store.prune import Pruning
from relay.store.values import DeliveryView

HOLD = Policy(on_dead="hold", on_ambiguous="hold")
MINUTE = timedelta(minutes=1)
#: All that was done in a test was done by then.
NOW = NOON + timedelta(seconds=1)


@dataclass
class Stage:
    """A store, and what acts on it."""

    database: Database
    inbox: Inbox
    queue: Queue
    desk: Recovery
    queries: Queries

    def attempt(self, result: Outcome, detail: str, *, policy: Policy | None = None) -> None:
        """Make the one attempt that is due, in vain."""
        finish(self.queue, take_one(self.queue), failed(result, detail), policy=policy)

    def act(self, *, who: str = "anna", why: str = "holidays") -> Act:
        return Act(who=who, why=why, at=NOON)

    def resend(self, name: str) -> None:
        steps = [
            recovery.resend(case, again=True, now=NOON)
            for case in self.desk.deliveries_named(name)
        ]
        assert all(self.desk.do(steps, self.act(why="try it again")))

    def settle(self, name: str, end: Any) -> None:
        steps = [recovery.settle(case, end=end) for case in self.desk.deliveries_named(name)]
        assert all(self.desk.do(steps, self.act(why="it is there")))

    def around(self, **changes: Any) -> Circumstances:
        values: dict[str, Any] = {
            "now": NOW,
            "destinations": {"crm": DestinationConfig(connector="scripted", options=Options())},
            "pauses": self.queries.pauses(),
            "pausers": self.queries.pausers(),
        }
        return Circumstances(**values | changes)

    def explained(self, name: str = "m1", **changes: Any) -> str:
        view = self.queries.event(name)
        assert view is not None
        around = self.around(**changes)
        as_json = explanation_json(view, around)
        said = list(explanation.lines(view, around))
        # Programs are told the same.
        for delivery in as_json["deliveries"]:
            assert f"  {delivery['next']}" in said
        json.dumps(as_json)
        assert TypeAdapter(ExplanationJson).validate_python(as_json, strict=True) == as_json
        return "\n".join(said)


@pytest.fixture
def stage(database: Database, inbox: Inbox, queue: Queue, queries: Queries) -> Stage:
    return Stage(database, inbox, queue, Recovery(database), queries)


def _new(stage: Stage) -> None:
    accept(stage.inbox, "m1")


def _in_flight(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    take_one(stage.queue)


def _behind_one(stage: Stage) -> None:
    accept(stage.inbox, "m0", "m1")
    stage.attempt(Outcome.TRANSIENT, "answered 503")


def _behind_two(stage: Stage) -> None:
    accept(stage.inbox, "m0", "m00", "m1")
    take_one(stage.queue)


def _behind_a_held_one(stage: Stage) -> None:
    accept(stage.inbox, "m0", "m1")
    stage.attempt(Outcome.REFUSED, "no such field", policy=HOLD)


def _failing(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    stage.attempt(Outcome.TRANSIENT, "answered 503")


def _throttled(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    wait = {"retry_after": MINUTE}
    finish(stage.queue, take_one(stage.queue), failed(Outcome.THROTTLED, "too fast", **wait))


def _unauthorized(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    stage.attempt(Outcome.UNAUTHORIZED, "token expired")


def _broken(stage: Stage) -> None:
    for number in range(10):
        accept(stage.inbox, f"m{number}", customer=f"+6140000000{number}")
        stage.attempt(Outcome.TRANSIENT, "answered 500")


def _paused(stage: Stage) -> None:
    accept(stage.inbox, "m1", "m2")
    stage.desk.pause("crm", stage.act())


def _delivered(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    finish(stage.queue, take_one(stage.queue))


def _dead(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    stage.attempt(Outcome.REFUSED, "no such field")


def _in_doubt(stage: Stage) -> None:
    accept(stage.inbox, "m1", "m2")
    stage.attempt(Outcome.AMBIGUOUS, "no answer within 25 s", policy=HOLD)


def _parking(stage: Stage) -> None:
    accept(stage.inbox, "m1", "m2")
    stage.attempt(Outcome.REFUSED, "no such field", policy=HOLD)


def _resent(stage: Stage) -> None:
    _dead(stage)
    stage.resend("m1")


def _sent_twice(stage: Stage) -> None:
    _delivered(stage)
    stage.resend("m1")


def _settled(stage: Stage) -> None:
    _in_doubt(stage)
    stage.settle("m1", State.DELIVERED)


def _given_up(stage: Stage) -> None:
    _failing(stage)
    stage.settle("m1", State.DEAD)


def _lost(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    take_one(stage.queue)
    lose(stage.queue, now=NOON + MINUTE)


def _replayed(stage: Stage) -> None:
    accept(stage.inbox, "m1", to=())
    filed = stage.desk.event_named("m1")
    stage.desk.replay([recovery.replay(filed, ["crm"])], stage.act(why="a new route"))


def _behind_another_late_one(stage: Stage) -> None:
    accept(stage.inbox, "m0", "m1", to=())
    filed = [stage.desk.event_named(name) for name in ("m0", "m1")]
    stage.desk.replay([recovery.replay(each, ["crm"]) for each in filed], stage.act())


def _unrouted(stage: Stage) -> None:
    stage.inbox.accept(routed("m1", "SMS_RECEIVED"))


def _without_routes(stage: Stage) -> None:
    accept(stage.inbox, "m1", to=())


def routed(name: str, *events: str) -> Any:
    """Make an arrival that went through a route for the types *events*."""
    new = arrival(name, to=())
    route = Route(name="some", when=When(event=events), to=("crm",))
    return arrival(name, to=(), match=routing.match(new.event, [route]))


@pytest.mark.parametrize(
    ("prepare", "says"),
    [
        (_new, "next: an attempt now"),
        (_in_flight, "next: the end of the attempt that worker-1 is making"),
        (
            _behind_one,
            r"next: when the one before it in its conversation is done, dlv_\w+ "
            r"\(message m0\), pending, due 2026-11-24 12:00:05Z",
        ),
        (
            _behind_two,
            r"next: when 2 before it in its conversation are done, the first is dlv_\w+ "
            r"\(message m0\), in_flight",
        ),
        (
            _behind_a_held_one,
            r"next: when the one before it in its conversation is done, dlv_\w+ \(message m0\), "
            r"held until a person decides: refused: no such field",
        ),
        (
            _failing,
            "next: attempt 2 after: answered 503, at 2026-11-24 12:00:05Z, "
            "given up after 2026-11-27 12:00:00Z",
        ),
        (
            _throttled,
            r"next: an attempt after: too fast, at 2026-11-24 12:01:00Z; not while crm is paused "
            r"\(throttled, since 2026-11-24 12:00:00Z: too fast\); "
            r"all go on at 2026-11-24 12:01:00Z",
        ),
        (
            _unauthorized,
            r"next: nothing while crm is paused \(unauthorized, since 2026-11-24 12:00:00Z: "
            r"token expired\); one delivery is tried at 2026-11-24 12:05:00Z",
        ),
        (
            _broken,
            r"next: attempt 2 after: answered 500, at 2026-11-24 12:00:05Z, given up after "
            r"2026-11-27 12:00:00Z; not while crm is paused \(failing, since "
            r"2026-11-24 12:00:00Z: answered 500\); one delivery is tried at",
        ),
        (
            _paused,
            r"next: nothing while crm is paused \(by anna, since 2026-11-24 12:00:00Z: "
            r"holidays\); until gofax-relay resume crm",
        ),
        (_delivered, r"done: r1 \(https://example.com/r1\)"),
        (
            _dead,
            r"dead: refused: no such field; try again: gofax-relay resend dlv_\w+",
        ),
        (
            _in_doubt,
            r"held until a person decides: ambiguous: no answer within 25 s; gofax-relay "
            r"resend dlv_\w+, or settle dlv_\w+ --as delivered|dead",
        ),
        (
            _parking,
            "held until a person decides; its conversation waits for that: refused: no such field",
        ),
        (
            _resent,
            r"pending, late: outside the order(.|\n)*next: an attempt now(.|\n)*"
            r"resend 2026-11-24 12:00:00Z by anna \(try it again\): dlv_\w+ sent again, late",
        ),
        (
            _sent_twice,
            r"done: r1(.|\n)*next: an attempt now(.|\n)*"
            r"by anna \(try it again\): dlv_\w+ a second delivery under a new key, late",
        ),
        (
            _settled,
            r"done: a person settled it as delivered(.|\n)*"
            r"settle 2026-11-24 12:00:00Z by anna \(it is there\): dlv_\w+ settled as delivered",
        ),
        (_given_up, "dead: answered 503"),
        (_lost, "next: attempt 2 after: lost, at "),
        (
            _replayed,
            r"next: an attempt now(.|\n)*replay 2026-11-24 12:00:00Z by anna "
            r"\(a new route\): crm missing: added, late",
        ),
        (
            _behind_another_late_one,
            r"waiting, late: outside the order\n  next: when the one before it in its "
            r"conversation is done, dlv_\w+ \(message m0\), pending, due 2026-11-24 12:00:00Z",
        ),
        (
            _unrouted,
            r"route some: no\n  no: event is SMS_RECEIVED \(saw SMS_REPLY\)\n"
            r"no deliveries: no route matched; after a change: gofax-relay replay",
        ),
        (_without_routes, "no deliveries: there were no routes when it came"),
    ],
)
def test_every_state_is_explained(
    stage: Stage, prepare: Callable[[Stage], None], says: str
) -> None:
    prepare(stage)

    said = stage.explained()

    assert re.search(says, said), said


@pytest.mark.parametrize("state", list(State))
def test_there_is_an_answer_even_where_little_is_known(stage: Stage, state: State) -> None:
    bare = DeliveryView(
        id="dlv_1",
        destination="crm",
        state=state,
        attempts=0,
        reference=None,
        url=None,
        error=None,
        due_at=None,
        late=False,
    )

    said = what_next(bare, stage.around())

    assert len(said) > 10
    assert "None" not in said


def test_one_that_waits_in_a_paused_destination_is_told_both(stage: Stage) -> None:
    _paused(stage)

    said = stage.explained("m2")

    assert "(message m1), pending" in said
    assert "; nothing goes while crm is paused (by anna" in said


def test_one_that_nobody_takes_points_to_the_worker(stage: Stage) -> None:
    _new(stage)

    said = stage.explained(now=NOON + 2 * MINUTE)

    assert "it has been due since 2026-11-24 12:00:00Z: is a worker running?" in said


def test_a_lease_that_ran_out_is_taken_over(stage: Stage) -> None:
    _in_flight(stage)

    said = stage.explained(now=NOON + 2 * MINUTE)

    assert "next: another worker repeats it, because worker-1 has been silent" in said


def test_a_destination_that_left_the_config_is_named(stage: Stage) -> None:
    _new(stage)

    assert "next: nothing while crm is not in the config" in stage.explained(destinations={})


def test_a_pause_that_ended_is_not_spoken_of(stage: Stage) -> None:
    _paused(stage)
    stage.desk.resume("crm", stage.act())

    assert "next: an attempt now" in stage.explained()


def test_an_attempt_says_whether_it_repeats_and_who_wanted_it(stage: Stage) -> None:
    accept(stage.inbox, "m1")
    stage.attempt(Outcome.AMBIGUOUS, "no answer", policy=HOLD)
    stage.resend("m1")
    finish(stage.queue, take_one(stage.queue))

    said = stage.explained()

    assert "attempt 2026-11-24 12:00:00Z ambiguous: no answer" in said
    assert "attempt 2026-11-24 12:00:00Z delivered (again, requested by a person)" in said


def test_the_thread_and_the_request_are_told(stage: Stage) -> None:
    for reason in ("signature matches secret 2", "signature matches secret 1"):
        stage.inbox.accept(arrival("m1", request=request(reason=reason)))
    finish(stage.queue, take_one(stage.queue), delivered(thread="ticket 7"))

    said = stage.explained()

    assert "accepted 2026-11-24 12:00:00Z at /webhooks/gofax, came again once" in said
    assert "request 2026-11-24 12:00:00Z 200 accepted: signature matches secret 2" in said
    assert "request 2026-11-24 12:00:00Z 200 duplicate: signature matches secret 1" in said
    assert "thread ticket 7" in said


def test_a_conflict_and_what_it_contradicts_name_each_other(stage: Stage) -> None:
    first = stage.inbox.accept(arrival("m1")).event_id
    conflict = stage.inbox.accept(arrival("m1", body="something else")).event_id

    assert f"a conflict with it was kept, not delivered: {conflict}" in stage.explained()
    said = stage.explained(conflict)
    assert f"its messageId was used before for something else ({first})" in said
    assert "no deliveries: a conflict" in said


def test_a_stale_event_says_how_it_can_be_delivered_all_the_same(stage: Stage) -> None:
    stage.inbox.accept(arrival("m1", standing="stale"))

    said = stage.explained()

    assert "no deliveries: stale: older than dedupe_horizon" in said
    assert "gofax-relay replay --again" in said


def test_an_event_is_found_by_its_delivery(stage: Stage) -> None:
    _new(stage)
    (case,) = stage.desk.deliveries_named("m1")

    assert "messageId m1" in stage.explained(case.id)


CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
"""


@pytest.fixture
def explain(path: Path) -> Callable[..., Result]:
    """Run ``gofax-relay explain`` on the test's store."""
    config = path.parent / "config.yaml"
    config.write_text(CONFIG)

    def explain(*arguments: str, code: int = 0) -> Result:
        result = CliRunner().invoke(cli, ["explain", *arguments, "--config", str(config)])
        assert result.exit_code == code, result.output
        return result

    return explain


def test_what_was_removed_is_remembered(stage: Stage, explain: Callable[..., Result]) -> None:
    _dead(stage)
    stage.resend("m1")
    event = stage.desk.deliveries_named("m1")[0].event_id
    list(Pruning(stage.database).erase("+61400000001"))

    for name in ("m1", event):
        said = explain(name).stdout
        assert f"{name} was received 2026-11-24 12:00:00Z as {event}" in said
        assert "have been removed" in said
        assert "by anna (try it again)" in said
    told = json.loads(explain("m1", "--json").stdout)
    assert (told["status"], told["id"], told["why_no_deliveries"]) == (
        "purged",
        event,
        "removed: by the retention, or erased",
    )


def test_what_never_came_is_not_there(stage: Stage, explain: Callable[..., Result]) -> None:
    for name in ("m1", "evt_1", "dlv_1"):
        assert f'no event "{name}" was accepted' in explain(name, code=1).stderr


def test_what_was_refused_is_found_in_the_request_log(
    stage: Stage, explain: Callable[..., Result]
) -> None:
    refused = {
        "status": 401,
        "outcome": "refused",
        "reason": "signature does not match the secret",
    }
    body = b'{"messageId": "m1"}'
    stage.inbox.refuse([request(**refused, body=body), request(**refused, body=b"{}")])

    said = explain("m1", code=1).stderr

    assert said.count("401 refused: signature does not match the secret") == 1


def test_the_command_prints_lines_or_json(stage: Stage, explain: Callable[..., Result]) -> None:
    _delivered(stage)

    assert "done: r1 (https://example.com/r1)" in explain("m1").stdout
    told = json.loads(explain("m1", "--json").stdout)
    assert told["deliveries"][0]["next"] == "done: r1 (https://example.com/r1)"
    assert told["deliveries"][0]["history"][0]["trigger"] == "scheduled"
    assert told["actions"] == []
