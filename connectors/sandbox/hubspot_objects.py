"""Objects of the HubSpot stand-in, and the search index, which may lag behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from connectors.sandbox.hubspot_rules import (
    CALCULATED,
    Property,
    calculated,
    invalid,
    invalid_value,
    is_found,
)


@dataclass(slots=True)
class Object:
    """One contact, communication, ticket or task."""

    id: str
    created_at: datetime
    properties: dict[str, str] = field(default_factory=dict)
    #: Its properties over time, for a search index that lags.
    history: list[tuple[datetime, dict[str, str]]] = field(default_factory=list)

    def shown(self, names: Iterable[str] = ()) -> dict[str, Any]:
        """Return the object as the API does, with the properties *names*, or all."""
        wanted = {name: self.properties.get(name) for name in names} if names else self.properties
        changed_at = self.history[-1][0] if self.history else self.created_at
        return {
            "id": self.id,
            "properties": {"hs_object_id": self.id} | dict(wanted),
            "createdAt": self.created_at.isoformat(timespec="milliseconds"),
            "updatedAt": changed_at.isoformat(timespec="milliseconds"),
            "archived": False,
        }

    def indexed(self, at: datetime) -> dict[str, str] | None:
        """Return the properties at a time; None before the object existed."""
        return next((values for since, values in reversed(self.history) if since <= at), None)


class Objects:
    """All objects of one kind."""

    def __init__(
        self,
        known: dict[str, Property],
        *,
        new_id: Callable[[], str],
        country: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """*country*: of the account, which numbers without a country code belong to."""
        self.known = known
        self._new_id = new_id
        self._country = country
        self._clock = clock
        self._objects: dict[str, Object] = {}
        self._gone: list[tuple[datetime, Object]] = []

    def all(self) -> tuple[Object, ...]:
        """Return every object, oldest first."""
        return tuple(self._objects.values())

    def find(self, given: str, *, by: str | None = None) -> Object | None:
        """Return an object by its id, or by the value of a unique property."""
        if by is None:
            return self._objects.get(given)
        definition = self.known.get(by)
        if definition is None or not definition.unique:
            raise invalid(f"Property '{by}' does not exist or has no unique values")
        objects = self._objects.values()
        return next((each for each in objects if each.properties.get(by) == given), None)

    def add(self, values: Mapping[str, str]) -> Object:
        """Make an object."""
        made = Object(id=self._new_id(), created_at=self._clock())
        self.write(made, values)
        self._objects[made.id] = made
        return made

    def write(self, changed: Object, values: Mapping[str, str]) -> None:
        """Change properties of an object. Refuses a unique value that another object has."""
        for name, value in values.items():
            if self.known[name].unique and value:
                self._claim(changed, name, value)
        changed.properties |= values
        for name in CALCULATED.keys() & values.keys():
            changed.properties |= calculated(name, values[name], country=self._country)
        changed.history.append((self._clock(), dict(changed.properties)))

    def remove(self, given: str) -> None:
        """Archive an object; HubSpot answers alike whether it existed or not."""
        gone = self._objects.pop(given, None)
        if gone is not None:
            self._gone.append((self._clock(), gone))

    def search(self, groups: list[Mapping[str, Any]], *, lag: timedelta) -> list[Object]:
        """Return the objects that matched *lag* ago."""
        latest = self._clock() - lag
        forgotten = [each for gone_at, each in self._gone if gone_at > latest]
        return [
            each
            for each in (*self._objects.values(), *forgotten)
            if (values := each.indexed(latest)) is not None and is_found(values, groups)
        ]

    def _claim(self, claimant: Object, name: str, value: str) -> None:
        holder = self.find(value, by=name)
        if holder is not None and holder is not claimant:
            cannot = f"Cannot set {name}={value} on {claimant.id}"
            said = f"{cannot}. {holder.id} already has that value."
            raise invalid_value(name, "CONFLICTING_UNIQUE_VALUE", said)
