"""What in a config is allowed and probably a mistake? ``check`` shows it, with its line."""

from __future__ import annotations

import difflib
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, SecretStr

from relay.config.document import Document, Fault, Where, written
from relay.config.model import Config
from relay.config.store_urls import without_password
from relay.rules.payload import DIRECTIONS, EVENT_TYPES
from relay.rules.routing import When, compiled
from relay.rules.signature import stray_signs
from relay.rules.text import e164, folded

# What is no literal letter in a regular expression: classes, escapes, groups, repetitions.
_SYNTAX = re.compile(r"\\[pP]\{\^?\w+\}|\\x\{\w+\}|\\.|\[\^?\]?[^\]]*\]|\(\?P?<\w+>|\{[\d,]+\}")
_CASE_IS_MEANT = re.compile(r"\(\?[a-zA-Z]*-?[a-zA-Z]*i")


def warnings(config: Config, document: Document, *, now: datetime) -> Sequence[Fault]:
    """Return what is probably a mistake in *config*, which was read from *document*."""
    found = [
        *_of_secrets(config, document),
        *_of_ends(config, now=now),
        *_of_signatures(config),
        *_of_public_url(config),
        *_of_callers(config),
        *_of_routes(config),
        *_of_readers(config, document),
    ]
    return sorted(document.at(_shown(where, document), words) for where, words in found)


def _shown(where: Where, document: Document) -> Where:
    """Leave out the position in a list that the file writes as its one item."""
    is_position = bool(where) and isinstance(where[-1], int)
    return where[:-1] if is_position and where not in document.lines else where


def _of_secrets(config: Config, document: Document) -> Iterator[tuple[Where, str]]:
    for where, secret in _secrets(config, ()):
        steps = list(stray_signs(secret))
        if steps:
            _, stray = steps[-1]
            yield where, f"this secret includes the {stray} around it: remove what is not meant"


def _of_ends(config: Config, *, now: datetime) -> Iterator[tuple[Where, str]]:
    for number, endpoint in enumerate(config.endpoints):
        for position, key in enumerate(endpoint.signing_keys):
            where = ("endpoints", number, "signing_secrets", position)
            if not key.holds(now):
                yield where, f"not accepted since {key.not_after} (UTC) is over: remove it"
            elif key.ends_soon(now):
                yield where, f"accepted until {key.not_after} (UTC) only: does GoFax use another?"


def _of_signatures(config: Config) -> Iterator[tuple[Where, str]]:
    for number, endpoint in enumerate(config.endpoints):
        given = endpoint.signature
        for key in ("timestamp_header", "tolerance"):
            if getattr(given, key) is not None and given.signs != "timestamp.body":
                where = ("endpoints", number, "signature", key)
                yield where, f"{key} has no effect: only signs: timestamp.body signs a time"


def _of_public_url(config: Config) -> Iterator[tuple[Where, str]]:
    if (config.public_url or "").startswith("http:"):
        yield (
            ("public_url",),
            "GoFax calls https addresses only: put TLS in front, and write https",
        )


def _of_callers(config: Config) -> Iterator[tuple[Where, str]]:
    """Yield the endpoints that would take a proxy's address for everybody's."""
    is_behind = config.server.is_local or (config.public_url or "").startswith("https:")
    if config.server.trusted_proxies or config.tls is not None or not is_behind:
        return
    for number, endpoint in enumerate(config.endpoints):
        if endpoint.allow_from is not None:
            words = "every caller has the proxy's address here: set server.trusted_proxies"
            yield ("endpoints", number, "allow_from"), words


def _of_readers(config: Config, document: Document) -> Iterator[tuple[Where, str]]:
    """Yield the files with secrets that every user of the machine can read."""
    places = {where for where, _ in _secrets(config, ())}
    for where, file in document.references.items():
        if file is not None and where in places and _is_public(file):
            yield where, f"every user of this machine can read {file}: chmod 640 it"
    if config.tls is not None and config.tls.key.exists() and _is_public(config.tls.key):
        said = f"every user of this machine can read {config.tls.key}: chmod 640 it"
        yield ("tls", "key"), said
    if without_password(config.store) != config.store:
        places.add(("store",))
    own = sorted(written(each) for each in places - document.references.keys())
    if own and _is_public(document.path):
        more = f" and {len(own) - 1} more" if len(own) > 1 else ""
        yield (
            (),
            f"every user of this machine can read {document.path}, which holds secrets "
            f"({own[0]}{more}): chmod 640 it, or write ${{NAME}} or file: for them",
        )


def _is_public(file: Path) -> bool:
    return bool(file.stat().st_mode & stat.S_IROTH)


def _secrets(value: object, where: Where) -> Iterator[tuple[Where, str]]:
    """Yield every secret in *value*, with its place."""
    if isinstance(value, SecretStr):
        yield where, value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            # The connector's options stand beside our own keys.
            place = where if name == "options" else (*where, field.alias or name)
            yield from _secrets(getattr(value, name), place)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _secrets(inner, (*where, str(name)))
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from _secrets(inner, (*where, position))


def _of_routes(config: Config) -> Iterator[tuple[Where, str]]:
    ends = ""
    for position, route in enumerate(config.routes):
        at: Where = ("routes", position)
        if ends and not route.when.test:
            yield at, f"never asked: {ends} takes every event, and stops"
        yield from _of_conditions(route.when, (*at, "when"))
        if route.stop and route.when in (When(), When(test=False)):
            ends = route.name


def _of_conditions(when: When, at: Where) -> Iterator[tuple[Where, str]]:
    yield from _unknown(when.event, EVENT_TYPES, (*at, "event"), "event type")
    yield from _unknown(when.direction, DIRECTIONS, (*at, "direction"), "direction")
    for key, names in (("from", when.from_), ("to", when.to)):
        for position, name in enumerate(names or ()):
            if not e164(name):
                words = f'"{name}" is not a phone number: only a sender of that name matches'
                yield (*at, key, position), words
    for position, pattern in enumerate(when.body or ()):
        if example := _missed(pattern):
            mend = "(?i) before it ignores case, (?-i) says that it is meant"
            yield (*at, "body", position), f'misses "{example}": {mend}'
    for key, parts in (("any", when.any_ or ()), ("all", when.all_ or ())):
        for position, part in enumerate(parts):
            yield from _of_conditions(part, (*at, key, position))
    if when.not_:
        yield from _of_conditions(when.not_, (*at, "not"))


def _unknown(
    given: Sequence[str] | None, known: Sequence[str], at: Where, what: str
) -> Iterator[tuple[Where, str]]:
    names = {folded(each): each for each in known}
    for position, name in enumerate(given or ()):
        if folded(name) not in names:
            close = difflib.get_close_matches(folded(name), list(names), n=1)
            mend = f"; did you mean {names[close[0]]}?" if close else ""
            yield (*at, position), f'no {what} "{name}" is known{mend}'


def _missed(pattern: str) -> str | None:
    """Return a word of *pattern* in another case, in which it is not found."""
    if _CASE_IS_MEANT.search(pattern):
        return None
    words: list[str] = re.findall(r"[^\W\d_]{2,}", _SYNTAX.sub(" ", pattern))
    for word in words:
        for example in (word.upper(), word.lower(), word.title()):
            if example not in words and not compiled(pattern).search(example):
                return example
    return None
