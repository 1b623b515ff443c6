"""Texts of any length: each is kept whole, and none keeps its neighbours from being stored."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest
import sqlalchemy as sa
from fakes import (
    NOON,
    accept_together,
    arrival,
    customer,
    delivered,
    failed,
    finish,
    request,
    take_one,
)

from relay.rules.delivery import OutcomeKind, State
from relay.store import Database, Inbox, Queries, Queue, connect, schema
from relay.store.actions import Act
from relay.store.copy import Copy
from relay.store.recover import Recovery
from relay.store.values import Arrival, DeliveryView

ON_BOTH = True

LENGTHS = pytest.mark.parametrize("length", [1, 255, 3_000, 60_000])

#: Columns whose texts the relay chooses.
OURS = {"id", "standing", "format", "routing", "request_id", "customer_ending", "kind"}
COLUMNS = [
    column.name
    for column in schema.events.c
    if isinstance(column.type, sa.Text) and column.name not in OURS
]


def _text(length: int) -> str:
    """Make a text that no database can make shorter, as it does with repetitions."""
    return "".join(random.choices(string.ascii_letters + string.digits, k=length))


def _with(column: str, text: str) -> Arrival:
    """Make an arrival that has *text* in a column of its event."""
    new = arrival(_text(20), customer=customer(random.randrange(1000)))
    if column in ("query", "charset"):
        return replace(new, **{column: text})
    if column == "headers":
        return replace(new, request=replace(new.request, headers={"x-long": text}))
    if column in ("remote", "reason"):
        return replace(new, request=replace(new.request, **{column: text}))
    return replace(new, event=replace(new.event, **{column: text}))


@pytest.mark.slow
@LENGTHS
def test_an_event_with_a_long_text_is_stored_alone_and_among_others(
    inbox: Inbox, database: Database, queries: Queries, length: int
) -> None:
    alone = [_with(column, _text(length)) for column in COLUMNS]
    together = [_with(column, _text(length)) for column in COLUMNS]
    honest = [arrival(f"honest {number}") for number in range(len(together))]

    accepted = [inbox.accept(each) for each in alone]
    accepted += accept_together(
        database, inbox, [each for pair in zip(together, honest, strict=True) for each in pair]
    )

    assert {each.standing for each in accepted} == {"accepted"}
    for each in (*alone, *together, *honest):
        view = queries.event(each.event.id)
        assert view is not None and view.event == each.event
        [kept] = view.requests
        assert (kept.remote, kept.headers) == (each.request.remote, each.request.headers)
        assert len(view.deliveries) == 1


@LENGTHS
def test_an_event_is_found_by_a_long_message_id_and_by_no_beginning_of_it(
    inbox: Inbox, queries: Queries, length: int
) -> None:
    name = _text(length)
    inbox.accept(arrival(name + "a"))
    inbox.accept(arrival(name + "b"))

    found = [queries.event(each) for each in (name + "a", name + "b", name)]

    assert [view and view.event.message_id for view in found] == [name + "a", name + "b", None]


@LENGTHS
def test_a_refused_request_with_a_long_text_is_kept_among_others(
    inbox: Inbox, queries: Queries, length: int
) -> None:
    columns = ("endpoint", "method", "remote", "reason", "message_id")
    noted = [request(outcome="refused", **{column: _text(length)}) for column in columns]
    noted.append(request(outcome="refused", headers={"x-long": _text(length)}))

    inbox.refuse([*noted, request(outcome="refused")])

    assert list(queries.requests())[:-1] == noted


@LENGTHS
def test_long_answers_of_a_destination_are_recorded(
    inbox: Inbox, queue: Queue, delivery: Callable[..., DeliveryView], length: int
) -> None:
    said = _text(length)
    inbox.accept(arrival("m1"))
    finish(queue, take_one(queue), delivered(said, thread=said))
    inbox.accept(arrival("m2"))

    finish(queue, take_one(queue), failed(OutcomeKind.REFUSED, said))

    assert (delivery("m1").reference, delivery("m1").thread) == (said, said)
    assert delivery("m2").error == f"refused: {said}"
    assert delivery("m2").history[0].detail == said


@LENGTHS
def test_long_words_of_people_are_kept(
    inbox: Inbox, queue: Queue, queries: Queries, database: Database, length: int
) -> None:
    said = _text(length)
    act = Act(who=said, why=said, at=NOON)

    Recovery(database).pause("crm", act)

    assert queries.pausers() == {"crm": said}
    assert queries.pauses()["crm"].reason == said


def test_a_row_that_the_database_refuses_keeps_none_of_its_neighbours_from_the_log(
    inbox: Inbox, queries: Queries
) -> None:
    noted = [request(outcome="refused") for _ in range(3)]
    impossible = request(outcome="refused", reason="\ud800")

    inbox.refuse([noted[0], impossible, *noted[1:]])

    assert list(queries.requests()) == noted


def test_a_store_with_long_texts_moves_to_a_server(path: str, emptied: str) -> None:
    with closing(connect(f"sqlite:///{path}")) as source, closing(connect(emptied)) as target:
        with closing(Inbox(source)) as inbox, closing(Queue(source, node="worker-1")) as queue:
            for column in COLUMNS:
                inbox.accept(_with(column, _text(60_000)))
            inbox.refuse([request(outcome="refused", reason=_text(60_000))])
            finish(queue, take_one(queue, limit=1), delivered(_text(60_000), thread=_text(60_000)))
        copy = Copy(source, target, name="the server")
        copy.begin()
        list(copy.copy())

        assert all(each.same for each in copy.compare())
        assert all(each.same for each in copy.finish())
        assert Queries(target).backlog()["crm"][State.DELIVERED] == 1
