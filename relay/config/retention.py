"""How long the contents of events are kept: one time for all, or some types for another."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated

from annotated_types import Le
from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from relay.config.section import Positive, Section
from relay.rules.units import written

#: A longer age would lie before the first date that Python knows.
LONGEST_AGE = timedelta(days=36_500)
Age = Annotated[Positive, Le(LONGEST_AGE)]


class Retention(Section):
    """How long, by event type."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Age] = Field(init=False)

    default: Age = Field(timedelta(days=90), description="For types that are not named")

    @model_validator(mode="after")
    def _each_once(self) -> Retention:
        names = [name.casefold() for name in self.__pydantic_extra__]
        if twice := sorted({name.upper() for name in names if names.count(name) > 1}):
            raise ValueError(f"the type {twice[0]} is given twice; case makes no difference")
        return self

    @property
    def types(self) -> Mapping[str, timedelta]:
        """The types that are kept for another time than the default; case makes no difference."""
        return {name.upper(): age for name, age in self.__pydantic_extra__.items()}

    def __str__(self) -> str:
        ages = {**{"": self.default}, **self.types}
        return ", ".join(f"{name} {written(age)}".lstrip() for name, age in ages.items())


def _kind(value: object) -> str:
    return BY_TYPE if isinstance(value, dict | Retention) else ONE_AGE


#: Pydantic puts them into the place of a fault.
ONE_AGE, BY_TYPE = "[age]", "[by type]"
AgeOrRetention = Annotated[
    Annotated[Age, Tag(ONE_AGE)] | Annotated[Retention, Tag(BY_TYPE)], Discriminator(_kind)
]
