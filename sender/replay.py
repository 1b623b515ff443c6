"""Payloads of a replay: read from files and folders, and handed out at a rate."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from sender import export
from sender.errors import SenderError
from sender.payload import Payload, PayloadError, parse_form, parse_json

T = TypeVar("T")
S = TypeVar("S")

SUFFIXES = (".json", ".jsonl", ".form")
_KINDS = ".json, .jsonl or .form"
#: The path that means standard input, which holds JSON Lines.
STDIN = Path("-")


def read(paths: Iterable[Path]) -> list[Payload]:
    """Read every payload, in the order of *paths*; the files of a folder are sorted by name.

    Raises one :class:`SenderError` that names every bad file, a line for each.
    """
    faults: list[str] = []
    files = _gather(_files, paths, faults)
    payloads = _gather(_payloads, files, faults)
    if faults:
        raise SenderError("\n".join(faults))
    return payloads


def paced(items: Iterable[T], *, per_second: float | None) -> Iterator[T]:
    """Hand out *items*, at most *per_second* of them a second, or as fast as they are taken."""
    gap = 1 / per_second if per_second else 0.0
    due = time.monotonic()
    for item in items:
        time.sleep(max(0.0, due - time.monotonic()))
        due = time.monotonic() + gap
        yield item


def _gather(step: Callable[[S], list[T]], items: Iterable[S], faults: list[str]) -> list[T]:
    found: list[T] = []
    for item in items:
        try:
            found += step(item)
        except SenderError as fault:
            faults.append(str(fault))
    return found


def _files(path: Path) -> list[Path]:
    if path == STDIN or not path.is_dir():
        return [path]
    try:
        files = sorted(each for each in path.iterdir() if _is_payload_file(each))
    except OSError as error:
        raise _unreadable(path, error) from error
    if not files:
        raise SenderError(f"{path}: holds no {_KINDS} files: name a folder that does")
    return files


def _is_payload_file(path: Path) -> bool:
    hidden = path.name.startswith(".")
    return not hidden and path.suffix.lower() in SUFFIXES and path.is_file()


def _payloads(path: Path) -> list[Payload]:
    if path == STDIN:
        return _lines("stdin", sys.stdin.buffer.read())
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SenderError(f"{path}: not a {_KINDS} file: rename it, or leave it out")
    try:
        body = path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error
    if suffix == ".jsonl":
        return _lines(str(path), body)
    try:
        if suffix == ".form":
            # An editor's last newline would become part of the last value.
            return [parse_form(body.rstrip(b"\r\n"), source=str(path))]
        return [export.restored(parse_json(body, source=str(path)))]
    except PayloadError as fault:
        raise SenderError(f"{path}:{fault.line}: {fault}") from fault


def _lines(name: str, body: bytes) -> list[Payload]:
    payloads = []
    for number, line in enumerate(body.split(b"\n"), start=1):
        if line.strip():
            payloads.append(_line(line.removesuffix(b"\r"), source=f"{name}:{number}"))
    if not payloads:
        raise SenderError(f"{name}: holds no payloads: write one JSON object a line")
    return payloads


def _line(line: bytes, *, source: str) -> Payload:
    try:
        return export.restored(parse_json(line, source=source))
    except PayloadError as fault:
        raise SenderError(f"{source}: {fault}") from fault


def _unreadable(path: Path, error: OSError) -> SenderError:
    reason = (error.strerror or type(error).__name__).lower()
    return SenderError(f"{path}: cannot be read: {reason}")
