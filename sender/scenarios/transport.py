"""Transport: events one by one, all at once, slowly, in pieces, compressed, over TLS."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

from sender.attempt import Attempt
from sender.delivery import explain
from sender.event import Event
from sender.scenarios.base import Check, Skip, answered, saw, scenario
from sender.scenarios.repeats import until_accepted
from sender.scenarios.stage import Setting, Stage, new_customer
from sender.wire import chunks

#: Slow clients at the same time.
SLOW_CLIENTS = 20
#: Seconds between the bytes of a slow client.
DRIBBLE = 0.1


@scenario(
    "prompt",
    title="five events, one after the other",
    right="2xx at once; one effect each",
    why="GoFax asks for a prompt answer: keep the event, answer, and work afterwards",
)
def prompt(stage: Stage) -> Iterator[Check]:
    for nth in ("first", "second", "third", "fourth", "fifth"):
        attempt = stage.post(stage.once(stage.event()))
        yield stage.prompt(attempt, f"the {nth}: 2xx")


@scenario(
    "burst",
    title="many events at the same moment",
    right="2xx at once for all, or 429 or 503 and 2xx later; one effect each",
    why="the replies to a mass mailing come within a minute",
)
def burst(stage: Stage) -> Iterator[Check]:
    events = [stage.once(stage.event(sender=new_customer())) for _ in range(stage.setting.burst)]
    attempts = stage.post_together(events)
    slowest = max(_seconds(each) for each in attempts)
    limit = stage.setting.prompt
    said = f"slowest {slowest:.2f} s"
    yield Check(what=f"all answered within {limit:g} s", passed=slowest <= limit, saw=said)
    last = [
        attempt if attempt.is_success else until_accepted(stage, event)
        for attempt, event in zip(attempts, events, strict=True)
    ]
    good = sum(each.is_success for each in last)
    others = sorted({saw(each) for each in last if not each.is_success})
    said = "; ".join([f"{good} of {len(events)}", *others])
    yield Check(what="all: 2xx in the end", passed=good == len(events), saw=said)


@scenario(
    "slow-client",
    title=f"{SLOW_CLIENTS} clients send their bodies a byte at a time; another one does not",
    right="the other one is answered promptly; the slow ones get 2xx or 408",
    why="a receiver that waits for one request must not keep the others waiting",
)
def slow_client(stage: Stage) -> Iterator[Check]:
    events = [stage.event(sender=new_customer()) for _ in range(SLOW_CLIENTS)]
    started, done = threading.Barrier(SLOW_CLIENTS + 1), threading.Event()
    pool = ThreadPoolExecutor(SLOW_CLIENTS)
    try:
        running = [pool.submit(_dribble, stage, each, started, done) for each in events]
        with contextlib.suppress(threading.BrokenBarrierError):
            # From here on all of them are in the middle of their bodies.
            started.wait(stage.setting.prompt)
        # A receiver that handles one request at a time is free again when it is too late.
        release = threading.Timer(stage.setting.prompt, done.set)
        release.daemon = True
        release.start()
        honest = stage.post(stage.once(stage.event()))
        release.cancel()
        done.set()
        slow = [each.result() for each in running]
    finally:
        done.set()
        pool.shutdown(wait=False, cancel_futures=True)
    for event, attempt in zip(events, slow, strict=True):
        (stage.once if attempt.is_success else stage.at_most_once)(event)
    yield stage.prompt(honest, "an honest event meanwhile: 2xx")
    wrong = [each for each in slow if not answered(each, "", also=(408,)).passed]
    said = saw(wrong[0]) if wrong else f"{sum(each.is_success for each in slow)} of them 2xx"
    yield Check(what="the slow ones: 2xx or 408", passed=not wrong, saw=said)


@scenario(
    "chunked",
    title="a body in chunks, without its length",
    right="2xx and one effect, or 411",
    why="every server of HTTP/1.1 has to read it, and proxies turn other bodies into it",
)
def chunked(stage: Stage) -> Iterator[Check]:
    event = stage.event()
    body = event.encode()
    pieces = chunks(body[at : at + 100] for at in range(0, len(body), 100))
    attempt = stage.post_pieces(body, pieces, headers={"Transfer-Encoding": "chunked"})
    stage.as_answered(event, attempt)
    yield answered(attempt, "in chunks", also=(411,))
    yield stage.still_works()


@scenario(
    "gzip",
    title="a compressed body, signed as it is sent",
    right="415, another 4xx, or 2xx and one effect; the next event is accepted",
    why="GoFax does not compress: a receiver bounds what comes out, or says that it takes none",
)
def gzipped(stage: Stage) -> Iterator[Check]:
    event = stage.event()
    attempt = stage.post(gzip.compress(event.encode()), headers={"Content-Encoding": "gzip"})
    stage.as_answered(event, attempt)
    yield answered(attempt, "compressed")
    yield stage.still_works()


@scenario(
    "certificate",
    title="the TLS certificate",
    right="in date, in the name of the host, and of a public CA (or of the one in --ca)",
    why="GoFax calls https only and checks the certificate: an expired or foreign one ends all "
    "deliveries",
)
def certificate(stage: Stage) -> Iterator[Check]:
    if urlsplit(stage.setting.target.url).scheme != "https":
        raise Skip("the URL is http, so TLS ends elsewhere: give the URL that GoFax calls")
    yield check_certificate(stage.setting)


def check_certificate(setting: Setting) -> Check:
    """Check the certificate, whatever --insecure says."""
    target = setting.target
    parts = urlsplit(target.url)
    host = parts.hostname or ""
    context = replace(target.trust, insecure=False).context()
    what = "a certificate that GoFax accepts"
    try:
        with (
            socket.create_connection((host, parts.port or 443), target.timeout) as raw,
            context.wrap_socket(raw, server_hostname=host) as sock,
        ):
            ends_at = ssl.cert_time_to_seconds(str((sock.getpeercert() or {})["notAfter"]))
            version = sock.version()
    except OSError as error:
        return Check(what=what, passed=False, saw=explain(error, timeout=target.timeout))
    until = datetime.fromtimestamp(ends_at, UTC)
    return Check(what=what, passed=True, saw=f"{version}, valid until {until:%Y-%m-%d}")


def _dribble(
    stage: Stage, event: Event, started: threading.Barrier, done: threading.Event
) -> Attempt:
    """Post *event* slowly: the end of its body goes out when *done* is set."""
    body = event.encode()

    def pieces() -> Iterator[bytes]:
        yield body[:1]
        with contextlib.suppress(threading.BrokenBarrierError):
            started.wait(stage.setting.prompt)
        for at in range(1, len(body) - 1):
            if done.wait(DRIBBLE):
                yield body[at:]
                return
            yield body[at : at + 1]
        done.wait()
        yield body[-1:]

    return stage.post_pieces(body, pieces(), headers={"Content-Length": str(len(body))})


def _seconds(attempt: Attempt) -> float:
    if attempt.answer is None:
        return float("inf")
    return attempt.answer.duration.total_seconds()


TRANSPORT = (prompt, burst, slow_client, chunked, gzipped, certificate)
