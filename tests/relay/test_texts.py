"""The full-text index: what it finds is what a look at every text finds, on both databases."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from fakes import NOON, accept, arrival, customer, eventually, finish, request, take

from relay.node import Indexer
from relay.rules import text
from relay.rules.wording import Wording
from relay.store import Database, Inbox, Queries, Queue, candidates, read, texts
from relay.store.prune import Pruning, Removed
from relay.store.search import Filter
from relay.store.texts import Lag, Texts

ON_BOTH = True

MINUTE = timedelta(minutes=1)
NOTHING_LEFT = Lag(older=None, newer=None)


@pytest.fixture
def index(database: Database) -> Texts:
    return Texts(database)


def _wanted(typed: str, **others: Any) -> Filter:
    return Filter(wording=Wording.of(typed), **others)


def _found(queries: Queries, typed: str, *, limit: int | None = None, **others: Any) -> list[Any]:
    views = queries.events(_wanted(typed, **others), limit=limit)
    return [view.event.message_id for view in views]


def _index_all(index: Texts) -> None:
    while index.index():
        pass


def _rows(database: Database) -> int:
    with database.reading() as db:
        return db.scalar(sa.text("SELECT count(*) FROM texts")) or 0


def test_events_are_found_by_their_words_indexed_or_not(
    inbox: Inbox, queries: Queries, index: Texts, database: Database
) -> None:
    inbox.accept(arrival("m1", body="See you on Tuesday, Müller"))
    inbox.accept(arrival("m2", body="Thursday suits me"))
    inbox.accept(arrival("m3", body=None))
    inbox.accept(arrival("m4", body="🙂"))

    for _ in range(2):
        assert _found(queries, "tuesday MULLER") == ["m1"]
        assert _found(queries, "müller tues") == ["m1"]
        assert _found(queries, "t") == ["m1", "m2"]
        assert _found(queries, "tues me") == []
        assert _found(queries, "tuesday", ending=text.ending(customer(1))) == ["m1"]
        assert _found(queries, "day") == []
        _index_all(index)

    assert index.lag() == NOTHING_LEFT
    assert _rows(database) in (2, 3)  # a server notes that it has looked at a text without words


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.slow
def test_any_search_finds_the_newest_that_a_look_at_every_text_finds(
    inbox: Inbox,
    queries: Queries,
    index: Texts,
    queue: Queue,
    seed: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, small in (("BLOCK", 3), ("MOST_BLOCKS", 4), ("MOST_MATCHES", 3), ("BATCH", 7)):
        monkeypatch.setattr(texts, name, small)
    chance = random.Random(seed)
    vocabulary = ["ab", "abc", "abd", "b", "bc", "o'clock", "ÄBC", "1", "12"]
    for number in range(90):
        body = " ".join(chance.choices(vocabulary, k=chance.randrange(4)))
        # Some are let in long after they came.
        at = NOON + (number if chance.random() < 0.9 else 0) * MINUTE
        inbox.accept(arrival(f"m{number}", body=body, customer=customer(number % 3), at=at))
        if number == 40:
            for claim in take(queue, now=NOON + 90 * MINUTE)[:4]:
                finish(queue, claim)
        if chance.random() < 0.2:
            index.index(limit=7)
        if number == 80:
            _index_all(index)
    everything = list(queries.events())

    for _ in range(60):
        wording = Wording.of(
            " ".join(chance.choices([*vocabulary, "a"], k=chance.randrange(1, 4)))
        )
        since = NOON + chance.randrange(90) * MINUTE
        times = chance.choice([{}, {"since": since}, {"until": since}])
        wanted = Filter(wording=wording, **times)
        expected = [
            view.event.message_id
            for view in everything
            if wording is not None and wording.is_in(view.event.body or "")
            if wanted.since is None or view.event.received_at >= wanted.since
            if wanted.until is None or view.event.received_at < wanted.until
        ]

        found = [view.event.message_id for view in queries.events(wanted)]
        some = [view.event.message_id for view in queries.events(wanted, limit=3)]

        assert sorted(found) == sorted(expected), wanted
        assert len(some) == min(3, len(expected)), wanted
        if not times:
            assert (found, some) == (expected, expected[-3:]), wanted


def test_nothing_that_is_typed_is_an_error_of_the_database(
    inbox: Inbox, queries: Queries, index: Texts
) -> None:
    said = "it's \"quoted\" AND (odd) * NEAR/2 -not ^caret a:b {c} \\ % _ ' ; -- 𝒳 ẞ 日本 ไทย"
    inbox.accept(arrival("m1", body=said))
    _index_all(index)

    for typed in (
        *said.split(),
        said,
        said * 200,
        " ".join(map(str, range(1000))),
        "'" * 999 + "a",
    ):
        wording = Wording.of(typed)
        if wording is not None:
            found = _found(queries, typed)
            assert found == (["m1"] if wording.is_in(said) else []), typed


def test_older_events_are_indexed_behind_new_ones_the_newest_first(
    inbox: Inbox, queries: Queries, index: Texts, database: Database
) -> None:
    for number in range(20):
        accept(inbox, f"m{number}", body=f"word{number}", at=NOON + number * MINUTE)
    assert index.index(limit=5) == 5
    accept(inbox, "new", body="word20", at=NOON + 20 * MINUTE)
    told: list[Any] = []
    asking = Queries(database, tell=lambda said, time: told.append((said, time)))

    assert index.index(limit=5) == 5

    assert _found(queries, "word20") == ["new"]
    if database.file is not None:  # a server's newest may not be all
        assert _found(queries, "word11") == ["m11"]
        assert _found(asking, "word10") == []
        assert told == [(candidates.NOT_INDEXED, NOON + 10 * MINUTE)]
        assert index.lag().older == NOON + 10 * MINUTE
    _index_all(index)
    assert _found(queries, "word9") == ["m9"]
    assert (index.lag(), _rows(database)) == (NOTHING_LEFT, 21)


def test_several_nodes_index_each_event_once(
    inbox: Inbox, queries: Queries, database: Database
) -> None:
    indexers = [Indexer(Texts(database), seconds=0.01) for _ in range(3)]
    for each in indexers:
        each.start()
    for number in range(30):
        accept(inbox, f"m{number}", body=f"word{number}")

    eventually(lambda: Texts(database).lag() == NOTHING_LEFT)

    for each in indexers:
        each.close()
    assert _rows(database) == 30
    assert _found(queries, "word7") == ["m7"]


def test_an_event_that_was_committed_late_is_indexed_all_the_same(
    inbox: Inbox, queries: Queries, index: Texts, database: Database
) -> None:
    accept(inbox, "m1", "m2", body="early")
    with database.reading() as db:
        row = dict(
            db.execute(sa.text("SELECT * FROM events WHERE message_id = 'm2'")).mappings().one()
        )
    row |= {"id": "evt_late", "message_id": "late", "body": "late"}
    insert = sa.text(f"INSERT INTO events ({', '.join(row)}) VALUES (:{', :'.join(row)})")
    if database.file is not None:
        pytest.skip("one writer at a time")
    with database.engine.connect() as slow:
        # Tests before this one may have used any numbers of the same sequence.
        number = sa.text("SELECT nextval(pg_get_serial_sequence('events', 'seq'))")
        slow.execute(insert, row | {"seq": slow.scalar(number)})
        accept(inbox, "m4", body="early")
        _index_all(index)
        assert _found(queries, "late") == []
        slow.commit()

    _index_all(index)

    assert _found(queries, "late") == ["late"]


def test_what_goes_leaves_the_index(
    inbox: Inbox, queue: Queue, queries: Queries, index: Texts, database: Database
) -> None:
    for number in range(20):
        accept(inbox, f"m{number}", body=f"secret{number}", customer=customer(number % 2))
    _index_all(index)

    sum(Pruning(database).erase(customer(1)), Removed())
    assert (_rows(database), _found(queries, "secret3"), _found(queries, "secret4")) == (
        10, [], ["m4"],
    )  # fmt: skip
    while claims := take(queue):
        for claim in claims:
            finish(queue, claim)
    list(Pruning(database).prune(before=NOON + MINUTE))

    assert (_rows(database), _found(queries, "secret")) == (0, [])
    database.vacuum()
    accept(inbox, "again", body="secret")
    _index_all(index)
    assert _found(queries, "secret") == ["again"]


def test_what_is_erased_while_it_is_being_indexed_is_not_indexed(
    inbox: Inbox, index: Texts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept(inbox, "m1", body="secret", customer=customer(1))
    accept(inbox, "m2", body="other", customer=customer(2))
    begin = database.writing_unsynced

    @contextmanager
    def after_an_erasure() -> Iterator[sa.Connection]:
        monkeypatch.undo()
        list(Pruning(database).erase(customer(1)))
        with begin() as db:
            yield db

    monkeypatch.setattr(database, "writing_unsynced", after_an_erasure)
    index.index()

    _index_all(index)
    assert _rows(database) == 1


def test_a_search_that_is_too_wide_says_so_and_ends(
    inbox: Inbox, index: Texts, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(candidates, "LOOKED_AT", 8)
    monkeypatch.setattr(candidates, "PAGE", 4)
    monkeypatch.setattr(candidates, "COUNTED", 10)
    for number in range(30):
        kind = "A" if number < 15 else "B"
        accept(inbox, f"m{number}", body="thanks", type=kind, at=NOON + number * MINUTE)
    _index_all(index)
    told: list[Any] = []
    queries = Queries(database, tell=lambda said, time: told.append(said))

    assert _found(queries, "thanks", limit=3) == ["m27", "m28", "m29"]
    assert told == []
    assert _found(queries, "thanks", type="A", limit=3) == []
    (said,) = told
    assert "only the newest 8 of them were looked at" in said
    assert len(_found(queries, "thanks")) == 8
    assert len(_found(queries, "thanks", limit=20)) == 20


def test_requests_are_found_by_the_words_of_what_they_brought_or_say(
    inbox: Inbox,
    queries: Queries,
    index: Texts,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox.accept(arrival("m1", body="see you tuesday"))
    inbox.accept(arrival("m1", body="see you tuesday", at=NOON + MINUTE))
    inbox.accept(arrival("m2", body="see you thursday", at=NOON + 2 * MINUTE))
    for raw in (
        b'{"messageBody": "Or\\nT\\u00dcSDAY see"}', b"text=see+t%C3%BCsday", b'{"a": "see tusday',
        b"\xff\xfe", b'{"messageBody": "tuesday"}',
    ):  # fmt: skip
        inbox.refuse([request(outcome="refused", status=401, at=NOON + 3 * MINUTE, body=raw)])
    _index_all(index)

    def outcomes(typed: str, queries: Queries = queries, *, limit: int | None = None) -> list[str]:
        return [each.outcome for each in queries.requests(_wanted(typed), limit=limit)]

    assert outcomes("see tues") == ["accepted", "duplicate"]
    assert outcomes("see tusd") == ["refused"] * 3
    assert outcomes("tuesday") == ["accepted", "duplicate", "refused"]
    assert outcomes("thursday", limit=1) == ["accepted"]
    assert [each.outcome for each in queries.recent_requests(_wanted("thursday"), among=9)] == [
        "accepted"
    ]
    assert [each.event.message_id for each in queries.recent(_wanted("tuesday"), among=9)] == [
        "m1"
    ]
    monkeypatch.setattr(read, "SEARCHED", 2)
    told: list[str] = []
    assert outcomes("tuesday", Queries(database, tell=lambda said, _: told.append(said))) == [
        "accepted", "refused",
    ]  # fmt: skip
    assert "only the newest 2 were searched" in told[0]


def test_what_is_stale_or_a_conflict_is_found_too(
    inbox: Inbox, queries: Queries, index: Texts
) -> None:
    inbox.accept(arrival("m1", body="one thing"))
    inbox.accept(arrival("m1", body="another thing"))
    inbox.accept(replace(arrival("old", body="old thing", to=()), standing="stale"))
    _index_all(index)

    assert _found(queries, "thing") == ["m1", "m1", "old"]
    assert _found(queries, "thing", standings=("stale",)) == ["old"]


def test_an_erasure_and_an_indexer_do_not_wait_for_each_other_for_ever(
    inbox: Inbox, index: Texts, database: Database
) -> None:
    for number in range(40):
        accept(inbox, f"m{number}", body=f"word{number}", customer=customer(number))
    ended = threading.Event()

    def erase() -> None:
        for number in range(0, 40, 2):
            list(Pruning(database).erase(customer(number)))
        ended.set()

    thread = threading.Thread(target=erase)
    thread.start()
    while not ended.is_set():
        index.index(limit=3)
    thread.join()
    _index_all(index)

    assert _rows(database) == 20
