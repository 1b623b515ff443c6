"""Pruning and erasing: what an event says goes, that it was here stays."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote_plus

import pytest
import sqlalchemy as sa
from fakes import (
    NOON,
    Clock,
    accept,
    accept_apart,
    arrival,
    customer,
    delivered,
    eventually,
    failed,
    finish,
    request,
    take,
    take_one,
)

from relay.node import Pruner
from relay.rules.delivery import OutcomeKind, Policy, State
from relay.store import Database, Inbox, Queries, Queue, backup, connect, schema
from relay.store.actions import Act
from relay.store.prune import Pruning, Removed
from relay.store.recover import Recovery
from relay.store.traces import Elsewhere
from relay.store.values import DeliveryView

ON_BOTH = True

DAY = timedelta(days=1)
NUMBER = "+61411222333"


def _pruned(database: Database, before: datetime, **options: datetime) -> Removed:
    return sum(Pruning(database).prune(before=before, **options), Removed())


def _rows(database: Database) -> dict[str, int]:
    tables = ("events", "keys", "requests", "lanes", "deliveries", "attempts")
    with database.reading() as db:
        return {
            name: db.execute(
                sa.select(sa.func.count()).select_from(schema.metadata.tables[name])
            ).scalar_one()
            for name in tables
        }


def _deliver_all(queue: Queue, *, now: datetime = NOON) -> None:
    while claims := take(queue, now=now):
        for claim in claims:
            finish(queue, claim, now=now)


def test_what_is_old_goes_with_all_that_hangs_on_it(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "old", "old", "old")
    accept(inbox, "young", at=NOON + DAY, customer=customer(2))
    _deliver_all(queue)

    assert _pruned(database, NOON + DAY) == Removed(events=1, deliveries=1, requests=2)

    assert _rows(database) == {
        "events": 1, "keys": 2, "requests": 0, "lanes": 1, "deliveries": 1, "attempts": 0,
    }  # fmt: skip


def test_a_purged_event_that_is_sent_again_has_no_effect(
    inbox: Inbox, queue: Queue, database: Database, queries: Queries
) -> None:
    accept(inbox, "old")
    _deliver_all(queue)
    _pruned(database, NOON + DAY)

    again = inbox.accept(arrival("old", at=NOON + 2 * DAY))

    assert again.standing == "duplicate"
    assert list(queries.events()) == []
    assert take(queue, now=NOON + 3 * DAY) == []


@pytest.mark.parametrize("name", ["+61411222333", "Acme ~ Sons", "~", "~acme", "", "0x41", "1300"])
def test_a_conversation_keeps_its_lane_until_its_last_delivery_goes(
    inbox: Inbox, queue: Queue, database: Database, name: str
) -> None:
    accept(inbox, "stays", customer="+61499999999")
    accept(inbox, "untold", customer=name, to=())
    accept(inbox, "first", customer=name)
    accept(inbox, "second", customer=name, at=NOON + DAY)
    accept(inbox, "elsewhere", customer=name, at=NOON + DAY, ours="+61400000009")
    accept(inbox, "untold too", customer=name, at=NOON + 9 * DAY, to=())
    _deliver_all(queue, now=NOON + DAY)

    lanes = []
    for days in (0, 1, 2, 10):
        _pruned(database, NOON + days * DAY)
        lanes.append(_rows(database)["lanes"])

    assert lanes == [3, 2, 0, 0]


@pytest.mark.parametrize("policy", [Policy(on_ambiguous="hold"), Policy()])
def test_what_is_not_over_stays(
    inbox: Inbox, queue: Queue, database: Database, policy: Policy
) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.AMBIGUOUS), policy=policy)

    assert _pruned(database, NOON + 100 * DAY).events == 0


def test_what_is_dead_goes(inbox: Inbox, queue: Queue, database: Database) -> None:
    accept(inbox, "m1")
    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))

    assert _pruned(database, NOON + DAY).events == 1


def test_refused_requests_go_too(inbox: Inbox, database: Database) -> None:
    inbox.refuse([request(outcome="refused"), request(outcome="refused", at=NOON + DAY)])

    assert _pruned(database, NOON + DAY) == Removed(requests=1)


def test_keys_go_only_when_a_horizon_is_given(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "old")
    _deliver_all(queue)

    assert _pruned(database, NOON + 9 * DAY).keys == 0
    assert _pruned(database, NOON + 9 * DAY, keys_before=NOON + DAY).keys == 1
    assert _rows(database)["keys"] == 0


def test_events_of_a_type_are_kept_for_another_time(
    inbox: Inbox, queue: Queue, database: Database, queries: Queries
) -> None:
    long = "SMS_" + "X" * 90
    for number, type in enumerate(["SMS_STATUS", "SMS_REPLY", long] * 3):
        accept(inbox, f"m{number}", type=type, customer=customer(number))
    _deliver_all(queue)
    ages = {"sms_status": NOON + DAY, long: NOON + DAY}

    dry = sum(Pruning(database, dry_run=True).prune(before=NOON, types_before=ages), Removed())
    steps = list(Pruning(database, step=2).prune(before=NOON, types_before=ages))

    assert dry == sum(steps, Removed()) == Removed(events=6, deliveries=6)
    assert [step.events for step in steps] == [2, 1, 2, 1]
    assert {view.event.type for view in queries.events()} == {"SMS_REPLY"}

    kept = sum(
        Pruning(database).prune(before=NOON + DAY, types_before={"SMS_REPLY": NOON}), Removed()
    )

    assert kept == Removed()


def test_more_than_one_step_is_done_one_after_the_other(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept_apart(inbox, 8)
    _deliver_all(queue)

    steps = list(Pruning(database, step=3).prune(before=NOON + DAY))

    assert [step.events for step in steps] == [3, 3, 2]


def test_a_dry_run_counts_and_changes_nothing(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "m1", "m1", "m2")
    _deliver_all(queue)
    before = _rows(database)

    dry = sum(Pruning(database, dry_run=True).prune(before=NOON + DAY), Removed())

    assert _rows(database) == before
    assert dry == _pruned(database, NOON + DAY)


def test_a_customer_is_erased_and_nobody_else(
    inbox: Inbox, queue: Queue, database: Database, queries: Queries
) -> None:
    accept(inbox, "a1", "a2", "a3", customer=customer(1))
    accept(inbox, "b1", customer=customer(2))

    removed = sum(Pruning(database).erase(customer(1)), Removed())

    assert removed == Removed(events=3, deliveries=3)
    assert [view.event.message_id for view in queries.events()] == ["b1"]
    with database.reading() as db:
        assert customer(1) not in str(db.execute(sa.select(schema.lanes)).all())
    assert inbox.accept(arrival("a1", customer=customer(1))).standing == "duplicate"


def test_what_is_being_delivered_is_not_erased_and_the_rest_of_its_conversation_goes_on(
    inbox: Inbox, queue: Queue, database: Database, delivery: Callable[..., DeliveryView]
) -> None:
    accept(inbox, "m1", "m2")
    claim = take_one(queue)

    removed = sum(Pruning(database).erase(customer(1)), Removed())
    finish(queue, claim)
    accept(inbox, "m3")

    assert removed.events == 1
    assert delivery("m1").state == State.DELIVERED
    assert [each.event.message_id for each in take(queue)] == ["m3"]


def test_the_worker_prunes_by_itself(
    inbox: Inbox, queue: Queue, database: Database, tmp_path: Path
) -> None:
    accept(inbox, "old")
    _deliver_all(queue)
    automatic = tmp_path / "relay.db.before-migrate"
    backup.make(database, automatic, reason="migrate")
    pruner = Pruner(
        Pruning(database),
        retention=90 * DAY,
        backups=7 * DAY,
        horizon=None,
        clock=Clock(database.clock() + 91 * DAY),
        first=0.0,
    )

    pruner.start()
    eventually(lambda: _rows(database)["events"] == 0 and not automatic.exists())

    pruner.close()


def test_a_request_that_repeated_a_purged_event_goes_in_its_time(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "old")
    _deliver_all(queue)
    _pruned(database, NOON + DAY)
    accept(inbox, "old", at=NOON + 2 * DAY)

    assert _pruned(database, NOON + 2 * DAY).requests == 0
    assert _pruned(database, NOON + 3 * DAY).requests == 1


def test_an_erasure_says_where_else_texts_are_each_place_once(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "m1", "m2", "m3", customer=NUMBER, to=("crm",))
    accept(inbox, "m4", customer=NUMBER, to=("chat",))
    accept(inbox, "never sent", customer=NUMBER, to=("archive",))
    while claims := take(queue):
        for claim in claims:
            finish(queue, claim, delivered("ticket-7"))
    for claim in take(queue, destination="chat"):
        finish(queue, claim, failed(OutcomeKind.REFUSED))

    removed = sum(Pruning(database, dry_run=True).erase(NUMBER), Removed())

    assert removed.elsewhere == (
        Elsewhere(destination="crm", where="https://example.com/ticket-7"),
        Elsewhere(destination="chat", where=None),
    )
    assert removed == sum(Pruning(database).erase(NUMBER), Removed())


def test_words_about_the_customer_are_blanked_and_all_others_stay(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept(inbox, "m1", customer=NUMBER)
    accept(inbox, "m2", customer=customer(1), body="somebody else")
    recovery = Recovery(database)
    for why in ("Miller (0411 222 333) asked", "a rate that is too high", "61400000001 asked"):
        recovery.pause("crm", Act(who="alex", why=why, at=NOON))
        recovery.resume("crm", Act(who="alex", why=None, at=NOON))
    recovery.pause("crm", Act(who="alex", why=f"{NUMBER} complained", at=NOON))

    removed = sum(Pruning(database).erase(NUMBER), Removed())

    with database.reading() as db:
        said = "SELECT why FROM actions WHERE what = 'pause' ORDER BY seq"
        whys = db.exec_driver_sql(said).scalars().all()
        pauses = db.exec_driver_sql("SELECT reason FROM destinations").scalars().all()
    assert whys == ["(erased)", "a rate that is too high", "61400000001 asked", "(erased)"]
    assert pauses == ["(erased)"]
    assert removed.words == 2


def test_refused_requests_that_mention_the_customer_are_erased_however_they_say_it(
    inbox: Inbox, database: Database, queries: Queries
) -> None:
    text = "Überweisung an Müller, \N{SLIGHTLY SMILING FACE}"
    accept(inbox, "m1", customer=NUMBER, body=text)
    said = json.dumps({"from": NUMBER, "messageBody": "hi"})
    mine = [
        {"body": said.encode()},
        {"body": said.replace("+", "\\u002b").encode()},
        {"body": f"from={quote_plus(NUMBER)}".encode()},
        {"body": json.dumps({"messageBody": text}).encode()},
        {"headers": {"x-from": "0411 222 333"}},
        {"reason": f"no such number: {NUMBER}"},
    ]
    others = [{"body": said.replace("333", "334").encode()}, {"body": None}, {"body": b"\xff\x00"}]
    noted = [request(outcome="refused", status=401, **each) for each in [*mine, *others]]
    inbox.refuse(noted)

    removed = sum(Pruning(database, step=2).erase(NUMBER), Removed())

    assert removed.requests == len(mine)
    assert list(queries.requests()) == noted[len(mine) :]


def test_a_server_frees_the_space_of_what_was_removed(emptied: str) -> None:
    with closing(connect(emptied)) as database, closing(Inbox(database)) as inbox:
        inbox.refuse([request(outcome="refused", body=bytes(4096)) for _ in range(100)])
        list(Pruning(database).prune(before=NOON + DAY))
        with database.reading() as db:
            assert db.exec_driver_sql("SELECT pg_relation_size('requests')").scalar_one() > 0

        database.vacuum()

        with database.reading() as db:
            assert db.exec_driver_sql("SELECT pg_relation_size('requests')").scalar_one() == 0
