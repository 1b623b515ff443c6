"""Does a text speak of a customer? Numbers are found however people and formats write them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from urllib.parse import parse_qsl, unquote_plus

import re2

from relay.rules import text
from relay.rules.payload import clean

#: Characters of a text that is looked for; a shorter one, such as "ok", may be anybody's.
SHORTEST_TEXT = 8

#: Characters of the name or short number that a customer may be known by.
SHORTEST_NAME = 3

#: Matches nothing.
NOTHING = r"[^\x00-\x{10FFFF}]"
_BETWEEN = r"[\s().\-/\p{Pd}]*"
# A string of JSON, which the end of a body that was cut may end as well.
_JSON_STRING = re2.compile(r'"((?:[^"\\]|\\.)*)("?)')
_CUT_ESCAPE = re2.compile(r"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?(?:\\(?:u[0-9a-fA-F]{0,3})?)?$")
_JSON_ESCAPE = re2.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\/")


class Mentions:
    """Finds the customer *number*, and whole *texts* that this customer wrote or got."""

    def __init__(self, number: str, texts: Collection[str] = ()) -> None:
        self._number = re2.compile(_pattern(number))
        self._texts = frozenset(each for each in texts if len(each) >= SHORTEST_TEXT)

    def in_text(self, written: str) -> bool:
        """Return whether people who wrote this meant the customer, or quote one of the texts."""
        return self._has_number(written) or any(each in written for each in self._texts)

    def in_body(self, raw: bytes) -> bool:
        """Return whether a JSON or form body, which may be cut, has the number or a text."""
        return any(map(self._in_decoded, _decoded(raw)))

    def _in_decoded(self, body: str) -> bool:
        if any(map(self._has_number, (body, _unescaped(body), unquote_plus(body)))):
            return True
        fields = {value for _, value in parse_qsl(body)}
        for value, is_whole in _json_strings(body):
            if not is_whole and self._begins_text(value):
                return True
            fields.add(value)
        return not self._texts.isdisjoint(fields)

    def _begins_text(self, cut: str) -> bool:
        return len(cut) >= SHORTEST_TEXT and any(each.startswith(cut) for each in self._texts)

    def _has_number(self, written: str) -> bool:
        return bool(self._number.search(text.plain(written)))


class Ending:
    """Finds numbers that end as *ending*, and names that are it; see :func:`text.ending`."""

    def __init__(self, ending: str) -> None:
        name = rf"(?i)(?:^|\W){re2.escape(ending)}(?:$|\W)"
        parts = text.phones().parts("+" + ending[::-1], possible=True)
        national = parts[1] if parts else ending[::-1]
        digits = rf"{_spaced(national)}(?:$|[^0-9])"
        self._pattern = re2.compile(digits if ending.isdigit() else name)

    def in_body(self, raw: bytes) -> bool:
        """Return whether a JSON or form body, which may be cut, has such a number or name."""
        return any(
            self._pattern.search(text.plain(form))
            for body in _decoded(raw)
            for form in (body, _unescaped(body), unquote_plus(body))
        )


def texts_in(raw: bytes) -> Iterator[str]:
    """Yield what a JSON or form body, which may be cut, says: read as either."""
    for body in _decoded(raw):
        yield "\n".join(value for value, _ in _json_strings(body))
        yield unquote_plus(body)


def _pattern(number: str) -> str:
    """Return what finds *number*: with and without country code, and anything between digits."""
    parts = text.phones().parts(number, possible=False)
    if parts is None:
        name = re2.escape(text.plain(number))
        return rf"(?i)(?:^|\W){name}(?:$|\W)" if len(number) >= SHORTEST_NAME else NOTHING
    country, digits = map(_spaced, parts)
    international = rf"(?:\+|0011|00)?{_BETWEEN}{country}{_BETWEEN}0?{_BETWEEN}"
    return rf"(?:^|[^0-9])(?:{international}|0{_BETWEEN})?{digits}(?:$|[^0-9])"


def _spaced(digits: str) -> str:
    return _BETWEEN.join(digits)


def _decoded(raw: bytes) -> Iterator[str]:
    body = raw.decode(errors="replace")
    yield body
    if "\ufffd" in body:
        yield raw.decode("cp1252", "replace")


def _unescaped(body: str) -> str:
    """Return *body* without the escapes of JSON; what is no JSON stays as it is."""
    if "\\" not in body:
        return body
    decoded: str = _JSON_ESCAPE.sub(lambda found: _string(found[0]), body)
    return decoded


def _json_strings(body: str) -> Iterator[tuple[str, bool]]:
    """Yield the strings of a JSON text, and whether each of them is whole."""
    for found in _JSON_STRING.finditer(body):
        is_whole = bool(found[2])
        yield _string(found[1] if is_whole else _CUT_ESCAPE.sub("", found[1])), is_whole


def _string(escaped: str) -> str:
    """Return the JSON string between two quotes; itself if it is none."""
    try:
        decoded: str = json.loads(f'"{escaped}"', strict=False)
    except ValueError:
        return escaped
    return clean(decoded)
