"""An archive: every event as a line of JSON in the folder of its day, on disk before it counts.

The day is the day of receipt, in UTC. It is the same at every attempt, so a repetition looks in
one folder. Closed days can be rolled: their lines become one Parquet file.
"""

from __future__ import annotations

import importlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, date
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from connectors import plain
from connectors.archive.folder import Folder
from connectors.base import (
    Connector,
    Disclosure,
    Event,
    Options,
    Preview,
    Receipt,
    Refused,
    Unauthorized,
)
from connectors.http import Http
from connectors.templates import WHOLE

EXTRA = 'pip install "gofax-relay[archive]"'
#: Seconds that rolling a day waits for writers.
ROLL_PATIENCE = 60.0

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")

#: Texts are secrets, because keys and tokens stand here.
Setting = SecretStr | bool | int | Mapping[str, SecretStr | bool | int]


class ArchiveOptions(Options):
    """Options of the connector ``archive``."""

    url: str = Field(
        min_length=1,
        description="A folder, relative to the config file, or a URL for fsspec, such as "
        "`s3://bucket/sms`.",
    )
    storage: Mapping[str, Setting] = Field(
        default={}, description="Options of the file system, for fsspec; texts are secrets."
    )

    @field_validator("url")
    @classmethod
    def _beside_the_file(cls, url: str, info: ValidationInfo) -> str:
        if scheme := _SCHEME.match(url):
            _usable(scheme[0], url)
            return url
        folder: Path = (info.context or {}).get("folder", Path())
        return str((folder / url).absolute())

    @model_validator(mode="after")
    def _storage_of_a_store(self) -> ArchiveOptions:
        if self.storage and not self.is_remote:
            raise ValueError("storage: a folder has no such options; they belong to a URL")
        return self

    @property
    def is_remote(self) -> bool:
        return _SCHEME.match(self.url) is not None


class Place(Protocol):
    """A place for rows; see :class:`Folder`."""

    def add(
        self,
        day: date,
        key: str,
        row: bytes,
        *,
        repeat: bool,
        is_rolled: Callable[[bytes], bool],
        deadline: float,
    ) -> str: ...
    def alone(self, ends_at: float) -> AbstractContextManager[None]: ...
    def check(self) -> str: ...
    def days(self) -> list[date]: ...
    def lines(self, day: date) -> list[tuple[str, bytes]]: ...
    def rolled(self, day: date) -> bytes | None: ...
    def put_rolled(self, day: date, content: bytes) -> None: ...
    def remove(self, day: date, names: list[str]) -> None: ...
    def close(self) -> None: ...


class Archive(Connector[ArchiveOptions]):
    """Keeps each event as a row; see docs/archive.md."""

    Options = ArchiveOptions
    default_rate = None
    default_concurrency = 4
    looks_first = True

    def __init__(self, options: ArchiveOptions, *, http: Http) -> None:
        super().__init__(options, http=http)
        self._place: Place = _remote(options) if options.is_remote else Folder(Path(options.url))

    def deliver(
        self, event: Event, *, key: str, thread: str | None, repeat: bool, deadline: float
    ) -> Receipt:
        where = self._place.add(
            event.received_at.astimezone(UTC).date(),
            key,
            _row(event, key),
            repeat=repeat,
            is_rolled=lambda content: _parquet().has(content, key),
            deadline=deadline,
        )
        return Receipt(reference=where)

    @classmethod
    def discloses(cls, options: ArchiveOptions) -> Disclosure:
        # A URL may carry who signs in.
        scheme, found, rest = options.url.partition("://")
        to = f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}" if found else options.url
        return Disclosure(to=(to,), what=WHOLE)

    def preview(self, event: Event, *, key: str) -> list[Preview]:
        return [Preview(kind="row", content=_row(event, key).decode())]

    def check(self) -> str:
        return self._place.check()

    def close(self) -> None:
        self._place.close()

    def roll(self, *, before: date) -> Iterator[str]:
        """Make one Parquet file of each day *before* that has lines, and say so day by day.

        Raises :class:`DeliveryError`. A day that cannot be read, or does not come out whole, stays
        as it is.
        """
        for day in self._place.days():
            if day < before:
                with self._place.alone(time.monotonic() + ROLL_PATIENCE):
                    yield self._roll(day)

    def _roll(self, day: date) -> str:
        parquet = _parquet()
        parts = self._place.lines(day)
        earlier = self._place.rolled(day)
        rows = {row["key"]: row for row in parquet.read(earlier)} if earlier else {}
        for name, content in parts:
            for row in _rows(content, f"{day} {name}"):
                rows.setdefault(row["key"], row)
        self._place.put_rolled(day, parquet.write(rows.values()))
        kept = parquet.keys(self._place.rolled(day) or b"")
        if sorted(kept) != sorted(rows):
            raise Refused(f"{day}: wrote {len(rows)} rows and read {len(kept)} back")
        self._place.remove(day, [name for name, _ in parts])
        return f"{day}: rows {len(rows):,}, from {len(parts):,} files, as Parquet"


def _row(event: Event, key: str) -> bytes:
    return plain.encode({"key": key, **plain.values(event)})


def _rows(content: bytes, name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            if not isinstance(row["key"], str):
                raise TypeError
        except (ValueError, TypeError, KeyError) as error:
            raise Refused(f"{name}, line {number}: no row of ours; mend or remove it") from error
        yield row


def _usable(scheme: str, url: str) -> None:
    """Raise ValueError, with advice, if fsspec cannot reach *url*."""
    if find_spec("fsspec") is None:
        raise ValueError(f"{scheme}: needs fsspec: {EXTRA}")
    if "@" in urlsplit(url).netloc:
        raise ValueError("must not contain a user name; write it under storage")
    try:
        importlib.import_module("fsspec").get_filesystem_class(scheme)
    except ValueError as error:
        raise ValueError(f"{scheme}: no file system that fsspec knows") from error
    except ImportError as error:
        raise ValueError(f"{scheme}: {error}") from error


def _remote(options: ArchiveOptions) -> Place:
    module = importlib.import_module("connectors.archive.objects")
    place: Place = module.Objects(
        options.url, storage=_revealed(options.storage), threads=Archive.default_concurrency
    )
    return place


def _parquet() -> ModuleType:
    if find_spec("pyarrow") is None:
        raise Unauthorized(f"Parquet files need pyarrow: {EXTRA}")
    return importlib.import_module("connectors.archive.parquet")


def _revealed(setting: Any) -> Any:
    if isinstance(setting, Mapping):
        return {name: _revealed(value) for name, value in setting.items()}
    return setting.get_secret_value() if isinstance(setting, SecretStr) else setting
