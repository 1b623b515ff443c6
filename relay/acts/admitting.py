"""Why was a request refused, and may it come in after all?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime

from relay import destinations
from relay.acts.person import Person
from relay.clock import wall
from relay.config.model import Config
from relay.intake import Examined, Intake, examine, trusted
from relay.rules import diagnose as diagnosing
from relay.rules import sentiment
from relay.rules.diagnose import Diagnosis, Secret
from relay.shapes.admitted import AdmittedJson, admitted_json
from relay.store import Database, Inbox, RowRefused
from relay.store.refused import Refused
from relay.store.search import Unknown
from relay.store.values import Request

#: The result if a request was only examined, and could have been let in.
WOULD_COME_IN = "would come in"


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """What became of a refused request; *became* is empty if it stays out."""

    examined: Examined
    became: str = ""
    event_id: str | None = None

    @property
    def is_good(self) -> bool:
        """Return whether it came in, or would."""
        return self.event_id is not None or self.became == WOULD_COME_IN

    @property
    def json(self) -> AdmittedJson:
        return admitted_json(self.examined, became=self.became, event_id=self.event_id)


def named(store: Refused, name: str) -> Request:
    """Return the refused request whose id begins with *name*.

    Raises :class:`~relay.store.search.Unknown`.
    """
    found = store.named(name)
    if not found:
        raise Unknown(f'no refused request "{name}": `gofax-relay requests` lists them')
    if len(found) > 1:
        raise Unknown(f'"{name}" begins several ids: {", ".join(each.id for each in found)}, …')
    return found[0]


def diagnose(config: Config, request: Request, *, further: Sequence[Secret] = ()) -> Diagnosis:
    """Find out why the signature of *request* did not match any endpoint's secret."""
    return diagnosing.diagnose(
        headers=request.headers,
        body=request.body or b"",
        secrets=[*_secrets(config), *further],
        path=request.endpoint,
    )


def examined(
    config: Config,
    store: Refused,
    person: Person,
    *,
    ids: Sequence[str] = (),
    since: datetime | None = None,
    until: datetime | None = None,
) -> Sequence[Examined]:
    """Look at refused requests again with today's secrets, in the order in which they came.

    Raises :class:`~relay.store.search.Unknown` if one of *ids* is.
    """
    intakes, now = intakes_of(config), wall()
    known = [named(store, each).id for each in ids]
    wanted = sorted(
        store.admissible(ids=known, since=since, until=until), key=lambda request: request.at
    )
    return [
        examine(each, intakes, now=now, who=person.who, why=person.why, origin=person.origin)
        for each in wanted
    ]


def taken_on_word(config: Config, store: Refused, name: str, person: Person) -> Examined:
    """Take a person's word, and reason, for a refused request that no signature proves.

    Raises :class:`~relay.store.search.Unknown`.
    """
    assert person.why, "a word needs a reason"
    request = named(store, name)
    return trusted(
        request,
        intakes_of(config),
        who=person.who,
        why=person.why,
        origin=person.origin,
    )


def admit(
    config: Config, database: Database, requests: Sequence[Examined], *, dry_run: bool = False
) -> Iterator[Admitted]:
    """Let in those *requests* that may come in, and yield what became of each."""
    if dry_run:
        yield from (
            Admitted(examined=each, became=WOULD_COME_IN if each.arrival else "")
            for each in requests
        )
        return
    looking = destinations.looking(config)
    with closing(Inbox(database, keep=config.requests.keep, looking=looking)) as inbox:
        for each in requests:
            yield let_in(inbox, each)


def let_in(inbox: Inbox, examined: Examined) -> Admitted:
    """Accept the event of a request, if it may come in."""
    if examined.arrival is None:
        return Admitted(examined=examined)
    try:
        acceptance = inbox.accept(examined.arrival)
    except RowRefused as error:
        return Admitted(examined=examined, became=f"the store refused it: {error}")
    return Admitted(examined=examined, became=acceptance.standing, event_id=acceptance.event_id)


def intakes_of(config: Config) -> Sequence[Intake]:
    """Make every endpoint ready."""
    judge = sentiment.vader() if config.sentiment else None
    return [Intake.of(config, endpoint, judge=judge) for endpoint in config.endpoints]


def _secrets(config: Config) -> Iterator[Secret]:
    for endpoint in config.endpoints:
        for number, each in enumerate(endpoint.secrets, 1):
            yield Secret(
                name=f"secret {number} of {endpoint.name}", text=each.secret.get_secret_value()
            )
