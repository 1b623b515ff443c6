"""After a backup was put back: what may have been delivered since it was made? Pure.

The store has forgotten what happened between backup and restore, and destinations have not.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

#: By how much the sender's clock may be ahead of ours.
SKEW = timedelta(minutes=5)
#: For how long an event may have been received before its commit, with room for clocks.
COMMITTED_WITHIN = timedelta(seconds=15)

#: Why a delivery waits for a person.
DOUBT = "may have been delivered before the restore: look there, then settle or resend it"


class Caution(Enum):
    """What comes before a delivery that may have been made already."""

    NONE = "none"
    #: The connector looks for it.
    LOOK = "look"
    #: A person is asked.
    ASK = "ask"


def caution(*, doubtful: bool, looks: bool) -> Caution:
    """Decide what comes before a delivery; *looks*: its connector finds earlier work."""
    if not doubtful:
        return Caution.NONE
    return Caution.LOOK if looks else Caution.ASK


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """The time that a restored store knows nothing of."""

    #: When the backup was made, and when it was put back.
    since: datetime
    until: datetime

    def may_hide(self, occurred_at: datetime | None) -> bool:
        """Return whether an event that looks new may have been accepted in this time.

        There is no lower bound: an event may have happened long before it was sent.
        """
        return occurred_at is None or occurred_at <= self.until + SKEW

    @property
    def resend_from(self) -> datetime:
        """Return the minute from which on the sender has to send everything again."""
        return (self.since - COMMITTED_WITHIN).replace(second=0, microsecond=0)
