"""A bot in Teams through real processes: the relay keeps the thread of each conversation."""

from __future__ import annotations

import pytest
from gofax import EXAMPLE
from processes import Relay, Sandbox

BOT = """\
front-desk: {{connector: teams, mode: bot, service_url: "{url}", login_url: "{url}",
               tenant_id: 3f3d1cea-0000-4000-8000-000000000001,
               client_id: 3f3d1cea-0000-4000-8000-000000000002,
               client_secret: anything, channel: "19:frontdesk@thread.tacv2","""


@pytest.mark.slow
def test_a_conversation_stays_in_its_thread(relay: Relay, sandbox: Sandbox) -> None:
    flow = f'front-desk: {{connector: teams, url: "{sandbox.url}/teams",'
    config = relay.config.read_text()
    assert flow in config
    relay.config.write_text(config.replace(flow, BOT.format(url=f"{sandbox.url}/teams")))
    relay.start()
    # The service fails in the middle: what follows waits its turn.
    sandbox.fault(system="teams", status=503, path="activities", times=2)

    for number in range(4):
        relay.post({**EXAMPLE, "messageId": f"kim-{number}", "messageBody": f"kim {number}"})
        relay.post(
            {
                **EXAMPLE,
                "messageId": f"lee-{number}",
                "messageBody": f"lee {number}",
                "from": "+61400000099",
            }
        )

    events = relay.settled()
    assert {d["state"] for event in events for d in event["deliveries"]} == {"delivered"}
    for customer, name in (("+61400000000", "kim"), ("+61400000099", "lee")):
        cards = [each for each in sandbox.records("teams") if each["conversation"] == customer]
        assert [each["kind"] for each in cards] == ["card", "reply", "reply", "reply"]
        assert [each["text"].split("\n")[1] for each in cards] == [f"{name} {n}" for n in range(4)]
