"""What a config says in the end, with every default and without secrets; and its short version."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic_core import to_jsonable_python

from connectors.base import Options
from relay.config.model import Config

#: Characters of a version: enough to tell the configs of one relay apart.
LENGTH = 12


def effective(config: Config) -> Mapping[str, Any]:
    """Return every value that *config* has, as JSON; secrets are asterisks."""
    values: dict[str, Any] = to_jsonable_python(config, by_alias=True, fallback=str)
    values["store"] = config.store_name
    for name, each in config.destinations.items():
        options = to_jsonable_python(each.options, by_alias=True, fallback=str)
        values["destinations"][name] |= options
    return values


def version_of(config: Config) -> str:
    """Return a short digest of what *config* says; changed secrets do not change it."""
    said = json.dumps(effective(config), sort_keys=True).encode()
    return hashlib.sha256(said).hexdigest()[:LENGTH]


def version_if_complete(config: Config) -> str | None:
    """Return the version; None: destinations were read without the secrets that they need."""
    if any(type(each.options) is Options for each in config.destinations.values()):
        return None
    return version_of(config)


def differences(before: Any, after: Any, where: str = "") -> Iterator[str]:
    """Yield a line for each value that differs between two effective configs."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in [*before, *(key for key in after if key not in before)]:
            inner = f"{where}.{key}" if where else str(key)
            yield from differences(before.get(key), after.get(key), inner)
    elif _are_lists(before, after) and len(before) == len(after):
        for index, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{where}[{index}]")
    elif before != after:
        yield f"{where}: {_said(before)} → {_said(after)}"


def _are_lists(*values: object) -> bool:
    return all(isinstance(value, Sequence) and not isinstance(value, str) for value in values)


def _said(value: object) -> str:
    return "not there" if value is None else json.dumps(value, ensure_ascii=False)
