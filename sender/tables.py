"""Tables that fit the terminal, for webhook profiles and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sender import report, terminal
from sender.delivery import shown
from sender.log import Entry
from sender.profiles import Profile

#: Columns of a terminal that has room for every column of a table.
WIDE = 110
#: Fewest cells of a column that is cut to fit.
_NARROWEST = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Column:
    name: str
    #: Most cells in a narrow terminal; longer values end in an ellipsis.
    most: int = 12
    #: Whether it is left out of a narrow terminal.
    is_extra: bool = False
    #: Whether it may be cut.
    is_cut: bool = False


Row = Mapping[str, str]

_PROFILES = (
    _Column(name="name", most=20, is_cut=True),
    _Column(name="status"),
    _Column(name="events", most=22, is_cut=True),
    _Column(name="body", is_extra=True),
    _Column(name="secret", is_extra=True),
    _Column(name="url"),
)
_ENTRIES = (
    _Column(name="id"),
    _Column(name="time", most=20),
    _Column(name="profile", is_extra=True, is_cut=True),
    _Column(name="message", most=26, is_cut=True),
    _Column(name="event", is_extra=True, is_cut=True),
    _Column(name="try", is_extra=True),
    _Column(name="status"),
    _Column(name="ms"),
    _Column(name="answer"),
)


def show_profiles(profiles: Sequence[Profile]) -> None:
    """Print webhook profiles, a row each."""
    rows = [
        {
            "name": each.name,
            "status": "active" if each.is_active else "inactive",
            "events": " ".join(each.events),
            "body": "included" if each.include_message_body else "left out",
            "secret": "set" if each.secret else "none",
            "url": shown(each.url),
        }
        for each in profiles
    ]
    _print(_PROFILES, rows, empty="no webhook profiles yet: gofax-sender webhooks add --help")


def show_profile(profile: Profile) -> None:
    """Print one webhook profile, a field a line."""
    for name, value in (
        ("name", profile.name),
        ("url", shown(profile.url)),
        ("events", ", ".join(profile.events)),
        ("include message body", "yes" if profile.include_message_body else "no"),
        ("signing secret", "set (not shown)" if profile.secret else "none: sent unsigned"),
        ("basic auth", "set (not shown)" if profile.basic else "none"),
        ("status", "active" if profile.is_active else "inactive"),
        ("created", _time(profile.created_at)),
        ("last update", _time(profile.updated_at)),
    ):
        click.echo(f"{name:22}{report.one_line(value)}")


def show_entries(entries: Sequence[Entry]) -> None:
    """Print log entries, a row each."""
    is_today = all(each.at.date() == datetime.now(UTC).date() for each in entries)
    is_short = is_today and terminal.width() < WIDE
    rows = [
        {
            "id": str(each.id),
            "time": f"{each.at.astimezone(UTC):%H:%M:%SZ}" if is_short else _time(each.at),
            "profile": each.profile or "",
            "message": each.message_id or "(no id)",
            "event": each.event_type or "",
            "try": str(each.number),
            "status": "-" if each.status is None else str(each.status),
            "ms": "-" if each.duration_ms is None else str(round(each.duration_ms)),
            "answer": (each.error or each.answer or "").removeprefix(f"{shown(each.url)}: "),
        }
        for each in entries
    ]
    _print(_ENTRIES, rows, empty="no such entries in the log")


def show_entry(entry: Entry) -> None:
    """Print one log entry with headers and bodies."""
    click.echo(f"{entry.id}  {_time(entry.at)}  POST {report.harmless(shown(entry.url))}")
    if entry.profile:
        click.echo(f"webhook profile {report.one_line(entry.profile)}")
    again = f", a resend of {entry.resend_of}" if entry.resend_of else ""
    click.echo(f"try {entry.number}{again}")
    _show_message(entry.headers, entry.body.decode("utf-8", "backslashreplace"))
    if entry.error:
        click.echo(f"\nno answer: {report.one_line(entry.error)}")
        return
    click.echo(f"\nanswered {entry.status} after {entry.duration_ms:.0f} ms")
    _show_message(entry.answer_headers or {}, entry.answer or "")


def _show_message(headers: Mapping[str, str], body: str) -> None:
    for name, value in headers.items():
        click.echo(report.one_line(f"{name}: {value}"))
    if body:
        click.echo()
    for line in body.splitlines():
        click.echo(report.harmless(line))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _print(columns: Sequence[_Column], rows: Sequence[Row], *, empty: str) -> None:
    if not rows:
        click.echo(empty)
        return
    bound = terminal.width()
    chosen = [each for each in columns if bound >= WIDE or not each.is_extra]
    cells = [[report.one_line(row[each.name]) for each in chosen] for row in rows]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, width in zip(chosen, _widths(chosen, cells, bound), strict=True):
        table.add_column(column.name, width=width, no_wrap=True, overflow="ellipsis")
    for row in cells:
        # Text, so that no markup in it counts.
        table.add_row(*map(Text, row))
    Console(width=bound, highlight=False, markup=False, emoji=False).print(table)


def _widths(columns: Sequence[_Column], cells: Sequence[Sequence[str]], bound: int) -> list[int]:
    """Return the cells of each column; the last takes what the others leave."""
    widths = []
    for column, values in zip(columns, zip(*cells, strict=True), strict=True):
        longest = max(cell_len(each) for each in (column.name, *values))
        widths.append(longest if bound >= WIDE else min(longest, column.most))
    room = bound - 2 * (len(columns) - 1)
    # The last column has a fifth of the terminal at least, as long as others can be cut.
    cut = [at for at, each in enumerate(columns) if each.is_cut]
    while sum(widths[:-1]) + bound // 5 > room:
        widest = max(cut, key=lambda at: widths[at])
        if widths[widest] <= _NARROWEST:
            break
        widths[widest] -= 1
    widths[-1] = max(1, room - sum(widths[:-1]))
    return widths
