"""``scenario``: shows whether a receiver, ours or any other, is right."""

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
from sender.faults import Faults
from sender.options import Aim
from sender.outbox import note
from sender.profiles import Profiles
from sender.scenarios import SCENARIOS, Outcome, Scenario, Setting
from sender.scenarios.run import confirm, run
from sender.store import Store
from sender.terminal import say
from sender.witness import Records, Relay

_FILE = click.Path(path_type=Path, dir_okay=False, writable=True)


@click.group()
def scenario() -> None:
    """Show whether a receiver, ours or any other, is right.

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
        click.echo(json.dumps(fields))


@scenario.command("run")
@click.argument("names", nargs=-1, metavar="NAME…")
@click.option("--all", "play_all", is_flag=True, help="Every scenario.")
@options.target_options
@click.option("--profile", metavar="NAME", help="A webhook profile, instead of --url.")
@click.option("--previous-secret", type=options.secret, metavar="S",
              help="A second secret that the receiver still accepts.")  # fmt: skip
@click.option(
    "--relay-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Config of the gofax-relay that receives: its store shows the effects.",
)
@click.option("--records", type=options.url, metavar="URL",
              help="List of effects, such as …/records of the sandbox.")  # fmt: skip
@click.option("--patience", type=options.seconds, default=60.0, show_default=True,
              metavar="SECONDS", help="Time for effects to show.")  # fmt: skip
@click.option("--answer-within", type=options.seconds, default=5.0, show_default=True,
              metavar="SECONDS", help="What counts as prompt.")  # fmt: skip
@click.option("--burst", type=click.IntRange(2, 500), default=50, show_default=True,
              help="Events at the same moment.")  # fmt: skip
@click.option("--fail-fast", is_flag=True, help="Stop at the first scenario that fails.")
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
    fail_fast: bool,
    junit: Path | None,
    html: Path | None,
    as_json: bool,
    store: Store,
) -> None:
    """Play scenarios to a receiver, and score what it does.

    Answers alone do not show whether an event took effect twice: --relay-config looks into the
    relay's store, --records into the sandbox, or at any URL that answers with a JSON list of
    objects with "system" and "text". Ctrl-C ends the run; what is known is printed and written.
    Exit code: 0 if none failed, 1 if one did or the run was interrupted.

    \b
    Examples:
      gofax-sender scenario run --all --url http://127.0.0.1:8080/webhooks/gofax --secret S
          --relay-config config.yaml --records http://127.0.0.1:8090/records
      gofax-sender scenario run duplicate late --profile front-desk --junit scenarios.xml
    """
    chosen = _chosen(names, play_all=play_all)
    target = target_of(aim, profile, store)
    witnesses = Witnesses(
        relay=Relay(relay_config) if relay_config else None,
        records=Records(records) if records else None,
        patience=patience,
    )
    setting = Setting(
        target=target,
        previous_secret=previous_secret,
        prompt=answer_within,
        burst=burst,
        faults=Faults(records) if records else None,
    )
    # A witness that cannot be asked is better known before than after.
    witnesses.probe()
    performance = _Performance(witnesses, fail_fast=fail_fast, as_json=as_json)
    performance.play(chosen, setting)
    outcomes = performance.outcomes
    if junit:
        junit.write_bytes(scorecard.as_junit(outcomes, url=target.url))
    if html:
        html.write_text(scorecard.as_html(outcomes, url=target.url), encoding="utf-8")
    if not witnesses:
        note("effects were not looked at: --relay-config or --records show them")
    if not (performance.is_complete and scorecard.is_right(outcomes)):
        raise click.exceptions.Exit(1)


class Witnesses:
    """Whatever can show the effects of a run; false if nothing can."""

    def __init__(self, *, relay: Relay | None, records: Records | None, patience: float) -> None:
        self._relay = relay
        self._records = records
        self._patience = patience

    def __bool__(self) -> bool:
        return bool(self._relay or self._records)

    def probe(self) -> None:
        """Raise :class:`SenderError` if one gives no answer."""
        for each in (self._relay, self._records):
            if each is not None:
                each.look([], timeout=self._patience)

    def confirm(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Return *outcomes* with what was seen of their effects."""
        return confirm(outcomes, relay=self._relay, records=self._records, patience=self._patience)


class _Performance:
    """One run: plays, looks at the effects, and prints each outcome as soon as it is known."""

    def __init__(self, witnesses: Witnesses, *, fail_fast: bool, as_json: bool) -> None:
        self._witnesses = witnesses
        self._fail_fast = fail_fast
        self._as_json = as_json
        # A failure in the effects can end the run only if they are looked at one by one.
        self._looks_at_end = bool(witnesses) and not fail_fast
        self.outcomes: list[Outcome] = []
        #: Whether it was played to its end, or to the failure that ends it.
        self.is_complete = False

    def play(self, chosen: Sequence[Scenario], setting: Setting) -> None:
        """Play *chosen*; Ctrl-C and a witness that gives no answer end it early, with a note."""
        try:
            with _progress(len(chosen)) as begin:
                self._play(chosen, setting, begin)
                if self._looks_at_end:
                    begin("looking at the effects")
                    self._look()
            self.is_complete = True
        except KeyboardInterrupt:
            unseen = ", effects were not looked at" if self._looks_at_end else ""
            note(f"interrupted: {len(self.outcomes)} of {len(chosen)} scenarios ended{unseen}")
        except SenderError as error:
            if not self.outcomes:
                raise
            note(f"error: {error}")
        if not self._as_json:
            scorecard.show_end(self.outcomes)
        elif self._looks_at_end:
            for each in self.outcomes:
                self._show(each)

    def _play(
        self, chosen: Sequence[Scenario], setting: Setting, begin: Callable[[str], None]
    ) -> None:
        for played in run(chosen, setting, began=lambda each: begin(each.name)):
            outcome = played
            if self._fail_fast and self._witnesses:
                outcome = self._witnesses.confirm([played])[0]
            self.outcomes.append(outcome)
            if not (self._as_json and self._looks_at_end):
                self._show(outcome)
            if self._fail_fast and outcome.verdict == "failed":
                return

    def _look(self) -> None:
        """Add the effects to the outcomes, and print those that now fail."""
        before = self.outcomes
        self.outcomes = self._witnesses.confirm(before)
        for was, now in zip(before, self.outcomes, strict=True):
            if now.verdict != was.verdict and not self._as_json:
                self._show(now)

    def _show(self, outcome: Outcome) -> None:
        if self._as_json:
            say(scorecard.as_json(outcome))
        else:
            scorecard.show(outcome)


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


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    """Show on stderr what is being done, if that is a terminal."""
    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns,
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
        # Lines that go to a file must not be drawn above the bar instead.
        redirect_stdout=sys.stdout.isatty(),
    ) as progress:
        task = progress.add_task("", total=total)
        done = itertools.count()
        yield lambda what: progress.update(task, description=what, completed=next(done))
