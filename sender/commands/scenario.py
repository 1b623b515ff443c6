"""``scenario``: shows whether a receiver, ours or anybody's, is right."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from sender import options, scorecard
from sender.attempt import Target
from sender.commands.send import EXAMPLE_URL, warn_if_unsigned
from sender.errors import SenderError
from sender.options import Aim
from sender.profiles import Profiles
from sender.scenarios import SCENARIOS, Outcome, Scenario, Setting
from sender.scenarios.run import confirm, run
from sender.store import Store
from sender.witness import Records, Relay

_FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.group()
def scenario() -> None:
    """Show whether a receiver, ours or anybody's, is right.

    \b
    Examples:
      gofax-sender scenario list
      gofax-sender scenario run --all --url http://127.0.0.1:8080/webhooks/gofax --secret S
    """


@scenario.command("list")
@options.json_option
def list_(*, as_json: bool) -> None:
    """List the scenarios: what each does, what a right receiver answers, and why.

    \b
    Example: gofax-sender scenario list
    """
    if not as_json:
        scorecard.show_list()
        return
    for each in SCENARIOS:
        fields = {"name": each.name, "title": each.title, "right": each.right, "why": each.why}
        click.echo(json.dumps(fields, ensure_ascii=False))


@scenario.command("run")
@click.argument("names", nargs=-1, metavar="NAME…")
@click.option("--all", "play_all", is_flag=True, help="Every scenario.")
@options.target_options
@click.option("--profile", metavar="NAME", help="Instead of --url: a webhook profile.")
@click.option("--previous-secret", type=options.secret, metavar="S", help="Still taken, too.")
@click.option(
    "--relay-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="The config of the gofax-relay that receives: its store confirms the effects.",
)
@click.option("--records", type=options.url, metavar="URL", help="…/records of the sandbox: too.")
@click.option("--patience", type=options.seconds, default=60.0, show_default=True,
              metavar="SECONDS", help="For effects to show.")  # fmt: skip
@click.option("--answer-within", type=options.seconds, default=5.0, show_default=True,
              metavar="SECONDS", help="What counts as prompt.")  # fmt: skip
@click.option("--burst", type=click.IntRange(2, 500), default=50, show_default=True,
              help="Events at the same moment.")  # fmt: skip
@click.option("--junit", type=_FILE, metavar="FILE", help="Write JUnit XML.")
@click.option("--html", type=_FILE, metavar="FILE", help="Write a page.")
@options.json_option
@options.store_option
def run_(
    *,
    names: tuple[str, ...],
    play_all: bool,
    aim: Aim,
    profile: str | None,
    previous_secret: str | None,
    relay_config: Path | None,
    records: str | None,
    patience: float,
    answer_within: float,
    burst: int,
    junit: Path | None,
    html: Path | None,
    as_json: bool,
    store: Store,
) -> None:
    """Play scenarios to a receiver, and score what it does.

    Answers alone do not show whether something took effect twice: --relay-config asks the relay's
    store, --records the sandbox, or any URL that answers with a JSON list of objects with "system"
    and "text". Exit code: 0 if none failed, 1 if one did.

    \b
    Examples:
      gofax-sender scenario run --all --url http://127.0.0.1:8080/webhooks/gofax --secret S
          --relay-config config.yaml --records http://127.0.0.1:8090/records
      gofax-sender scenario run duplicate late --profile front-desk --junit scenarios.xml
    """
    chosen = _chosen(names, play_all=play_all)
    target = target_of(aim, profile, store)
    relay = Relay(relay_config) if relay_config else None
    sandbox = Records(records) if records else None
    setting = Setting(
        target=target,
        previous_secret=previous_secret,
        prompt=answer_within,
        burst=burst,
        break_destinations=sandbox.break_destinations if sandbox else lambda: False,
    )
    for witness in (relay, sandbox):
        if witness is not None:
            # Better to know before than after.
            witness.look([])
    with _progress(len(chosen)) as say:
        outcomes = run(chosen, setting, began=lambda each: say(each.name))
        say("looking at the effects")
        outcomes = confirm(outcomes, relay=relay, records=sandbox, patience=patience)
    _report(outcomes, target.url, as_json=as_json, junit=junit, html=html)
    if not (relay or sandbox):
        click.echo("effects were not looked at: --relay-config or --records show them", err=True)
    if not scorecard.is_right(outcomes):
        raise click.exceptions.Exit(1)


def _chosen(names: Sequence[str], *, play_all: bool) -> list[Scenario]:
    if play_all == bool(names):
        raise click.UsageError("name one or more scenarios, or give --all; see scenario list")
    known = {each.name: each for each in SCENARIOS}
    unknown = [each for each in names if each not in known]
    if unknown:
        raise click.UsageError(f'no scenario "{unknown[0]}" (have: {", ".join(known)})')
    return [each for each in SCENARIOS if play_all or each.name in names]


def target_of(aim: Aim, profile: str | None, store: Store) -> Target:
    """Return the target that --url or --profile names."""
    if (aim.url is None) == (profile is None):
        raise click.UsageError(f"give {EXAMPLE_URL}, or --profile NAME")
    if profile is None:
        warn_if_unsigned(aim.target())
        return aim.target()
    try:
        return aim.target_of(Profiles(store).get(profile))
    except SenderError as error:
        raise click.UsageError(str(error)) from error


def _report(
    outcomes: Sequence[Outcome], url: str, *, as_json: bool, junit: Path | None, html: Path | None
) -> None:
    if as_json:
        for each in outcomes:
            click.echo(scorecard.as_json(each))
    else:
        scorecard.show(outcomes)
    if junit:
        junit.write_bytes(scorecard.as_junit(outcomes, url=url))
    if html:
        html.write_text(scorecard.as_html(outcomes, url=url), encoding="utf-8")


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is done now, where a person looks at it."""
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("", total=total)
        done = itertools.count()
        yield lambda what: progress.update(task, description=what, completed=next(done))
