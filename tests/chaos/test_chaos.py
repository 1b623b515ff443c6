"""Processes are killed and cut off, systems fail in every way, senders repeat: promises hold."""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import brokers
import cluster
import pytest
import requests
import scenes
from evidence import collect
from network import NoNamespaces
from plan import Blow, Cut, Kind, Misfortune, Outage, Plan, Posting
from programs import Process, eventually
from proxy import Proxy
from scenes import Scene
from stage import PATIENCE, TERM, Relay, message, running_sandbox
from verdict import Heard, violations

Missing = Callable[[str, str], None]

#: Seconds between two tries of a sender.
PERSISTENCE = 0.15
#: What a sender may be told; anything else is a fault of ours.
ANSWERS = {200, 503}
#: Errors that processes report because we kill others.
EXPECTED = {"process.died", "problem.opened", "problem.escalated"}
#: Who writes, among others, that the broker is away.
BROKER_LOGGERS = ("celery.beat", "celery.worker")
#: What a process says that could not begin because its server was away.
NO_STORE = "Error: postgresql://"


@dataclass(kw_only=True)
class Mail:
    """One message on its way from its sender, and what was heard of it."""

    posted_at: float = field(default_factory=time.monotonic)
    acknowledged_at: float | None = None
    statuses: Counter[str] = field(default_factory=Counter)
    doubtful: bool = False

    def heard(self) -> Heard:
        assert self.acknowledged_at is not None
        return Heard(
            posted_at=self.posted_at,
            acknowledged_at=self.acknowledged_at,
            statuses=self.statuses,
            doubtful=self.doubtful,
        )


class Storm:
    """One run of a plan against one scene."""

    def __init__(self, plan: Plan, scene: Scene, proxy: Proxy) -> None:
        self.plan, self.scene, self.proxy = plan, scene, proxy
        #: By name, every message that was posted.
        self.mail: dict[str, Mail] = {}
        #: What should not have happened on the way.
        self.oddities: list[str] = []
        self._running: dict[str, Process] = {}
        self._doors = itertools.cycle(scene.doors)
        self._lock = threading.Lock()
        #: Held while processes are ended and started.
        self._managing = threading.RLock()
        #: Held while a server is away.
        self._outage = threading.Lock()
        self._over = threading.Event()
        self._pause = threading.Event()

    def rage(self) -> None:
        """Start everything, post everything, let all go wrong, and wait until all has arrived."""
        with ThreadPoolExecutor(len(self.plan.commands)) as threads:
            list(threads.map(self._start, self.plan.commands))
        size = len(self.plan.postings) + len(self.plan.misfortunes) + 2
        with ThreadPoolExecutor(size) as threads:
            keeping = threads.submit(self._keep)
            try:
                futures = [threads.submit(self._send, each) for each in self.plan.postings]
                futures += self._strike(threads)
                for future in futures:
                    future.result()
                self.scene.any.settle(patience=2 * PATIENCE)
            finally:
                self._over.set()
            keeping.result()

    def heard(self) -> dict[str, Heard]:
        """Return what is known of each message that was acknowledged."""
        acknowledged = {n: m for n, m in self.mail.items() if m.acknowledged_at is not None}
        return {name: mail.heard() for name, mail in acknowledged.items()}

    def standing(self) -> list[str]:
        """Say what each process is doing, for a run that did not end."""
        return [f"{name}: {process.standing()}" for name, process in self._running.items()]

    def _start(self, name: str) -> None:
        """Start a command, as a process manager would: again, if the port is not free yet."""
        command, relay = self.plan.commands[name], self.scene.nodes[name]

        def runs() -> bool:
            process = self._running[name] = relay.run(command, name=name)
            if command == "work":
                return True
            eventually(lambda: relay.answers() or process.code is not None, said=f"{name} starts")
            return process.code is None or "Address already in use" not in process.said()

        eventually(runs, said=f"{name} has its port")

    def _send(self, postings: list[Posting]) -> None:
        for posting in postings:
            self._pause.wait(posting.pause)
            with self._lock:
                self.mail[posting.name] = Mail()
            post = self._post_twice if posting.twice else self._post
            eventually(
                lambda post=post, posting=posting: post(posting) or self._pause.wait(PERSISTENCE),
                said=f"{posting.name} is acknowledged",
            )
            if posting.again:
                self._post(posting)

    def _post_twice(self, posting: Posting) -> bool:
        """Post at two doors at the same moment; return whether one acknowledged."""
        with ThreadPoolExecutor(2) as both:
            return any(list(both.map(self._post, [posting, posting])))

    def _post(self, posting: Posting) -> bool:
        """Post at the next door; return whether it acknowledged."""
        with self._lock:
            door = next(self._doors)
        answer = self._ask(door, posting)
        acknowledged = answer is not None and answer.status_code == 200
        with self._lock:
            mail = self.mail[posting.name]
            if answer is not None and acknowledged:
                mail.statuses[answer.json()["status"]] += 1
                mail.acknowledged_at = mail.acknowledged_at or time.monotonic()
            else:
                mail.doubtful = True
        return acknowledged

    def _ask(self, door: Relay, posting: Posting) -> requests.Response | None:
        what = message(posting.name, conversation=posting.conversation, type=posting.type)
        try:
            answer = door.post(what, timeout=10)
        except requests.RequestException:
            return None
        if answer.status_code not in ANSWERS:
            self.oddities.append(f"{posting.name} was answered {answer.status_code}")
        if answer.status_code == 503 and "Retry-After" not in answer.headers:
            self.oddities.append("a 503 did not say when to come again")
        return answer

    def _strike(self, threads: ThreadPoolExecutor) -> list[Future[None]]:
        """Let go wrong what is planned; return what takes its time."""
        lasting = []
        for each in self.plan.misfortunes:
            # Later ones come although fewer calls were made than the plan thought.
            self.proxy.await_calls(each.after, timeout=4)
            self._pause.wait(each.delay)
            if isinstance(each, Blow):
                self._deal(each)
            else:
                lasting.append(threads.submit(self._last, each))
        return lasting

    def _last(self, misfortune: Misfortune) -> None:
        match misfortune:
            case Cut(node=node, server=server, pause=pause):
                self.scene.cut(node, server)
                self._pause.wait(pause)
                self.scene.mend(node, server)
            case Outage(server=name, crash=crash, pause=pause):
                server = self.scene.servers[name]
                with self._outage:
                    server.stop("immediate" if crash else "fast")
                    self._pause.wait(pause)
                    server.start()

    def _keep(self) -> None:
        """Start again what ended by itself, as a process manager would."""
        while not self._over.wait(0.2):
            with self._managing:
                for name, process in list(self._running.items()):
                    if process.code is None:
                        continue
                    if not self._may_end(name, process):
                        said = process.said()[-2000:]
                        self.oddities.append(f"{name} ended with {process.code}:\n{said}")
                    self._start(name)

    def _may_end(self, name: str, process: Process) -> bool:
        """Return whether it is right that a process gave up, for its manager to decide."""
        said = process.said()
        if self.scene.servers and ".started" not in said and NO_STORE in said:
            return process.code == 1
        # The server does when its worker process is killed for a second time within seconds.
        return process.code == 1 and not name.startswith("work")

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


@contextmanager
def _scene(plan: Plan, proxy: Proxy, folder: Path, missing: Missing) -> Iterator[Scene]:
    if plan.kind is Kind.SQLITE:
        with scenes.on_one_machine(plan, proxy, folder) as scene:
            yield scene
        return
    if reason := cluster.unavailable():
        missing("postgres", reason)
    if plan.kind is Kind.CELERY and (reason := brokers.no_rabbitmq()):
        missing("rabbitmq", reason)
    with ExitStack() as stack:
        try:
            scene = stack.enter_context(scenes.on_a_fleet(plan, proxy, folder))
        except NoNamespaces as error:
            missing("netns", str(error))
        yield scene


@pytest.mark.chaos
def test_every_promise_holds_while_everything_breaks(
    chaos_seed: int, chaos_stage: Kind, tmp_path: Path, missing: Missing
) -> None:
    plan = Plan.of(chaos_seed, chaos_stage)
    with running_sandbox() as sandbox:
        proxy = Proxy(sandbox, plan.faults)
        with _scene(plan, proxy, tmp_path, missing) as scene:
            storm = Storm(plan, scene, proxy)
            try:
                storm.rage()
            except AssertionError as error:
                said = "\n".join([str(error), *storm.standing(), _again(plan)])
                pytest.fail(said, pytrace=False)
            scene.stop()
            records = requests.get(sandbox + "/records", timeout=10).json()
            heard = storm.heard()
            evidence = collect(scene.any, records, acknowledged=heard, heard=heard)

    found = violations(evidence) + storm.oddities + _complaints(tmp_path)
    if found:
        pytest.fail("\n".join([*found, _again(plan)]), pytrace=False)
    assert evidence.acknowledged == {each.name for sent in plan.postings for each in sent}
    assert proxy.met.total() > 10


def _complaints(folder: Path) -> list[str]:
    """Return what the processes said that nobody should have to read."""
    found = []
    for log in sorted(folder.rglob("*.log")):
        for line in log.read_text(errors="replace").splitlines():
            # The port may still be a dying process's; who starts it again sees to that, as it does
            # if the store was away.
            passing = "Address already in use" in line or line.startswith(NO_STORE)
            if (re.match("Traceback|[A-Za-z]*Error", line) or _is_error(line)) and not passing:
                found.append(f"{log.name}: {line}")
    return found


def _is_error(line: str) -> bool:
    try:
        said = json.loads(line)
    except ValueError:
        return False
    bad = said.get("level") in ("error", "critical")
    # Celery has much to say about a broker that is away.
    of_celery = str(said.get("logger")).startswith(BROKER_LOGGERS)
    return bad and not of_celery and said.get("event") not in EXPECTED


def _again(plan: Plan) -> str:
    which = f"--chaos-stage {plan.kind} --chaos-seed {plan.seed}"
    return f"again: python -m pytest tests/chaos/test_chaos.py {which} -n 0"
