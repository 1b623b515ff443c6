"""How events come over the network: promptly, slowly, in pieces, all at once, over TLS."""

from __future__ import annotations

import gzip
import socket
import ssl
import time
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
from sender.wire import chunks, dribbled

#: How many slow clients there are at the same time.
SLOW_CLIENTS = 20


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
    why="a mass mailing brings its replies in one minute",
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
    title=f"{SLOW_CLIENTS} clients send their bodies a few bytes at a time; others do not",
    right="others are answered promptly; the slow ones get 2xx or 408",
    why="a receiver that waits for one request must not keep the others waiting",
)
def slow_client(stage: Stage) -> Iterator[Check]:
    events = [stage.at_most_once(stage.event(sender=new_customer())) for _ in range(SLOW_CLIENTS)]
    with ThreadPoolExecutor(SLOW_CLIENTS) as pool:
        running = [pool.submit(_dribble, stage, event) for event in events]
        # All are connected and in the middle of their bodies by then.
        time.sleep(stage.setting.dribble / 4)
        honest = stage.post(stage.once(stage.event()))
        slow = [each.result() for each in running]
    yield stage.prompt(honest, "an honest event meanwhile: 2xx")
    wrong = [each for each in slow if not answered(each, "", also=(408,)).passed]
    said = saw(wrong[0]) if wrong else f"{sum(each.is_success for each in slow)} of them 2xx"
    yield Check(what="the slow ones: 2xx or 408", passed=not wrong, saw=said)


@scenario(
    "chunked",
    title="a body in chunks, its length not announced",
    right="2xx and one effect, or 411",
    why="every server of HTTP/1.1 has to read it, and proxies make it of other bodies",
)
def chunked(stage: Stage) -> Iterator[Check]:
    event = stage.at_most_once(stage.event())
    body = event.encode()
    pieces = chunks(dribbled(body, pieces=3, over=0.0))
    headers = {"Transfer-Encoding": "chunked"}
    attempt = stage.post_pieces(body, pieces, headers=headers)
    yield answered(attempt, "in chunks", also=(411,))
    yield stage.still_works()


@scenario(
    "gzip",
    title="a compressed body, signed as it is sent",
    right="415, or another 4xx, or 2xx and one effect; then business as usual",
    why="GoFax does not compress: who takes it has to limit what comes out, who does not says so",
)
def gzipped(stage: Stage) -> Iterator[Check]:
    event = stage.at_most_once(stage.event())
    headers = {"Content-Encoding": "gzip"}
    yield answered(stage.post(gzip.compress(event.encode()), headers=headers), "compressed")
    yield stage.still_works()


@scenario(
    "certificate",
    title="the TLS certificate",
    right="in date, in the name of the host, and of a public CA (or of the one in --ca)",
    why="GoFax calls https only, with a valid certificate: an expired or foreign one ends all "
    "deliveries",
)
def certificate(stage: Stage) -> Iterator[Check]:
    if urlsplit(stage.setting.target.url).scheme != "https":
        raise Skip("the URL is http: TLS ends elsewhere; give the URL that GoFax calls")
    yield check_certificate(stage.setting)


def check_certificate(setting: Setting) -> Check:
    """Check the certificate, even where --insecure says not to mind."""
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


def _dribble(stage: Stage, event: Event) -> Attempt:
    body = event.encode()
    pieces = dribbled(body, pieces=20, over=stage.setting.dribble)
    return stage.post_pieces(body, pieces, headers={"Content-Length": str(len(body))})


def _seconds(attempt: Attempt) -> float:
    if attempt.answer is None:
        return float("inf")
    return attempt.answer.duration.total_seconds()


TRANSPORT = (prompt, burst, slow_client, chunked, gzipped, certificate)
