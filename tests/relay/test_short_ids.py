"""Short ids: the beginning of an id finds what the whole id finds, or says that it is several."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fakes import accept

from relay.store import Database, Inbox, Queries, Recovery
from relay.store.ids import SHORTEST, new_id, shortened
from relay.store.search import Unknown

ON_BOTH = True


def ids(queries: Queries) -> Sequence[str]:
    return [view.event.id for view in queries.events()]


def test_a_short_id_finds_its_event_and_its_delivery(
    inbox: Inbox, queries: Queries, database: Database
) -> None:
    accept(inbox, *(f"m{number}" for number in range(30)))
    deliveries = [view.deliveries[0].id for view in queries.events()]

    for whole, short in queries.short_ids(ids(queries)).items():
        found = queries.event(short)
        assert found is not None and found.event.id == whole
        assert [each.event_id for each in Recovery(database).deliveries_named(short)] == [whole]
        assert Recovery(database).event_named(short).event.id == whole
    for whole, short in queries.short_ids(deliveries).items():
        assert [each.id for each in Recovery(database).deliveries_named(short)] == [whole]
        assert SHORTEST <= len(short) < len(whole)


def test_what_several_ids_begin_with_lists_them(
    inbox: Inbox, queries: Queries, database: Database
) -> None:
    accept(inbox, *(f"m{number}" for number in range(7)))
    first, *_ = known = sorted(ids(queries))

    for find in (
        queries.event,
        Recovery(database).deliveries_named,
        Recovery(database).event_named,
    ):
        with pytest.raises(Unknown, match="several ids begin with") as raised:
            find(first[:6])
        assert [each for each in known if each in str(raised.value)] == known[:5]
        assert str(raised.value).endswith("…")


def test_a_message_id_goes_before_the_beginning_of_an_id(inbox: Inbox, queries: Queries) -> None:
    accept(inbox, "m1")
    (whole,) = ids(queries)

    accept(inbox, whole[:20])

    found = queries.event(whole[:20])
    assert found is not None and found.event.message_id == whole[:20]


@pytest.mark.parametrize("name", ["evt_", "evt_0g", "evt", "evt_%", "dlv_ffff", "req_01"])
def test_what_begins_no_id_finds_nothing(inbox: Inbox, queries: Queries, name: str) -> None:
    accept(inbox, "m1")

    assert queries.event(name) is None


def test_a_short_id_has_the_whole_time_and_as_much_as_tells_it_from_its_neighbours() -> None:
    whole = new_id("evt")

    assert shortened(whole, []) == whole[:SHORTEST]
    assert shortened(whole, ["evt_0000", whole[:19] + "_"]) == whole[:20]
