"""What goes wrong in a real relay is told once within a minute, and so is its end."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
import site_of_nodes
from disks import Ballast, NoMounts, in_memory
from fakes import eventually
from gofax import sign
from site_of_nodes import PATIENCE, Flow, Site

from connectors.suites.mailbox import Mailbox

pytestmark = pytest.mark.slow

#: What a person may wait for the news: a minute, and as much again on a busy machine.
MINUTE = 120.0
#: Notes a figure of a test.
Record = Callable[[str, object], None]
OPEN_ALWAYS = '{days: {mon-sun: "0:00-24:00"}}'


@pytest.fixture
def channel() -> Iterator[Flow]:
    with site_of_nodes.flow() as made:
        yield made


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with Mailbox() as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path, missing: Callable[[str, str], None]) -> Iterator[Path]:
    try:
        with in_memory(tmp_path / "disk", size="256m") as made:
            yield made
    except NoMounts as reason:
        missing("mounts", str(reason))


@pytest.fixture
def site(disk: Path, system: Flow, channel: Flow, mailbox: Mailbox) -> Iterator[Site]:
    """A relay on a small disk, with two channels."""
    made = Site(disk / "site", store="sqlite:///relay.db", flow=system.url)
    mail = f"mailto://127.0.0.1:{mailbox.port}?from=relay@example.com&to=desk@example.com"
    path = made.folder / "config.yaml"
    path.write_text(
        path.read_text().replace("endpoints: [", "endpoints: [{path: /in, signing_secrets: [s]}, ")
        + f"alerts: [{{url: '{channel.url.replace('http:', 'json:')}'}}, {{url: '{mail}'}}]\n"
        + "disk_reserve: 64MiB\n"
    )
    yield made
    made.close()


class Told:
    """What the two channels were told, and how long that took."""

    def __init__(self, channel: Flow, mailbox: Mailbox) -> None:
        self._channel, self._mailbox = channel, mailbox
        self._begun = time.monotonic()
        self.took: dict[str, float] = {}

    def by_json(self) -> list[str]:
        return [_title(each["title"]) for each in list(self._channel.got)]

    def by_mail(self) -> list[str]:
        return [_title(str(each["Subject"])) for each in self._mailbox.messages]

    def begin(self) -> None:
        self._begun = time.monotonic()

    def hears(self, *titles: str) -> None:
        """Wait until both channels were told each of *titles*."""
        left = set(titles)

        def is_complete() -> bool:
            for each in left & set(self.by_json()) & set(self.by_mail()):
                self.took[each] = round(time.monotonic() - self._begun, 1)
                left.remove(each)
            return not left

        site_of_nodes.within(MINUTE, is_complete)

    def once(self) -> list[Counter[str]]:
        """Count what each channel was told, without what says of itself that it is repeated."""
        by_json = [(each["title"], each["message"]) for each in self._channel.got]
        by_mail = [(str(each["Subject"]), each.get_content()) for each in self._mailbox.messages]
        return [
            Counter(_title(title) for title, text in each if "may be a repetition" not in text)
            for each in (by_json, by_mail)
        ]


def _title(text: str) -> str:
    return text.removeprefix("gofax-relay: ")


def post(site: Site, name: str, *, secret: str) -> int:
    said = {"messageId": name, "eventType": "SMS_REPLY", "from": "+61400000077", "to": "+617"}
    body = json.dumps(said).encode()
    signature = sign(body, secret)
    headers = {"Content-Type": "application/json", "X-GoFax-Signature": signature}
    url = f"http://127.0.0.1:{site.port}/in"
    try:
        return requests.post(url, body, headers=headers, timeout=10).status_code
    except requests.ConnectionError:
        return 0


def kill_children(command: int) -> None:
    """Kill the receiver and the worker, or what of them a command has."""
    for each in psutil.Process(command).children():
        os.kill(each.pid, signal.SIGKILL)


def test_what_goes_wrong_is_told_once_and_so_is_its_end(
    site: Site, system: Flow, channel: Flow, mailbox: Mailbox, disk: Path, record_property: Record
) -> None:
    told, ballast = Told(channel, mailbox), Ballast(disk)

    # Nobody delivers, and the secret is wrong.
    web = site.serve("web")
    told.begin()
    assert [post(site, f"w{number}", secret="wrong") for number in range(3)] == [401] * 3
    told.hears("signatures: opened", "no worker: opened")

    # Somebody does; the destination is down, and then the disk is full.
    system.status = 408
    work = site.start("work")
    told.begin()
    assert post(site, "m1", secret="s") == 200
    told.hears("no worker: resolved", "failing: opened")
    told.begin()
    ballast.fill(leaving=48 << 20)
    told.hears("store: opened")
    assert post(site, "m2", secret="s") == 503

    # Whoever told all that dies, and another one tells of the end.
    for command in (web, work):
        kill_children(command.pid)
    eventually(site.answers, seconds=PATIENCE)
    told.begin()
    ballast.clear()
    system.status = 204
    eventually(lambda: post(site, "m3", secret="s") == 200, seconds=PATIENCE)
    assert [post(site, f"g{number}", secret="s") for number in range(15)] == [200] * 15
    told.hears("signatures: resolved", "failing: resolved", "store: resolved")

    kinds = ("no worker", "signatures", "failing", "store")
    # One that was being sent when its node died comes again, and says so.
    assert told.once() == [_both(*kinds)] * 2
    everything = str(channel.got) + str(mailbox.taken)
    assert "61400000077" not in everything
    record_property("told_after", told.took)


def test_silence_in_business_hours_is_told_and_so_is_its_end(
    site: Site, channel: Flow, mailbox: Mailbox, record_property: Record
) -> None:
    told = Told(channel, mailbox)
    path = site.folder / "config.yaml"
    path.write_text(path.read_text() + f"silence: 30s\nbusiness_hours: {OPEN_ALWAYS}\n")
    site.serve()
    assert post(site, "m1", secret="s") == 200
    told.begin()
    told.hears("silence: opened")

    assert post(site, "m2", secret="s") == 200
    told.begin()
    told.hears("silence: resolved")

    assert told.by_json() == ["silence: opened", "silence: resolved"]
    record_property("told_after", told.took)


def _both(*kinds: str) -> Counter[str]:
    return Counter(f"{kind}: {change}" for kind in kinds for change in ("opened", "resolved"))
