"""Which destinations does an event go to, and why?"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeVar, get_args

import re2
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from connectors.base import Event
from relay.rules.hours import Hours, is_open
from relay.rules.payload import UNREADABLE, number
from relay.rules.sentiment import Sentiment
from relay.rules.text import Keyword, folded, keyword_of, plain, plain_pattern

T = TypeVar("T")

#: A beginning in which every character stands for itself.
_LITERAL = re.compile(r"\^([A-Za-z0-9 _-]*)")

_RE2 = re2.Options()
_RE2.log_errors = False


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


def _pattern(pattern: str) -> str:
    try:
        compiled(pattern)
    except re2.error as error:
        words = error.args[0].decode()
        raise ValueError(f"not a regular expression of RE2: {words}") from error
    return pattern


@functools.lru_cache(maxsize=1024)
def compiled(pattern: str) -> Any:
    """Compile a ``body:`` pattern, which is to be searched in plain text."""
    # RE2 runs in time linear in the text. A customer's text could keep Python's own engine busy
    # for years while the receiver waits. Its own cache takes 30 µs to find what is compiled.
    return re2.compile(plain_pattern(pattern), _RE2)


def finds(pattern: str, text: str) -> bool:
    """Return whether *pattern* is found in *text*, which is plain."""
    # To call RE2 takes longer than most texts take it.
    return text.startswith(_beginning(pattern)) and compiled(pattern).search(text) is not None


@functools.lru_cache(maxsize=1024)
def _beginning(pattern: str) -> str:
    """Return with what every text begins in which *pattern* is found."""
    written = plain_pattern(pattern)
    found = _LITERAL.match(written)
    if found is None or "|" in written:
        return ""
    may_lack_last = written[found.end() :].startswith(("?", "*", "{"))
    return found[1][:-1] if may_lack_last else found[1]


def _visible(name: str) -> str:
    if not folded(name):
        raise ValueError("empty: nothing in it can be seen")
    return name


def _event_type(name: str) -> str:
    if folded(name) == folded(UNREADABLE):
        raise ValueError("an event that cannot be read matches no route")
    return name


def _keyword(name: str) -> str:
    word = folded(name).upper()
    if word in get_args(Keyword):
        return word
    meant = keyword_of(name)
    mend = f"; {name} counts as {meant}" if meant else ""
    raise ValueError(f"the keywords are {', '.join(get_args(Keyword))}{mend}")


#: A value, or a list of values of which any matches.
OneOrMore = Annotated[tuple[T, ...] | None, BeforeValidator(_listed)]
# YAML reads an unquoted phone number or account id as an integer.
Word = Annotated[
    str, BeforeValidator(lambda v: str(v) if type(v) is int else v), AfterValidator(_visible)
]
EventType = Annotated[Word, AfterValidator(_event_type)]
KeywordName = Annotated[Word, AfterValidator(_keyword)]
Number = Annotated[Word, AfterValidator(lambda text: number(text) or text)]
Pattern = Annotated[str, AfterValidator(_pattern)]


def _finds_nothing(patterns: Sequence[str]) -> bool:
    """Return whether one of *patterns* is found in an empty text."""
    return any(compiled(each).search("") for each in patterns)


_METADATA = "metadata."
#: Conditions on a word, and the attribute of an event that they look at.
_ATTRIBUTES = {
    "event": "type",
    "direction": "direction",
    "from_": "sender",
    "to": "recipient",
    "account": "account_id",
    "endpoint": "endpoint",
    "keyword": "keyword",
    "sentiment": "sentiment",
}
#: Conditions that compare exactly: what they compare are identifiers.
_EXACT = ("account", "endpoint")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One condition, the value it saw, and whether it held."""

    condition: str
    wanted: str
    saw: str | None
    held: bool


class _Words:
    """A condition that wants one of some words; made ready once, because every event meets it."""

    def __init__(
        self, condition: str, words: Sequence[str], *, attribute: str = "", exactly: bool = False
    ) -> None:
        self.attribute = attribute
        self._condition = condition
        self._wanted = " or ".join(words)
        self._exactly = exactly
        self._accepted = frozenset(words if exactly else map(folded, words))

    def check(self, saw: str | None) -> Check:
        held = saw is not None and (saw if self._exactly else folded(saw)) in self._accepted
        return Check(condition=self._condition, wanted=self._wanted, saw=saw, held=held)


class When(BaseModel):
    """Conditions on an event: all given ones must hold; a list matches if any item does."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=False)

    event: OneOrMore[Annotated[Word, AfterValidator(_event_type)]] = Field(
        None, description="Event type, such as SMS_REPLY"
    )
    direction: OneOrMore[Word] = Field(None, description="Direction, such as reply")
    from_: OneOrMore[Number] = Field(None, alias="from", description="Number that wrote")
    to: OneOrMore[Number] = Field(None, description="Number that was written to")
    account: OneOrMore[Word] = Field(None, description="metadata.accountId")
    endpoint: OneOrMore[Word] = Field(None, description="Name of the endpoint that took it")
    metadata: Mapping[str, OneOrMore[Word]] | None = Field(
        None, description="Values of metadata, written as metadata.KEY"
    )
    body: OneOrMore[Pattern] = Field(None, description="Regular expression found in the text")
    keyword: OneOrMore[Annotated[Word, AfterValidator(_keyword)]] = Field(
        None, description="STOP, START or HELP"
    )
    sentiment: OneOrMore[Sentiment] = Field(None, description="How the text sounds")
    has_body: bool | None = Field(None, description="Whether the text was sent along")
    hours: Literal["open", "closed"] | None = Field(
        None, description="Whether it was received within business_hours"
    )
    test: bool | None = Field(
        None, description="Whether somebody tries the relay; tests match no other route"
    )
    any_: tuple[When, ...] | None = Field(None, alias="any", description="One of these holds")
    all_: tuple[When, ...] | None = Field(None, alias="all", description="Each of these holds")
    not_: When | None = Field(None, alias="not", description="This does not hold")

    @model_validator(mode="before")
    @classmethod
    def _gathered(cls, given: Any) -> Any:
        """Put what is written as ``metadata.KEY`` under one key."""
        if not isinstance(given, dict):
            return given
        named = {key: value for key, value in given.items() if str(key).startswith(_METADATA)}
        if not named:
            return given
        for key, value in named.items():
            if key == _METADATA or value in (None, [], ()):
                raise ValueError(f"{key}: empty: give a key and a value")
        rest = {key: value for key, value in given.items() if key not in named}
        return rest | {"metadata": {k.removeprefix(_METADATA): v for k, v in named.items()}}

    @field_validator("*", mode="before")
    @classmethod
    def _says_something(cls, value: object) -> object:
        if value in (None, [], (), {}):
            raise ValueError("empty: give a value, or leave the condition out")
        return value

    @model_validator(mode="after")
    def _can_hold(self) -> When:
        if self.has_body is False and (self.keyword or self.sentiment):
            raise ValueError("never holds: an event without a text has no keyword or sentiment")
        if self.has_body is False and self.body and not _finds_nothing(self.body):
            raise ValueError("never holds: an event without a text has none to search")
        if self.keyword and self.sentiment:
            raise ValueError("never holds: a keyword has no sentiment")
        return self

    @functools.cached_property
    def words(self) -> Sequence[_Words]:
        """The conditions on words that an event has as attributes."""
        given = {name: getattr(self, name) for name in _ATTRIBUTES}
        return tuple(
            _Words(
                name.removesuffix("_"), words, attribute=_ATTRIBUTES[name], exactly=name in _EXACT
            )
            for name, words in given.items()
            if words is not None
        )

    @functools.cached_property
    def words_of_metadata(self) -> Sequence[tuple[str, _Words]]:
        """The conditions on metadata, by its keys."""
        return tuple(
            (name, _Words(f"{_METADATA}{name}", words or ()))
            for name, words in (self.metadata or {}).items()
        )


class Route(BaseModel):
    """A rule: events that meet these conditions go to these destinations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="What people call this rule")
    when: When = Field(When(), description="Conditions; none: every event")
    to: tuple[str, ...] = Field(min_length=1, description="Names of destinations")
    stop: bool = Field(False, description="Look at no further routes if this one matches")


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteCheck:
    """One route, and whether an event met its conditions."""

    route: str
    matched: bool
    to: tuple[str, ...]
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """Where an event goes, and how each route that was asked decided."""

    destinations: tuple[str, ...]
    routes: tuple[RouteCheck, ...]


def match(event: Event, routes: Sequence[Route], *, hours: Hours | None = None) -> Match:
    """Ask the routes in order; each one that matches adds its destinations.

    A test matches only routes with ``test: true``. *hours*: when the business is open, for routes
    that ask.
    """
    if event.type == UNREADABLE:
        return Match(destinations=(), routes=())
    body = event.body and plain(event.body)
    # Most texts are plain already.
    plainly = event if body == event.body else replace(event, body=body)
    seen = _Seen(event=plainly, hours=hours)
    checked: list[RouteCheck] = []
    for route in routes:
        checks = (*_of_tests(event, route.when), *_checks(seen, route.when))
        matched = all(each.held for each in checks)
        checked.append(RouteCheck(route=route.name, matched=matched, to=route.to, checks=checks))
        if matched and route.stop:
            break
    chosen = [name for each in checked if each.matched for name in each.to]
    return Match(destinations=tuple(dict.fromkeys(chosen)), routes=tuple(checked))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Seen:
    """What conditions see."""

    #: Its text is plain.
    event: Event
    hours: Hours | None

    @property
    def is_open(self) -> bool:
        """Whether the business was open when the event was received.

        Not when it happened: that is by the sender's clock, legacy events do not say it, and who
        sits at the desk now does not depend on it.
        """
        return self.hours is not None and is_open(self.event.received_at, self.hours)


def _of_tests(event: Event, when: When) -> Iterator[Check]:
    """Check that a test goes where tests are wanted, and nothing else does."""
    if event.test or when.test is not None:
        wanted = when.test is True
        yield Check(
            condition="test",
            wanted=str(wanted).lower(),
            saw=str(event.test).lower(),
            held=event.test is wanted,
        )


def _checks(seen: _Seen, when: When) -> Iterator[Check]:
    """Check an event against every condition of *when*."""
    event = seen.event
    for words in when.words:
        yield words.check(getattr(event, words.attribute))
    for name, words in when.words_of_metadata:
        yield words.check(_scalar(event.metadata.get(name)))
    if when.body is not None:
        yield Check(
            condition="body",
            wanted=" or ".join(when.body),
            # More people see reasons than texts.
            saw=None if event.body is None else "the text",
            held=any(finds(each, event.body or "") for each in when.body),
        )
    if when.has_body is not None:
        has_body = event.body is not None
        yield Check(
            condition="has_body",
            wanted=str(when.has_body).lower(),
            saw=str(has_body).lower(),
            held=has_body is when.has_body,
        )
    if when.hours is not None:
        now = "open" if seen.is_open else "closed"
        yield Check(condition="hours", wanted=when.hours, saw=now, held=now == when.hours)
    yield from _combined(seen, when)


def _scalar(value: Any) -> str | None:
    """Return a value of metadata as the file would write it; None: it is absent, or no word."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int | float) else None


def describe(routes: Sequence[RouteCheck]) -> list[dict[str, Any]]:
    """Return *routes* as plain values for the store."""
    return [
        {
            "route": each.route,
            "matched": each.matched,
            "to": list(each.to),
            "checks": [
                {"condition": c.condition, "wanted": c.wanted, "saw": c.saw, "held": c.held}
                for c in each.checks
            ],
        }
        for each in routes
    ]


def _combined(seen: _Seen, when: When) -> Iterator[Check]:
    if when.any_ is not None:
        yield _group("any", seen, when.any_, held=any(_holds(seen, w) for w in when.any_))
    if when.all_ is not None:
        yield _group("all", seen, when.all_, held=all(_holds(seen, w) for w in when.all_))
    if when.not_ is not None:
        yield _group("not", seen, (when.not_,), held=not _holds(seen, when.not_))


def _holds(seen: _Seen, when: When) -> bool:
    return all(each.held for each in _checks(seen, when))


def _group(condition: str, seen: _Seen, parts: Sequence[When], *, held: bool) -> Check:
    return Check(
        condition=condition,
        wanted=" | ".join(_phrase(part) for part in parts),
        saw="; ".join(f"{c.condition}={c.saw}" for part in parts for c in _checks(seen, part)),
        held=held,
    )


def _phrase(when: When) -> str:
    given = {name: getattr(when, name) for name in When.model_fields if name != "metadata"}
    given |= {f"{_METADATA}{name}": value for name, value in (when.metadata or {}).items()}
    return ", ".join(
        f"{name.removesuffix('_')}: {_written(value)}"
        for name, value in given.items()
        if value is not None
    )


def _written(value: object) -> str:
    if isinstance(value, When):
        return f"({_phrase(value)})"
    if isinstance(value, tuple):
        return " or ".join(_written(each) for each in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
