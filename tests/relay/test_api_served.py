"""The API as a real relay serves it: over HTTP, and to the end of its process."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes import eventually
from site_of_nodes import PATIENCE, Flow, Site

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path, system: Flow) -> Iterator[Site]:
    made = Site(tmp_path, store="sqlite:///relay.db", flow=system.url)
    path = made.folder / "config.yaml"
    text = path.read_text()
    path.write_text(re.sub(r"(?m)^admin: .*$", "admin: {listen: '127.0.0.1:0'}", text))
    yield made
    made.close()


class Client:
    """A program with a token."""

    def __init__(self, site: Site, scope: str) -> None:
        eventually(lambda: "admin.served" in site.said(), seconds=PATIENCE)
        url = re.findall(r'"metrics":"(http://[^"/]*)/metrics"', site.said())[-1]
        made = site.run("tokens", "add", f"bot-{scope}", "--scope", scope)
        self._url, self._headers = url, {"Authorization": f"Bearer {made.stdout.strip()}"}

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        url = self._url + (path if path.startswith("/api") else f"/api/v1{path}")
        headers = {**self._headers, **options.pop("headers", {})}
        return requests.request(method, url, headers=headers, timeout=PATIENCE, **options)


def test_it_is_answered_over_http_and_never_on_the_public_listener(site: Site) -> None:
    site.serve()
    assert site.post("m1", text="hello") == "accepted"
    client = Client(site, "operate")

    def delivered() -> bool:
        [event] = client.call("GET", "/events").json()["items"]
        return bool(event["deliveries"][0]["state"] == "delivered")

    eventually(delivered, seconds=PATIENCE)
    public = f"http://127.0.0.1:{site.port}/api/v1/events"
    assert requests.get(public, timeout=PATIENCE).status_code == 404
    assert client.call("HEAD", "/events").status_code == 200
    assert client.call("TRACE", "/events").status_code == 405
    big = client.call("POST", "/routes/try", data=b" " * (2 << 20),
                      headers={"Content-Type": "application/json"})  # fmt: skip
    assert big.status_code == 413
    chunked = client.call("POST", "/destinations/flow/pause", data=iter([b'{"why": ', b'"x"}']),
                          headers={"Content-Type": "application/json"})  # fmt: skip
    assert (chunked.status_code, chunked.json()["changed"]) == (200, True)
    assert chunked.json()["destination"]["reason"] == "x"


def test_an_act_that_runs_holds_up_no_end(site: Site) -> None:
    command = site.serve()
    for number in range(3):
        assert site.post(f"m{number}", customer=f"+6140000000{number}") == "accepted"
    client = Client(site, "operate")
    begun = client.call("POST", "/events/replay",
                        json={"filter": {}, "again": True, "rate": "1/1h"})  # fmt: skip
    assert begun.status_code == 202
    at = begun.headers["Location"]
    eventually(lambda: client.call("GET", at).json()["done"] == 1, seconds=PATIENCE)

    command.send_signal(signal.SIGTERM)

    assert command.wait(20) == 0
    assert "killed" not in site.said()
