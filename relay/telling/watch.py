"""Looks for problems every few seconds and tells people, beside the work of a process."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Collection, Sequence
from functools import partial

import structlog

from relay.config.certificates import Identity
from relay.config.model import Config
from relay.every import Every
from relay.rules import problems as rules
from relay.rules.kinds import Change, Kind
from relay.rules.problems import Facts, Problem, Step
from relay.store import Database, StoreUnavailable, seen
from relay.store.facts import gather
from relay.store.nodes import Nodes
from relay.store.problems import Problems
from relay.store.seen import Seen
from relay.telling import channels, heartbeat, public

log = structlog.get_logger()

#: Seconds between two looks, from the start to the first one (nodes need a moment to say that they
#: are there), and between two calls of the heartbeat.
LOOK, FIRST, HEARTBEAT = 5.0, 10.0, 60.0
#: Seconds in which the use of an old secret is noted once.
SECRETS = 60.0
#: Seconds between two notes of what the receiver shows.
SERVED = seen.SERVED.total_seconds() / 4


def facts_of(config: Config, database: Database) -> Facts:
    """Return the state of things as far as *config* is concerned."""
    return gather(
        database,
        destinations=config.destinations,
        channels=[each.name for each in config.alerts],
        public_url=config.public_url,
        keys={each.name: each.signing_keys for each in config.endpoints},
    )


class OldSecrets:
    """The secrets that this process sees in use although they are old, or end soon."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, bytes], float] = {}
        self._used: set[tuple[str, bytes]] = set()

    def note(self, endpoint: str, key: bytes) -> None:
        """Note one that was used; once a minute is enough."""
        now, which = time.monotonic(), (endpoint, key)
        if now - self._noted.get(which, -math.inf) >= SECRETS:
            self._noted[which] = now
            self._used.add(which)

    def take(self) -> Collection[tuple[str, bytes]]:
        """Return those that were noted since the last call."""
        used, self._used = self._used, set()
        return used


class Watch:
    """Judges the state of the store and sends alerts; each process may have one.

    What it does goes through the store, so that only one of them opens a problem and sends an
    alert, and what one did not finish another does.
    """

    def __init__(
        self,
        config: Config,
        database: Database,
        *,
        node: str,
        old_secrets: OldSecrets | None = None,
        identity: Identity | None = None,
    ) -> None:
        """*old_secrets*: those that this process sees. *identity*: what it shows callers."""
        self._config, self._database, self._node = config, database, node
        self._old_secrets = old_secrets or OldSecrets()
        self._problems, self._seen = Problems(database), Seen(database)
        # Who cannot tell anybody can take and deliver events all the same.
        every = partial(Every, away=StoreUnavailable, is_vital=False)
        self._judging = every("problems", LOOK, self._judge, first=FIRST)
        self._sending = every("alerts", LOOK, self._send, first=FIRST)
        self._beating = every("call", HEARTBEAT, self.call)
        self._looking = every("certificate", HEARTBEAT, self.look, first=FIRST)
        self._identity = identity
        self._showing = every("served certificate", SERVED, self.note_served, first=FIRST)

    def start(self) -> None:
        self._judging.start()
        if self._config.alerts:
            self._sending.start()
        if self._config.heartbeat is not None:
            self._beating.start()
        if (self._config.public_url or "").startswith("https:"):
            self._looking.start()
        if self._identity is not None:
            self._showing.start()

    def close(self) -> None:
        """Stop; what is being sent is sent again by another, which says so."""
        loops = (self._judging, self._sending, self._beating, self._looking, self._showing)
        for loop in loops:
            loop.close(0.0)

    def _judge(self) -> None:
        config = self._config
        if used := self._old_secrets.take():
            self._seen.note_secrets(used)
        facts = facts_of(config, self._database)
        now = self._database.clock()
        found = rules.findings(facts, now=now, silence=config.longest_silence)
        for step in self._problems.judge(found, channels=self._channels):
            _log(step)
        self._problems.forget(before=now - config.kept.default)

    def _channels(self, problem: Problem, change: Change) -> Sequence[str]:
        """Return the channels to tell; one that fails is not told of its own failure."""
        own = problem.subject if problem.kind is Kind.ALERTS else None
        return [
            each.name
            for each in self._config.alerts
            if each.name != own and each.wants(problem.kind, change)
        ]

    def _send(self) -> None:
        console = self._config.admin.url if self._config.admin else None
        for channel in self._config.alerts:
            while claimed := self._problems.claim(channel.name, node=self._node):
                messages = [channels.message_of(each, console=console) for each in claimed]
                results = channels.send(self._config, channel, messages)
                self._problems.record(claimed, results)
                for seq, reason in results.items():
                    if reason is not None:
                        log.warning("alert.failed", channel=channel.name, seq=seq, reason=reason)
                if self._sending.pause(0.0):
                    return

    def call(self) -> None:
        """Call the heartbeat, if it is for this node to call and all is well."""
        if not (self._is_first() and self._is_well()):
            return
        if reason := heartbeat.call(self._config):
            log.warning("heartbeat.failed", reason=reason)

    def look(self) -> None:
        """Look at the certificate of `public_url`, if it is for this node and it is time."""
        url = self._config.public_url or ""
        if not self._seen.begin_look(url):
            return
        ends_at, fault = public.certificate_at(url)
        self._seen.end_look(url, ends_at=ends_at, fault=fault)

    def note_served(self) -> None:
        """Tell the other nodes when the certificate ends that this one shows."""
        if self._identity is not None:
            name = f"{self._identity.file} on {socket.gethostname()}"
            self._seen.note_served(name, ends_at=self._identity.shown.ends_at)

    def _is_first(self) -> bool:
        """Return whether it is for this node to call, and for no other that is alive."""
        nodes = Nodes(self._database)
        with self._database.reading() as db:
            return list(nodes.living(db)[:1]) == [self._node]

    def _is_well(self) -> bool:
        """Return whether no error is open that nobody has acknowledged."""
        return not any(
            each.level == "error" and each.acknowledged_at is None
            for each in self._problems.unresolved()
        )


def _log(step: Step) -> None:
    problem = step.problem
    if step.told is None:
        return
    level = log.info if step.told == "resolved" else getattr(log, problem.level)
    level(
        f"problem.{step.told}",
        problem_id=problem.id,
        kind=problem.kind.value,
        subject=problem.subject or None,
        said=problem.said,
    )
