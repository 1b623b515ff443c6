"""The commands that make a backup of a store, and put one back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import click

from relay import destinations, migrations
from relay.commands.options import confirm, existing, os_user, secretless_option, store_option
from relay.config.model import Config
from relay.migrations import Unusable, walk
from relay.node import NodeSlot
from relay.shapes.words import count
from relay.store import Database, StoreUnavailable, connect, dump, restored
from relay.store import backup as backups
from relay.store.backup import Backup, BackupRefused
from relay.store.connect import file_of
from relay.store.nodes import Nodes
from relay.store.restored import Marked
from relay.store.sqlite_file import is_there, is_used, private

_path = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("file", type=_path)
@store_option
def backup(config: Config, file: Path) -> None:
    """Write the store to the new FILE, while the relay goes on.

    FILE is verified before it gets its name, and readable for you only. It holds texts and numbers
    of customers: `erase` lists it. A PostgreSQL store needs pg_dump here.

    \b
    Example: gofax-relay backup /var/backups/relay-2026-11-28.db
    """
    try:
        with closing(existing(config)) as database:
            rows = backups.make(database, file, reason="person")
    except BackupRefused as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    click.echo(f"{file}: {count(rows, 'row', 'rows')} of {config.store_name}, verified")


@click.command()
@click.argument("file", type=_path, required=False)
@secretless_option
@click.option("--over", is_flag=True, help="End an earlier restore: all messages are resent.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def restore(config: Config, file: Path | None, over: bool, yes: bool) -> None:
    """Put the backup FILE back as the store; stop the relay first.

    The present store is kept beside it. What was unfinished when the backup was made may have
    been delivered since: connectors look first, and where they cannot (Teams, webhooks, e-mail) it
    is held until you settle or resend it. Nothing is delivered before you resume it.

    Then press Resend in GoFax for what came after the minute that is printed. Events of that time
    are treated with the same care until you say `restore --over` and start the relay again.

    \b
    Examples: gofax-relay restore /var/backups/relay-2026-11-28.db
              gofax-relay restore --over
    """
    if over == (file is not None):
        raise click.UsageError("give FILE, or --over")
    if file is None:
        _end(config)
        return
    if not os.access(file, os.R_OK):
        raise click.ClickException(f"{file}: there is no such file, or this user may not read it")
    if not yes:
        confirm(f"Replace {config.store_name} by {file}?")
    try:
        store = file_of(config.store)
        put_back = _to_server(config, file) if store is None else _to_file(config, file, store)
    except (BackupRefused, dump.Failed, Unusable, StoreUnavailable) as error:
        raise click.ClickException(str(error)) from error
    _show(file, *put_back)


def _end(config: Config) -> None:
    with closing(existing(config)) as database:
        found = restored.forget_window(database)
    if found:
        click.echo("from the relay's next start on, events that come are new again")
    else:
        click.echo("no restore is to be ended")


def _to_file(config: Config, file: Path, store: Path) -> tuple[Path | None, Marked]:
    _require_unused(config, store)
    backups.verify_file(file)
    # That takes a while with a large file.
    _require_unused(config, store)
    was_there = is_there(store)
    before = _recorded(config) if was_there else []
    with ExitStack() as over:
        # Whoever starts meanwhile finds the store in use by us, and makes none.
        over.callback(NodeSlot(store, "restore").close)
        new = store.with_name(f"{store.name}.restoring")
        over.callback(backups.remove, new)
        backups.copy_of(file, new)
        # Without a lock file, connect() would refuse the copy as a backup.
        os.close(private(Path(f"{new}.lock")))
        with closing(connect(f"sqlite:///{new}")) as database:
            walk.migrate(database)
            now = database.clock()
            aside = backups.automatic_name(store, "restore", now)
            kept = backups.new_backup(aside, "restore", now)
            marked = _mark(config, database, [*before, *([kept] if was_there else [])])
            database.truncate_log()
        backups.exchange(store, new, aside=aside)
    return aside if was_there else None, marked


def _require_unused(config: Config, store: Path) -> None:
    if is_used(store):
        raise BackupRefused(f"{config.store_name} is in use: stop gofax-relay serve first")


def _to_server(config: Config, file: Path) -> tuple[Path | None, Marked]:
    with closing(connect(config.store)) as database:
        with database.reading() as db:
            if living := Nodes(database).living(db):
                raise BackupRefused(f"{', '.join(living)} are at work: stop them first")
        dump.verify_file(file)
        aside = _kept(database, file)
        before = _recorded(config)
        dump.put_back(config.store, file)
        walk.migrate(database)
        return aside, _mark(config, database, before)


def _kept(database: Database, file: Path) -> Path | None:
    """Dump what the database is, beside *file*; None if there is nothing in it."""
    if migrations.revision(database) is None:
        return None
    aside = backups.automatic_name(file.absolute(), "restore", database.clock())
    backups.make(database, aside, reason="restore")
    return aside


def _recorded(config: Config) -> Sequence[Backup]:
    """Return what the store that goes knows of backups; nothing, if it cannot be read."""
    with suppress(StoreUnavailable), closing(connect(config.store)) as database:
        return backups.recorded(database)
    return []


def _mark(config: Config, database: Database, known: Sequence[Backup]) -> Marked:
    marked = restored.mark(
        database,
        looking=destinations.looking(config),
        destinations=config.destinations,
        who=os_user(),
    )
    backups.add(database, known)
    return marked


def _show(file: Path, aside: Path | None, marked: Marked) -> None:
    window = marked.window
    click.echo(f"{file} is the store again, as it was at {window.since:%Y-%m-%d %H:%M:%S} UTC")
    if aside is not None:
        click.echo(f"what it was before is kept: {aside}")
    repeated = count(marked.repeated, "delivery", "deliveries")
    held = count(marked.held, "delivery", "deliveries")
    click.echo(f"{repeated} may have been made since: connectors look first")
    click.echo(f"{held} may have been made since, and are held: gofax-relay dead --state held")
    minute = f"{window.resend_from:%Y-%m-%d %H:%M} UTC"
    click.echo("next:")
    click.echo("  start the relay")
    click.echo(f"  in GoFax, press Resend for every event from {minute} on")
    for name in marked.paused:
        click.echo(f"  gofax-relay resume {name}")
