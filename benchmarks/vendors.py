"""Measure deliveries to HubSpot and Zendesk beside the same calls by the vendors' SDKs.

The stand-ins of the sandbox are on one core. On the other, in turn, run the real ``gofax-relay
work`` with a filled store, and a bare loop that makes the same calls with hubspot-api-client and
with zenpy on as many threads. In each round every customer writes twice:

==========  ============================================  =======================================
            first message of a conversation               next message
==========  ============================================  =======================================
HubSpot     known contact: read it, make a communication  make a communication
Zendesk     new customer: list tickets, list users,       read the ticket, update it
            search users, save the user, make a ticket
==========  ============================================  =======================================

    python benchmarks/vendors.py [--events 1000] [--rounds 5] [--threads 8] [--json]

Prints the CPU time of one delivery, of the whole tree of processes, in pairs, and the medians;
``cpu_ratio`` is that of the bare calls by the relay's. At the end the sandbox has to have every
message.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import requests
import rig
import sqlalchemy as sa
import urllib3
from deliver import SENDER_CORE, STAND_IN_CORE, arrival_of
from hubspot import Client
from hubspot.crm.contacts import BatchInputSimplePublicObjectBatchInputUpsert
from hubspot.crm.objects.communications import SimplePublicObjectInputForCreate
from requests.adapters import HTTPAdapter
from zenpy import Zenpy
from zenpy.lib.api_objects import Comment, Ticket, User

from relay import migrations
from relay.rules.delivery import State
from relay.store import Inbox, connect, schema

SYSTEMS = ("hubspot", "zendesk")
#: The property by which the connector finds contacts, unless the config names another.
KEY = "sms_relay_phone"
OURS = "+61700000000"
CONFIG = """\
server: {{listen: "127.0.0.1:{port}"}}
admin: off
store: sqlite:///relay.db
outbound: {{allow: ["127.0.0.0/8"]}}
endpoints: [{{path: /webhooks/gofax, signing_secrets: [benchmark]}}]
destinations:
  hubspot: {{connector: hubspot, access_token: x, base_url: "{sandbox}/hubspot",
             rate: null, concurrency: {threads}}}
  zendesk: {{connector: zendesk, subdomain: acme, client_id: x, client_secret: x,
             base_url: "{sandbox}/zendesk", rate: null, concurrency: {threads}}}
routes: [{{name: all, to: [hubspot, zendesk]}}]
"""


class ToSandbox(HTTPAdapter):
    """Takes requests for a vendor's address to the sandbox."""

    def __init__(self, vendor: str, sandbox: str) -> None:
        self._vendor, self._sandbox = vendor, sandbox
        super().__init__(pool_maxsize=1)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        asked, request.url = request.url, request.url.replace(self._vendor, self._sandbox, 1)
        response = super().send(request, **options)
        # zenpy recognises an answer by the address that it asked.
        request.url = asked
        return response


class Dated(urllib3.PoolManager):
    """Takes the SDK's calls of version 3 to the dated version, which the sandbox has."""

    def request(self, method: str, url: str, *args: Any, **options: Any) -> Any:
        url = url.replace("/crm/v3/objects", "/crm/objects/2026-09", 1)
        return super().request(method, url, *args, **options)


class HubSpotCalls:
    """The calls of one thread, by hubspot-api-client."""

    def __init__(self, sandbox: str) -> None:
        client = Client.create(access_token="x", host=f"{sandbox}/hubspot")
        # Each access makes another client with a pool of its own, so these are kept.
        self._contacts = client.crm.contacts.basic_api
        self._communications = client.crm.objects.communications.basic_api
        self._batches = client.crm.contacts.batch_api
        for api in (self._contacts, self._communications, self._batches):
            api.api_client.rest_client.pool_manager = Dated()

    def seed(self, numbers: Sequence[str]) -> None:
        """Make contacts that have these numbers."""
        for start in range(0, len(numbers), 100):
            inputs = [
                {"idProperty": KEY, "id": each, "properties": {KEY: each, "firstname": each}}
                for each in numbers[start : start + 100]
            ]
            self._batches.upsert(BatchInputSimplePublicObjectBatchInputUpsert(inputs=inputs))

    def first(self, number: str, text: str) -> str:
        contact = self._contacts.get_by_id(number, id_property=KEY).id
        return self.next(number, text, contact)

    def next(self, number: str, text: str, thread: str) -> str:
        types = [{"associationCategory": "HUBSPOT_DEFINED", "associationTypeId": 81}]
        self._communications.create(
            SimplePublicObjectInputForCreate(
                properties={
                    "hs_communication_channel_type": "SMS",
                    "hs_communication_logged_from": "CRM",
                    "hs_communication_body": text,
                    "hs_timestamp": "2025-12-04T00:24:07.112733Z",
                },
                associations=[{"to": {"id": thread}, "types": types}],
            )
        )
        return thread


class ZendeskCalls:
    """The calls of one thread, by zenpy."""

    def __init__(self, sandbox: str) -> None:
        asked = f"{sandbox}/zendesk/oauth/tokens"
        credentials = {"grant_type": "client_credentials", "client_id": "x", "client_secret": "x"}
        token = requests.post(asked, json=credentials, timeout=30).json()["access_token"]
        session = requests.Session()
        session.mount("https://", ToSandbox("https://acme.zendesk.com", f"{sandbox}/zendesk"))
        self._zenpy = Zenpy(
            subdomain="acme", oauth_token=token, session=session, disable_cache=True
        )

    def seed(self, numbers: Sequence[str]) -> None:
        """Make nothing: these customers are new."""

    def first(self, number: str, text: str) -> str:
        zenpy, digits = self._zenpy, number.removeprefix("+")
        conversation = f"sms-{digits}-{OURS.removeprefix('+')}"
        assert not list(zenpy.tickets(external_id=conversation))
        assert not list(zenpy.users(external_ids=[f"sms-{digits}"]))
        assert not list(zenpy.users.search(query=f"role:end-user phone:*{digits[2:]}"))
        person = zenpy.users.create_or_update(
            User(name=number, phone=number, external_id=f"sms-{digits}", skip_verify_email=True)
        )
        made = zenpy.tickets.create(
            Ticket(
                subject=f"SMS reply from {number}",
                external_id=conversation,
                requester_id=person.id,
                comment=Comment(body=text, public=True, author_id=person.id),
                tags=["sms", "gofax"],
            )
        )
        return str(made.ticket.id)

    def next(self, number: str, text: str, thread: str) -> str:
        ticket = self._zenpy.tickets(id=int(thread))
        comment = Comment(body=text, public=True, author_id=ticket.requester_id)
        self._zenpy.tickets.update(Ticket(id=ticket.id, comment=comment))
        return thread


CALLS: dict[str, Callable[[str], Any]] = {"hubspot": HubSpotCalls, "zendesk": ZendeskCalls}


class Bench:
    """A store, the sandbox, and customers that nobody has heard of yet."""

    def __init__(self, folder: Path, sandbox: str, options: argparse.Namespace) -> None:
        self.folder, self.sandbox, self.options = folder, sandbox, options
        self.config = folder / "config.yaml"
        self.config.write_text(
            CONFIG.format(port=rig.free_port(), sandbox=sandbox, threads=options.threads)
        )
        self.database = connect(f"sqlite:///{folder}/relay.db")
        migrations.upgrade(self.database)
        self._customers = 0
        #: How many messages each system has been sent.
        self.sent = dict.fromkeys(SYSTEMS, 0)

    def customers(self, system: str) -> range:
        """Return customers who are new to *system*, and known there if the case wants that."""
        count = self.options.events
        self._customers += count
        chosen = range(self._customers - count, self._customers)
        CALLS[system](self.sandbox).seed([_number(each) for each in chosen])
        return chosen

    def relay(self, system: str) -> list[float]:
        """Return the CPU time of one delivery: first messages, and next ones."""
        customers, spent = self.customers(system), []
        for _ in range(2):
            self._fill(system, customers)
            before = self._delivered()
            with self._work() as process:
                count = lambda before=before: self._delivered() - before  # noqa: E731
                spent.append(_spent(process, count, self.options.events))
            self.sent[system] += self.options.events
        return spent

    def _fill(self, system: str, customers: range) -> None:
        inbox = Inbox(self.database)
        with ThreadPoolExecutor(64) as threads:
            for _ in threads.map(
                inbox.accept, (arrival_of(each, each, system) for each in customers)
            ):
                pass
        inbox.close()

    def bare(self, system: str) -> list[float]:
        customers = self.customers(system)
        context = multiprocessing.get_context("fork")
        done, go_on = context.Value("i", 0), context.Semaphore(0)
        process = context.Process(
            target=_call_all, args=(self, system, customers, done, go_on), daemon=True
        )
        process.start()
        spent = []
        for turn in range(2):
            count = lambda turn=turn: done.value - turn * self.options.events  # noqa: E731
            spent.append(_spent(psutil.Process(process.pid), count, self.options.events))
            go_on.release()
            self.sent[system] += self.options.events
        process.join()
        return spent

    @contextmanager
    def _work(self) -> Iterator[psutil.Popen]:
        with rig.command(self.folder, "work", "--config", str(self.config)) as process:
            process.cpu_affinity(list(SENDER_CORE))
            for each in process.children(recursive=True):
                each.cpu_affinity(list(SENDER_CORE))
            yield process

    def _delivered(self) -> int:
        with self.database.reading() as db:
            wanted = schema.deliveries.c.state == State.DELIVERED
            found = sa.select(sa.func.count()).select_from(schema.deliveries).where(wanted)
            return int(db.execute(found).scalar_one())

    def verify(self) -> None:
        """Look for every message in the sandbox."""
        records = requests.get(f"{self.sandbox}/records", timeout=60).json()
        for system, sent in self.sent.items():
            came = sum(record["system"] == system for record in records)
            if came < sent:
                raise SystemExit(f"{system}: {came} of {sent} messages came")


def _call_all(bench: Bench, system: str, customers: range, done: Any, go_on: Any) -> None:
    os.sched_setaffinity(0, SENDER_CORE)
    gc.freeze()
    local, threads = threading.local(), {}

    def call(customer: int) -> None:
        if not hasattr(local, "calls"):
            local.calls = CALLS[system](bench.sandbox)
        number, thread = _number(customer), threads.get(customer)
        text = f"SMS reply from {number} · {number} → {OURS}: Thanks for your message"
        if thread is None:
            threads[customer] = local.calls.first(number, text)
        else:
            local.calls.next(number, text, thread)
        with done.get_lock():
            done.value += 1

    with ThreadPoolExecutor(bench.options.threads) as pool:
        for _ in range(2):
            list(pool.map(call, customers))
            go_on.acquire()


def _spent(process: psutil.Process, count: Callable[[], int], wanted: int) -> float:
    """Return the microseconds of CPU time of one delivery, after the first tenth."""
    _until(count, wanted // 10)
    begun, before = count(), rig.cpu_seconds(process)
    _until(count, wanted)
    return (rig.cpu_seconds(process) - before) / (wanted - begun) * 1e6


def _until(count: Callable[[], int], wanted: int) -> None:
    ends_at = time.monotonic() + rig.PATIENCE
    while (have := count()) < wanted:
        if time.monotonic() > ends_at:
            raise SystemExit(f"only {have} of {wanted} were delivered")
        time.sleep(0.02)


def _number(customer: int) -> str:
    return f"+614{customer:08d}"


def compare(bench: Bench, options: argparse.Namespace) -> dict[str, Any]:
    """Let bare calls and the relay take turns."""
    report: dict[str, Any] = {}
    for system in options.systems.split(","):
        pairs = [(bench.bare(system), bench.relay(system)) for _ in range(options.rounds)]
        for at, case in enumerate(("first", "next")):
            bare, relay = ([side[at] for side in sides] for sides in zip(*pairs, strict=True))
            ratios = [one / other for one, other in zip(bare, relay, strict=True)]
            report[f"{system}, {case}"] = {
                "bare_cpu_us": round(statistics.median(bare)),
                "relay_cpu_us": round(statistics.median(relay)),
                "cpu_ratio": round(statistics.median(ratios), 2),
                "pairs": [round(each, 2) for each in ratios],
            }
    bench.verify()
    return report


def main() -> int:
    options = _options()
    port = rig.free_port()
    sandbox = f"http://127.0.0.1:{port}"
    with (
        tempfile.TemporaryDirectory() as name,
        rig.command(Path(name), "sandbox", "--port", str(port)) as process,
    ):
        rig.await_url(sandbox + "/records")
        process.cpu_affinity(list(STAND_IN_CORE))
        bench = Bench(Path(name), sandbox, options)
        found = compare(bench, options)
        bench.database.close()
    rig.report(
        {
            "hubspot-api-client": version("hubspot-api-client"),
            "zenpy": version("zenpy"),
            "threads": options.threads,
            **found,
        },
        as_json=options.json,
    )
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1000, help="customers of each round")
    parser.add_argument("--rounds", type=int, default=5, help="pairs to compare")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
