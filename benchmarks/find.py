"""Measure how long filters of ``gofax-relay events``, or the console's pages, take on any store.

    python benchmarks/find.py [--events 1000000] [--rounds 40] [--store URL] [--pages] [NAME …]

Fills a store by bulk SQL (see fill.py), or uses the one at *URL*, and prints the median and the
95th percentile of the milliseconds until the newest 20 matches are read. With *NAME*: of those
only whose names begin so.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import fill

from relay.rules import text
from relay.rules.delivery import State
from relay.rules.wording import Wording
from relay.store import Database, Queries, connect
from relay.store.actions import Actions
from relay.store.find import Finder
from relay.store.pages import Pages, RequestsPlace
from relay.store.search import Filter
from relay.store.traffic import Traffic
from relay.store.waiting import waiting

LIMIT = 20

#: A question to the store.
Ask = Callable[[], object]


def filters(events: int, rng: random.Random) -> dict[str, Callable[[], Filter]]:
    """Return for each kind of filter what makes one, for a random customer and time."""
    customers = max(1, events // fill.PER_CONVERSATION)

    def ending(digits: int) -> str:
        return text.ending(fill.phone(rng.randrange(customers))[-digits:])

    def ago() -> datetime:
        return datetime.now(UTC) - fill.KEPT * rng.random()

    def words(written: str) -> Wording:
        wording = Wording.of(written)
        assert wording is not None
        return wording

    def order() -> str:
        return f"order{rng.randrange(events) // fill.PER_ORDER}"

    def part() -> str:
        return f"part{rng.randrange(fill.PARTS)}"

    return {
        "--text, words of all events": lambda: Filter(wording=words("thanks your message")),
        "--text, beginnings in all": lambda: Filter(wording=words("your me")),
        "--text, a word of 0.1 %": lambda: Filter(wording=words(f"{part()} and")),
        "--text, of 7 events": lambda: Filter(wording=words(order())),
        "--text, of 7 and all": lambda: Filter(wording=words(f"{order()} thanks")),
        "--text, a beginning of few": lambda: Filter(wording=words(order()[:-2])),
        "--text, none": lambda: Filter(wording=words("nowhere")),
        "--text --until": lambda: Filter(wording=words(f"thanks {part()}"), until=ago()),
        "--text --customer": lambda: Filter(wording=words("thanks"), ending=ending(6)),
        "--text --state dead, none": lambda: Filter(
            wording=words("thanks"), states=(State.DEAD,)),
        "--text --type --destination": lambda: Filter(
            wording=words(part()), type="SMS_REPLY", destinations=(fill.DESTINATION,)),
        "--customer, whole": lambda: Filter(ending=ending(12)),
        "--customer, last 6 digits": lambda: Filter(ending=ending(6)),
        "--customer, last 4 digits": lambda: Filter(ending=ending(4)),
        "--message-id": lambda: Filter(message_id=fill.message_name(rng.randrange(events))),
        "--since": lambda: Filter(since=ago()),
        "--since --until, an hour": lambda: (lambda at: Filter(
            since=at, until=at + timedelta(hours=1)))(ago()),
        "--destination": lambda: Filter(destinations=(fill.DESTINATION,)),
        "--destination, unknown": lambda: Filter(destinations=("nowhere",)),
        "--state delivered": lambda: Filter(states=(State.DELIVERED,)),
        "--state dead, none": lambda: Filter(states=(State.DEAD,)),
        "--type": lambda: Filter(type="SMS_REPLY"),
        "--type, unknown": lambda: Filter(type="SMS_RECEIVED"),
        "--endpoint": lambda: Filter(endpoint=fill.ENDPOINT),
        "--standing accepted": lambda: Filter(standings=("accepted",)),
        "--standing conflict, none": lambda: Filter(standings=("conflict",)),
        "--destination --state --until": lambda: Filter(
            destinations=(fill.DESTINATION,), states=(State.DELIVERED,), until=ago()),
        "--customer --state dead": lambda: Filter(ending=ending(6), states=(State.DEAD,)),
    }  # fmt: skip


def listings(database: Database, events: int, rng: random.Random) -> dict[str, Callable[[], Ask]]:
    """Return what asks for the newest events that each filter matches."""
    queries = Queries(database)

    def asking(make: Callable[[], Filter]) -> Callable[[], Ask]:
        return lambda: partial(lambda wanted: list(queries.events(wanted, limit=LIMIT)), make())

    return {name: asking(make) for name, make in filters(events, rng).items()}


def pages(database: Database, events: int, rng: random.Random) -> dict[str, Callable[[], Ask]]:
    """Return what asks what the pages of the console ask, for a random customer and place."""
    read, finder, traffic = Pages(database), Finder(database), Traffic(database)
    customers = max(1, events // fill.PER_CONVERSATION)

    def customer() -> str:
        return fill.phone(rng.randrange(customers))

    def ticket() -> str:
        return f"#{rng.randrange(customers)}"

    def place() -> int:
        return rng.randrange(events)

    def chart(days: int, size: timedelta) -> Ask:
        now = database.clock().replace(second=0, microsecond=0)
        return partial(traffic.series, since=now - timedelta(days=days), until=now, size=size)

    delivered = Filter(destinations=(fill.DESTINATION,), states=(State.DELIVERED,))
    refused = Filter(standings=("refused",))
    return {
        "traffic, 24 h": lambda: chart(1, timedelta(minutes=30)),
        "traffic, 7 d": lambda: chart(7, timedelta(hours=6)),
        "customers that wait": lambda: partial(waiting, database),
        "box, a customer": lambda: partial(finder.find, customer()),
        "box, last 6 digits": lambda: partial(finder.find, customer()[-6:]),
        "box, last 4 digits": lambda: partial(finder.find, customer()[-4:]),
        "box, a ticket": lambda: partial(finder.find, ticket()),
        "box, an event": lambda: partial(finder.find, fill.event_name(place())),
        "box, a messageId": lambda: partial(finder.find, fill.message_name(place())),
        "box, a request": lambda: partial(finder.find, f"req_d{place():023d}"[:24]),
        "box, words of 7 events": lambda: partial(
            finder.find, f"order{place() // fill.PER_ORDER}"),
        "box, nothing": lambda: partial(finder.find, "nowhere"),
        "conversation": lambda: partial(read.conversation, customer(), limit=LIMIT),
        "events": lambda: partial(read.events, limit=LIMIT),
        "events, any page": lambda: partial(read.events, limit=LIMIT, before=place()),
        "events, any page, filtered": lambda: partial(
            read.events, delivered, limit=LIMIT, before=place()),
        "requests": lambda: partial(read.requests, limit=LIMIT),
        "requests, any page": lambda: partial(
            read.requests, limit=LIMIT, before=RequestsPlace(event=place(), request=9000)),
        "requests, refused": lambda: partial(read.requests, refused, limit=LIMIT),
        "stopped": lambda: partial(read.stopped, limit=LIMIT),
        "acts": lambda: partial(Actions(database).newest, limit=LIMIT),
    }  # fmt: skip


def measure(make: Callable[[], Ask], *, rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        ask = make()
        begun = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--store", help="URL of a store that fill.py has filled")
    parser.add_argument("--pages", action="store_true", help="ask what the console's pages ask")
    parser.add_argument("names", nargs="*", metavar="NAME")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.store or f"sqlite:///{Path(folder) / 'relay.db'}"
        if not given.store:
            fill.fill(url, events=given.events)
        with closing(connect(url)) as database:
            ask = pages if given.pages else listings
            for name, make in ask(database, given.events, random.Random(1)).items():
                if given.names and not name.startswith(tuple(given.names)):
                    continue
                taken = sorted(measure(make, rounds=given.rounds))
                p95 = taken[int(len(taken) * 0.95) - 1]
                print(f"{name:32} p50 {statistics.median(taken):8.1f}  p95 {p95:8.1f} ms")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
