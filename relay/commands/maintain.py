"""The commands that keep a store in order."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import click

from relay import migrations
from relay.commands.options import (
    Age,
    Number,
    confirm,
    existing,
    json_option,
    store_option,
)
from relay.commands.output import print_json
from relay.commands.tables import print_lines
from relay.config.model import Config
from relay.migrations import NodesAtWork, Unusable, walk
from relay.shapes.words import count
from relay.store import Database, Queries, StoreUnavailable, backup, connect, dump
from relay.store.backup import Backup, BackupRefused
from relay.store.connect import file_of
from relay.store.prune import Pruning, Removed
from relay.store.traces import Elsewhere

#: How often a write-ahead log that others read is tried, and seconds in between.
TRIES, PAUSE = 10, 0.5
#: Places at destinations that are listed for people.
MOST_PLACES = 50

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would go; remove nothing."
)


@click.command()
@store_option
@dry_run_option
@json_option
@click.option("--older-than", type=Age(), help="Age to use instead of the config's retention.")
def prune(config: Config, dry_run: bool, as_json: bool, older_than: timedelta | None) -> None:
    """Remove events and requests that are older than the retention.

    The worker does the same every hour. Events with unfinished deliveries stay. The key of a
    removed event stays, too, so that it has no second effect when it is sent again.

    \b
    Examples: gofax-relay prune --dry-run
              gofax-relay prune --older-than 30d
    """
    database = existing(config)
    now, horizon = database.clock(), config.dedupe_horizon
    steps = Pruning(database, dry_run=dry_run).prune(
        before=now - (older_than or config.retention),
        refused_before=now - min(older_than or config.requests.for_, config.requests.for_),
        keys_before=now - horizon if horizon else None,
    )
    _remove(database, steps, dry_run=dry_run, as_json=as_json)


@click.command()
@click.argument("number", type=Number())
@store_option
@dry_run_option
@json_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(number: str, config: Config, dry_run: bool, as_json: bool, yes: bool) -> None:
    """Remove every event of the customer NUMBER, delivered or not.

    Refused requests that mention the number or a text of the customer go, too; reasons that people
    gave are blanked if they do. Only digests of the events' keys stay, which no other store can
    compute. Whatever destinations received stays there: the links are printed. Exits with 1 if
    there is nothing to remove.

    \b
    Examples: gofax-relay erase +61400000000 --dry-run
              gofax-relay erase 0400000000 --yes
    """
    if not (yes or dry_run):
        confirm(f"Remove all events of {number}?", look="--dry-run")
    database = existing(config)
    first = Queries(database).first_event_of(number)
    made = backup.recorded(database, since=first) if first else []
    steps = Pruning(database, dry_run=dry_run).erase(number)
    removed = _remove(database, steps, dry_run=dry_run, as_json=as_json, backups=made)
    if not (removed.events or removed.requests or removed.words):
        raise click.ClickException(f"no finished event of {number} is here")


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
                _back_up(config, database)
            change = walk.migrate(database, to, force=force)
    except NodesAtWork as error:
        raise click.ClickException(f"{config.store_name}: {error}; or --force") from error
    except (Unusable, BackupRefused) as error:
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
    """Return the schema of the store, without creating the store."""
    file = file_of(config.store)
    if file is not None and not file.exists():
        return None
    with closing(connect(config.store)) as database:
        return migrations.revision(database)


def _remove(
    database: Database,
    steps: Iterable[Removed],
    *,
    dry_run: bool,
    as_json: bool,
    backups: Sequence[Backup] = (),
) -> Removed:
    """Go through *steps*, take what went out of the files as well, and print and return it."""
    total = Removed()
    try:
        for step in steps:
            total += step
    except KeyboardInterrupt:
        click.echo("stopped; what was removed so far is gone", err=True)
    kept = "" if dry_run or total == Removed() else _clear_files(database)
    if as_json:
        print_json(
            {**asdict(total), "dry_run": dry_run, "kept": kept or None}
            | {"backups": [_backup_json(each) for each in backups]}
        )
        return total
    verb = "would be removed" if dry_run else "removed"
    events = count(total.events, "event", "events")
    deliveries = count(total.deliveries, "delivery", "deliveries")
    requests = count(total.requests, "request", "requests")
    keys = count(total.keys, "key", "keys")
    print_lines([f"{verb}: {events} with {deliveries}, {requests}, {keys}"])
    if total.words:
        click.echo(f"blanked: what people wrote in {count(total.words, 'place', 'places')}")
    _show_elsewhere(total.elsewhere)
    _show_backups(backups)
    if kept:
        click.echo(f"removed texts are still in the files: {kept}", err=True)
    return total


def _clear_files(database: Database) -> str:
    """Take what was removed out of the files of the store; return why that failed, if it did."""
    try:
        database.vacuum()
        for _ in range(TRIES):
            if not (reason := database.truncate_log()):
                return ""
            time.sleep(PAUSE)
    except StoreUnavailable as error:
        return str(error)
    return f"{reason}; the worker tries again within the hour"


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


def _backup_json(each: Backup) -> dict[str, str]:
    return {"at": each.at.isoformat(), "host": each.host, "file": each.file}
