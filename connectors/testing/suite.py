"""The conformance suite that every connector passes, ours and other people's."""

from __future__ import annotations

from connectors.testing.answers import AnswerChecks
from connectors.testing.contract import ContractChecks
from connectors.testing.outcomes import EffectChecks
from connectors.testing.previews import PreviewChecks


class ConnectorSuite(ContractChecks, AnswerChecks, EffectChecks, PreviewChecks):
    """Checks C01 to C18 for one connector; docs/connectors.md explains each.

    A subclass, named ``Test…`` so that pytest collects it, gives at least the class
    ``connector`` and the methods ``options`` and ``stand_in``::

        class TestDesk(ConnectorSuite):
            connector = Desk

            def options(self, url):
                return {"base_url": url, "token": "t0ken"}

            @contextmanager
            def stand_in(self):
                desk = DeskStandIn()
                with serving(desk.app) as url:
                    yield StandIn(url=url, effects=desk.effects)
    """
