"""What a check found wrong: each cause once, the places where it showed, and what mends it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TypeVar

import pytest

from connectors.base import DeliveryError

#: What mends a connector that a check fails for, by the id of the check.
MENDS = {
    "C01": "derive the options from Options, describe each, and make secrets SecretStr",
    "C02": "ask for something that changes nothing, and use error_for with safe=True",
    "C03": "hand the key over, or look for an earlier attempt's work if repeat",
    "C04": "check that the answer holds what a success has to hold",
    "C05": "use error_for; declare verdicts where the system means something else",
    "C06": "use error_for with headers=response.headers",
    "C07": "go out through http.session(), and use error_for",
    "C08": "go out through http.session()",
    "C09": "use spoken(event), which says why there is no text; raise Refused for what cannot be",
    "C10": "keep what belongs to a call inside the call; let close() be called twice",
    "C11": "wrap the whole call in http.within(deadline)",
    "C12": "make the option a Template and use render, or raise Refused with option and event.id",
    "C13": "go out in deliver() and check(), not in __init__",
    "C14": "quote the system's codes, not its words; no text or secret in errors and logs",
    "C15": "declare default_rate: what the system takes, such as 100/10s, or None for no limit",
    "C16": "give the README sections on set-up, options, behaviour and limits; name every option",
    "C17": "make first what can be found again by the key, and look for it if repeat",
    "C18": "let deliver() and preview() use one function that makes what is sent; ask nobody",
}
#: What mends a connector that raises what nobody expects.
CRASH = "correct that line, or raise an error of the contract there"
#: Most places that are named for one cause.
NAMED = 3
#: Where the kit, the contract and the client live: no place of a connector's own fault.
KIT = Path(__file__).parents[1]

SuiteT = TypeVar("SuiteT")


class Findings:
    """Collects what is wrong, so that one run names all of it and repeats none."""

    def __init__(self) -> None:
        self._found: dict[str, list[str]] = {}

    def expect(self, held: object, cause: str, *, at: str = "") -> None:
        """Note *cause*, and *at* which place it showed, unless *held* is true."""
        if not held:
            places = self._found.setdefault(cause, [])
            if at and at not in places:
                places.append(at)

    def judge(self, held: object, outcome: object, *, wanted: str, at: str, by: str = "") -> None:
        """Note that *outcome*, *by* whatever call, is not what was *wanted*, unless *held*."""
        said = f": {outcome}" if isinstance(outcome, DeliveryError) else ""
        self.expect(held, f"{by} {kind_of(outcome)}, wanted {wanted}".lstrip(), at=f"{at}{said}")

    def report(self) -> None:
        """Fail if anything was noted."""
        if self._found:
            pytest.fail("\n".join(map(_told, self._found.items())), pytrace=False)


def check(test: Callable[[SuiteT], None]) -> Callable[[SuiteT], None]:
    """Let a check that fails say what mends the connector."""

    @wraps(test)
    def checked(suite: SuiteT) -> None:
        try:
            test(suite)
        except pytest.fail.Exception as failure:
            pytest.fail(f"{failure}\nmend: {MENDS[test.__name__[5:8]]}", pytrace=False)
        except Exception as error:
            error.add_note(f"mend: {CRASH}")
            raise

    return checked


def kind_of(outcome: object) -> str:
    """Say what kind of thing an attempt came to; a foreign error with the line that raised it."""
    if isinstance(outcome, DeliveryError):
        return f"raised {type(outcome).__name__}"
    if isinstance(outcome, BaseException):
        return f"raised {type(outcome).__name__}({outcome}){place_of(outcome)}"
    return f"returned {type(outcome).__name__}"


def place_of(error: BaseException) -> str:
    """Name the last line of the connector that *error* went through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [each for each in frames if KIT not in Path(each.filename).parents]
    if not frames:
        return ""
    last = (own or frames)[-1]
    return f" in {Path(last.filename).name}:{last.lineno}"


def _told(found: tuple[str, list[str]]) -> str:
    cause, places = found
    more = len(places) - NAMED
    named = [f"  {each}" for each in places[:NAMED]] + ([f"  and {more} more"] if more > 0 else [])
    return "\n".join([cause, *named])
