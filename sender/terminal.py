"""The terminal: how wide it is, and text that wraps at its words."""

from __future__ import annotations

import shutil
import sys

import click

#: Columns of output that goes to a file or another program.
UNBOUNDED = 200


def width() -> int:
    """Return the columns of the terminal, or :data:`UNBOUNDED` if the output goes elsewhere."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNBOUNDED


def wrapped(head: str, text: str, *, err: bool = False) -> str:
    """Return *head* and *text* in lines of the terminal's width; *text* stays beside *head*.

    *err*: for stderr instead of stdout. What goes elsewhere stays one line.
    """
    if not (sys.stderr if err else sys.stdout).isatty():
        return head + text
    columns = max(20, shutil.get_terminal_size().columns)
    lines = click.wrap_text(text, columns, initial_indent=head, subsequent_indent=" " * len(head))
    return lines or head


def say(text: str) -> None:
    """Print *text* on stdout, above the progress bar if there is one."""
    # By default click writes past the stream that rich puts in the place of stdout.
    click.echo(text, file=sys.stdout)
