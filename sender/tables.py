"""Tables that fit the terminal, for profiles and the log."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sender import report
from sender.delivery import shown
from sender.log import Entry
from sender.profiles import Profile

#: Columns of a table that no terminal bounds.
WIDTH = 200


def show_profiles(profiles: Sequence[Profile]) -> None:
    """Print webhook profiles, a row each."""
    table = _table("name", "status", "events", "body", "secret", "url")
    for each in profiles:
        table.add_row(
            _plain(each.name),
            "active" if each.is_active else "inactive",
            _plain(" ".join(each.events)),
            "included" if each.include_message_body else "left out",
            "set" if each.secret else "none",
            _plain(shown(each.url)),
        )
    _print(table, empty="no webhook profiles yet: gofax-sender webhooks add --help")


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
    table = _table("id", "time", "profile", "message", "event", "try", "status", "ms", "answer")
    for each in entries:
        table.add_row(
            str(each.id),
            _time(each.at),
            _plain(each.profile or ""),
            _plain(each.message_id or "(no id)"),
            _plain(each.event_type or ""),
            str(each.number),
            "-" if each.status is None else str(each.status),
            "-" if each.duration_ms is None else str(round(each.duration_ms)),
            _plain(each.error or each.answer or ""),
        )
    _print(table, empty="no such entries in the log")


def show_entry(entry: Entry) -> None:
    """Print one log entry with headers and bodies."""
    click.echo(f"{entry.id}  {_time(entry.at)}  POST {shown(entry.url)}")
    if entry.profile:
        click.echo(f"webhook profile {report.one_line(entry.profile)}")
    again = f", a resend of {entry.resend_of}" if entry.resend_of else ""
    click.echo(f"try {entry.number}{again}")
    _show_message(entry.headers, entry.body.decode("utf-8", "backslashreplace"))
    if entry.error:
        click.echo(f"\nno answer: {entry.error}")
        return
    click.echo(f"\nanswered {entry.status} after {entry.duration_ms:.0f} ms")
    _show_message(entry.answer_headers or {}, entry.answer or "")


def _show_message(headers: object, body: str) -> None:
    assert isinstance(headers, dict)
    for name, value in headers.items():
        click.echo(report.one_line(f"{name}: {value}"))
    if body:
        click.echo()
    for line in body.splitlines():
        click.echo(report.harmless(line))


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(text: str) -> Text:
    """Make text that no markup and no control character can steer."""
    return Text(report.one_line(text))


def _table(*names: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        # What came from outside is cut rather than spread over many lines.
        is_long = name in ("answer", "url")
        table.add_column(name, overflow="ellipsis" if is_long else "fold", no_wrap=is_long)
    return table


def _print(table: Table, *, empty: str) -> None:
    if table.row_count:
        # What goes to a file or another program has no edge at which to fold.
        width = None if sys.stdout.isatty() else WIDTH
        Console(width=width, highlight=False, markup=False, emoji=False).print(table)
    else:
        click.echo(empty)
