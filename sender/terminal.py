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


def wrapped(head: str, text: str) -> str:
    """Return *head* and *text* in lines of the terminal's width; *text* stays beside *head*."""
    if not sys.stdout.isatty():
        return head + text
    lines = click.wrap_text(
        text, max(20, width()), initial_indent=head, subsequent_indent=" " * len(head)
    )
    return lines or head
