"""Tables and texts in terminals of 80 and 120 columns, in files, and with hostile content."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fakes import arrival, customer, failed, finish, request, take
from rich.cells import cell_len
from terminals import terminal

from relay.cli import cli
from relay.commands.tables import (
    UNBOUNDED,
    Column,
    brief_time,
    cut,
    fitting,
    print_table,
    wrapped,
)
from relay.rules.delivery import OutcomeKind, Policy
from relay.shapes.words import count
from relay.store import Database, Inbox, Queries, Queue
from relay.store.nodes import Node, Nodes

CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
"""
REASON = "HTTP 422: RecordInvalid: Requester: this number is suspended, and nobody may comment"
#: What a terminal, or a reader of lines, obeys instead of showing it.
HOSTILE = "\x1b[31m\x85\x9b31m\u061c\u2028\u2029\u202e\u2066\r\n\t"
OBEYED = set(HOSTILE) - set("[31m")
WIDTHS = pytest.mark.parametrize("columns", [80, pytest.param(120, marks=pytest.mark.slow)])
LISTINGS = ["events", "requests", "nodes", "dead", "doctor"]


def uuid(number: int) -> str:
    return f"7f0c1a52-93d4-4d0a-8f3e-{number:012}"


@pytest.fixture
def folder(path: Path, database: Database, inbox: Inbox, queue: Queue) -> Path:
    """A folder with a config, and a store in which each kind of row is."""
    (path.parent / "config.yaml").write_text(CONFIG)
    to = ("crm", "helpdesk", "front-desk")
    arrivals = [arrival(uuid(n), customer=customer(n), to=to) for n in range(3)]
    for each in [*arrivals, arrival(uuid(0), customer=customer(0), to=to)]:
        inbox.accept(each)
    node = Node(role="worker", name="worker-1", host="relay.example.com", pid=1, version="0.1.0")
    Nodes(database).beat(node)
    for claim in (claim for name in to for claim in take(queue, destination=name)):
        finish(queue, claim, failed(OutcomeKind.REFUSED, REASON), policy=Policy(on_dead="hold"))
    inbox.refuse([request(status=401, outcome="refused", reason=REASON, message_id=uuid(9))])
    return path.parent


#: Runs each line of its arguments as a command.
EACH = """
import sys
from relay.cli import cli
for line in sys.argv[1:]:
    print(">", line)
    try:
        cli(line.split())
    except SystemExit as end:
        print("<", end.code)
"""


def printed(*arguments: str, folder: Path, columns: int, **more: Any) -> Sequence[str]:
    """Run a command in a terminal and return its lines."""
    with terminal(*arguments, folder=folder, columns=columns, term="dumb", **more) as screen:
        screen.end()
        return screen.said.splitlines()


@WIDTHS
def test_a_line_ends_before_the_edge(folder: Path, columns: int) -> None:
    commands = [*LISTINGS, "dead --group", "check", "connectors list"]
    program = [sys.executable, "-c", EACH]

    lines = printed(*commands, folder=folder, columns=columns, program=program)

    begun = [at for at, line in enumerate(lines) if line.startswith("> ")]
    ended = [at for at, line in enumerate(lines) if line.startswith("< ")]
    assert [lines[at] for at in begun] == [f"> {command}" for command in commands]
    assert all(end - begin > 2 for begin, end in zip(begun, ended, strict=True))
    # Only a word that is longer than the terminal goes beyond.
    assert not [
        each for each in lines if cell_len(each.rstrip()) > columns and " " in each.strip()
    ]


@pytest.mark.slow
@WIDTHS
def test_each_row_has_an_id_that_explain_takes(
    folder: Path, queries: Queries, columns: int
) -> None:
    events = [view.event.id for view in queries.events()]
    deliveries = [each.id for view in queries.events() for each in view.deliveries]

    for command, wanted in (("events", events), ("dead", deliveries)):
        said = "\n".join(printed(command, folder=folder, columns=columns))
        short = re.findall(r"(?:evt|dlv)_[0-9a-f]+", said)
        assert [sum(each.startswith(begin) for begin in short) for each in wanted] == [1] * len(
            wanted
        )
    lines = printed("explain", short[0], folder=folder, columns=columns)
    assert lines[0].split()[0] in events


def test_a_narrow_table_of_events_keeps_a_row_to_a_line_and_explains_its_marks(
    folder: Path,
) -> None:
    head, *rows = printed("events", folder=folder, columns=80)

    assert head.split() == ["received", "event", "from", "deliveries"]
    assert [row.split()[3] for row in rows[:3]] == [customer(n) for n in range(3)]
    assert rows[0].split()[4:] == ["?crm", "?helpdesk", "?front-desk"]
    assert rows[3:] == ["", "? held"]


def test_a_wide_table_of_events_has_more(folder: Path) -> None:
    (head, *_) = printed("events", folder=folder, columns=160)

    assert head.split() == [
        "received", "event", "message", "type", "from", "to", "again", "deliveries"
    ]  # fmt: skip


@pytest.mark.parametrize(("term", "said"), [("xterm", ["1m", "0m"]), ("dumb", [])])
def test_the_head_is_bold_where_the_terminal_knows_how(
    folder: Path, term: str, said: Sequence[str]
) -> None:
    with terminal("dead", folder=folder, columns=120, term=term) as screen:
        screen.end()
        head, *rows = screen.said.splitlines()

    assert re.findall(r"\x1b\[(\d*m)", head) == said
    assert "\x1b" not in "".join(rows)


def test_a_narrow_table_of_what_stopped_cuts_the_reason(folder: Path) -> None:
    lines = printed("dead", folder=folder, columns=80)

    assert re.search(r"refused: HTTP 422: Rec\w*…  dlv_", lines[1])
    assert lines[1].split()[:4] == [customer(0), "crm", "held", "*"]
    assert lines[-1] == "* its conversation waits until it is resent or settled"


def test_a_file_gets_every_column_and_whole_ids(folder: Path, queries: Queries) -> None:
    config = str(folder / "config.yaml")

    said = CliRunner().invoke(cli, ["events", "--config", config]).output

    assert all(view.event.id in said for view in queries.events())
    assert uuid(2) in said and "? front-desk" in said
    assert "? held" not in said


@pytest.fixture
def hostile(folder: Path, inbox: Inbox, queue: Queue) -> Path:
    """The folder with an event and a request whose every text is hostile."""
    text = f"a{HOSTILE}b"
    inbox.accept(arrival(text, customer=text, to=("crm",)))
    for claim in take(queue):
        finish(queue, claim, failed(OutcomeKind.REFUSED, text))
    inbox.refuse([request(status=401, outcome="refused", reason=text, message_id=text)])
    return folder


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_that_is_printed_steers_a_terminal(
    hostile: Path, queries: Queries, as_json: bool
) -> None:
    *_, event = queries.events()
    explain = f"explain {event.event.id}"

    for command in (*LISTINGS, "dead --group", explain, "connectors list"):
        name, *rest = command.split()
        options = ["--json"] if as_json else []
        if name != "connectors":
            options += ["--config", str(hostile / "config.yaml")]
        said = CliRunner().invoke(cli, [name, *rest, *options]).output

        assert said and not (OBEYED - {"\n"}) & set(said), command
        if as_json:
            assert all(json.loads(line) for line in said.split("\n")[:-1])


def test_what_explain_does_not_find_does_not_steer_a_terminal_either(hostile: Path) -> None:
    arguments = ["explain", f"x{HOSTILE}y", "--config", str(hostile / "config.yaml")]

    said = CliRunner().invoke(cli, arguments).output

    assert 'no event "x' in said and not (OBEYED - {"\n"}) & set(said)


def test_the_least_important_columns_go_first() -> None:
    columns = [Column(name="a"), Column(name="b", extra=1), Column(name="c", extra=2, least=4)]
    rows = [{"a": "x" * 10, "b": "x" * 10, "c": "x" * 10}]

    assert [each.name for each in fitting(columns, rows, 28)] == ["a", "b", "c"]
    assert [each.name for each in fitting(columns, rows, 27)] == ["a", "b"]
    assert [each.name for each in fitting(columns, rows, 5)] == ["a"]
    assert cut(columns, rows, 34) == {"a": 10, "b": 10, "c": 10}
    assert cut(columns, rows, 30) == {"a": 10, "b": 10, "c": 6}
    assert cut(columns, rows, 20) == {"a": 6, "b": 6, "c": 4}


def test_a_file_gets_long_cells_whole_in_further_lines(capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column(name="a"), Column(name="b"), Column(name="c")]
    words, number = "日本 " * 60, "x" * 300
    row = {"a": "é", "b": words + number, "c": "end"}

    print_table(columns, [row, row | {"b": "short"}], empty="none")
    head, first, *others, last = capsys.readouterr().out.splitlines()

    assert all(cell_len(each) <= UNBOUNDED for each in (head, first, *others, last))
    assert first.startswith("é  日本 日本") and first.endswith("日本     end")
    said = "".join([first, *others])
    assert (said.count("日本"), said.count("x")) == (60, 300)
    column = UNBOUNDED - len("end")
    assert (head.index("c"), last.index("end")) == (column, column)


def test_a_text_wraps_at_words_below_its_beginning() -> None:
    assert wrapped("  next: when it is done", 14) == ["  next: when", "      it is", "      done"]
    assert wrapped("at https://example.com/long here", 8) == [
        "at", "    https://example.com/long", "    here"
    ]  # fmt: skip
    assert wrapped("日本 日本", 6) == ["日本", "    日本"]
    assert wrapped("", 8) == [""]


@pytest.mark.parametrize(
    ("time", "brief"),
    [
        (datetime(2026, 11, 28, 0, 0, 1, tzinfo=UTC), "00:00:01Z"),
        (datetime(2026, 11, 27, 23, 59, tzinfo=UTC), "11-27 23:59Z"),
        (datetime(2025, 11, 28, 12, 0, tzinfo=UTC), "2025-11-28"),
    ],
)
def test_a_brief_time_says_what_it_must(time: datetime, brief: str) -> None:
    assert brief_time(time, now=datetime(2026, 11, 28, 12, tzinfo=UTC)) == brief


def test_one_is_singular() -> None:
    assert count(1, "key", "keys") == "1 key"
    assert count(1200, "key", "keys") == "1,200 keys"
