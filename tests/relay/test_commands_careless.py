"""What a careless person types: each mistake is named, and nothing is done by mistake."""

from __future__ import annotations

import json
import socket
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import rights
import servers
from click.testing import CliRunner, Result
from fakes import arrival, customer, finish, take

from relay.acts import erasing
from relay.cli import cli
from relay.store import Inbox, Queries, Queue, connect, copy
from relay.store.database import Database

Run = Callable[..., Result]

CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
"""


@pytest.fixture
def run(path: Path) -> Run:
    """Run a command on the test's store; it is not at a terminal."""
    config = path.parent / "config.yaml"
    config.write_text(CONFIG)

    def run(*arguments: str, code: int, **options: Any) -> Result:
        result = CliRunner().invoke(cli, [*arguments, "--config", str(config)], **options)
        assert not isinstance(result.exception, Exception), result.exception
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def delivered(inbox: Inbox, queue: Queue) -> None:
    for number in range(2):
        inbox.accept(arrival(f"m{number}", customer=customer(number)))
    for claim in take(queue):
        finish(queue, claim)


@pytest.mark.parametrize("age", ["0s", "3000000d", "90"])
def test_an_age_is_more_than_nothing_and_reaches_no_further_than_dates(run: Run, age: str) -> None:
    assert repr(age) in run("prune", "--older-than", age, "--dry-run", code=2).output


@pytest.mark.parametrize("command", ["events", "requests", "dead"])
@pytest.mark.parametrize("limit", ["0", "-1", "2147483648", "99999999999999999999"])
def test_a_limit_is_a_number_that_every_database_can_count_to(
    run: Run, command: str, limit: str
) -> None:
    assert "not in the range" in run(command, "--limit", limit, code=2).output


@pytest.mark.usefixtures("delivered")
@pytest.mark.parametrize("number", ["abc", "+61 400 000 00x", "+61411111111", "%"])
def test_who_has_nothing_here_is_not_erased(run: Run, number: str) -> None:
    for how in ("--yes", "--dry-run"):
        said = run("erase", number, how, code=1).output
        assert f"no finished event of {number} is here" in said


@pytest.mark.usefixtures("delivered")
def test_who_is_here_is_erased_by_any_form_of_the_number(run: Run, queries: Queries) -> None:
    national = "0" + customer(0).removeprefix("+61")
    copied = f"\u202a{national[:4]}\u00a0{national[4:7]}\u2011{national[7:]}\u202c"

    said = run("erase", copied, "--yes", code=0).output

    assert "removed: 1 event with 1 delivery" in said
    assert [view.event.message_id for view in queries.events()] == ["m1"]


@pytest.mark.usefixtures("delivered")
def test_where_nobody_can_be_asked_nothing_is_removed(run: Run, queries: Queries) -> None:
    said = run("erase", customer(0), code=2).output

    assert "Add --yes to continue without being asked, or --dry-run to look first" in said
    assert len(list(queries.events())) == 2


def test_a_span_that_holds_nothing_is_named(run: Run) -> None:
    said = run("resend", "--since", "1h", "--until", "2h", "--yes", code=2).output

    assert "--since is not before --until" in said


@pytest.mark.parametrize("command", [["dead"], ["resend", "--yes"]])
def test_an_endpoint_that_the_config_has_not_is_pointed_out(run: Run, command: list[str]) -> None:
    said = run(*command, "--endpoint", "nope", code=0).output

    assert 'no endpoint named "nope" in the config (have: ' in said


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_a_sandbox_has_a_port_that_there_is(port: str) -> None:
    ended = CliRunner().invoke(cli, ["sandbox", "--port", port])

    assert ended.exit_code == 2
    assert "not in the range" in ended.output


def test_a_sandbox_says_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = CliRunner().invoke(cli, ["sandbox", "--port", str(port)])

    assert ended.exit_code == 1
    assert ended.output.startswith(f"Error: 127.0.0.1:{port}: Address already in use")


def test_a_sandbox_says_that_its_host_is_unknown() -> None:
    ended = CliRunner().invoke(cli, ["sandbox", "--port", "0", "--host", "nowhere.invalid"])

    assert ended.exit_code == 1
    assert ended.output.startswith("Error: nowhere.invalid:0: ")


class TestAbandoning:
    TO = "postgresql://relay@127.0.0.1/there"

    def abandon(self, path: Path, *options: str) -> Result:
        arguments = ["--abandon", *options, f"sqlite:///{path}", self.TO]
        return CliRunner().invoke(cli, ["migrate-store", *arguments])

    def test_is_not_finishing(self, path: Path) -> None:
        ended = self.abandon(path, "--final")

        assert ended.exit_code == 2
        assert "give one of them" in ended.output

    def test_is_of_what_was_begun(self, path: Path, database: Database) -> None:
        ended = self.abandon(path, "--yes")

        assert ended.exit_code == 1
        assert "FROM was not moved, and is not being copied" in ended.output

    def test_is_of_where_it_was_moved(self, path: Path, database: Database) -> None:
        with database.writing() as db:
            copy._set_mark(database, db, copy.MOVED, '{"id": "x", "to": "elsewhere"}')

        ended = self.abandon(path, "--yes")

        assert ended.exit_code == 1
        assert (
            "FROM was moved to elsewhere, not to postgresql://relay@127.0.0.1/there"
            in ended.output
        )
        with closing(connect(f"sqlite:///{path}")) as again:
            assert copy.moved_to(again) == "elsewhere"


@pytest.mark.usefixtures("delivered")
def test_who_erases_a_customer_is_told_what_is_not_here(run: Run) -> None:
    look = run("erase", customer(0), "--dry-run", "--json", code=0).output
    said = run("erase", customer(0), "--yes", code=0).output

    place = {"destination": "crm", "where": "https://example.com/r1"}
    assert json.loads(look)["elsewhere"] == [place]
    assert said.splitlines()[-2:] == [
        "not removed, because it is not here:",
        "  crm  https://example.com/r1",
    ]


@pytest.mark.usefixtures("delivered")
def test_who_erases_a_customer_is_told_what_a_reader_keeps_in_the_files(
    run: Run, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing, "PAUSE", 0.0)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchall()

        said = run("erase", customer(0), "--yes", code=0).output

    assert "removed texts are still in the files: a reader of relay.db holds on to" in said


def _nothing(file: Path) -> None:
    file.write_bytes(b"")


def _noise(file: Path) -> None:
    file.write_bytes(b"a letter, and no database")


def _tables_of_others(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as others:
        others.execute("CREATE TABLE customers (name text)")


def _becomes_a_backup(path: Path) -> None:
    with closing(sqlite3.connect(path)) as store:
        store.execute("INSERT INTO marks VALUES ('backup', '1')")
        store.commit()
        store.execute("PRAGMA journal_mode = DELETE")


no_store = pytest.mark.parametrize("write", [_nothing, _noise, _tables_of_others])


def _files(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@no_store
@pytest.mark.parametrize(
    "command", ["events", "doctor", "backup new.db", "restore --over", "migrate --to 9999"]
)
def test_a_file_that_is_no_store_is_left_as_it_is(
    run: Run, path: Path, write: Callable[[Path], None], command: str
) -> None:
    write(path)
    before = _files(path.parent)

    run(*command.split(), code=1)

    assert _files(path.parent) == before


def _a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _a_dead_link(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parent / "missing" / "relay.db")


def _not_readable(file: Path) -> None:
    file.chmod(0)


@pytest.fixture
def anybody() -> Iterator[None]:
    """A user to whom file permissions apply."""
    with rights.without_override():
        yield


@pytest.fixture
def shut(tmp_path: Path, anybody: None) -> Iterator[Path]:
    """A folder of somebody else."""
    folder = tmp_path / "shut"
    folder.mkdir()
    _not_readable(folder)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize(
    "command", ["events", "doctor", "backup new.db", "migrate", "pause crm", "check --diff"]
)
def test_who_may_not_look_into_the_folder_of_the_store_is_told_so(
    run: Run, path: Path, shut: Path, command: str
) -> None:
    config = path.parent / "config.yaml"
    config.write_text(CONFIG.replace("relay.db", f"{shut}/relay.db"))

    told = run(*command.split(), code=1).output

    assert f"{shut}/relay.db" in told
    assert "permission denied: let this user read and write here" in told


@pytest.fixture
def unused(server: None) -> Iterator[str]:
    with servers.new_database() as url:
        yield url


@pytest.mark.parametrize("command", ["migrate", "pause crm"])
def test_tables_of_others_with_our_names_on_a_server_are_left_alone(
    run: Run, path: Path, unused: str, command: str
) -> None:
    (path.parent / "config.yaml").write_text(CONFIG.replace("sqlite:///relay.db", unused))
    with psycopg.connect(unused, autocommit=True) as db:
        db.execute("CREATE TABLE events (name text)")
        db.execute("CREATE TABLE guests (name text)")

        said = run(*command.split(), code=1).output

        assert "it has tables of another program: events: name another database" in said
        made = db.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        assert sorted(made) == [("events",), ("guests",)]


@pytest.mark.parametrize("command", ["migrate", "pause crm"])
def test_who_may_make_no_tables_on_a_server_is_told_so(
    run: Run, path: Path, unused: str, command: str
) -> None:
    with psycopg.connect(unused, autocommit=True) as db:
        db.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    other = f"{unused}?options=-c%20role%3Dpg_monitor"
    (path.parent / "config.yaml").write_text(CONFIG.replace("sqlite:///relay.db", other))

    said = run(*command.split(), code=1).output

    assert f"{other}: permission denied for schema public: GRANT it to this user" in said


def test_a_backup_in_a_folder_of_somebody_else_is_refused(run: Run, shut: Path) -> None:
    for command in ("backup", "restore"):
        assert f"{shut}/new.db: " in run(command, f"{shut}/new.db", code=1).output


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (_noise, "file is not a database: name another file"),
        (_tables_of_others, "it has tables of another program: customers: name another file"),
        (_a_folder, "relay.db: this is a folder: name a file"),
        (_a_dead_link, "relay.db: this is a link into a folder that is missing: make it, or name"),
        (_not_readable, "relay.db: permission denied: let this user read and write here"),
    ],
)
@pytest.mark.usefixtures("anybody")
@pytest.mark.parametrize("command", ["migrate", "pause crm"])
def test_what_store_names_is_told_with_how_to_mend_it(
    run: Run, path: Path, write: Callable[[Path], None], said: str, command: str
) -> None:
    write(path)
    before = sorted(path.parent.iterdir())

    told = run(*command.split(), code=1).output

    assert f"sqlite:///{path}: " in told
    assert said in told
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("write", [_noise, _tables_of_others, _a_folder, _becomes_a_backup])
def test_check_names_a_store_that_is_none(
    run: Run, path: Path, write: Callable[[Path], None]
) -> None:
    write(path)
    before = sorted(path.parent.iterdir())

    told = run("check", code=2).output

    assert f"config.yaml:1: store: sqlite:///{path}: " in told
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.usefixtures("anybody")
@pytest.mark.parametrize("write", [_nothing, _a_dead_link, Path.unlink, _not_readable])
def test_check_does_not_ask_for_a_store(
    run: Run, path: Path, write: Callable[[Path], None]
) -> None:
    write(path)

    run("check", code=0)


def test_a_folder_of_the_store_that_is_a_file_is_named(run: Run, path: Path) -> None:
    config = path.parent / "config.yaml"
    config.write_text(CONFIG.replace("relay.db", "config.yaml/relay.db"))

    assert f"{config}: this is no folder: name another" in run("migrate", code=1).output


@no_store
def test_what_is_no_store_is_not_moved_and_left_as_it_is(
    path: Path, write: Callable[[Path], None]
) -> None:
    write(path)
    before = _files(path.parent)

    ended = CliRunner().invoke(
        cli, ["migrate-store", f"sqlite:///{path}", "postgresql://nobody@127.0.0.1:9/none"]
    )

    assert (ended.exit_code, "127.0.0.1" in ended.output) == (1, False)
    assert _files(path.parent) == before


@pytest.mark.parametrize("more", [[], ["--final"], ["--abandon", "--yes"]])
def test_a_backup_is_not_moved_and_left_as_it_is(
    path: Path, server: None, more: list[str]
) -> None:
    _becomes_a_backup(path)
    before = _files(path.parent)
    source = f"sqlite:///{path}"

    with servers.new_database() as target:
        said = CliRunner().invoke(cli, ["migrate-store", *more, source, target])
        with closing(psycopg.connect(target)) as db:
            made = db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
            assert made.fetchone() == (0,)

    assert said.exit_code == 1
    assert f"{source}: this is a backup" in said.output
    assert "put it back with gofax-relay restore FILE" in said.output
    assert _files(path.parent) == before


def test_where_the_server_is_away_nothing_is_left_beside_the_store(path: Path) -> None:
    before = sorted(path.parent.iterdir())

    ended = CliRunner().invoke(
        cli, ["migrate-store", f"sqlite:///{path}", "postgresql://nobody@127.0.0.1:9/none"]
    )

    assert ended.exit_code == 1
    assert "127.0.0.1" in ended.output
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize("command", ["events", "migrate", "migrate --sql", "migrate --to 9999"])
def test_a_backup_that_is_named_as_the_store_is_left_as_it_is(
    run: Run, path: Path, command: str
) -> None:
    _becomes_a_backup(path)
    before = _files(path.parent)

    assert "this is a backup" in run(*command.split(), code=1).output

    assert _files(path.parent) == before


@pytest.mark.parametrize(("command", "code"), [("migrate --sql", 0), ("migrate --to 9999", 1)])
def test_to_ask_what_migrate_would_do_leaves_nothing_beside_the_store(
    run: Run, path: Path, command: str, code: int
) -> None:
    run("events", code=0)
    Path(f"{path}.lock").unlink()
    before = sorted(path.parent.iterdir())

    run(*command.split(), code=code)

    assert sorted(path.parent.iterdir()) == before
