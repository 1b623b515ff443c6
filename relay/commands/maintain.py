"""The commands that keep a store in order."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TextIO

import click

from relay import migrations
from relay.acts import erasing, exporting
from relay.acts.erasing import Removal, carry_out
from relay.acts.person import Person
from relay.commands.options import (
    PERSON,
    Age,
    Number,
    confirm,
    existing,
    json_option,
    store_option,
    with_options,
)
from relay.commands.output import print_json
from relay.commands.tables import failure, print_lines
from relay.config.model import Config
from relay.migrations import NodesAtWork, Unusable, walk
from relay.rules import jsontext
from relay.shapes.receipt import is_of, is_ours, read_receipt, written_receipt
from relay.shapes.removal import removal_json
from relay.shapes.words import count
from relay.store import Database, StoreUnavailable, backup, connect, dump, restored
from relay.store.backup import Backup, BackupRefused
from relay.store.connect import file_of, is_missing
from relay.store.prune import Pruning
from relay.store.secret import store_secret
from relay.store.traces import Elsewhere

#: Places at destinations that are listed for people.
MOST_PLACES = 50

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would go; remove nothing."
)


@click.command()
@store_option
@dry_run_option
@json_option
@click.option(
    "--older-than",
    type=Age(),
    help="Age to use instead of the config's retention, for all types.",
)
def prune(config: Config, dry_run: bool, as_json: bool, older_than: timedelta | None) -> None:
    """Remove events and requests that are older than the retention of their type.

    The worker does the same every hour. Events with unfinished deliveries stay. The key of a
    removed event stays, too, so that it has no second effect when it is sent again.

    \b
    Examples: gofax-relay prune --dry-run
              gofax-relay prune --older-than 30d
    """
    database = existing(config)
    now, horizon = database.clock(), config.dedupe_horizon
    steps = Pruning(database, dry_run=dry_run).prune(
        before=now - (older_than or config.kept.default),
        types_before={} if older_than else {n: now - age for n, age in config.kept.types.items()},
        refused_before=now - min(older_than or config.requests.for_, config.requests.for_),
        keys_before=now - horizon if horizon else None,
    )
    _show(carry_out(database, steps, dry_run=dry_run), as_json=as_json)


@click.command()
@click.argument("number", type=Number(), required=False)
@store_option
@dry_run_option
@json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--receipt",
    "proof",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a signed receipt to this new file, which only you can read.",
)
@click.option(
    "--verify",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Say whether this store signed the receipt in a file, and if it is NUMBER's.",
)
@with_options(*PERSON)
def erase(
    number: str | None,
    config: Config,
    dry_run: bool,
    as_json: bool,
    yes: bool,
    proof: Path | None,
    verify: Path | None,
    who: str,
    why: str | None,
) -> None:
    """Remove every event of the customer NUMBER, delivered or not.

    Refused requests that mention the number or a text of the customer go, too; reasons that people
    gave are blanked if they do. Only digests of the events' keys stay, which no other store can
    compute. Whatever destinations received stays there: the links are printed. Exits with 1 if
    there is nothing to remove.

    \b
    Examples: gofax-relay erase +61400000000 --dry-run
              gofax-relay erase 0400000000 --yes --receipt erased.json
              gofax-relay erase 0400000000 --verify erased.json
    """
    if verify is not None:
        if proof is not None or dry_run or yes:
            raise click.UsageError("--verify goes with neither --receipt nor --dry-run nor --yes")
        _verify(config, verify, number)
        return
    if number is None:
        raise click.UsageError("say whose events: gofax-relay erase NUMBER")
    if proof is not None and dry_run:
        raise click.UsageError("--receipt does not go with --dry-run, which erases nothing")
    if not (yes or dry_run):
        confirm(f"Remove all events of {number}?", look="--dry-run")
    database = existing(config)
    # The file comes first: what it is to prove cannot be done twice.
    with _new_file(proof) as file:
        removal = erasing.erase(database, number, Person(who=who, why=why), dry_run=dry_run)
        if file is not None and removal.receipt is not None:
            file.write(written_receipt(removal.receipt))
    if proof is not None and removal.receipt is None:
        proof.unlink()
    _show(removal, as_json=as_json)
    if removal.is_nothing:
        raise click.ClickException(f"no finished event of {number} is here")


def _verify(config: Config, file: Path, number: str | None) -> None:
    """Say what a receipt proves, or end with 1."""
    try:
        given = read_receipt(file.read_bytes())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{file}: {error}") from error
    secret = store_secret(existing(config))
    if not is_ours(given, secret):
        raise click.ClickException(f"{file}: another store signed it, or it was changed since")
    if number is not None and not is_of(given, number, secret):
        raise click.ClickException(f"{file}: it is of another customer, {given['customer']}")
    events = count(given["removed"]["events"], "event", "events")
    requests = count(given["removed"]["requests"], "refused request", "refused requests")
    left = "" if given["complete"] else "; not all of it: erase again"
    print_lines(
        [
            f"this store signed it: on {given['at']} {given['by']} erased {events} and {requests} "
            f"of {given['customer']}{left}"
        ]
    )


@click.command()
@click.argument("number", type=Number())
@store_option
@click.option(
    "--output",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write to this new file, which only you can read, instead of standard output.",
)
@with_options(*PERSON)
def export(number: str, config: Config, file: Path | None, who: str, why: str | None) -> None:
    """Print everything about the customer NUMBER that is here, as one JSON document.

    Events with what GoFax sent, deliveries with their links, attempts, requests and the actions of
    people; refused requests and people's notes that mention the number or one of the texts.
    Exits with 1 if there is nothing.

    \b
    Examples: gofax-relay export +61400000000 --output customer.json
              gofax-relay export 0400000000 --why 'asked for by mail' | jq .events
    """
    database = existing(config)
    with _new_file(file) as written:
        found = exporting.export(config, database, number, Person(who=who, why=why))
        if found is not None:
            click.echo(jsontext.printable(found), file=written)
    if found is None:
        if file is not None:
            file.unlink()
        raise click.ClickException(f"nothing about {number} is here")
    if file is not None:
        print_lines([f"{count(len(found['events']), 'event', 'events')} in {file}"])


@contextmanager
def _new_file(file: Path | None) -> Iterator[TextIO | None]:
    """Make a file that nobody else can read; None: standard output."""
    if file is None:
        yield None
        return
    try:
        made = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise failure(f"{file} cannot be made: {error.strerror}") from error
    with os.fdopen(made, "w", encoding="utf-8") as opened:
        try:
            yield opened
        except BaseException:
            file.unlink()
            raise


@click.command()
@store_option
@click.option(
    "--to", metavar="REV", help="Target revision, such as 0004; default: this version's."
)
@click.option("--sql", is_flag=True, help="Print the statements; change nothing.")
@click.option("--force", is_flag=True, help="Migrate even if running nodes cannot use the result.")
@click.option("--yes", is_flag=True, help="Do not ask before going back.")
def migrate(config: Config, to: str | None, sql: bool, force: bool, yes: bool) -> None:
    """Migrate the tables to the schema of this version, or of an older one.

    Every start migrates to this version's schema. Go back before you install an older version
    again: data that only the newer schema holds is removed, and any other command of this version
    migrates forward again.

    \b
    Examples: gofax-relay migrate
              gofax-relay migrate --sql
              gofax-relay migrate --to 0004
    """
    try:
        before = _revision(config)
        if sql:
            _print_statements(config, before, to)
            return
        if walk.is_backward(before, to) and not yes:
            confirm(f"Go back from schema {before} to {to}?", look="--sql")
        with closing(connect(config.store)) as database:
            if not walk.is_there(before, to):
                if not force:
                    walk.require_quiet(database, to)
                _back_up(config, database)
            change = walk.migrate(database, to, force=force)
    except NodesAtWork as error:
        raise click.ClickException(f"{config.store_name}: {error}; or --force") from error
    except (Unusable, BackupRefused, StoreUnavailable) as error:
        raise click.ClickException(f"{config.store_name}: {error}") from error
    if change.is_none:
        click.echo(f"{config.store_name} has schema {change.after}: nothing to do")
    else:
        came = f"from {change.before} to" if change.before else "to"
        click.echo(f"{config.store_name} was brought {came} schema {change.after}")


def _back_up(config: Config, database: Database) -> None:
    """Make a backup of a file before its tables change; of a server say how."""
    if database.file is None:
        how = dump.advice(config.store, Path("before-migrate.dump"))
        click.echo(f"no backup was made; this makes one: {how}", err=True)
        return
    file = backup.automatic_name(database.file, "migrate", database.clock())
    backup.make(database, file, reason="migrate")
    click.echo(f"backup: {file} (kept for {config.backups.for_.days} days)")


def _print_statements(config: Config, before: str | None, to: str | None) -> None:
    dialect = "sqlite" if file_of(config.store) else "postgresql"
    statements = walk.statements(before, to, dialect=dialect)
    # A comment, so that what reads statements can be given it all the same.
    nothing = f"-- {config.store_name} has schema {before}: nothing to do\n"
    click.echo(statements or nothing, nl=False)


def _revision(config: Config) -> str | None:
    """Return the schema of the store, and make nothing. Raises :class:`Unusable` of a backup."""
    if is_missing(config.store):
        return None
    with ExitStack() as looked:
        database = connect(config.store)
        looked.callback(database.discard)
        if reason := restored.objection(database):
            raise Unusable(reason)
        return migrations.revision(database)


def _show(removal: Removal, *, as_json: bool) -> None:
    """Print what was removed, and what is left of it elsewhere."""
    if removal.interrupted:
        click.echo("stopped; what was removed so far is gone", err=True)
    if as_json:
        print_json(removal_json(removal))
        return
    total = removal.removed
    verb = "would be removed" if removal.dry_run else "removed"
    events = count(total.events, "event", "events")
    deliveries = count(total.deliveries, "delivery", "deliveries")
    requests = count(total.requests, "request", "requests")
    keys = count(total.keys, "key", "keys")
    print_lines([f"{verb}: {events} with {deliveries}, {requests}, {keys}"])
    if total.words:
        click.echo(f"blanked: what people wrote in {count(total.words, 'place', 'places')}")
    _show_elsewhere(total.elsewhere)
    _show_backups(removal.backups)
    if removal.kept:
        click.echo(f"removed texts are still in the files: {removal.kept}", err=True)


def _show_elsewhere(places: Sequence[Elsewhere]) -> None:
    """List what only a person can remove, where it is."""
    if not places:
        return
    click.echo("not removed, because it is not here:")
    lines = [f"  {each.destination}  {each.where or '(it gave no link)'}" for each in places]
    print_lines(lines[:MOST_PLACES])
    if len(lines) > MOST_PLACES:
        click.echo(f"  and {len(lines) - MOST_PLACES} more (--json lists all)")


def _show_backups(backups: Sequence[Backup]) -> None:
    """List the backups that hold what was erased."""
    if not backups:
        return
    click.echo("these backups still hold the texts:")
    print_lines([f"  {each.at:%Y-%m-%d %H:%M}  {each.host}:{each.file}" for each in backups])
