"""Who acts, from where and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from relay.store.actions import Act
from relay.store.ids import new_id
from relay.store.values import COMMAND_LINE


@dataclass(frozen=True, kw_only=True, slots=True)
class Person:
    """Who acts, from where and why; what one asks for at a time has one name."""

    who: str
    why: str | None = None
    #: The command line, or the address of who calls.
    origin: str = COMMAND_LINE
    #: The version of the config whose routes are used.
    config: str | None = None
    #: Names all of it, so that it can be undone.
    act_id: str = field(default_factory=partial(new_id, "act"))

    def act(self, at: datetime) -> Act:
        """Return what the store keeps of it."""
        return Act(
            who=self.who,
            why=self.why,
            at=at,
            origin=self.origin,
            config=self.config,
            id=self.act_id,
        )
