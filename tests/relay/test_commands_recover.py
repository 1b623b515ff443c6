"""The commands of the workbench, run on a real store."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from fakes import accept, arrival, customer, failed, finish, take, take_one

from relay.cli import cli
from relay.rules.delivery import OutcomeKind as Outcome
from relay.rules.delivery import Policy, State
from relay.store import Database, Inbox, Queries, Queue, schema
from relay.store.values import DeliveryView

FindDelivery = Callable[..., DeliveryView]
Run = Callable[..., Result]

#: The commands look at the clock of the machine.
NOW = datetime.now(UTC) - timedelta(hours=1)
HOLD = Policy(on_dead="hold", on_ambiguous="hold")
CONFIG = """\
store: sqlite:///relay.db
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm:  {connector: hubspot, access_token: test}
  chat: {connector: teams, url: "https://example.com/teams"}
routes:
  - {name: everything, to: [crm]}
  - {name: replies, when: {event: SMS_REPLY}, to: [chat]}
"""


@pytest.fixture
def run(path: Path) -> Run:
    """Run a command on the test's store."""
    config = path.parent / "config.yaml"
    config.write_text(CONFIG)

    def run(*arguments: str, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(cli, [*arguments, "--config", str(config)], **options)
        assert result.exit_code == code, result.output
        return result

    return run


def rows(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def kill(inbox: Inbox, queue: Queue, count: int, *, detail: str = "HTTP 400") -> None:
    """Let the deliveries of *count* conversations die."""
    for number in range(count):
        inbox.accept(arrival(f"m{number}", customer=customer(number), at=NOW))
    for claim in take(queue, now=NOW, limit=count):
        finish(queue, claim, failed(Outcome.REFUSED, detail), now=NOW)


def states(queries: Queries) -> dict[str, dict[str, int]]:
    return {name: dict(found) for name, found in queries.backlog().items()}


def acts(database: Database) -> list[tuple[Any, ...]]:
    c = schema.actions.c
    with database.reading() as db:
        wanted = sa.select(c.who, c.what, c.why, c.destination).order_by(c.seq)
        return [tuple(row) for row in db.execute(wanted)]


ME = pwd.getpwuid(os.getuid()).pw_name


def test_dead_lists_what_is_dead_or_held(inbox: Inbox, queue: Queue, run: Run) -> None:
    kill(inbox, queue, 2)
    accept(inbox, "m9", at=NOW)

    listed = run("dead").stdout

    assert listed.count("refused: HTTP 400") == 2
    assert "m0" in listed and "m9" not in listed


def test_dead_prints_json_of_the_newest(inbox: Inbox, queue: Queue, run: Run) -> None:
    kill(inbox, queue, 3)

    (row,) = rows(run("dead", "--json", "--limit", "1"))

    assert (row["message_id"], row["destination"], row["state"], row["reason"]) == (
        "m2",
        "crm",
        "dead",
        "refused: HTTP 400",
    )
    assert row["received_at"] == NOW.isoformat()


def test_dead_groups_by_destination_and_reason(inbox: Inbox, queue: Queue, run: Run) -> None:
    kill(inbox, queue, 3)

    assert "3       crm          refused: HTTP 400" in run("dead", "--group").stdout
    (row,) = rows(run("dead", "--group", "--json"))
    assert (row["number"], row["destination"], row["reason"]) == (3, "crm", "refused: HTTP 400")


@pytest.mark.parametrize("arguments", [["dead"], ["dead", "--group"]])
def test_dead_says_that_there_is_nothing(run: Run, arguments: Sequence[str]) -> None:
    assert run(*arguments).stdout == "nothing is dead or held\n"


@pytest.mark.parametrize(
    ("filters", "number"),
    [
        (["--since", "2h"], 3),
        (["--since", "30m"], 0),
        (["--until", "30m"], 3),
        (["--since", "2020-01-01", "--until", "2020-01-02T10:00+10:00"], 0),
        (["--destination", "crm"], 3),
        (["--destination", "chat"], 0),
        (["--customer", "61400000001"], 1),
        (["--customer", "0400 000 001"], 1),
        (["--reason", "refused: *"], 3),
        (["--type", "SMS_REPLY"], 3),
        (["--type", "SMS_STATUS"], 0),
        (["--endpoint", "/webhooks/gofax"], 3),
        (["--state", "held"], 0),
        (["--state", "held", "--state", "dead"], 3),
    ],
)
def test_filters_say_what_is_meant(
    inbox: Inbox, queue: Queue, run: Run, filters: Sequence[str], number: int
) -> None:
    kill(inbox, queue, 3)

    assert len(rows(run("dead", "--json", *filters))) == number


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["dead", "--since", "yesterday"], "write 2h or 3d (ago)"),
        (["dead", "--since", "99999999d"], "write 2h or 3d (ago)"),
        (["dead", "--reason", " "], "is empty"),
        (["dead", "--state", "pending"], "not one of"),
        (["resend"], "--all-dead"),
        (["resend", "m1", "--all-dead"], "names or a filter, not both"),
        (["resend", "m1", "--since", "2h"], "names or a filter, not both"),
        (["resend", "--all-dead", "--state", "held"], "--all-dead or --state, not both"),
        (["resend", "--state", "delivered", "--yes"], "add --again"),
        (["resend", "--all-dead", "--rate", "fast"], "write a rate such as 100/10s"),
        (["replay"], "name events, or give a filter"),
        (["replay", "m1", "--since", "2h"], "names or a filter, not both"),
        (["settle", "--as", "dead"], "name deliveries, or give a filter"),
        (["settle", "m1"], "Missing option '--as'"),
        (["settle", "m1", "--as", "held"], "not one of"),
        (["pause", "crn"], 'no destination named "crn" (have: crm, chat)'),
        (["resume", "crn"], 'no destination named "crn" (have: crm, chat)'),
        (["pause"], "name destinations, or give a filter"),
        (["resume", "crm", "--since", "2d"], "names or a filter, not both"),
        (["pause", "crm", "--for", "0s"], "more than 0s"),
    ],
)
def test_wrong_usage_is_said_and_exits_2(run: Run, arguments: Sequence[str], says: str) -> None:
    assert says in run(*arguments, code=2).stderr


@pytest.mark.parametrize("command", [["resend"], ["replay"], ["settle", "--as", "dead"]])
def test_an_unknown_name_stops_everything(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries, command: Sequence[str]
) -> None:
    kill(inbox, queue, 1)

    said = run(*command, "m0", "nobody", "nothing", code=1).stderr

    assert 'no event or delivery "nobody"' in said
    assert 'no event or delivery "nothing"' in said
    assert states(queries) == {"crm": {"dead": 1}}


def test_a_named_event_is_resent(
    inbox: Inbox, queue: Queue, run: Run, delivery: FindDelivery, database: Database
) -> None:
    kill(inbox, queue, 2)

    said = run("resend", "m0", "--why", "the field is there now").stdout

    assert said == (
        f"{delivery('m0').id} (m0 to crm, dead): sent again, late: outside the order\n"
    )
    assert (delivery("m0").state, delivery("m1").state) == (State.PENDING, State.DEAD)
    assert acts(database) == [(ME, "resend", "the field is there now", "crm")]


def test_what_cannot_be_resent_is_said_and_exits_1(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries
) -> None:
    accept(inbox, "m1", at=NOW)
    finish(queue, take_one(queue, now=NOW), now=NOW)

    said = run("resend", "m1", code=1).stdout

    assert "delivered already; --again makes a second effect" in said
    assert states(queries) == {"crm": {"delivered": 1}}
    run("resend", "m1", "--again")
    assert states(queries) == {"crm": {"delivered": 1, "pending": 1}}


def test_of_an_event_only_the_destinations_that_are_meant_are_resent(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries
) -> None:
    accept(inbox, "m1", at=NOW, to=("crm", "chat"))
    for name in ("crm", "chat"):
        claim = take_one(queue, now=NOW, destination=name)
        finish(queue, claim, failed(Outcome.REFUSED), now=NOW)

    run("resend", "m1", "--destination", "chat")

    assert states(queries) == {"crm": {"dead": 1}, "chat": {"pending": 1}}


def test_an_event_without_deliveries_cannot_be_resent(inbox: Inbox, run: Run) -> None:
    accept(inbox, "m1", to=(), at=NOW)

    assert "gofax-relay explain m1 says why" in run("resend", "m1", code=1).stdout


def test_all_of_a_group_is_resent(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries, database: Database
) -> None:
    kill(inbox, queue, 7)

    said = run(
        "resend", "--destination", "crm", "--reason", "refused: HTTP 400", "--yes", "--who", "anna"
    ).stdout

    assert said == "resent 7 deliveries\n"
    assert states(queries) == {"crm": {"pending": 7}}
    assert acts(database) == [("anna", "resend", None, "crm")] * 7


def test_many_batches_are_resent(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries, database: Database
) -> None:
    kill(inbox, queue, 105)

    said = run("resend", "--all-dead", "--yes", "--rate", "1000/1s").stdout

    assert said == "resent 105 deliveries\n"
    assert states(queries) == {"crm": {"pending": 105}}


def test_a_dry_run_shows_everything_and_changes_nothing(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries, database: Database
) -> None:
    kill(inbox, queue, 3)

    said = run("resend", "--all-dead", "--dry-run").stdout

    assert said.count("sent again, late") == 3
    assert said.endswith("would have resent 3 deliveries\nnothing was changed\n")
    assert "nothing was changed" in run("resend", "m1", "--dry-run").stdout
    assert states(queries) == {"crm": {"dead": 3}}
    assert acts(database) == []


def test_without_a_terminal_many_are_resent_only_with_yes(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries
) -> None:
    kill(inbox, queue, 3)

    assert "Resend 3 deliveries? Add --yes" in run("resend", "--all-dead", code=2).stderr

    assert states(queries) == {"crm": {"dead": 3}}


def test_resending_nothing_is_fine(run: Run) -> None:
    assert run("resend", "--all-dead").stdout == "resent 0 deliveries\n"


def test_what_is_left_is_counted_with_its_reason(inbox: Inbox, run: Run) -> None:
    accept(inbox, "m1", at=NOW)
    accept(inbox, "m2", at=NOW, customer=customer(2))

    said = run("resend", "--state", "pending", "--yes").stdout

    assert said == (
        "resent 0 deliveries\nleft 2: due already: it goes as soon as its destination takes it\n"
    )


def test_resend_prints_a_line_of_json_for_each(
    inbox: Inbox, queue: Queue, run: Run, delivery: FindDelivery
) -> None:
    kill(inbox, queue, 1)

    result = run("resend", "--all-dead", "--yes", "--json")

    (row,) = rows(result)
    assert (row["delivery_id"], row["message_id"], row["was"], row["does"]) == (
        delivery("m0").id,
        "m0",
        "dead",
        "renew",
    )
    assert result.stderr.startswith("resent 1 delivery\nto take back ")


def test_ctrl_c_stops_between_two_batches(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries, database: Database
) -> None:
    kill(inbox, queue, 30)
    batches = []

    def interrupt(*executed: Any) -> None:
        if executed[2].startswith("INSERT INTO actions"):
            batches.append(executed)
        if len(batches) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    sa.event.listen(sa.engine.Engine, "before_cursor_execute", interrupt)
    try:
        said = run("resend", "--all-dead", "--yes", "--rate", "10/10ms", code=1).stdout
    finally:
        sa.event.remove(sa.engine.Engine, "before_cursor_execute", interrupt)

    assert said == ("resent 20 deliveries\nstopped after 20 of 30; the others are unchanged\n")
    assert states(queries) == {"crm": {"pending": 20, "dead": 10}}
    assert len(acts(database)) == 20
    assert run("resend", "--all-dead", "--yes").stdout == "resent 10 deliveries\n"


def test_a_rate_is_kept(inbox: Inbox, queue: Queue, run: Run, database: Database) -> None:
    kill(inbox, queue, 6)

    run("resend", "--all-dead", "--yes", "--rate", "2/100ms")

    c = schema.actions.c
    with database.reading() as db:
        times = db.scalars(sa.select(c.at).order_by(c.seq)).all()
    assert [times[2] - times[1] >= timedelta(seconds=0.1), times[1] == times[0]] == [True, True]
    assert times[4] - times[3] >= timedelta(seconds=0.1)


def test_settle_lets_a_conversation_go_on(
    inbox: Inbox, queue: Queue, run: Run, delivery: FindDelivery, database: Database
) -> None:
    accept(inbox, "m1", "m2", at=NOW)
    finish(queue, take_one(queue, now=NOW), failed(Outcome.REFUSED), now=NOW, policy=HOLD)
    assert "held, stops its conversation" in run("dead").stdout

    said = run("settle", delivery("m1").id, "--as", "dead", "--why", "spam").stdout

    assert said.endswith("settled as dead; its conversation goes on\n")
    assert (delivery("m1").state, delivery("m2").state) == (State.DEAD, State.PENDING)
    assert acts(database) == [(ME, "settle", "spam", "crm")]


def test_settle_takes_the_name_of_an_event_that_has_one_delivery(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries
) -> None:
    accept(inbox, "m1", at=NOW)
    accept(inbox, "m2", at=NOW, customer=customer(2), to=("crm", "chat"))
    for claim in take(queue, now=NOW):
        finish(queue, claim, failed(Outcome.AMBIGUOUS), now=NOW, policy=HOLD)

    run("settle", "m1", "--as", "delivered")
    said = run("settle", "m2", "--as", "delivered", code=1).stderr

    assert '"m2" has several deliveries, name one of dlv_' in said
    assert states(queries)["crm"] == {"delivered": 1, "held": 1}


def test_what_cannot_be_settled_is_said_and_exits_1(inbox: Inbox, queue: Queue, run: Run) -> None:
    accept(inbox, "m1", at=NOW)
    finish(queue, take_one(queue, now=NOW), now=NOW)

    assert "cannot be taken back" in run("settle", "m1", "--as", "dead", code=1).stdout


def test_replay_shows_then_and_now_and_adds_what_is_missing(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries, database: Database
) -> None:
    accept(inbox, "m1", at=NOW)
    finish(queue, take_one(queue, now=NOW), now=NOW)

    said = run("replay", "m1", "--dry-run").stdout
    assert "+ chat: routed today, not then; missing: added, late" in said
    assert "  crm: routed today, not then; delivered already" in said
    assert states(queries) == {"crm": {"delivered": 1}}

    run("replay", "m1", "--why", "chat is new")
    assert states(queries) == {"crm": {"delivered": 1}, "chat": {"pending": 1}}
    assert acts(database) == [(ME, "replay", "chat is new", "chat")]
    assert "chat: routed today, not then; on its way" in run("replay", "m1").stdout


def test_replay_again_makes_second_effects(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries
) -> None:
    accept(inbox, "m1", at=NOW)
    finish(queue, take_one(queue, now=NOW), now=NOW)

    run("replay", "m1", "--again", "--destination", "crm")

    assert states(queries) == {"crm": {"delivered": 1, "pending": 1}}


def test_replay_goes_through_todays_routes_for_many(
    inbox: Inbox, run: Run, queries: Queries
) -> None:
    for number in range(120):
        type_ = "SMS_RECEIVED" if number % 2 else "SMS_REPLY"
        new = arrival(f"m{number}", customer=customer(number), at=NOW, to=(), type=type_)
        inbox.accept(new)

    said = run("replay", "--since", "2h", "--dry-run").stdout
    assert said.endswith("would have added 180 deliveries\nnothing was changed\n")
    assert run("replay", "--since", "2h", "--yes").stdout == "added 180 deliveries\n"

    assert states(queries) == {"crm": {"pending": 120}, "chat": {"pending": 60}}
    again = run("replay", "--since", "2h", "--yes").stdout
    assert again == "added 0 deliveries\nleft 180: on its way\n"


def test_replay_prints_a_line_of_json_for_each_event(inbox: Inbox, run: Run) -> None:
    accept(inbox, "m1", at=NOW)

    (row,) = rows(run("replay", "--type", "SMS_REPLY", "--yes", "--json"))

    assert row["message_id"] == "m1"
    assert [(each["destination"], each["adds"]) for each in row["destinations"]] == [
        ("crm", False),
        ("chat", True),
    ]


def test_a_conflict_cannot_be_replayed(inbox: Inbox, run: Run, queries: Queries) -> None:
    accept(inbox, "m1", at=NOW, to=())
    conflict = inbox.accept(arrival("m1", body="something else", at=NOW, to=()))

    said = run("replay", conflict.event_id, "--again", code=1).stdout

    assert "is never delivered" in said
    assert states(queries) == {}


def test_pause_and_resume(inbox: Inbox, queue: Queue, run: Run, database: Database) -> None:
    accept(inbox, "m1", at=NOW)

    assert "crm is paused; new deliveries wait" in run("pause", "crm", "--why", "new").stdout
    assert "crm is already paused" in run("pause", "crm").stdout
    assert take(queue, now=NOW) == []
    assert "served again (it was paused: operator)" in run("resume", "crm").stdout
    assert run("resume", "crm").stdout == "crm is not paused\n"
    assert len(take(queue, now=NOW)) == 1
    assert acts(database) == [(ME, "pause", "new", "crm"), (ME, "resume", None, "crm")]


def test_a_pause_for_a_time_says_when_it_ends(inbox: Inbox, queue: Queue, run: Run) -> None:
    accept(inbox, "m1", at=NOW)

    said = run("pause", "crm", "--for", "2h").stdout

    assert re.match(r"crm is paused until \S+.*; new deliveries wait", said)
    until = queue.pauses()["crm"].until
    assert until is not None
    assert timedelta(hours=1.9) < until - datetime.now(UTC) <= timedelta(hours=2)
    assert ", or gofax-relay resume crm" in run("explain", "m1").stdout


def test_a_filter_means_the_destinations_of_what_it_selects(
    inbox: Inbox, queue: Queue, run: Run
) -> None:
    accept(inbox, "m1", to=("crm", "chat"), at=NOW)
    finish(queue, take(queue, now=NOW)[0], failed(Outcome.REFUSED, "HTTP 400"), now=NOW)

    assert run("pause", "--state", "dead").stdout == "crm is paused; new deliveries wait\n"
    assert run("pause", "--customer", "+61400000001").stdout.count("is paused;") == 1
    assert set(queue.pauses()) == {"crm", "chat"}
    assert run("resume", "--reason", "refused: HTTP 4*").stdout.startswith("crm is served again")
    assert "nothing was changed" in run("pause", "--customer", "+61499999999").stderr


def test_a_filter_settles_what_is_held(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries
) -> None:
    for number in range(3):
        inbox.accept(arrival(f"m{number}", customer=customer(number), at=NOW))
    for claim in take(queue, now=NOW):
        finish(queue, claim, failed(Outcome.AMBIGUOUS), now=NOW, policy=HOLD)

    dry = run("settle", "--destination", "crm", "--as", "delivered", "--dry-run")
    assert "would have settled 3 deliveries" in dry.stdout
    assert states(queries) == {"crm": {"held": 3}}
    said = run("settle", "--destination", "crm", "--as", "delivered", "--yes")

    assert "settled 3 deliveries" in said.stdout
    assert states(queries) == {"crm": {"delivered": 3}}


def test_an_act_is_undone_by_the_name_that_was_printed(
    inbox: Inbox, queue: Queue, run: Run, queries: Queries, database: Database
) -> None:
    kill(inbox, queue, 3)
    said = run("resend", "--all-dead", "--yes").stderr
    act = said.split("gofax-relay undo ")[1].strip()
    assert states(queries) == {"crm": {"pending": 3}}

    assert "dead again" in run("undo", act, "--dry-run").stdout
    assert "--yes" in run("undo", act, code=2).stderr
    assert states(queries) == {"crm": {"pending": 3}}
    undone = run("undo", act, "--yes", "--why", "the wrong filter")

    assert undone.stdout == "taken back 3 deliveries\n"
    assert "undo" not in undone.stderr
    assert states(queries) == {"crm": {"dead": 3}}
    assert acts(database)[3:] == [(ME, "undo", "the wrong filter", "crm")] * 3
    assert 'no act "act_1"' in run("undo", "act_1", code=1).stderr


def test_a_pause_is_undone_while_nobody_else_has_changed_it(run: Run, queue: Queue) -> None:
    act = run("pause", "crm", "chat", "--for", "2h").stderr.split("gofax-relay undo ")[1].strip()
    run("resume", "chat")
    run("pause", "chat")

    assert run("undo", act).stdout == "crm: is served again\n"

    assert set(queue.pauses()) == {"chat"}


def test_a_destination_that_left_the_config_can_be_resumed(
    run: Run, path: Path, database: Database
) -> None:
    run("pause", "chat")
    config = path.parent / "config.yaml"
    config.write_text(CONFIG.replace("  chat:", "  team-chat:").replace("[chat]", "[team-chat]"))

    assert "chat is served again" in run("resume", "chat").stdout


def test_a_filter_for_an_unknown_destination_is_noted(run: Run) -> None:
    said = run("dead", "--destination", "crn").stderr

    assert said == 'note: no destination named "crn" in the config (have: crm, chat)\n'


def test_words_that_no_database_holds_are_taken(
    inbox: Inbox, queue: Queue, run: Run, database: Database
) -> None:
    kill(inbox, queue, 1)

    run("resend", "m0", "--why", "a\x00b \udcff", "--who", "ann\udce9")

    assert acts(database) == [("ann?", "resend", "ab ?", "crm")]


@pytest.mark.parametrize(
    "command", [["resend"], ["replay"], ["settle", "--as", "dead"], ["explain"]]
)
def test_names_that_no_database_holds_are_unknown(run: Run, command: Sequence[str]) -> None:
    run(*command, "\udcff\x00m1", code=1)
    run(*command, " ", code=2)


def test_what_others_wrote_steers_no_terminal(inbox: Inbox, run: Run) -> None:
    accept(inbox, "m1\r\n\x9b31mdone", to=(), at=NOW)
    event = run("events", "--json")
    (told,) = rows(event)

    said = run("explain", told["id"]).stdout + run("replay", told["id"], "--dry-run").stdout

    assert "m1   31mdone" in said
    assert not {"\r", "\x9b"} & set(said)


def test_nothing_is_added_to_a_disk_at_its_reserve(
    inbox: Inbox, queue: Queue, run: Run, path: Path, queries: Queries, delivery: FindDelivery
) -> None:
    kill(inbox, queue, 2)
    config = path.parent / "config.yaml"
    config.write_text(CONFIG + "disk_reserve: 900000GiB\n")

    result = run("resend", "--all-dead", "--yes", code=1)
    run("replay", "m0", code=1)

    assert "Error: the store cannot be used: " in result.stderr
    assert result.stdout == (
        "resent 0 deliveries\nstopped after 0 of 2; the others are unchanged\n"
    )
    assert states(queries) == {"crm": {"dead": 2}}
    run("settle", delivery("m0").id, "--as", "delivered")
