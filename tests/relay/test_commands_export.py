"""``export`` gives a person's data, and ``erase`` removes it; both are kept in the audit log."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fakes import arrival, customer, finish, take
from pydantic import TypeAdapter

from relay.acts.exporting import ExportJson
from relay.cli import cli
from relay.rules.text import masked
from relay.store import Inbox, Queue
from relay.store.actions import Actions
from relay.store.database import Database

Run = Callable[..., Result]

CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
"""
HERS = customer(1)


@pytest.fixture
def run(path: Path, inbox: Inbox, queue: Queue) -> Run:
    """Run a command on a store that has events of three customers."""
    config = path.parent / "config.yaml"
    config.write_text(CONFIG)
    for number in range(3):
        inbox.accept(arrival(f"m{number}", customer=customer(number), body=f"text {number}"))
    for claim in take(queue):
        finish(queue, claim)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--config", str(config)])

    return run


def test_an_export_has_everything_of_the_customer_and_nothing_of_others(run: Run) -> None:
    said = run("export", HERS, "--who", "ann")

    found = json.loads(said.stdout)
    assert TypeAdapter(ExportJson).validate_python(found, strict=True) == found
    (event,) = found["events"]
    (delivery,) = event["deliveries"]
    assert (found["customer"], event["customer"], event["body"]) == (HERS, HERS, "text 1")
    assert event["payload"]
    assert delivery["url"] == "https://example.com/r1"
    assert len(delivery["history"]) == 1
    assert customer(0) not in said.stdout and customer(2) not in said.stdout


def test_any_form_of_the_number_will_do(run: Run) -> None:
    local = f"0{HERS.removeprefix('+61')}"

    assert json.loads(run("export", local).stdout)["customer"] == HERS


def test_a_note_that_mentions_the_customer_is_exported(run: Run, database: Database) -> None:
    run("pause", "crm", "--why", f"{HERS} complained")

    (entry,) = json.loads(run("export", HERS).stdout)["mentioned_in"]

    assert (entry["what"], entry["why"]) == ("pause", f"{HERS} complained")


def test_a_file_of_an_export_is_new_and_readable_by_its_owner_only(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "customer.json"

    said = run("export", HERS, "--output", str(file))

    assert said.stdout == f"1 event in {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["customer"] == HERS
    again = run("export", HERS, "--output", str(file))
    assert (again.exit_code, "File exists" in again.stderr) == (1, True)


def test_nothing_is_written_for_who_is_not_here(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "customer.json"

    said = run("export", "+61499999999", "--output", str(file))

    assert (said.exit_code, said.stdout) == (1, "")
    assert "nothing about +61499999999 is here" in said.stderr
    assert not file.exists()


def test_who_exports_and_erases_is_kept_without_the_number(run: Run, database: Database) -> None:
    run("export", HERS, "--who", "ann")
    run("erase", HERS, "--yes", "--who", "ben", "--why", f"{HERS} asked for it")

    erased, exported = (each.action for each in Actions(database).newest(limit=2))

    assert (exported.what, exported.who) == ("export", "ann")
    assert (erased.what, erased.who, erased.why) == ("erase", "ben", "(erased)")
    assert erased.detail == f"1 event of {masked(HERS)} and 0 refused requests removed"
    assert erased.origin == "command line"
    assert HERS not in f"{erased} {exported}"


def test_what_is_only_looked_at_is_not_kept(run: Run, database: Database) -> None:
    run("erase", HERS, "--dry-run")

    assert not Actions(database).newest(limit=2)


def test_an_erasure_gives_a_receipt_that_its_store_alone_confirms(
    run: Run, database: Database, tmp_path: Path
) -> None:
    file = tmp_path / "erased.json"

    run("erase", HERS, "--yes", "--who", "ben", "--why", f"{HERS} asked", "--receipt", str(file))

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    written = file.read_text()
    receipt = json.loads(written)
    (noted,) = Actions(database).newest(limit=2)
    assert receipt["at"] == noted.action.at.isoformat()
    assert (receipt["by"], receipt["why"]) == ("ben", "(erased)")
    assert receipt["customer"] == masked(HERS) and HERS not in written
    assert receipt["removed"] == {"events": 1, "deliveries": 1, "requests": 0, "words": 0}
    assert receipt["elsewhere"] == [{"destination": "crm", "where": "https://example.com/r1"}]
    assert receipt["complete"]
    good = run("erase", HERS, "--verify", str(file))
    assert good.exit_code == run("erase", "--verify", str(file)).exit_code == 0
    assert f"ben erased 1 event and 0 refused requests of {masked(HERS)}" in good.stdout
    other = run("erase", customer(2), "--verify", str(file))
    assert (other.exit_code, "of another customer" in other.stderr) == (1, True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda text: text.replace('"ben"', '"eve"'), "changed since"),
        (lambda text: text.replace('"events": 1', '"events": 9'), "changed since"),
        (lambda text: text.replace("/r1", "/r2"), "changed since"),
        (lambda text: text.replace('"by"', '"bye"'), "no receipt"),
        (lambda text: text.replace("{", '{"more": 1,', 1), "changed since"),
        (lambda text: "", "no receipt"),
    ],
)
def test_a_receipt_that_was_changed_is_not_confirmed(
    run: Run, tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    file = tmp_path / "erased.json"
    run("erase", HERS, "--yes", "--who", "ben", "--receipt", str(file))

    file.write_text(change(file.read_text()))

    told = run("erase", "--verify", str(file))
    assert (told.exit_code, said in told.stderr) == (1, True), told.output


def test_nothing_erased_gives_no_receipt_and_no_file_no_erasure(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "erased.json"

    assert run("erase", "+61400999999", "--yes", "--receipt", str(file)).exit_code == 1
    assert not file.exists()
    assert run("erase", HERS, "--yes", "--receipt", str(tmp_path)).exit_code == 2
    file.write_text("mine")
    assert run("erase", HERS, "--yes", "--receipt", str(file)).exit_code == 1
    assert file.read_text() == "mine"
    for wrong in (["--dry-run", "--receipt", "x"], ["--verify", str(file), "--yes"]):
        assert run("erase", HERS, *wrong).exit_code == 2
    assert run("erase", "--yes").exit_code == 2
    assert run("export", HERS).exit_code == 0


def test_a_receipt_of_what_is_being_delivered_says_that_it_is_not_all(
    run: Run, inbox: Inbox, queue: Queue, tmp_path: Path
) -> None:
    inbox.accept(arrival("under way", customer=HERS))
    take(queue)
    file = tmp_path / "erased.json"

    run("erase", HERS, "--yes", "--receipt", str(file))

    assert json.loads(file.read_text())["complete"] is False
    assert "not all of it: erase again" in run("erase", HERS, "--verify", str(file)).stdout
