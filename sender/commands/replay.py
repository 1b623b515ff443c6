"""``replay`` and ``samples``: captured payloads, sent again."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sender import options, report
from sender.attempt import Retries, Target
from sender.commands.send import no_endpoint, warn_of_missing_credentials
from sender.errors import SenderError
from sender.options import Aim
from sender.outbox import Outbox, note
from sender.payload import Payload, renewed, retimed
from sender.profiles import Profiles
from sender.replay import paced, read
from sender.store import Store
from sender.templates import SAMPLES

Letter = tuple[Payload, Target]


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…")
@options.target_options
@click.option("--form-url", type=options.url, metavar="URL", help="For forms; else --url.")
@click.option("--basic", type=options.credentials, metavar="USER:PW", help="Basic auth of forms.")
@click.option(
    "--keep-ids/--renew-ids", default=True, help="The ids as they are (default), or new."
)
@click.option("--keep-times/--renew-times", default=True, help="The times, likewise.")
@click.option("--rate", type=options.rate, metavar="N/s", help="At most so many a second.")
@click.option("--dry-run", is_flag=True, help="Read everything, say what would be sent.")
@options.retry_options
@options.json_option
@options.log_option
def replay(
    *,
    paths: tuple[Path, ...],
    aim: Aim,
    form_url: str | None,
    basic: str | None,
    keep_ids: bool,
    keep_times: bool,
    rate: float | None,
    dry_run: bool,
    retries: Retries,
    as_json: bool,
    store: Store,
) -> None:
    """Send captured payloads again, from files and folders.

    .json is a payload, .jsonl one a line, .form legacy form data; - is standard input, a payload a
    line. What gofax-relay events --json prints is turned into what GoFax sent. JSON is signed,
    forms get Basic auth. Folders are read sorted by name. Everything is read before anything is
    sent. Without --url, payloads go to the webhook profiles that subscribe to them.

    \b
    Examples:
      gofax-sender replay captured/ --url http://127.0.0.1:8080/webhooks/gofax --secret S
      gofax-sender replay day.jsonl --url … --secret S --renew-ids --renew-times --rate 5/s
      gofax-relay events --json | gofax-sender replay - --url … --secret S
      gofax-sender replay captured/ --dry-run
      gofax-sender replay "$(gofax-sender samples)" --url … --secret S
          --form-url http://127.0.0.1:8080/webhooks/gofax/status --basic gofax:password
    """
    payloads = _read(paths)
    if not keep_ids:
        payloads = [renewed(each) for each in payloads]
    target = replace(aim, url=aim.url or "").target(form_url=form_url, basic=basic)
    letters = [(each, target) for each in payloads]
    if aim.url is None:
        letters = _subscribed(payloads, store, aim) or (letters if dry_run else [])
    if dry_run:
        _print_plan(letters)
        return
    if not letters:
        raise no_endpoint(payloads[0].event_type)
    if aim.url:
        warn_of_missing_credentials({each.kind for each in payloads}, target)
    outbox = Outbox(store, retries=retries, as_json=as_json)
    with _progress(letters) as moving:
        for payload, where in paced(moving, per_second=rate):
            fresh = payload if keep_times else retimed(payload, datetime.now(UTC))
            outbox.post(fresh, where)
    outbox.finish(summary=True)


@click.command()
def samples() -> None:
    """Print the folder of sample payloads that come with gofax-sender.

    \b
    Examples:
      ls "$(gofax-sender samples)"
      gofax-sender replay "$(gofax-sender samples)"/*.json --url … --secret S
    """
    click.echo(SAMPLES)


def _read(paths: Iterable[Path]) -> list[Payload]:
    try:
        return read(paths)
    except SenderError as error:
        raise click.UsageError(f"nothing was sent:\n{error}") from error


def _subscribed(payloads: Sequence[Payload], store: Store, aim: Aim) -> list[Letter]:
    """Return what the webhook profiles would send."""
    profiles = Profiles(store).all()
    wanting = [[each for each in profiles if each.wants(payload)] for payload in payloads]
    left_out = wanting.count([])
    if profiles and left_out:
        note(f"{left_out} left out: no active webhook profile subscribes")
    return [
        (profile.trimmed(payload), aim.target_of(profile))
        for payload, wants in zip(payloads, wanting, strict=True)
        for profile in wants
    ]


def _print_plan(letters: Sequence[Letter]) -> None:
    for payload, target in letters:
        click.echo(report.plan(payload, target))
    click.echo(f"{len(letters)} would be sent")


@contextmanager
def _progress(letters: Sequence[Letter]) -> Iterator[Iterable[Letter]]:
    """Show on stderr how many *letters* are sent, if that is a terminal."""
    columns = (TextColumn("replay"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns,
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
        # Lines that go to a file must not be drawn above the bar instead.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        yield progress.track(letters)
