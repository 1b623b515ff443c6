"""Processes are killed, systems fail in every way, senders repeat: the promises hold."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from evidence import collect
from plan import Blow, Plan, Posting
from proxy import Proxy, running
from stage import PATIENCE, TERM, Process, Relay, eventually, message, running_sandbox
from verdict import violations

#: Seconds between two tries of a sender.
PERSISTENCE = 0.15
#: What a sender may be told; anything else is a fault of ours.
ANSWERS = {200, 503}
#: Errors that processes report because we kill others.
EXPECTED = {"process.died", "web.ended"}


class Storm:
    """One run of a plan against one relay."""

    def __init__(self, plan: Plan, relay: Relay, proxy: Proxy) -> None:
        self.plan, self.relay, self.proxy = plan, relay, proxy
        #: How often each message was answered 2xx with which status.
        self.acknowledged: dict[str, Counter[str]] = {}
        #: What should not have happened on the way.
        self.oddities: list[str] = []
        self._running: dict[str, Process] = {}
        self._lock = threading.Lock()
        #: Held while processes are ended and started.
        self._managing = threading.RLock()
        self._over = threading.Event()
        self._pause = threading.Event()

    def rage(self) -> None:
        """Start everything, post everything, deal every blow, and wait until all has arrived."""
        for name in self.plan.commands:
            self._start(name)
        with ThreadPoolExecutor(len(self.plan.postings) + 2) as threads:
            keeping = threads.submit(self._keep)
            try:
                futures = [threads.submit(self._send, each) for each in self.plan.postings]
                futures.append(threads.submit(self._strike))
                for future in futures:
                    future.result()
                self.relay.settle(patience=2 * PATIENCE)
            finally:
                self._over.set()
            keeping.result()

    def standing(self) -> list[str]:
        """Say what each process is doing, for a run that did not end."""
        return [f"{name}: {process.standing()}" for name, process in self._running.items()]

    def _start(self, name: str) -> None:
        """Start a command, as a process manager would: again, if the port is not free yet."""
        command = self.plan.commands[name]

        def runs() -> bool:
            process = self._running[name] = self.relay.run(command, name=name)
            if command == "work":
                return True
            eventually(
                lambda: self.relay.answers() or process.code is not None, said=f"{name} starts"
            )
            return process.code is None or "Address already in use" not in process.said()

        eventually(runs, said=f"{name} has its port")

    def _send(self, postings: list[Posting]) -> None:
        for posting in postings:
            self._pause.wait(posting.pause)
            eventually(
                lambda posting=posting: self._post(posting) or self._pause.wait(PERSISTENCE),
                said=f"{posting.name} is acknowledged",
            )
            if posting.again:
                self._post(posting)

    def _post(self, posting: Posting) -> bool:
        what = message(posting.name, conversation=posting.conversation, type=posting.type)
        try:
            answer = self.relay.post(what, timeout=10)
        except requests.RequestException:
            return False
        if answer.status_code not in ANSWERS:
            self.oddities.append(f"{posting.name} was answered {answer.status_code}")
        if answer.status_code == 503 and "Retry-After" not in answer.headers:
            self.oddities.append("a 503 did not say when to come again")
        if answer.status_code != 200:
            return False
        with self._lock:
            statuses = self.acknowledged.setdefault(posting.name, Counter())
            statuses[answer.json()["status"]] += 1
        return True

    def _strike(self) -> None:
        for blow in self.plan.blows:
            # Later blows fall although fewer calls were made than the plan thought.
            self.proxy.await_calls(blow.after, timeout=4)
            self._pause.wait(blow.delay)
            self._deal(blow)

    def _keep(self) -> None:
        """Start again what ended by itself, as a process manager would."""
        while not self._over.wait(0.2):
            with self._managing:
                for name, process in list(self._running.items()):
                    if process.code is None:
                        continue
                    # The server gives up, for its manager to decide, when its worker process is
                    # killed for a second time within seconds.
                    if process.code != 1 or name.startswith("work"):
                        said = process.said()[-2000:]
                        self.oddities.append(f"{name} ended with {process.code}:\n{said}")
                    self._start(name)

    def _deal(self, blow: Blow) -> None:
        with self._managing:
            self._deal_now(blow)

    def _deal_now(self, blow: Blow) -> None:
        process = self._running[blow.command]
        below = process.descendants() if blow.below is not None else []
        if below:
            victim = below[int(blow.below * len(below))]
            if victim.is_running():
                victim.kill()
            return
        process.signal(blow.signal)
        code = process.wait()
        # Before it is at work there is nothing to end in order.
        if blow.signal == TERM and code != 0 and ".started" in process.said():
            self.oddities.append(f"{blow.command} ended on SIGTERM with {code}")
        self._pause.wait(blow.pause)
        self._start(blow.command)


def test_every_promise_holds_while_everything_breaks(chaos_seed: int, tmp_path: Path) -> None:
    plan = Plan.of(chaos_seed)
    with running_sandbox() as sandbox:
        proxy = Proxy(sandbox, plan.faults)
        with running(proxy) as address:
            relay = Relay(tmp_path, systems=address)
            storm = Storm(plan, relay, proxy)
            try:
                storm.rage()
            except AssertionError as error:
                said = "\n".join([str(error), *storm.standing(), _again(chaos_seed)])
                pytest.fail(said, pytrace=False)
            finally:
                relay.stop()
            records = requests.get(sandbox + "/records", timeout=10).json()

    evidence = collect(relay, records, acknowledged=storm.acknowledged)
    found = violations(evidence) + storm.oddities + _complaints(tmp_path)
    if found:
        pytest.fail("\n".join([*found, _again(chaos_seed)]), pytrace=False)
    assert evidence.acknowledged == {each.name for sent in plan.postings for each in sent}
    assert proxy.met.total() > 10


def _complaints(folder: Path) -> list[str]:
    """Return what the processes said that nobody should have to read."""
    found = []
    for log in sorted(folder.glob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            # The port may still be a dying process's; who starts it again sees to that.
            taken = "Address already in use" in line
            if (re.match("Traceback|[A-Za-z]*Error", line) or _is_error(line)) and not taken:
                found.append(f"{log.name}: {line}")
    return found


def _is_error(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return False
    return said.get("level") == "error" and said.get("event") not in EXPECTED


def _again(seed: int) -> str:
    return f"again: python -m pytest tests/chaos/test_chaos.py --chaos-seed {seed} -n 0"
