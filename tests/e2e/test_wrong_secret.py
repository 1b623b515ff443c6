"""The day of a wrong secret: everything is refused, the cause is found, everything comes in."""

from __future__ import annotations

import json
import re

import pytest
from gofax import EXAMPLE
from processes import SECRET

#: Customers, and messages of each.
CUSTOMERS, EACH = 20, 10
#: Those whose messages go to Teams as well.
FEW = range(4)


def body(customer: int, number: int) -> dict[str, object]:
    return {
        **EXAMPLE,
        "messageId": f"m{number}-{customer}",
        "from": f"+614000001{customer:02}",
        "messageBody": f"text-{customer:02}-{number}",
    }


@pytest.mark.slow
def test_two_hundred_refused_events_come_in_in_order_and_once(relay, sandbox):
    right = relay.config.read_text()
    # A flow loses cards of so many in so short a time: Teams gets those of four customers.
    few = ", ".join(f'"{body(customer, 0)["from"]}"' for customer in FEW)
    right = right.replace('/teams"', '/teams/user"').replace(
        "to: [helpdesk, front-desk]}",
        f"to: [helpdesk]}}\n  - {{name: few, when: {{from: [{few}]}}, to: [front-desk]}}",
    )
    relay.config.write_text(right.replace(SECRET, "the secret of last year"))
    process = relay.start()
    messages = [(c, n) for n in range(EACH) for c in range(CUSTOMERS)]
    answers = {relay.post(body(*each)).status_code for each in messages}
    assert answers == {401}
    assert sandbox.records() == []

    listed = relay.command("requests", "--json").stdout.splitlines()
    request = json.loads(listed[0])
    assert len(listed) == len(messages)
    (relay.folder / "secret").write_text(SECRET)
    found = relay.command("requests", "diagnose", request["id"], "--secret-from", "file:secret")
    assert "is of the body, made with file:secret" in " ".join(found.stdout.split())

    relay.config.write_text(right)
    reloaded = relay.command("reload")
    assert reloaded.returncode == 0, reloaded.stderr
    assert process.code is None
    # GoFax's person pressed Resend for some of them already.
    for each in messages[:5]:
        assert relay.post(body(*each)).json()["status"] == "accepted"
    dry = relay.command("requests", "admit", "--since", "1h", "--dry-run")
    assert f"{len(messages)} requests of {len(messages)} can come in" in dry.stdout
    let_in = relay.command("requests", "admit", "--yes", "--why", "old secret")
    assert let_in.returncode == 0, let_in.stderr
    relay.settled()

    # GoFax itself resends some: nothing happens twice.
    for each in messages[-5:]:
        assert relay.post(body(*each)).json()["status"] == "duplicate"
    relay.settled()
    for system in ("hubspot", "zendesk", "teams"):
        said = [
            re.findall(r"text-(\d\d)-(\d)", each["text"] or "") for each in sandbox.records(system)
        ]
        order = [found[0] for found in said if found]
        for customer in FEW if system == "teams" else range(CUSTOMERS):
            numbers = [int(number) for who, number in order if int(who) == customer]
            assert numbers == list(range(EACH)), (system, customer)
