"""Which events or requests a person asks for, as a form says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlencode

from flask import request

from relay.api.services import services
from relay.console.wording import STATES
from relay.rules import payload, text, units
from relay.rules.delivery import State
from relay.rules.text import FEWEST_DIGITS
from relay.rules.wording import Wording
from relay.store.search import Filter

T = TypeVar("T", bound=str)

#: Fields of the forms; of one listing not all are used.
FIELDS = (
    "customer", "text", "message_id", "type", "endpoint", "standing", "destination", "state",
    "since", "until", "tests",
)  # fmt: skip
#: The longest that any field may be.
LONGEST = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a form asks for."""

    #: What was typed, field by field.
    given: Mapping[str, str]
    which: Filter
    #: What is wrong, by field; then *which* asks for nothing.
    faults: Mapping[str, str]

    @property
    def hides_tests(self) -> bool:
        return self.given.get("tests") == "hide"

    def url(self, path: str) -> str:
        """Return the address of *path* that asks for the same."""
        if not self.given:
            return path
        return f"{path}{'&' if '?' in path else '?'}{urlencode(self.given)}"

    @property
    def is_any(self) -> bool:
        """Return whether everything is asked for."""
        return not self.given


def read(standings: Sequence[str]) -> Asked:
    """Read the fields of the address; *standings*: what may be asked for."""
    given = {name: request.args.get(name, "").strip() for name in FIELDS}
    given = {name: value for name, value in given.items() if value}
    faults: dict[str, str] = {
        name: f"at most {LONGEST} characters"
        for name, value in given.items()
        if len(value) > LONGEST
    }
    kept = {name: value for name, value in given.items() if name not in faults}
    since, until = (_moment(kept, name, faults) for name in ("since", "until"))
    if since and until and since >= until:
        faults["until"] = "this is not after since: nothing is between them"
    which = Filter(
        ending=_ending(kept, faults),
        wording=_wording(kept, faults),
        message_id=kept.get("message_id"),
        type=kept.get("type"),
        endpoint=kept.get("endpoint"),
        destinations=tuple(filter(None, [kept.get("destination")])),
        states=_one_of(kept, "state", [State(each) for each in State], faults),
        standings=_one_of(kept, "standing", standings, faults),
        since=since,
        until=until,
    )
    return Asked(given=given, which=Filter() if faults else which, faults=faults)


def _one_of(
    given: Mapping[str, str], name: str, known: Sequence[T], faults: dict[str, str]
) -> tuple[T, ...]:
    value = given.get(name)
    if value is None:
        return ()
    found = [each for each in known if each == value]
    if not found:
        faults[name] = f"one of {', '.join(known)}"
    return tuple(found)


def _ending(given: Mapping[str, str], faults: dict[str, str]) -> str | None:
    value = given.get("customer")
    if value is None:
        return None
    ending = text.ending(value)
    if not ending:
        faults["customer"] = "a number, its last digits, or a name"
    elif ending.isdigit() and len(ending) < FEWEST_DIGITS:
        faults["customer"] = f"too many numbers end so: {FEWEST_DIGITS} digits or more"
    return ending


def _wording(given: Mapping[str, str], faults: dict[str, str]) -> Wording | None:
    value = given.get("text")
    wording = Wording.of(value) if value else None
    if value and wording is None:
        faults["text"] = "a word or a number: signs alone cannot be searched for"
    return wording


def _moment(given: Mapping[str, str], name: str, faults: dict[str, str]) -> datetime | None:
    value = given.get(name)
    if value is None:
        return None
    if (read := payload.moment(value, zone=services().config.zone)) is not None:
        return read
    try:
        return services().now() - units.duration(value)
    except (ValueError, OverflowError):
        faults[name] = "2h or 3d (ago), 2026-11-24, or 2026-11-24T09:00"
        return None


def choices() -> Mapping[str, Sequence[tuple[str, str]]]:
    """Return what the forms offer, as values and words."""
    config = services().config
    return {
        "endpoints": [(each.name, each.name) for each in config.endpoints],
        "destinations": [(name, name) for name in config.destinations],
        "states": [(state.value, said) for state, said in STATES.items()],
    }
