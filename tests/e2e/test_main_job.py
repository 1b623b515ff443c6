"""The main job through real processes: signed events in; a card, a ticket, an entry out."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import requests
from gofax import EXAMPLE, sign
from processes import PATIENCE, SECRET, Relay, Sandbox
from programs import eventually


def test_the_demo_delivers_and_ends(tmp_path):
    for name in ("relay", "sender", "connectors"):
        (tmp_path / f"{name}.py").write_text(f'print("the working folder has its own {name}")')
    program = Path(sys.executable).with_name("gofax-relay")

    done = subprocess.run(
        [program, "demo", "--once"],
        capture_output=True, text=True, timeout=2 * PATIENCE, check=False, cwd=tmp_path,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    for arrived in ("teams card", "zendesk ticket", "zendesk comment", "hubspot communication"):
        assert arrived in done.stdout
    assert '"status": "duplicate"' in done.stdout
    assert "401" in done.stdout
    assert re.search(r"^console  http://127\.0\.0\.1:\d+/console/welcome/\S+$", done.stdout, re.M)
    assert "the working folder" not in done.stdout


@pytest.mark.slow
def test_a_demo_in_which_nothing_arrives_has_failed(tmp_path):
    script = "from relay.commands.demo import Demo; exit(Demo(print, events=()).run(once=True))"

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, timeout=2 * PATIENCE, check=False,
    )  # fmt: skip

    assert done.returncode == 1, done.stdout
    assert "failed: nothing was delivered" in done.stdout


def test_one_event_posted_twice_makes_one_card_one_ticket_one_entry(relay, sandbox):
    relay.start()

    first, second = relay.post(EXAMPLE), relay.post(EXAMPLE)

    assert (first.status_code, first.json()) == (
        200, {"status": "accepted", "messageId": "abc123"},
    )  # fmt: skip
    assert (second.status_code, second.json()["status"]) == (200, "duplicate")
    [event] = relay.settled()
    assert event["duplicates"] == 1
    assert {d["state"] for d in event["deliveries"]} == {"delivered"}
    records = sandbox.records()
    assert sorted(r["system"] for r in records) == ["hubspot", "teams", "zendesk"]
    assert all("Thanks for your message" in r["text"] for r in records)
    assert {r["conversation"] for r in records} == {"+61400000000"}


@pytest.mark.slow
def test_a_wrong_signature_delivers_nothing_and_is_in_the_request_log(relay, sandbox):
    relay.start()

    refused = relay.post(EXAMPLE, secret="another secret")

    assert refused.status_code == 401
    assert refused.json() == {"error": "not authorized"}
    [request] = eventually(lambda: relay.listed("requests"))
    assert request["status"] == 401
    assert "does not match the secret" in request["reason"]
    assert relay.listed("events") == []
    assert sandbox.records() == []


@pytest.mark.slow
def test_what_comes_while_the_destinations_are_down_arrives_later_in_order(relay, sandbox):
    relay.start()
    relay.post({**EXAMPLE, "messageId": "before"})
    relay.settled()
    sandbox.stop()

    for number in range(10):
        event = {
            **EXAMPLE,
            "messageId": f"m{number}",
            "from": f"+6140000000{number % 2}",
            "messageBody": f"text number {number}",
        }
        assert relay.post(event).status_code == 200
    sandbox.start()

    events = relay.settled()
    assert {d["state"] for event in events for d in event["deliveries"]} == {"delivered"}
    for system in ("hubspot", "zendesk", "teams"):
        records = sandbox.records(system)
        for customer in (0, 1):
            texts = [
                number
                for record in records
                for number in range(10)
                if record["conversation"] == f"+6140000000{customer}"
                and f"text number {number}" in record["text"]
            ]
            assert texts == [number for number in range(10) if number % 2 == customer]


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_a_delivery_completes_it_after_its_restart(
    relay: Relay, sandbox: Sandbox
):
    relay.start("web")
    worker = relay.start("work")
    sandbox.fault(system="zendesk", method="POST", path="/tickets", wait=20, act=True)
    relay.post(EXAMPLE)
    eventually(lambda: sandbox.records("zendesk"))

    worker.signal(signal.SIGKILL)
    worker.wait()
    relay.start("work")

    [event] = relay.settled()
    states = {d["destination"]: d["state"] for d in event["deliveries"]}
    assert states == {"crm": "delivered", "helpdesk": "delivered", "front-desk": "delivered"}
    assert len(sandbox.records("zendesk")) == 1, "the ticket was made before the kill"


@pytest.mark.slow
def test_a_killed_relay_starts_again_on_the_same_port_and_store(relay, sandbox):
    process = relay.start()
    relay.post(EXAMPLE)

    process.kill()
    relay.start()

    assert relay.post(EXAMPLE).json()["status"] == "duplicate"
    relay.settled()
    assert len(sandbox.records("teams")) == 1


@pytest.mark.slow
def test_a_dead_child_is_started_again(relay):
    process = relay.start()
    [web] = [
        child
        for child in process.descendants()
        if any(c.laddr.port == relay.port for c in child.net_connections(kind="inet"))
        and not child.children()
    ]

    web.kill()

    eventually(lambda: not web.is_running() and relay.answers())


@pytest.mark.slow
def test_sigterm_ends_serve_within_ten_seconds_while_a_client_dribbles(relay, sandbox):
    process = relay.start()
    sandbox.fault(system="teams", wait=30)
    relay.post(EXAMPLE)
    body = b'{"messageId": "never ends"}'
    client = _half_sent(relay, body)
    eventually(lambda: len(sandbox.records("zendesk")) == 1)

    started = time.monotonic()
    process.signal(signal.SIGTERM)
    code = process.wait()

    assert (code, time.monotonic() - started < 10) == (0, True)
    client.close()


@pytest.mark.slow
def test_two_hundred_dribbling_clients_do_not_delay_an_honest_one(relay):
    relay.start()
    clients = [_half_sent(relay, b'{"messageId": "x"}') for _ in range(200)]

    started = time.monotonic()
    answer = relay.post(EXAMPLE)
    seconds = time.monotonic() - started

    for client in clients:
        client.close()
    assert answer.status_code == 200
    assert seconds < 1


@pytest.mark.slow
def test_legacy_status_notifications_come_with_basic_auth_in_body_or_url(relay):
    relay.start("web")
    url, auth = relay.url + "/webhooks/gofax/status", ("gofax", "status password")
    fields = {"Recipient": "61412345678", "ID": "52336014", "Success": "True", "Message": "sent"}

    answers = [
        requests.post(url, data=fields, auth=auth, timeout=10),
        requests.post(url, data={k.lower(): v for k, v in fields.items()}, auth=auth, timeout=10),
        requests.post(url, params=fields, auth=auth, timeout=10),
        requests.post(url, data={**fields, "Success": "False"}, auth=auth, timeout=10),
        requests.post(url, data=fields, auth=("gofax", "wrong"), timeout=10),
        requests.post(url, data=fields, timeout=10),
    ]

    assert [a.status_code for a in answers] == [200, 200, 200, 200, 401, 401]
    assert [a.json()["status"] for a in answers[:4]] == [
        "accepted", "duplicate", "duplicate", "accepted",
    ]  # fmt: skip
    event = relay.listed("events")[0]
    assert (event["type"], event["to"], event["message_id"]) == (
        "SMS_STATUS", "+61412345678", "52336014",
    )  # fmt: skip


@pytest.mark.slow
def test_events_and_requests_are_listed_for_people_and_for_programs(relay):
    relay.start("web")
    relay.post(EXAMPLE)
    relay.post(EXAMPLE, secret="another secret")
    eventually(lambda: len(relay.listed("requests")) == 2)

    for what in ("events", "requests"):
        printed = relay.command(what, "--json")
        assert [json.loads(line) for line in printed.stdout.splitlines()] == relay.listed(what)
    table = relay.command("events").stdout
    assert "abc123" in table
    assert "SMS_REPLY" in table
    assert relay.command("events", "--limit", "0").returncode == 2
    assert "does not match the secret" in " ".join(relay.command("requests").stdout.split())


@pytest.mark.slow
def test_explain_tells_rules_attempts_and_what_is_next(relay, sandbox):
    relay.start()
    sandbox.fault(system="teams", status=503)
    relay.post(EXAMPLE)
    relay.settled()

    explained = relay.command("explain", "abc123").stdout

    assert "signature matches secret 1" in explained
    assert "route replies become tickets: yes" in explained
    assert "event is SMS_REPLY (saw SMS_REPLY)" in explained
    assert "transient: answered 503" in explained
    assert "done: " in explained


@pytest.mark.slow
def test_explain_says_that_a_destination_is_paused_and_when_it_is_tried_again(relay, sandbox):
    relay.start()
    sandbox.fault(system="teams", status=401)
    relay.post(EXAMPLE)

    def refused() -> bool:
        [event] = relay.listed("events")
        return any("401" in (d["error"] or "") for d in event["deliveries"])

    eventually(refused)
    explained = relay.command("explain", "abc123").stdout

    assert "next: nothing while front-desk is paused (unauthorized, since " in explained
    assert "one delivery is tried at " in explained
    [event] = relay.listed("events")
    paused = next(d for d in event["deliveries"] if d["destination"] == "front-desk")
    assert (paused["state"], paused["attempts"]) == ("pending", 0)


@pytest.mark.slow
def test_a_config_with_faults_starts_nothing_and_names_them_all(relay):
    relay.config.write_text(
        "server: {lisen: x}\nendpoints:\n  - path: /hook\nroutes:\n  - to: [nowhere]\n"
    )

    failed = relay.command("serve")

    assert failed.returncode == 2
    assert f"{relay.config}:1: server.lisen: unknown key; did you mean listen?" in failed.stderr
    assert ":3: endpoints[0]: needs signing_secrets" in failed.stderr
    assert ':5: routes[0].to[0]: no destination named "nowhere" (there are none)' in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not (relay.folder / "relay.db").exists()


@pytest.mark.slow
def test_a_taken_port_is_one_clear_line(relay):
    relay.start()

    failed = relay.command("serve")

    assert failed.returncode == 1
    assert failed.stderr.startswith(
        f"Error: server.listen: 127.0.0.1:{relay.port}: Address already in use: stop the process"
    )


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux' smaps")
def test_an_idle_relay_is_up_within_three_seconds_and_under_200_mib(relay):
    started = time.monotonic()
    process = relay.start()
    seconds = time.monotonic() - started

    tree = psutil.Process(process.pid)
    pss = sum(p.memory_full_info().pss for p in [tree, *tree.children(recursive=True)])

    assert pss < 200 * 2**20
    # The figure of the benchmark is 3 s on a quiet machine; tests run many at a time.
    assert seconds < 12


def _half_sent(relay: Relay, body: bytes):
    client = socket.create_connection(("127.0.0.1", relay.port))
    head = (
        "POST /webhooks/gofax HTTP/1.1\r\nHost: relay\r\nContent-Type: application/json\r\n"
        f"X-GoFax-Signature: {sign(body, SECRET)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    client.sendall(head.encode() + body[:1])
    return client
