"""A store moves to PostgreSQL while it is written to: nothing is lost, doubled or out of order."""

from __future__ import annotations

import json
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from itertools import count
from pathlib import Path

import psycopg
import pytest
import servers
import sqlalchemy as sa
from backlog import fill
from click.testing import CliRunner
from fakes import (
    LEASE,
    NOON,
    accept,
    arrival,
    customer,
    delivered,
    eventually,
    failed,
    finish,
    request,
    take,
)
from site_of_nodes import PATIENCE, Flow, Site, kill

from relay import migrations
from relay.cli import cli
from relay.migrations import Unusable
from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable, connect, schema
from relay.store import copy as copying
from relay.store.actions import Act
from relay.store.copy import LEFT_OUT, Copy, CopyRefused
from relay.store.prune import Pruning
from relay.store.recover import Recovery

NewCopy = Callable[[], Copy]


@pytest.fixture
def target(emptied: str) -> Iterator[Database]:
    with closing(connect(emptied)) as target:
        yield target


@pytest.fixture
def new_copy(database: Database, target: Database) -> NewCopy:
    """Make what another run of the command would make, with small batches."""
    return lambda: Copy(database, target, name="the server", batch=3)


class Life:
    """What goes on at a store, by chance."""

    def __init__(self, database: Database, inbox: Inbox, queue: Queue, *, seed: int) -> None:
        self._database, self._inbox, self._queue = database, inbox, queue
        self._chance = random.Random(seed)
        self._numbers = count()
        self._now = NOON

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self._now += timedelta(seconds=self._chance.choice([0, 1, 40]))
            self._chance.choice(
                [self._accept, self._accept, self._duplicate, self._work, self._work]
                + [self._refuse, self._resend, self._erase, self._pause]
            )()

    def _accept(self) -> None:
        name = f"m{next(self._numbers)}"
        who = customer(self._chance.randrange(4))
        new = arrival(name, customer=who, to=self._chance.choice([("crm",), ("crm", "chat")]))
        self._inbox.accept(new)

    def _duplicate(self) -> None:
        self._inbox.accept(arrival(f"m{self._chance.randrange(5)}", body="hello"))

    def _work(self) -> None:
        for name in ("crm", "chat"):
            for claim in take(self._queue, destination=name, limit=2, now=self._now):
                end = self._chance.choice(
                    [
                        delivered(thread=f"t{claim.number}"),
                        failed(OutcomeKind.REFUSED),
                        failed(OutcomeKind.TRANSIENT),
                        None,
                    ]
                )
                if end is not None:
                    finish(self._queue, claim, end, now=self._now)

    def _refuse(self) -> None:
        self._inbox.refuse([request(status=401, outcome="refused", body=b"\x00\xff")])

    def _resend(self) -> None:
        dead = schema.deliveries.c
        with self._database.writing() as db:
            db.execute(
                sa.update(schema.deliveries)
                .where(dead.state == "dead")
                .values(state="pending", late=True, due_at=self._now)
            )

    def _erase(self) -> None:
        list(Pruning(self._database).erase(customer(self._chance.randrange(4))))

    def _pause(self) -> None:
        act = Act(who="me", why=None, at=self._now)
        desk = Recovery(self._database)
        self._chance.choice([desk.pause, desk.resume])("chat", act)


@pytest.fixture(params=range(3))
def life(request: pytest.FixtureRequest, database: Database, inbox: Inbox, queue: Queue) -> Life:
    return Life(database, inbox, queue, seed=request.param)


def _assert_same(copy: Copy, *, rows: int = 1) -> None:
    found = {each.table: each for each in copy.compare()}
    assert set(found) == set(schema.metadata.tables) - {each.name for each in LEFT_OUT}
    assert all(each.same and each.source == each.target for each in found.values()), found
    assert found["events"].source >= rows


@pytest.mark.slow
def test_a_copy_is_what_the_store_is_whatever_goes_on_meanwhile(
    life: Life, new_copy: NewCopy
) -> None:
    life.go_on(30)
    copy = new_copy()
    assert copy.begin() is False
    for _ in copy.copy():
        life.go_on(3)
    _assert_same(copy)
    life.go_on(20)
    assert copy.follow() > 0
    assert copy.follow() == 0
    _assert_same(copy)
    life.go_on(5)

    assert all(each.same for each in copy.finish())


def test_heads_of_a_lane_that_change_between_batches_and_between_passes(
    inbox: Inbox, queue: Queue, database: Database, target: Database
) -> None:
    accept(inbox, "m1", "m2")
    copy = Copy(database, target, name="the server", batch=1)
    copy.begin()
    count = sa.select(sa.func.count()).select_from(schema.deliveries)
    for _ in copy.copy():
        with target.reading() as db:
            if db.scalar(count) == 1 and Queries(database).backlog()["crm"].get("waiting"):
                finish(queue, take(queue)[0])
    _assert_same(copy, rows=2)

    d = schema.deliveries
    with database.writing() as db:
        db.execute(sa.update(d).where(d.c.seq == 2).values(state="waiting"))
        db.execute(sa.update(d).where(d.c.seq == 1).values(state="pending"))
    _assert_same(copy, rows=2)


def test_who_is_stopped_anywhere_goes_on_from_there(
    inbox: Inbox, queue: Queue, new_copy: NewCopy
) -> None:
    accept(inbox, *(f"m{number}" for number in range(10)))
    first = new_copy()
    first.begin()
    before = first.left()
    steps = first.copy()
    assert [next(steps) for _ in range(8)][:2] == [0, 0]  # actions, destinations

    accept(inbox, "later")
    second = new_copy()
    assert second.begin() is False

    assert 0 < second.left() < before
    assert sum(second.copy()) == second.left() or second.left() == 0
    _assert_same(second, rows=11)


def test_what_was_known_here_is_known_there_and_new_events_come_after_the_old(
    inbox: Inbox, queue: Queue, new_copy: NewCopy, target: Database
) -> None:
    accept(inbox, "m1", "m2")
    (held,) = take(queue)
    accept(inbox, "gone", customer=customer(5))
    list(Pruning(inbox._database).erase(customer(5)))
    copy = new_copy()
    copy.begin()
    list(copy.copy())
    copy.finish()

    with closing(Inbox(target)) as there, closing(Queue(target, node="new")) as heirs:
        known = there.accept(arrival("m1"))
        other = there.accept(arrival("m2", body="another text"))
        accept(there, "m3")
        (lost,) = heirs.lost(["crm"], NOON + 2 * LEASE)
        finish(heirs, lost)
        rest = []
        for _ in range(2):
            rest += take(heirs)
            finish(heirs, rest[-1])

    assert (known.standing, other.standing) == ("duplicate", "conflict")
    assert (lost.attempt_id, lost.event.message_id) == (held.attempt_id, "m1")
    assert [claim.event.message_id for claim in rest] == ["m2", "m3"]
    with target.reading() as db:
        seqs = db.scalars(sa.select(schema.events.c.seq).order_by(schema.events.c.seq)).all()
    # 3 was the erased one's.
    assert seqs == [1, 2, 4, 5]


def test_a_store_that_was_moved_is_not_ready(new_copy: NewCopy, inbox: Inbox) -> None:
    inbox.probe()
    copy = new_copy()
    copy.begin()
    list(copy.copy())
    copy.finish()

    with pytest.raises(StoreUnavailable, match="moved"):
        inbox.probe()


def test_a_store_that_was_moved_takes_nothing_more_unless_that_is_given_up(
    inbox: Inbox, queue: Queue, database: Database, target: Database, new_copy: NewCopy
) -> None:
    accept(inbox, "m1")
    copy = new_copy()
    copy.begin()
    list(copy.copy())
    assert copying.objection(database) == ""
    assert "not complete" in copying.objection(target)
    copy.finish()

    with pytest.raises(Unusable, match="moved to the server: write that to store:"):
        migrations.upgrade(database)
    assert copying.objection(target) == ""
    for act in (lambda: accept(inbox, "m2"), lambda: take(queue)):
        with pytest.raises(StoreUnavailable, match="moved"):
            act()
    assert new_copy().begin() is True
    assert Queries(database).backlog() == {"crm": {"pending": 1}}

    copying.abandon(database)

    assert copying.objection(database) == ""
    accept(inbox, "m2")
    with database.reading() as db:
        left = db.scalars(sa.text("SELECT name FROM sqlite_master WHERE type = 'trigger'")).all()
    assert left == []


def test_who_is_stopped_after_the_store_was_closed_and_before_the_copy_was_opened(
    inbox: Inbox, target: Database, new_copy: NewCopy
) -> None:
    accept(inbox, "m1")
    copy = new_copy()
    copy.begin()
    list(copy.copy())
    mark = sa.select(schema.marks).where(schema.marks.c.name == copying.COPYING)
    with target.reading() as db:
        before = db.execute(mark).one()
    copy.finish()
    with target.writing() as db:
        db.execute(sa.insert(schema.marks).values(name=before.name, value=before.value))
        db.execute(sa.delete(schema.marks).where(schema.marks.c.name == "secret"))

    again = new_copy()
    assert again.begin() is False
    list(again.copy())
    again.finish()

    assert copying.objection(target) == ""
    with closing(Inbox(target)) as there:
        assert there.accept(arrival("m1")).standing == "duplicate"


def test_a_copy_that_is_not_the_same_is_found_out_and_changes_nothing(
    inbox: Inbox, database: Database, target: Database, new_copy: NewCopy
) -> None:
    accept(inbox, "m1", "m2")
    copy = new_copy()
    copy.begin()
    list(copy.copy())
    with target.writing() as db:
        db.execute(sa.update(schema.keys).values(duplicates=7))
    assert [each.table for each in copy.compare() if not each.same] == ["keys"]

    with target.writing() as db:
        db.execute(sa.delete(schema.keys))
    assert [each.table for each in copy.finish() if not each.same] == ["keys"]

    accept(inbox, "m3")
    assert copying.objection(database) == ""
    assert "not complete" in copying.objection(target)


def test_nothing_is_copied_over_what_is_there(
    inbox: Inbox, target: Database, new_copy: NewCopy, tmp_path: Path, migrated: Path
) -> None:
    with closing(Inbox(target)), pytest.raises(CopyRefused, match="the server is not empty"):
        new_copy().begin()
    with target.writing() as db:
        db.execute(sa.delete(schema.marks))
    new_copy().begin()
    other = tmp_path / "other.db"
    other.write_bytes(migrated.read_bytes())

    with (
        closing(connect(f"sqlite:///{other}")) as stranger,
        pytest.raises(CopyRefused, match="unfinished copy of another store"),
    ):
        Copy(stranger, target, name="the server").begin()


def test_the_command_says_what_it_cannot_do(server: None, path: Path) -> None:
    with servers.new_database() as url:
        with psycopg.connect(url, autocommit=True) as db:
            db.execute("CREATE TABLE customers (name text)")
        wrongs = [
            ([f"sqlite:///{path}", "sqlite:///other.db"], "FROM is a SQLite store, TO a Postgr"),
            ([url, url], "FROM is a SQLite store, TO a PostgreSQL database"),
            ([f"sqlite:///{path}.none", url], "relay.db.none: there is no such store"),
            ([f"sqlite:///{path}", url], "it has tables of another program: customers"),
            (["relay.db", url], "write sqlite:///relay.db"),
        ]
        for arguments, said in wrongs:
            ended = CliRunner().invoke(cli, ["migrate-store", *arguments])
            assert ended.exit_code in (1, 2)
            assert said in ended.output


class Sender(threading.Thread):
    """Sends messages of several customers, each again until it is answered 200."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._site = site
        self.stop = threading.Event()
        self.statuses: dict[str, list[str]] = {}

    def run(self) -> None:
        for number in count():
            name = f"s{number}"
            said = self.statuses[name] = [self._post(name)]
            while said[-1] not in ("accepted", "duplicate"):
                if self.stop.wait(0.1):
                    return
                said.append(self._post(name))
            if self.stop.wait(0.05):
                return

    def _post(self, name: str) -> str:
        return self._site.post(name, customer=customer(int(name[1:]) % 3))

    def names_of(self, who: int) -> list[str]:
        return [name for name in self.statuses if int(name[1:]) % 3 == who]


@pytest.mark.slow
def test_a_relay_moves_under_traffic_and_the_move_is_killed_once(
    server: None, tmp_path: Path, migrated: Path, system: Flow
) -> None:
    path = tmp_path / "relay.db"
    path.write_bytes(migrated.read_bytes())
    store = f"sqlite:///{path}"
    fill(path, deliveries=4_000, conversations=50, destination="nobody's")
    site = Site(tmp_path, store=store, flow=system.url)
    with servers.new_database() as url:
        serving = site.serve()
        sender = Sender(site)
        sender.start()

        doomed = site.start("migrate-store", store, url)
        eventually(lambda: "events" in _copied(url), seconds=PATIENCE)
        kill(doomed)
        assert doomed.returncode == -signal.SIGKILL
        moved = site.run("migrate-store", store, url)
        assert moved.returncode == 0, moved.stderr
        assert "✓ events: " in moved.stdout and "✗" not in moved.stdout
        final = site.run("migrate-store", "--final", store, url)
        assert "moved; FROM was closed" in final.stdout, final.stderr

        eventually(lambda: "503" in list(sender.statuses.values())[-1], seconds=PATIENCE)
        serving.terminate()
        assert serving.wait(PATIENCE) == 0
        refused = site.run("serve")
        assert "this store was moved to postgresql://" in refused.stderr
        site.store(url)
        serving = site.serve()
        eventually(lambda: list(sender.statuses.values())[-1][-1] == "accepted", seconds=PATIENCE)
        sender.stop.set()
        sender.join()

        acknowledged = {
            name for name, said in sender.statuses.items() if said[-1] in ("accepted", "duplicate")
        }
        assert site.post("s0", customer=customer(0)) == "duplicate"
        eventually(lambda: acknowledged <= set(system.names), seconds=PATIENCE)
        for who in range(3):
            came = list(
                dict.fromkeys(name for name in system.names if name in sender.names_of(who))
            )
            assert came == [name for name in sender.names_of(who) if name in acknowledged]
        with closing(connect(url)) as database:
            stored = [view.event.message_id for view in Queries(database).events()]
        assert len(stored) == len(set(stored))
        assert len(stored) >= 4_000 + len(acknowledged)
        assert acknowledged <= set(stored)
        site.close()


def _copied(url: str) -> list[str]:
    """Return the tables of which something has been copied."""
    with psycopg.connect(url) as db:
        if db.execute("SELECT to_regclass('marks')").fetchone() == (None,):
            return []
        row = db.execute("SELECT value FROM marks WHERE name = 'copying'").fetchone()
        return list(json.loads(row[0])["copied"]) if row else []
