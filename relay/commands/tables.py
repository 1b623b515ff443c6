"""How tables and texts fit the place where they are printed, and how nothing in them steers it.

At a terminal a table takes its width: the least important columns go, times and ids are brief, and
what is still too long ends in an ellipsis. A file or a program gets every column in full.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest

import click
from rich.cells import cell_len, chop_cells, set_cell_size

from relay.clock import wall
from relay.commands.times import shown_time, zone
from relay.config import environment
from relay.rules import jsontext
from relay.shapes.times import zone_of

#: Columns of what goes to a file or another program, which has no edge.
UNBOUNDED = 200
#: A brief time has no year if it is younger than this.
_RECENT = timedelta(days=300)
#: Cells between two columns.
_GAP = 2

Row = Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table, and what becomes of it where there is little room."""

    name: str
    #: Which columns go first where there is too little room: the highest; 0 always stays.
    extra: int = 0
    #: Fewest cells to which it is cut; None: it is never cut.
    least: int | None = None
    #: Whether it goes on in further lines instead of being cut.
    wraps: bool = False


def is_terminal() -> bool:
    """Return whether people read what we print as it comes."""
    return sys.stdout.isatty()


def width() -> int:
    """Return the cells of a line: those of the terminal, if it is one."""
    return shutil.get_terminal_size().columns if is_terminal() else UNBOUNDED


def print_table(columns: Sequence[Column], rows: Sequence[Row], *, empty: str) -> None:
    """Print a table, or *empty* if it has no rows."""
    if not rows:
        click.echo(empty)
        return
    clean = [{name: jsontext.plain(text) for name, text in row.items()} for row in rows]
    bound = width()
    if is_terminal():
        columns = fitting(columns, clean, bound)
    widths = cut(columns, clean, bound)
    # By tables of Rich, `events` took 50 ms more, to import them and to draw them.
    names = {each.name: each.name for each in columns}
    for line in _row_lines(columns, names, widths):
        click.echo(line if environment.is_dumb() else click.style(line, bold=True))
    click.echo("\n".join(line for row in clean for line in _row_lines(columns, row, widths)))


def fitting(columns: Sequence[Column], rows: Sequence[Row], bound: int) -> Sequence[Column]:
    """Return *columns* without the least important ones that do not fit into *bound* cells."""
    chosen = list(columns)
    extras = sorted((each for each in columns if each.extra), key=lambda each: -each.extra)
    for extra in extras:
        if _total(_needed(each, rows) for each in chosen) <= bound:
            break
        chosen.remove(extra)
    return chosen


def cut(columns: Sequence[Column], rows: Sequence[Row], bound: int) -> Mapping[str, int]:
    """Return how wide each of *columns* is so that all fit, the least important cut first.

    Where all are as narrow as they should be, the widest go on shrinking.
    """
    widths = {each.name: _longest(each, rows) for each in columns}
    for each in sorted(columns, key=lambda each: -each.extra):
        excess = _total(widths.values()) - bound
        if excess > 0:
            widths[each.name] -= min(excess, widths[each.name] - _needed(each, rows))
    while _total(widths.values()) > bound and max(widths.values()) > 1:
        widths[max(widths, key=widths.__getitem__)] -= 1
    return widths


def print_lines(lines: Iterable[str], *, err: bool = False) -> None:
    """Print text for people; at a terminal it wraps at words, indented below its beginning."""
    stream = sys.stderr if err else sys.stdout
    bound = shutil.get_terminal_size().columns if stream.isatty() else None
    for line in lines:
        clean = jsontext.plain(line)
        for piece in wrapped(clean, bound) if bound else [clean]:
            click.echo(piece, err=err)


def wrapped(line: str, bound: int) -> Sequence[str]:
    """Return *line* in pieces of at most *bound* cells that end at words; longer words stay whole.

    The pieces after the first are indented by four more than the first.
    """
    text = line.lstrip(" ")
    indent = len(line) - len(text)
    pieces, piece = [], " " * indent
    for word in text.split(" "):
        if piece.strip() and cell_len(piece) + 1 + cell_len(word) > bound:
            pieces.append(piece)
            piece = " " * (indent + 4)
        piece += word if not piece.strip() else f" {word}"
    return [*pieces, piece]


def failure(text: str) -> click.ClickException:
    """Return the error that ends a command with *text*, in which nothing steers the terminal."""
    return click.ClickException("\n".join(map(jsontext.plain, text.split("\n"))))


def brief_time(time: datetime, *, now: datetime) -> str:
    """Write a time as short as it is clear: of today without a date, of this year without it."""
    local = time.astimezone(zone())
    if local.date() == now.astimezone(zone()).date():
        return local.strftime("%H:%M:%S") + zone_of(local, zone())
    if abs(now - time) < _RECENT:
        return local.strftime("%m-%d %H:%M") + zone_of(local, zone())
    return local.strftime("%Y-%m-%d")


def table_time(time: datetime | None) -> str:
    """Write a time for a table: briefly at a terminal; nothing for None."""
    if time is None:
        return ""
    return brief_time(time, now=wall()) if is_terminal() else shown_time(time)


def _total(widths: Iterable[int]) -> int:
    return sum(each + _GAP for each in widths) - _GAP


def _needed(column: Column, rows: Sequence[Row]) -> int:
    """Return the fewest cells that a column can do with."""
    longest = _longest(column, rows)
    if column.least is None:
        return longest
    return min(longest, max(column.least, cell_len(column.name)))


def _longest(column: Column, rows: Sequence[Row]) -> int:
    return max(cell_len(text) for text in (column.name, *(row[column.name] for row in rows)))


def _row_lines(columns: Sequence[Column], row: Row, widths: Mapping[str, int]) -> Iterator[str]:
    """Yield the lines of a row: several if one of its cells goes on."""
    cells = [_cell(row[each.name], each, widths[each.name]) for each in columns]
    sizes = [widths[each.name] for each in columns]
    for pieces in zip_longest(*cells, fillvalue=""):
        padded = map(set_cell_size, pieces, sizes)
        yield (" " * _GAP).join(padded).rstrip(" ")


def _cell(text: str, column: Column, size: int) -> Sequence[str]:
    """Return the lines of a cell: one that ends in an ellipsis, or as many as it takes."""
    if cell_len(text) <= size:
        return [text]
    if column.wraps or not is_terminal():
        return _folded(text, size)
    return [set_cell_size(text, size - 1) + "…"]


def _folded(text: str, size: int) -> Sequence[str]:
    """Return *text* in lines of at most *size* cells that end at words, or inside longer ones."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if cell_len(longer) <= size:
            line = longer
            continue
        if line.strip(" "):
            lines.append(line)
        *whole, line = chop_cells(word, size) or [""]
        lines += whole
    return [*lines, line]
