"""How many customers wait, on both databases."""

from __future__ import annotations

from fakes import accept, accept_apart, customer, failed, finish, take

from relay.rules.delivery import OutcomeKind, Policy
from relay.store import Database, Inbox, Queue
from relay.store.waiting import Lanes, Waiting, waiting

ON_BOTH = True


def test_conversations_are_counted_once_however_many_messages_wait_in_them(
    inbox: Inbox, queue: Queue, database: Database
) -> None:
    accept_apart(inbox, 4, to=("crm", "chat"))
    accept(inbox, "again", "and again", customer=customer(3))
    first, second, third, _ = take(queue)
    finish(queue, first)
    finish(queue, second, failed(OutcomeKind.REFUSED))
    finish(queue, third, failed(OutcomeKind.REFUSED), policy=Policy(on_dead="hold"))
    for claim in take(queue, destination="chat"):
        finish(queue, claim)

    assert waiting(database) == {
        "crm": Waiting(unfinished=Lanes(number=1), stopped=Lanes(number=2))
    }


def test_of_very_many_some_are_counted_and_it_says_that_there_are_more(
    inbox: Inbox, database: Database
) -> None:
    accept_apart(inbox, 5)
    accept(inbox, "a", "b", "c", customer=customer(4))

    exact, bounded = waiting(database, most=8), waiting(database, most=7)

    assert exact["crm"].unfinished == Lanes(number=5)
    assert bounded["crm"].unfinished == Lanes(number=5, more=True)
    assert waiting(database, most=3)["crm"].unfinished == Lanes(number=3, more=True)
