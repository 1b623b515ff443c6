"""What the parts of the YAML file have in common."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated

from annotated_types import Gt
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, SecretStr

from relay.rules import addresses
from relay.rules.units import Duration


class Section(BaseModel):
    """Base of every part of the file: frozen, without unknown keys or values in messages."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True
    )


def _secret(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("empty: anybody could sign; use at least 32 random characters")
    return value


def _date(given: object) -> date:
    if isinstance(given, date) and not isinstance(given, datetime):
        return given
    try:
        return date.fromisoformat(given if isinstance(given, str) else "")
    except ValueError:
        raise ValueError("write a date such as 2026-12-25") from None


def _network(text: str) -> str:
    try:
        addresses.network(text)
    except ValueError as error:
        raise ValueError(f"not a network such as 127.0.0.0/8: {error}") from None
    return text


Date = Annotated[date, BeforeValidator(_date)]
Network = Annotated[str, AfterValidator(_network)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
Positive = Annotated[Duration, Gt(timedelta())]
