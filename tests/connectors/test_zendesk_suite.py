"""The conformance suite on Zendesk's less usual paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from connectors import Event
from connectors.sandbox.records import Records
from connectors.sandbox.zendesk import StandIn as ZendeskAccount
from connectors.suites import served
from connectors.suites.zendesk import TestZendesk as Suite
from connectors.testing import Effect, StandIn
from connectors.testing.bench import Bench
from connectors.testing.outcomes import EffectChecks


class EffectsInZendesk(EffectChecks):
    """Counts tickets, comments, marks, profiles and adoptions."""

    connector = Suite.connector
    account: ZendeskAccount
    own_options: Mapping[str, Any] = {}

    def options(self, url: str) -> Mapping[str, Any]:
        return {**Suite().options(url), **self.own_options}

    def prepare(self, account: ZendeskAccount) -> None:
        """Make the account what the class is about."""

    @contextmanager
    def stand_in(self) -> Iterator[StandIn]:
        with served("zendesk", self._made, more=_profiles) as stand_in:
            yield stand_in

    def _made(self, records: Records) -> ZendeskAccount:
        self.account = ZendeskAccount(records)
        self.prepare(self.account)
        return self.account


@pytest.mark.slow
class TestStop(EffectsInZendesk):
    """Every message is a STOP, which marks its customer."""

    own_options = {"on_stop": "message"}

    @contextmanager
    def bench(self, **changes: Any) -> Iterator[Bench]:
        with super().bench(**changes) as bench:
            plain = bench.event
            bench.event = lambda **fields: plain(**{"keyword": "STOP"} | fields)  # type: ignore[method-assign]  # a bench that only knows STOP
            yield bench


@pytest.mark.slow
class TestStaffKnowTheCustomers(EffectsInZendesk):
    """Every customer has a profile that people made."""

    exempt = {"C10_destinations_share_nothing": "the other account's staff know nobody"}

    @contextmanager
    def bench(self, **changes: Any) -> Iterator[Bench]:
        with super().bench(**changes) as bench:
            plain, account = bench.event, self.account

            def event(**fields: Any) -> Event:
                made = plain(**fields)
                phones = [user["phone"] for user in account.users()]
                if made.customer and made.customer not in phones:
                    account.add_user({"name": "Known", "phone": made.customer})
                return made

            bench.event = event  # type: ignore[method-assign]  # a bench whose customers are known
            yield bench


@pytest.mark.slow
class TestSearchNeverFinds(EffectsInZendesk):
    """The index of users is an hour behind, and only solved tickets are left."""

    own_options = {"when_solved": "new_ticket", "status": "solved"}

    def prepare(self, account: ZendeskAccount) -> None:
        account.settings.search_lag = 3600


def _profiles(account: ZendeskAccount) -> list[Effect]:
    """Name the profiles that deliveries made, and those of staff's that they adopted."""
    made = [user for user in account.users() if user["external_id"]]
    kinds = ["adoption" if user["name"] == "Known" else "profile" for user in made]
    return [Effect(kind, user["external_id"]) for kind, user in zip(kinds, made, strict=True)]
