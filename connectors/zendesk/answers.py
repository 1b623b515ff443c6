"""Zendesk's answers, checked before they are used: zenpy returns whatever was sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests
from zenpy.lib.api_objects import User
from zenpy.lib.exception import APIException, ZenpyException
from zenpy.lib.generator import BaseResultGenerator

from connectors.base import Ambiguous, DeliveryError


class Unread(Ambiguous):
    """A 2xx whose body is no answer of Zendesk: it has acted, or a proxy has answered for it."""


def expect(found: object, kind: type) -> Any:
    """Return *found* if it is a *kind* that has an id. Raises ValueError."""
    number = getattr(found, "id", "")
    anonymous = kind is User and number is None
    if not isinstance(found, kind) or not (anonymous or type(number) is int):
        raise ValueError(f"no {kind.__name__}")
    return found


def expect_all(found: object, kind: type) -> Iterator[Any]:
    """Yield every *kind* of a list, page after page. Raises ValueError."""
    if not isinstance(found, BaseResultGenerator):
        raise ValueError("no list")
    yield from (expect(each, kind) for each in found)


@contextmanager
def decoding(doubt: type[DeliveryError]) -> Iterator[None]:
    """Raise *doubt* for a 2xx that is no answer of Zendesk, which zenpy fails on in many ways."""
    try:
        yield
    except (
        APIException,
        ZenpyException,
        requests.RequestException,
        ArithmeticError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise doubt(f"not an answer of Zendesk ({type(error).__name__})") from error
