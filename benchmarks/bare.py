"""The least that an accept can be: the same server and Flask, in three steps, for comparison.

``verify`` checks the HMAC and parses the JSON. ``wait`` also waits as long as a commit takes, with
all others who wait, and stores nothing. ``commit`` waits until one thread has committed the event
and one delivery: two short rows, synced. The relay does more than ``commit``; ``wait`` shows what
it costs that threads wait together.

    python benchmarks/bare.py verify|wait|commit PORT SECRET FILE
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import queue
import secrets
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from flask import Flask, request
from flask.typing import ResponseReturnValue
from granian.constants import Interfaces
from granian.server import Server
from itsdangerous import HMACAlgorithm

from relay.processes.process import prefer_work_to_wake_ups

#: Seconds that a commit takes, and that it waits on while others come, as the relay's does.
COMMIT, GATHER = 0.003, 0.002

TABLES = """\
CREATE TABLE events (id TEXT PRIMARY KEY, message_id TEXT, key BLOB UNIQUE, raw BLOB, at REAL);
CREATE TABLE deliveries (event_id TEXT, destination TEXT, state TEXT, due_at REAL);
"""


class Waiting(NamedTuple):
    """An event that is to be committed, and the lock that its view waits for."""

    message_id: str
    body: bytes
    done: threading.Lock


#: Makes what waits together durable.
Commit = Callable[[Sequence[Waiting]], None]


def main() -> None:
    step, port, secret, file = sys.argv[1:]
    waiting: queue.SimpleQueue[Waiting] | None = None if step == "verify" else queue.SimpleQueue()
    app = make_app(secret.encode(), waiting)

    def load() -> Flask:
        if waiting is not None:
            prefer_work_to_wake_ups()
            commit = committing(file) if step == "commit" else lambda _: time.sleep(COMMIT)
            threading.Thread(target=commit_all, args=(waiting, commit), daemon=True).start()
        return app

    # Python 3.14 would start the server's process another way, which cannot take load() along.
    multiprocessing.set_start_method("fork")
    Server("app", address="127.0.0.1", port=int(port), interface=Interfaces.WSGI,
           blocking_threads=512, backpressure=1024, websockets=False, log_enabled=False).serve(
        target_loader=load, wrap_loader=False)  # fmt: skip


def make_app(secret: bytes, waiting: queue.SimpleQueue[Waiting] | None) -> Flask:
    app = Flask(__name__)
    algorithm = HMACAlgorithm(hashlib.sha256)

    @app.post("/webhooks/gofax")
    def receive() -> ResponseReturnValue:
        body = request.get_data()
        claimed = bytes.fromhex(request.headers.get("X-GoFax-Signature", ""))
        if not algorithm.verify_signature(secret, body, claimed):
            return {"error": "no"}, 401
        message_id = json.loads(body)["messageId"]
        if waiting is not None:
            done = threading.Lock()
            done.acquire()
            waiting.put(Waiting(message_id, body, done))
            done.acquire()
        return {"messageId": message_id}

    return app


def commit_all(waiting: queue.SimpleQueue[Waiting], commit: Commit) -> None:
    """Commit all who wait together, again and again."""
    had_several = False
    while True:
        batch = [waiting.get()]
        before = -1
        while had_several and before < (count := waiting.qsize()):
            before = count
            time.sleep(GATHER)
        batch += [waiting.get() for _ in range(waiting.qsize())]
        had_several = len(batch) > 1
        commit(batch)
        for each in batch:
            each.done.release()


def committing(file: str) -> Commit:
    """Make the tables in *file*, and return what inserts into them."""
    db = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.executescript(TABLES)

    def commit(batch: Sequence[Waiting]) -> None:
        at = time.time()
        events = [
            (secrets.token_hex(12), each.message_id, _key(each.body), each.body, at)
            for each in batch
        ]
        db.execute("BEGIN IMMEDIATE")
        db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", events)
        db.executemany(
            "INSERT INTO deliveries VALUES (?, ?, ?, ?)",
            [(event_id, "chat", "pending", at) for event_id, *_ in events],
        )
        db.execute("COMMIT")

    return commit


def _key(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


if __name__ == "__main__":
    main()
