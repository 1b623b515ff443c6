"""The contract: what a receipt or an error cannot hold is found where it is made."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from enum import IntEnum, StrEnum
from http import HTTPStatus
from typing import Any

import pytest

from connectors.base import (
    Ambiguous,
    ContractError,
    DeliveryError,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
    checked_error,
    checked_receipt,
)

EVERY_KIND: list[Any] = [Transient, Throttled, Ambiguous, Refused, Unauthorized]


class Id(IntEnum):
    SEVEN = 7


class Name(StrEnum):
    SEVEN = "7"


@pytest.mark.parametrize("value", [7, "7", Id.SEVEN, Name.SEVEN])
def test_ids_become_texts(value: Any) -> None:
    receipt = Receipt(reference=value, url=value, thread=value)

    texts = [receipt.reference, receipt.url, receipt.thread]
    assert texts == ["7"] * 3
    assert {type(each) for each in texts} == {str}


@pytest.mark.parametrize("field", ["reference", "url", "thread"])
@pytest.mark.parametrize("value", [True, 7.0, b"7", ["7"], {"id": 7}, object()])
def test_a_receipt_takes_nothing_else(field: str, value: Any) -> None:
    kind = type(value).__name__

    with pytest.raises(ContractError, match=f"Receipt.{field} takes text or a number, not {kind}"):
        Receipt(**{"reference": "7", field: value})


def test_a_receipt_needs_a_reference() -> None:
    with pytest.raises(ContractError, match="not NoneType"):
        Receipt(reference=None)  # type: ignore[arg-type]  # the fault

    assert Receipt(reference="").thread is None


@pytest.mark.parametrize("kind", EVERY_KIND)
@pytest.mark.parametrize(
    ("given", "wait"),
    [
        (None, None),
        (timedelta(seconds=1), timedelta(seconds=1)),
        (1, timedelta(seconds=1)),
        (0.5, timedelta(seconds=0.5)),
        (-1, timedelta(seconds=-1)),  # a date that has passed; the relay has its own shortest wait
        (10**30, timedelta.max),
        (float("inf"), timedelta.max),
        (float("-inf"), timedelta.min),
    ],
)
def test_a_wait_is_seconds_or_a_timedelta(
    kind: Callable[..., DeliveryError], given: Any, wait: timedelta | None
) -> None:
    assert kind("why", retry_after=given).retry_after == wait


@pytest.mark.parametrize("value", ["1", "1s", True, float("nan"), [1]])
def test_a_wait_is_nothing_else(value: Any) -> None:
    with pytest.raises(ContractError, match="retry_after takes seconds or a timedelta, not "):
        Throttled("why", retry_after=value)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_a_status_is_a_number_of_three_digits(kind: Callable[..., DeliveryError]) -> None:
    assert [kind("why", status=each).status for each in (None, 100, HTTPStatus.OK, 999)] == [
        None, 100, 200, 999,
    ]  # fmt: skip
    for value in (0, 99, 1000, -1, 2**70, True, "503", 503.0):
        with pytest.raises(ContractError, match="status takes a number of three digits"):
            kind("why", status=value)


@pytest.mark.parametrize("value", ["everything", None, 1, []])
def test_a_scope_is_one_of_two(value: Any) -> None:
    with pytest.raises(ContractError, match='scope takes "conversation" or "destination"'):
        Throttled("why", scope=value)


@pytest.mark.parametrize("value", [None, "7", {"reference": "7"}, Receipt])
def test_what_is_returned_is_a_receipt(value: Any) -> None:
    with pytest.raises(ContractError, match=r"deliver\(\) returned \w+, not a Receipt"):
        checked_receipt(value)


class Own(Throttled):
    """Of an author who forgot what the contract does."""

    def __init__(self) -> None:
        Exception.__init__(self, "slow down")


def test_an_error_of_ones_own_has_what_the_contract_says() -> None:
    error = checked_error(Own())

    assert isinstance(error, Own)
    assert (error.status, error.retry_after, error.acted) == (None, None, False)
    assert error.scope == "destination"


@pytest.mark.parametrize(
    ("field", "value", "kept"), [("retry_after", 5, timedelta(seconds=5)), ("status", 503, 503)]
)
def test_what_is_set_afterwards_is_read_in_the_same_way(
    field: str, value: Any, kept: object
) -> None:
    error = Transient("why")
    setattr(error, field, value)
    assert getattr(checked_error(error), field) == kept

    setattr(error, field, "soon")
    with pytest.raises(ContractError, match=field):
        checked_error(error)
