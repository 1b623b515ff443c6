"""The process that receives, and the watch over all that do."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import time
from collections.abc import Sequence

import structlog

from relay import destinations
from relay.app import create_app
from relay.config.certificates import Identity
from relay.config.model import Config
from relay.node import Heartbeat, NodeSlot
from relay.processes.granian import serve
from relay.processes.listening import Listener
from relay.processes.process import (
    Ready,
    allow_connections,
    close_store,
    cluster,
    prefer_work_to_wake_ups,
    write_no_core_files,
)
from relay.refused import Refusals
from relay.store import Inbox, connect
from relay.store.sqlite import LARGE_CACHE
from relay.telling.counts import Counts
from relay.telling.metrics import Metrics
from relay.telling.watch import OldSecrets, Watch

log = structlog.get_logger()

#: Seconds between looks at the receiver, that an answer may take, after which its silence ends it
#: (with the third look, before ten are over), and that it may take to start.
LOOK_AT_RECEIVER, LONGEST_ANSWER, SILENT_AFTER, LONGEST_START = 1.0, 2.0, 6.0, 30.0
#: How often a look asks for each receiver, if there are several.
ASKED = 3


def run_web(
    config: Config,
    listener: Listener,
    identity: Identity | None,
    counts: Counts,
    name: str,
    ready: Ready,
) -> None:
    """Receive in this process until SIGTERM or SIGINT, or SIGUSR1, which leaves more time.

    *name*: of the node, at a store that a server keeps.
    """
    write_no_core_files()
    allow_connections()
    prefer_work_to_wake_ups()
    database = connect(config.store, reserve=config.disk_reserve, cache=LARGE_CACHE)
    node = NodeSlot(database.file, "web").name if database.file else name
    tell = cluster().hints(config).give if config.engine.celery else None
    metrics = Metrics(counts.page())
    inbox = Inbox(
        database,
        tell=tell,
        keep=config.requests.keep,
        looking=destinations.looking(config),
        committed=metrics.committed("accept"),
    )
    refusals = Refusals(inbox.refuse)
    heartbeat = Heartbeat(database, name=node, role="web", config=config)
    heartbeat.start()
    old_secrets = OldSecrets()
    watch = Watch(config, database, node=node, old_secrets=old_secrets, identity=identity)
    watch.start()
    app = create_app(
        config,
        database=database,
        inbox=inbox,
        refusals=refusals,
        metrics=metrics,
        old_secrets=old_secrets,
    )
    serve(app, listener, threads=config.server.threads, identity=identity, ready=ready)
    watch.close()
    heartbeat.close()
    close_store(database)


def announce(config: Config, listener: Listener, identity: Identity | None) -> None:
    """Log what is received where, however many processes receive it."""
    log.info("web.started", listen=listener.address)
    if identity is not None:
        announce_certificate(identity)
    scheme = "https" if identity else "http"
    for each in config.endpoints:
        url = f"{scheme}://{listener.address}{each.path}"
        log.info("endpoint.served", url=url, guard=each.guard)


def announce_certificate(identity: Identity) -> None:
    """Log which certificate is shown, and until when it is good."""
    until = identity.shown.ends_at.isoformat()
    log.info("tls.served", names=list(identity.shown.names), until=until)


class ReceiverWatch:
    """Kills receivers that no longer answer, so that others are started.

    Who answers is chance, so the more there are, the oftener one look asks; that one of them is
    silent ends all.
    """

    def __init__(self) -> None:
        self._next_look = time.monotonic() + LOOK_AT_RECEIVER
        self._has_answered = False
        #: When the first look in a row without an answer began.
        self._silent_since: float | None = None

    def look(self, address: str, processes: Sequence[int], *, is_encrypted: bool) -> None:
        """Ask the *processes* that receive at *address*, unless that was done a moment ago.

        It takes no thread, as whoever forks should have none; but it may take LONGEST_ANSWER.
        """
        began = time.monotonic()
        if not processes or began < self._next_look:
            return
        self._next_look = began + LOOK_AT_RECEIVER
        asked = 1 if len(processes) < 2 else ASKED * len(processes)
        if all(answers(address, is_encrypted=is_encrypted) for _ in range(asked)):
            self._silent_since, self._has_answered = None, True
            return
        self._silent_since = self._silent_since or began
        silent = time.monotonic() - self._silent_since
        if silent > (SILENT_AFTER if self._has_answered else LONGEST_START):
            for pid in processes:
                log.error("receiver.silent", pid=pid, seconds=round(silent))
                os.kill(pid, signal.SIGKILL)
            self._silent_since, self._has_answered = None, False


def answers(address: str, *, is_encrypted: bool = False) -> bool:
    """Return whether a receiver answers at *address*."""
    connection: http.client.HTTPConnection
    if is_encrypted:
        # Our own port, by an address that is not in the certificate.
        anything = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anything.check_hostname = False
        anything.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(address, timeout=LONGEST_ANSWER, context=anything)
    else:
        connection = http.client.HTTPConnection(address, timeout=LONGEST_ANSWER)
    try:
        connection.request("GET", "/livez")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
