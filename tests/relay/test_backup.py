"""A backup is whole, and putting it back repeats nothing without a look or a person's word."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import servers
from click.testing import CliRunner, Result
from fakes import accept, arrival, failed, finish, take_one
from newer import newer_version
from sqlalchemy import select

from relay import migrations
from relay.cli import cli
from relay.migrations import Unusable
from relay.node import NodeSlot
from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queries, Queue, backup, connect, schema
from relay.store.actions import Act
from relay.store.nodes import Node, Nodes
from relay.store.recover import Recovery

ON_BOTH = True

CONFIG = """\
store: {store}
endpoints: [{{path: /in, signing_secrets: ["a secret for tests"]}}]
destinations:
  crm: {{connector: hubspot, access_token: test}}
  chat: {{connector: teams, url: "https://example.com/flow"}}
"""

BOTH = ("crm", "chat")
States = Mapping[str, str]


class Site:
    """A store with its config and a backup of it, and what is done there."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.config = folder / "config.yaml"
        url = database.url if database.file is None else f"sqlite:///{database.file}"
        self.config.write_text(CONFIG.format(store=url))
        self.backup = folder / "a.backup"

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--config", str(self.config)])

    def done(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.exit_code == 0, result.output
        return result.output

    def back_up(self) -> None:
        self.done("backup", str(self.backup))

    def put_back(self) -> str:
        return self.done("restore", str(self.backup), "--yes")


@pytest.fixture
def site(database: Database, tmp_path: Path) -> Site:
    return Site(database, tmp_path)


@pytest.fixture
def reopened(database: Database, site: Site) -> Iterator[Callable[[], Database]]:
    """Open the store as the next start does."""
    opened = []

    def reopened() -> Database:
        opened.append(connect(database.url))
        migrations.upgrade(opened[-1])
        return opened[-1]

    yield reopened
    for each in opened:
        each.close()


def states(database: Database, message_id: str) -> States:
    event = Queries(database).event(message_id)
    assert event is not None
    return {each.destination: str(each.state) for each in event.deliveries}


def repeats(database: Database) -> set[tuple[str, bool]]:
    d = schema.deliveries.c
    with database.reading() as db:
        return {tuple(row) for row in db.execute(select(d.destination, d.repeat))}


def test_a_backup_is_private_whole_and_recorded(
    site: Site, database: Database, inbox: Inbox
) -> None:
    accept(inbox, "m1", "m2")

    said = site.done("backup", str(site.backup))

    assert "verified" in said
    assert site.backup.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in site.backup.parent.glob("a.backup*")] == ["a.backup"]
    (known,) = backup.recorded(database)
    assert (known.file, known.reason) == (str(site.backup), "person")


def test_a_file_that_exists_is_not_written_over(site: Site, inbox: Inbox) -> None:
    site.backup.write_text("precious")

    refused = site.run("backup", str(site.backup))

    assert refused.exit_code == 1
    assert "exists: name a new file" in refused.output
    assert site.backup.read_text() == "precious"


def test_a_backup_makes_no_folder_of_a_mistyped_path(
    site: Site, database: Database, tmp_path: Path
) -> None:
    folder = tmp_path / "var" / "backps"

    refused = site.run("backup", str(folder / "relay.db"))

    assert refused.exit_code == 1
    assert f"there is no folder {folder}: name one that exists, or make it first" in refused.output
    assert f"(mkdir -p -m 700 {folder})" in refused.output
    assert not (tmp_path / "var").exists()
    assert backup.recorded(database) == []


def test_a_backup_that_fails_leaves_nothing(site: Site, database: Database) -> None:
    refused = site.run("backup", "/proc/no-such-place")

    assert refused.exit_code == 1
    assert backup.recorded(database) == []


def test_what_was_not_over_is_looked_for_or_held(
    site: Site, inbox: Inbox, queue: Queue, reopened: Callable[[], Database]
) -> None:
    accept(inbox, "m1", "m2", to=BOTH)
    take_one(queue, destination="crm")
    site.back_up()

    said = site.put_back()

    store = reopened()
    assert states(store, "m1") == {"crm": "pending", "chat": "held"}
    assert states(store, "m2") == {"crm": "waiting", "chat": "held"}
    assert repeats(store) == {("crm", True), ("chat", True)}
    assert "2 deliveries may have been made since: connectors look first" in said
    assert "2 deliveries may have been made since, and are held" in said


def test_nothing_is_delivered_before_a_person_resumes_it(
    site: Site, database: Database, inbox: Inbox, reopened: Callable[[], Database]
) -> None:
    accept(inbox, "m1", to=BOTH)
    site.back_up()

    said = site.put_back()

    assert "gofax-relay resume crm" in said
    assert set(Recovery(reopened()).paused()) == set(BOTH)
    act = Act(who="me", why=None, at=database.clock())
    assert Recovery(reopened()).resume("crm", act) == "operator"
    assert set(Recovery(reopened()).paused()) == {"chat"}


def test_what_came_in_the_forgotten_time_is_looked_for_or_held(
    site: Site, database: Database, inbox: Inbox, reopened: Callable[[], Database]
) -> None:
    accept(inbox, "m1")
    site.back_up()
    site.put_back()
    store, now = reopened(), database.clock()

    def resend(name: str, occurred_at: datetime | None) -> tuple[str, str, bool]:
        with closing(Inbox(store, looking={"crm"})) as later:
            made = arrival(name, to=BOTH, at=now, customer=f"customer {name}")
            later.accept(replace(made, event=replace(made.event, occurred_at=occurred_at)))
        found = states(store, name)
        return found["crm"], found["chat"], ("crm", False) in repeats(store)

    careful = ("pending", "held", False)
    assert resend("between", now - timedelta(minutes=1)) == careful
    assert resend("long before", now - timedelta(days=9)) == careful
    assert resend("at no time", None) == careful
    assert resend("new", now + timedelta(hours=1)) == ("pending", "pending", True)
    site.done("restore", "--over")
    assert resend("after all", now) == ("pending", "pending", True)


def test_what_was_dead_is_not_revived_without_a_look(
    site: Site,
    database: Database,
    inbox: Inbox,
    queue: Queue,
    reopened: Callable[[], Database],
) -> None:
    accept(inbox, "m1", to=BOTH)
    for name in BOTH:
        claim = take_one(queue, destination=name)
        finish(queue, claim, failed(OutcomeKind.REFUSED))
    assert states(database, "m1") == {"crm": "dead", "chat": "dead"}
    site.back_up()
    site.put_back()
    store = reopened()

    with closing(Inbox(store, looking={"crm"})) as later:
        later.accept(arrival("m1", to=BOTH))

    assert states(store, "m1") == {"crm": "pending", "chat": "held"}
    assert repeats(store) == {("crm", True), ("chat", True)}


def test_a_store_that_is_in_use_is_not_replaced(
    site: Site, database: Database, inbox: Inbox
) -> None:
    accept(inbox, "m1")
    site.back_up()
    if database.file:
        slot = NodeSlot(database.file)
        assert slot.name == "worker-1"
    else:
        Nodes(database).beat(Node(name="n", role="worker", version="1", host="h", pid=1))

    refused = site.run("restore", str(site.backup), "--yes")

    assert refused.exit_code == 1
    assert "stop" in refused.output
    assert set(states(database, "m1").values()) == {"pending"}


def test_what_the_store_was_is_kept_and_can_be_put_back(
    site: Site, inbox: Inbox, reopened: Callable[[], Database]
) -> None:
    site.back_up()
    accept(inbox, "m1")

    site.put_back()

    store = reopened()
    assert Queries(store).event("m1") is None
    (aside,) = [each for each in backup.recorded(store) if each.reason == "restore"]
    assert Path(aside.file).stat().st_mode & 0o777 == 0o600
    store.close()
    site.done("restore", aside.file, "--yes")
    assert states(reopened(), "m1") == {"crm": "pending"}


def nothing(file: Path) -> None:
    file.write_bytes(b"")


def noise(file: Path) -> None:
    file.write_bytes(os.urandom(5000))


def database_of_others(file: Path) -> None:
    with closing(sqlite3.connect(file)) as others:
        others.execute("PRAGMA journal_mode = WAL")
        others.execute("CREATE TABLE customers (name text)")


@pytest.mark.parametrize("write", [nothing, noise, database_of_others])
def test_a_file_that_is_no_backup_changes_nothing_and_leaves_nothing(
    site: Site, database: Database, inbox: Inbox, write: Callable[[Path], None]
) -> None:
    accept(inbox, "m1")
    write(site.backup)
    before = sorted(site.backup.parent.iterdir())

    refused = site.run("restore", str(site.backup), "--yes")

    assert refused.exit_code == 1
    if database.file is not None:
        assert f"{site.backup} is no whole backup" in refused.output
    assert sorted(site.backup.parent.iterdir()) == before
    assert states(database, "m1") == {"crm": "pending"}


def test_a_restore_leaves_nothing_but_the_store_and_what_it_was(
    site: Site, database: Database
) -> None:
    if database.file is None:
        pytest.skip("a server keeps the store")
    site.back_up()
    before = {each.name for each in database.file.parent.iterdir()}

    site.put_back()

    added = {each.name for each in database.file.parent.iterdir()} - before
    assert [name.rpartition(".")[2] for name in added] == ["before-restore"]


def test_a_restore_right_after_another_knows_what_that_one_kept(
    site: Site, database: Database, reopened: Callable[[], Database]
) -> None:
    site.back_up()
    site.put_back()
    database.close()
    time.sleep(1.1)  # what is kept is named after the second

    site.put_back()

    kept = [each for each in backup.recorded(reopened()) if each.reason == "restore"]
    assert len(kept) == 2


def test_a_backup_is_put_back_where_there_is_no_folder_yet(site: Site, database: Database) -> None:
    if database.file is None:
        pytest.skip("a server keeps the store")
    site.back_up()
    store = site.backup.parent / "new" / "relay.db"
    site.config.write_text(CONFIG.format(store=f"sqlite:///{store}"))

    site.put_back()

    assert [each.name for each in store.parent.iterdir()] == ["relay.db"]


def test_backups_that_nobody_asked_for_go_after_a_while(
    site: Site, database: Database, tmp_path: Path
) -> None:
    site.back_up()
    automatic = tmp_path / "automatic"
    backup.make(database, automatic, reason="migrate")
    now = database.clock()

    assert list(backup.expire(database, before=now - timedelta(days=7))) == []
    assert list(backup.expire(database, before=now + timedelta(seconds=1))) == [automatic]

    assert not automatic.exists()
    assert site.backup.exists()
    assert [each.file for each in backup.recorded(database)] == [str(site.backup)]


@pytest.mark.slow
def test_who_erases_a_customer_is_told_which_backups_hold_the_texts(
    site: Site, database: Database, inbox: Inbox
) -> None:
    site.back_up()
    number = "+61400000009"
    accept(inbox, "m1", customer=number, at=database.clock())
    later = site.backup.with_name("later.backup")
    site.done("backup", str(later))

    command = [sys.executable, "-P", "-m", "relay.cli", "erase", number, "--yes"]
    said = subprocess.check_output([*command, "--config", str(site.config)], text=True)

    assert "these backups still hold the texts" in said
    assert later.name in said
    assert site.backup.name not in said


def test_a_backup_that_was_copied_into_place_by_hand_is_refused(
    site: Site, database: Database, tmp_path: Path
) -> None:
    if database.file is None:
        pytest.skip("a dump of PostgreSQL is no store")
    site.back_up()
    # Of the store that was there before.
    Path(f"{site.backup}.lock").touch()

    with (
        closing(connect(f"sqlite:///{site.backup}")) as by_hand,
        pytest.raises(Unusable) as refused,
    ):
        migrations.upgrade(by_hand)

    assert "gofax-relay restore" in str(refused.value)


def test_migrate_makes_a_backup_first(site: Site, database: Database, tmp_path: Path) -> None:
    if database.file is None:
        pytest.skip("says only how")

    done = by_newer_version(site.config, tmp_path / "newer")

    (made,) = database.file.parent.glob("relay.db.*.before-migrate")
    assert f"backup: {made}" in done.stdout
    with closing(sqlite3.connect(made)) as before:
        found = before.execute("SELECT version_num FROM alembic_version").fetchone()
        assert found == (migrations.newest(),)


def test_migrate_makes_no_backup_where_nodes_at_work_keep_it_from_more(
    site: Site, database: Database, tmp_path: Path
) -> None:
    Nodes(database).beat(Node(name="n", role="worker", version="1", host="h", pid=1))

    with pytest.raises(subprocess.CalledProcessError) as refused:
        by_newer_version(site.config, tmp_path / "newer")

    assert "n could not go on with that schema" in refused.value.stderr
    assert (refused.value.stdout, refused.value.stderr.count("\n")) == ("", 1)
    assert list(tmp_path.glob("*.before-migrate")) == []


def test_migrate_says_how_a_server_is_backed_up(server: None, tmp_path: Path) -> None:
    with servers.new_database() as url, closing(connect(url)) as database:
        migrations.upgrade(database)

        done = by_newer_version(Site(database, tmp_path).config, tmp_path / "newer")

    assert "no backup was made; this makes one: pg_dump --format=custom" in done.stderr


def by_newer_version(config: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run migrate of a newer version."""
    newer_version(folder, before=migrations.newest(), serves=None)
    return subprocess.run(
        [sys.executable, "-m", "relay.cli", "migrate", "--config", str(config)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
