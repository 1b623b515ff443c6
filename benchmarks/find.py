"""Measure how long each filter of ``gofax-relay events`` takes on a store of any size.

    python benchmarks/find.py [--events 1000000] [--rounds 40] [--store URL]

Fills a store by bulk SQL (see fill.py), or uses the one at *URL*, and prints the median and the
95th percentile of the milliseconds until the newest 20 matches are read.
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
from pathlib import Path

import fill

from relay.rules import text
from relay.rules.delivery import State
from relay.rules.wording import Wording
from relay.store import Queries, connect
from relay.store.search import Filter

LIMIT = 20


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


def measure(queries: Queries, make: Callable[[], Filter], *, rounds: int) -> list[float]:
    taken = []
    for _ in range(rounds):
        wanted = make()
        begun = time.perf_counter()
        list(queries.events(wanted, limit=LIMIT))
        taken.append((time.perf_counter() - begun) * 1e3)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--store", help="URL of a store that fill.py has filled")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = given.store or f"sqlite:///{Path(folder) / 'relay.db'}"
        if not given.store:
            fill.fill(url, events=given.events)
        with closing(connect(url)) as database:
            for name, make in filters(given.events, random.Random(1)).items():
                taken = sorted(measure(Queries(database), make, rounds=given.rounds))
                p95 = taken[int(len(taken) * 0.95) - 1]
                print(f"{name:32} p50 {statistics.median(taken):8.1f}  p95 {p95:8.1f} ms")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
