"""Settings of the HubSpot stand-in that can be changed while it runs: ``PATCH …/sandbox``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from connectors.sandbox.hubspot_rules import Problem

#: Kinds of objects whose properties an administrator can require.
Kind = Annotated[str, Field(pattern="^(contacts|tickets|tasks)$")]


class Condition(BaseModel):
    """Conditional logic of an account: where *when* holds, *require* must have values."""

    model_config = ConfigDict(extra="forbid")

    when: dict[str, str]
    require: list[str]

    def missing_in(self, values: Mapping[str, str]) -> list[str]:
        """Return the properties that *values* lacks by this rule."""
        if any(values.get(name) != value for name, value in self.when.items()):
            return []
        return [name for name in self.require if not values.get(name)]


class Settings(BaseModel):
    """The account's limits and rules. None is no limit."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    #: Seconds by which the search index comes behind.
    search_lag: float = Field(default=0.0, ge=0)
    #: So many that nobody waits, and few enough to be believed.
    ten_secondly: int | None = Field(default=10_000, ge=0)
    searches_a_second: int | None = Field(default=None, ge=0)
    daily: int | None = Field(default=None, ge=0)
    #: Properties required in the form "Create record", by kind of object.
    required: dict[Kind, list[str]] = {}
    #: Properties required where others have a value.
    conditional: dict[Kind, list[Condition]] = {}

    def named(self) -> Iterator[tuple[str, str]]:
        """Yield each property that a rule names, with its kind of object."""
        for kind, names in self.required.items():
            yield from ((kind, name) for name in names)
        for kind, conditions in self.conditional.items():
            for each in conditions:
                yield from ((kind, name) for name in [*each.when, *each.require])

    def enforce(self, kind: str, values: Mapping[str, str], *, new: bool) -> None:
        """Refuse *values* of an object that break a rule, as HubSpot does since 2026-09-08."""
        missing = [n for n in self.required.get(kind, []) if new and not values.get(n)]
        dependent = [n for each in self.conditional.get(kind, []) for n in each.missing_in(values)]
        errors = [_missing("MISSING_REQUIRED_PROPERTY", name) for name in missing]
        errors += [_missing("MISSING_CONDITIONAL_REQUIRED_PROPERTY", name) for name in dependent]
        if errors:
            # The message names neither the property nor the rule.
            raise Problem(400, "VALIDATION_ERROR", "Property values were not valid", errors=errors)


def _missing(code: str, name: str) -> dict[str, object]:
    context = {"propertyName": [name]}
    return {"message": "A required property is missing", "code": code, "context": context}
