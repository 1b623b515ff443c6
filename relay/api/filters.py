"""Which events, requests or deliveries a call means: as the command line's options do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from relay.api.reading import Number, NumberEnd, Span, Text, Words
from relay.rules.delivery import State
from relay.store.search import Filter

#: How many values a condition may have.
MOST = 50

Stopped = Literal[State.DEAD, State.HELD]
EventStanding = Literal["accepted", "conflict", "stale"]
RequestStanding = Literal["accepted", "duplicate", "conflict", "stale", "probe", "refused"]


class Listing(Span):
    """Conditions of a listing of events or requests."""

    customer: NumberEnd | None = Field(
        None, description="Only those of this customer: a number, or its last digits"
    )
    text: Words | None = Field(
        None, description="Only those with all of these words, the last of which may go on"
    )
    message_id: Text | None = Field(None, description="Only those with this messageId")
    destination: list[Text] = Field(
        [], max_length=MOST, description="Only those with a delivery to one of these"
    )
    state: list[State] = Field(
        [], max_length=MOST, description="Only those with a delivery in one of these states"
    )
    type: Text | None = Field(None, description="Only those of this type (SMS_REPLY)")
    endpoint: Text | None = Field(None, description="Only those of this endpoint")

    def of_standing(self, standings: Sequence[str]) -> Filter:
        """Return what is meant, of these standings."""
        return Filter(
            ending=self.customer,
            wording=self.text,
            message_id=self.message_id,
            since=self.since,
            until=self.until,
            destinations=tuple(self.destination),
            states=tuple(self.state),
            type=self.type,
            endpoint=self.endpoint,
            standings=tuple(standings),
        )


class OfEvents(Span):
    """Which events a person means; what is left out matches everything."""

    endpoint: Text | None = Field(None, description="Only events of this endpoint")
    customer: Number | None = Field(None, description="Only events of this customer's number")
    type: Text | None = Field(None, description="Only events of this type (SMS_REPLY)")

    @property
    def filter(self) -> Filter:
        return Filter(
            since=self.since,
            until=self.until,
            endpoint=self.endpoint,
            customer=self.customer,
            type=self.type,
        )


class OfDeliveries(OfEvents):
    """Which deliveries a person means; what is left out matches everything."""

    destination: list[Text] = Field([], max_length=MOST, description="Only these destinations")
    reason: Text | None = Field(None, description="Only this whole reason; * stands for anything")

    def in_states(self, states: Sequence[State], *, otherwise: Sequence[State]) -> Filter:
        """Return what is meant, in these states, or *otherwise* if there are none."""
        return Filter(
            since=self.since,
            until=self.until,
            endpoint=self.endpoint,
            customer=self.customer,
            type=self.type,
            destinations=tuple(self.destination),
            reason=self.reason,
            states=tuple(states or otherwise),
        )
