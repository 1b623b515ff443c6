"""``load``: many signed events at a fixed rate, each of them timed and accounted for."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from sender import options, report
from sender.commands.scenario import target_of
from sender.delivery import shown
from sender.errors import SenderError
from sender.load.plan import Plan, check_is_ours
from sender.options import Aim
from sender.store import Store
from sender.witness import Records, Relay

if TYPE_CHECKING:
    from sender.load.measured import Measured, Recorder
    from sender.load.verify import Verified

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(s|m|h)?", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(value: str) -> float:
    found = _DURATION.fullmatch(value)
    seconds = float(found[1]) * _SECONDS[found[2] or "s"] if found else 0.0
    if not 0 < seconds <= 86_400:
        raise click.BadParameter(
            f"{value!r} is not a duration: give one like 30s or 5m, up to 24h"
        )
    return seconds


@click.command()
@options.target_options
@click.option("--profile", metavar="NAME", help="A webhook profile, instead of --url.")
@click.option("--rate", type=options.rate, default="100", metavar="N/s", show_default=True,
              help="Events due a second, whatever the answers do.")  # fmt: skip
@click.option("--duration", type=_duration, metavar="D", help="30s, 5m (default: 10s).")
@click.option(
    "--count", type=click.IntRange(1, 10_000_000), help="Number of events, instead of --duration."
)
@click.option("--connections", type=click.IntRange(1, 1000), default=32, show_default=True,
              help="Most connections at the same time.")  # fmt: skip
@click.option("--customers", type=click.IntRange(1, 10**7), default=1000, show_default=True,
              help="Numbers that the events come from.")  # fmt: skip
@click.option(
    "--relay-config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="FILE",
    help="Config of the gofax-relay that receives: every id is looked up in its store.",
)
@click.option(
    "--records",
    type=options.url,
    metavar="URL",
    help="List of effects, such as …/records of the sandbox.",
)
@click.option("--patience", type=options.seconds, default=60.0, show_default=True,
              metavar="SECONDS", help="Time for records to show.")  # fmt: skip
@click.option("--i-own-this-host", is_flag=True, help="Load a host other than this machine.")
@options.json_option
@options.store_option
def load(
    *,
    aim: Aim,
    profile: str | None,
    rate: float,
    duration: float | None,
    count: int | None,
    connections: int,
    customers: int,
    relay_config: Path | None,
    records: str | None,
    patience: float,
    i_own_this_host: bool,
    as_json: bool,
    store: Store,
) -> None:
    """Post many events at a fixed rate, and say how long they took and what became of them.

    Each event is due at its time, however slow the answers are, and its latency counts from then.
    The load ends when all is answered, or one --timeout after the last event was due. Exit code: 0
    if everything was answered 2xx and, where a witness was asked, is there once.

    \b
    Examples:
      gofax-sender load --url http://127.0.0.1:8080/webhooks/gofax --secret S --rate 200/s
      gofax-sender load --url … --secret S --rate 1000/s --count 20000 --relay-config config.yaml
    """
    if duration is not None and count is not None:
        raise click.UsageError("--duration and --count exclude each other: leave one out")
    target = target_of(aim, profile, store)
    _check_host(target.url, owned=i_own_this_host)
    total = count or max(1, round(rate * (10.0 if duration is None else duration)))
    plan = Plan(
        target=target, rate=rate, count=total, connections=connections, customers=customers
    )
    witnesses = _witnesses(relay_config, records, patience=patience)
    with _progress(plan) as tell:
        recorder: Recorder = _part("engine").run(plan, tell=tell)
    measured = recorder.measured()
    verify = _part("verify").verify
    verified = [verify(recorder, each, patience=patience) for each in witnesses]
    (_print_json if as_json else _print)(measured, verified, url=target.url)
    if not (measured.is_success and all(each.is_right for each in verified)):
        raise click.exceptions.Exit(1)


def _part(name: str) -> Any:
    """Import a part that needs an extra."""
    try:
        return importlib.import_module(f"sender.load.{name}")
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"load needs {error.name}: pip install 'gofax-relay[load]'"
        ) from error


def _check_host(url: str, *, owned: bool) -> None:
    if owned:
        return
    try:
        check_is_ours(url)
    except SenderError as error:
        raise click.UsageError(str(error)) from error


def _witnesses(
    relay_config: Path | None, records: str | None, *, patience: float
) -> list[Relay | Records]:
    found: list[Relay | Records] = []
    found += [Relay(relay_config)] if relay_config else []
    found += [Records(records)] if records else []
    for each in found:
        # A witness that cannot be asked is better known before than after.
        each.look([], timeout=patience)
    return found


def _print_json(measured: Measured, verified: Sequence[Verified], *, url: str) -> None:
    fields = {"url": shown(url), **asdict(measured), "verified": [asdict(e) for e in verified]}
    click.echo(json.dumps(fields))


def _print(measured: Measured, verified: Sequence[Verified], *, url: str) -> None:
    click.echo(
        f"{shown(url)}: {measured.sent} of {measured.planned} sent, {measured.accepted} accepted"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "asked", "sent", "answered"):
        table.add_column(name, justify="right" if name else "left")
    table.add_row(
        "events/s",
        f"{measured.asked_per_second:,.1f}",
        f"{measured.sent_per_second:,.1f}",
        f"{measured.answered_per_second:,.1f}",
    )
    console = Console(highlight=False)
    console.print(table)
    times = Table(box=None, pad_edge=False, header_style="bold")
    times.add_column("milliseconds")
    for percentile in measured.latency_ms:
        times.add_column(_named(percentile), justify="right")
    for name, values in (
        ("from when it was due", measured.latency_ms),
        ("from when it was sent", measured.service_ms),
    ):
        times.add_row(name, *(f"{each:,.1f}" for each in values.values()))
    console.print(times)
    for status, number in measured.statuses.items():
        click.echo(f"answered {status}: {number}")
    for reason, number in measured.errors.items():
        click.echo(f"no answer: {number}: {report.one_line(reason)}")
    for each in verified:
        click.echo(f"{'✓' if each.is_right else '✗'} {each.witness}: {each.said()}")


def _named(percentile: float) -> str:
    return "max" if percentile == 100 else f"p{percentile:g}"


@contextmanager
def _progress(plan: Plan) -> Iterator[Callable[[Recorder], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    ) as progress:
        task = progress.add_task("load", total=plan.count)

        def tell(recorder: Recorder) -> None:
            good = sum(n for status, n in recorder.statuses.items() if 200 <= status < 300)
            bad = recorder.sent - good
            progress.update(task, completed=recorder.sent, description=f"{bad} not (yet) accepted")

        yield tell
