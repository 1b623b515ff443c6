"""What a person does to what is named: looked at first, then done, by any surface."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import accept_apart, failed, finish, take

from relay.acts import recovering
from relay.acts.person import Person
from relay.acts.recovering import UnknownNames
from relay.config import installed
from relay.config.load import load
from relay.config.model import Config
from relay.rules.delivery import OutcomeKind, State
from relay.store import Inbox, Queries, Queue, Recovery
from relay.store.actions import Actions
from relay.store.database import Database

ANN = Person(who="ann", why="it is there", origin="192.0.2.7")
CONFIG = """\
endpoints:
  - {path: /webhooks/gofax, allow_unsigned: true}
destinations:
  crm: {connector: hubspot, access_token: test}
  other: {connector: hubspot, access_token: test}
routes:
  - {name: everything, to: [crm, other]}
"""


@pytest.fixture
def store(inbox: Inbox, queue: Queue, database: Database) -> Recovery:
    accept_apart(inbox, 2)
    for claim in take(queue):
        finish(queue, claim, failed(OutcomeKind.REFUSED))
    return Recovery(database)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    return load(file, find_connector=installed.find)


def states(queries: Queries) -> list[State]:
    return [each.state for view in queries.events() for each in view.deliveries]


def test_a_resend_is_looked_at_before_it_is_done(store: Recovery, queries: Queries) -> None:
    (look,) = recovering.resend(store, ["m0"], ANN, dry_run=True)
    assert states(queries) == [State.DEAD, State.DEAD]

    (made,) = recovering.resend(store, ["m0"], ANN)

    assert (made.is_done, made.says) == (look.is_done, look.says)
    assert made.json["does"] == "renew"
    assert states(queries) == [State.PENDING, State.DEAD]


def test_a_change_that_somebody_else_made_first_is_left_alone(store: Recovery) -> None:
    decide = recovering.resending(store, again=False)
    changes = [decide(each) for each in store.deliveries_named("m0")]
    recovering.resend(store, ["m0"], ANN)

    (made,) = recovering.change(store, changes, ANN)

    assert (made.is_done, made.says) == (False, "changed meanwhile: look again")


def test_a_delivery_is_settled_with_who_from_where_and_why(
    store: Recovery, queries: Queries, database: Database
) -> None:
    (made,) = recovering.settle(store, ["m1"], ANN, end=State.DELIVERED)

    assert made.is_done
    assert states(queries) == [State.DEAD, State.DELIVERED]
    (entry,) = Actions(database).newest(limit=9)
    assert (entry.action.who, entry.action.why) == ("ann", "it is there")
    assert (entry.action.origin, entry.act) == ("192.0.2.7", ANN.act_id)


def test_a_replay_adds_what_todays_routes_name(
    store: Recovery, queries: Queries, config: Config
) -> None:
    (look,) = recovering.replay(config, store, ["m0"], ANN, dry_run=True)
    (made,) = recovering.replay(config, store, ["m0"], ANN)

    assert look.json == made.json
    assert [(each.destination, each in made.added) for each in made.replay.steps] == [
        ("crm", False),
        ("other", True),
    ]
    assert len(states(queries)) == 3


def test_every_unknown_name_is_named_and_nothing_done(store: Recovery, queries: Queries) -> None:
    with pytest.raises(UnknownNames) as error:
        recovering.resend(store, ["m0", "m8", "m9"], ANN)

    assert '"m8"' in str(error.value) and '"m9"' in str(error.value)
    assert states(queries) == [State.DEAD, State.DEAD]
