"""The commands about calls to our endpoints: list them, say why one was refused, let it in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime

import click

from relay.acts import admitting
from relay.acts.admitting import Admitted
from relay.acts.person import Person
from relay.commands import listings, output
from relay.commands.filters import Format, listing
from relay.commands.groups import ListingGroup
from relay.commands.options import (
    FAILED,
    PERSON,
    Moment,
    confirm,
    existing,
    json_option,
    queries_of,
    receiving_option,
    store_option,
    with_options,
)
from relay.commands.tables import failure, print_lines
from relay.commands.times import shown_time
from relay.config.document import secret_from
from relay.config.model import Config
from relay.intake import Examined
from relay.rules.diagnose import Secret
from relay.shapes.diagnosis import diagnosis_json, told
from relay.shapes.words import count
from relay.store.refused import Refused
from relay.store.search import Filter, Unknown
from relay.store.values import Request


@click.group(cls=ListingGroup)
def requests() -> None:
    """List every call to an endpoint, find out why one was refused, let it in.

    \b
    Examples: gofax-relay requests --limit 20
              gofax-relay requests diagnose req_01936f
              gofax-relay requests admit --since 2h --dry-run
    """


@requests.command("list")
@store_option
@listing("accepted", "duplicate", "conflict", "stale", "probe", "refused")
def list_(config: Config, which: Filter, format: Format, limit: int | None, follow: bool) -> None:
    """List every call to an endpoint, accepted or refused, oldest first. The default.

    \b
    Examples: gofax-relay requests --limit 20
              gofax-relay requests --standing refused --since 1d
              gofax-relay requests --json | grep '"status":401'
    """
    queries = queries_of(config)
    if follow:
        listings.follow_requests(queries, which, format=format, limit=limit)
    else:
        listings.show_requests(queries, which, format=format, limit=limit)


@requests.command()
@receiving_option
@click.argument("request_id", metavar="ID")
@click.option(
    "--secret-from",
    "references",
    multiple=True,
    metavar="ENV|file:PATH|credential:NAME",
    help="Try this secret, too; repeatable.",
)
@json_option
def diagnose(config: Config, request_id: str, references: Sequence[str], as_json: bool) -> None:
    """Find out why the signature of a refused request did not match.

    Tries the headers, encodings and signed contents of public webhook senders with the secrets
    of all endpoints, and prints what the endpoint has to say to accept the request.

    \b
    Example: gofax-relay requests diagnose req_01936f --secret-from GOFAX_SIGNING_SECRET
    """
    request = _named(Refused(existing(config)), request_id)
    found = admitting.diagnose(config, request, further=[*_further(references)])
    if as_json:
        output.print_json(diagnosis_json(request, found, show_time=shown_time))
    else:
        print_lines(told(request, found, show_time=shown_time))


@requests.command()
@receiving_option
@click.option("--since", type=Moment(), help="Only those since: 2h or 3d (ago), 2026-11-24.")
@click.option("--until", type=Moment(), help="Only those before.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Only this one; repeatable.")
@click.option("--unverified", metavar="ID", help="Take your word for this one; needs --why.")
@with_options(*PERSON)
@click.option("--dry-run", is_flag=True, help="Show what would happen; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask whether to continue.")
@json_option
def admit(
    config: Config,
    since: datetime | None,
    until: datetime | None,
    ids: Sequence[str],
    unverified: str | None,
    who: str,
    why: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Let in refused requests whose signature matches today's secrets and settings.

    They are accepted in the order in which they came, as if they came now: what is known already
    is a duplicate, the routes of today apply. The time at which they came stays.

    \b
    Examples: gofax-relay requests admit --since 2h --dry-run
              gofax-relay requests admit --id req_01936f --why 'header renamed'
              gofax-relay requests admit --unverified req_01936f --why 'GoFax confirmed it'
    """
    database = existing(config)
    store = Refused(database)
    person = Person(who=who, why=why)
    if unverified and not why:
        raise click.UsageError("--unverified needs --why: how do you know it?")
    try:
        examined = (
            [admitting.taken_on_word(config, store, unverified, person)]
            if unverified
            else admitting.examined(config, store, person, ids=ids, since=since, until=until)
        )
    except Unknown as error:
        raise failure(str(error)) from error
    coming = [each for each in examined if each.arrival]
    if not as_json:
        print_lines(_summary(examined, coming, evicted=store.evicted()))
    if coming and not (dry_run or yes):
        question = f"Let in {count(len(coming), 'request', 'requests')}?"
        confirm(question, look="--dry-run", err=as_json)
    for admitted in admitting.admit(config, database, examined, dry_run=dry_run):
        _show(admitted, as_json=as_json)
    if (ids or unverified) and len(coming) < len(ids or [unverified]):
        raise click.exceptions.Exit(FAILED)


def _show(admitted: Admitted, *, as_json: bool) -> None:
    request = admitted.examined.request
    if as_json:
        output.print_json(admitted.json)
    elif admitted.became:
        named = f" {admitted.event_id}" if admitted.event_id else ""
        print_lines([f"{shown_time(request.at)}  {request.id}  {admitted.became}{named}"])


def _summary(
    examined: Sequence[Examined], coming: Sequence[Examined], *, evicted: int
) -> Iterator[str]:
    """Say how many come in, and why the others do not."""
    yield f"{count(len(coming), 'request', 'requests')} of {len(examined)} can come in"
    staying = Counter(each.reason for each in examined if each.arrival is None)
    for reason, number in staying.most_common():
        yield f"{count(number, 'stays', 'stay')} out: {reason}"
    if evicted:
        one, many = "request that was signed", "requests that were signed"
        yield f"{count(evicted, one, many)} had to make room before: resend them in GoFax"


def _named(store: Refused, name: str) -> Request:
    try:
        return admitting.named(store, name)
    except Unknown as error:
        raise failure(str(error)) from error


def _further(references: Sequence[str]) -> Iterator[Secret]:
    for reference in references:
        try:
            yield Secret(name=reference, text=secret_from(reference))
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--secret-from") from error
