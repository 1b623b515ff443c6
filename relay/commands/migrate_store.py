"""The command that moves a store from SQLite to PostgreSQL while the relay runs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from relay import migrations
from relay.acts.bulk import run_batches
from relay.commands import bulk
from relay.commands.options import FAILED, confirm
from relay.config.store_urls import store_url, without_password
from relay.migrations import Unusable, walk
from relay.store import Database, StoreUnavailable, connect, copy, restored
from relay.store.connect import file_of, is_missing
from relay.store.copy import Compared, Copy, CopyRefused

#: Passes end when one finds at most FEW changed rows, and at the latest after PASSES.
FEW, PASSES = 200, 20


class StoreUrl(click.ParamType[str]):
    """The URL of a store; a relative file is in the working directory."""

    name = "store"

    def convert(self, value: Any, param: Any, ctx: click.Context | None) -> str:
        try:
            return store_url(str(value), folder=Path())
        except ValueError as error:
            self.fail(f"{without_password(str(value))!r}: {error}", param)


@click.command("migrate-store")
@click.argument("source", metavar="FROM", type=StoreUrl())
@click.argument("target", metavar="TO", type=StoreUrl())
@click.option("--final", is_flag=True, help="Then close FROM for good, and open TO.")
@click.option("--abandon", is_flag=True, help="Give up the copy; FROM is as before, moved or not.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def migrate_store(source: str, target: str, final: bool, abandon: bool, yes: bool) -> None:
    """Copy the SQLite store FROM to the empty PostgreSQL database TO.

    The relay may use FROM meanwhile. A copy that was stopped or killed continues when the command
    is run again. At the end every row is compared.

    With --final, FROM accepts nothing more from the last pass on: a relay that still runs answers
    503. Then write TO to store: in the config, and start the relay again.

    \b
    Examples: gofax-relay migrate-store sqlite:///relay.db postgresql://relay@db/relay
              gofax-relay migrate-store --final sqlite:///relay.db postgresql://relay@db/relay
    """
    if final and abandon:
        raise click.UsageError("--final ends the move, --abandon gives it up: give one of them")
    file = file_of(source)
    if file is None or file_of(target) is not None:
        raise click.UsageError("FROM is a SQLite store, TO a PostgreSQL database")
    if is_missing(source):
        raise click.ClickException(f"{file}: there is no such store")
    with ExitStack() as stack:
        ours = stack.enter_context(_opened(source))
        if abandon:
            _abandon(ours, without_password(target), yes=yes)
            return
        theirs = stack.enter_context(_opened(target))
        try:
            good = _move(Copy(ours, theirs, name=without_password(target)), final=final)
        except CopyRefused as error:
            raise click.ClickException(str(error)) from error
    if not good:
        sys.exit(FAILED)


@contextmanager
def _opened(url: str) -> Iterator[Database]:
    """Open a store at the schema of this version; what is refused leaves no file."""
    with ExitStack() as unless_good:
        try:
            database = connect(url)
            unless_good.callback(database.discard)
            copy.require_ours(database)
            if reason := restored.objection(database):
                raise CopyRefused(reason)
            walk.migrate(database)
            if (found := migrations.revision(database)) != migrations.newest():
                raise CopyRefused(f"it has schema {found}: copy it with the newer version")
        except (CopyRefused, Unusable, StoreUnavailable) as error:
            raise click.ClickException(f"{without_password(url)}: {error}") from error
        yield database
        unless_good.pop_all()
        database.close()


def _abandon(source: Database, target: str, *, yes: bool) -> None:
    moved = copy.moved_to(source)
    if moved is None and not copy.is_being_copied(source):
        raise click.ClickException("FROM was not moved, and is not being copied")
    if moved is not None and moved != target:
        raise click.ClickException(f"FROM was moved to {moved}, not to {target}")
    if not yes:
        confirm("Events that TO accepted stay there. Use FROM again?")
    copy.abandon(source)
    click.echo("FROM is neither being copied nor moved; drop the database that held the copy")


def _move(copy: Copy, *, final: bool) -> bool:
    """Copy, follow, compare and, if *final*, finish; return whether all went well."""
    if copy.begin():
        click.echo("it has already been moved there")
        return True
    if not _copied(copy):
        click.echo("stopped; the same command continues", err=True)
        return False
    for _ in range(PASSES):
        if copy.follow() <= FEW:
            break
    if not _told(copy.compare()):
        return False
    if not final:
        click.echo("TO is what FROM was a moment ago; the same command with --final ends the move")
        return True
    copy.follow()
    began = time.monotonic()
    if not _told(copy.finish(), only_bad=True):
        return False
    click.echo(f"moved; FROM was closed {time.monotonic() - began:.1f} s ago, and stays closed")
    click.echo("write TO to store: in the config, and start the relay again")
    return True


def _copied(copy: Copy) -> bool:
    stop = threading.Event()
    with bulk.stoppable(stop), bulk.progress("copying", total=copy.left()) as advance:

        def done(count: int) -> int:
            advance(count)
            return count

        return run_batches(copy.copy(), done, stop=stop)


def _told(found: Iterable[Compared], *, only_bad: bool = False) -> bool:
    """Print how the tables compare, and return whether all are the same."""
    good = True
    for each in found:
        good = good and each.same
        if each.same and not only_bad:
            click.echo(f"✓ {each.table}: {each.source:,} rows, the same")
        if not each.same:
            click.echo(
                f"✗ {each.table}: {each.source:,} rows here, {each.target:,} there, different"
            )
    if not good:
        said = "the copy differs from the store: --abandon it, and copy to another database"
        click.echo(said, err=True)
    return good
