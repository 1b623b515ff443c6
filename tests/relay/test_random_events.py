"""Random events among honest ones: whatever strangers' fields hold, every honest one is stored."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlencode

import pytest
from fakes import customer
from flask import Flask

from relay.app import create_app
from relay.config import installed
from relay.config.load import load
from relay.refused import Refusals
from relay.store import Database, Inbox, Queries

ON_BOTH = True

SECRET = b"a secret"
CONFIG = """\
server: {max_body: 2MiB}
endpoints:
  - {path: /json, signing_secrets: [a secret]}
  - {path: /form, format: form, signing_secrets: [a secret]}
destinations:
  crm: {connector: webhook, url: "http://127.0.0.1:9"}
  chat: {connector: webhook, url: "http://127.0.0.1:9"}
outbound: {allow: ["127.0.0.0/8"]}
routes:
  - {when: {keyword: STOP}, to: [chat]}
  - {when: {body: "(?i)invoice|überweisung"}, to: [chat]}
  - {when: {from: "+61400000001"}, to: [chat]}
  - {to: [crm]}
"""

LENGTHS = (1, 255, 3_000, 60_000)
#: Of ten texts so many have each length: the longest are most of the work.
WEIGHTS = (4, 3, 2, 1)
SCRIPTS = {
    "latin": "abcdefghijklmnopqrstuvwxyz ABC 0123456789",
    "marked": "äöüßéèñçÅŁřž",
    "greek and cyrillic": "αβγδΣЖЩЮЯё",
    "arabic and hebrew": "ابتثجحאבגדה\u200f\u202b",
    "chinese and kana": "短信中文字かなカナ漢字",
    "astral": "🙂🙏🏽👨\u200d👩\u200d👧𝔘𐍈",
    "marks": "e\u0301\u0302\u0303\u20dd",
    "invisible": "\u200b\u2060\ufeff\u00ad\ufe0f\u3164",
    "digits": "٠١٢٣४५६７８９",
    "controls": "\x00\x01\x07\x1b\x7f\x85\u2028\u2029\t\r\n",
    "halves": "\ud83d\ude42\udfff\ud800",
    "syntax": "'\"\\%_;--{}[]()$1:x?,\x00",
}
JSON_FIELDS = (
    "messageId", "eventType", "direction", "from", "to", "messageBody", "eventTimestamp",
    "signature", "another",
)  # fmt: skip
FORM_FIELDS = ("id", "recipient", "message", "success", "another")


@dataclass(frozen=True, slots=True)
class Posted:
    """A signed request, and whether an honest sender made it."""

    path: str
    body: bytes
    is_honest: bool = False


def _honest(number: int) -> Posted:
    said = {
        "messageId": f"honest {number}",
        "eventType": "SMS_REPLY",
        "direction": "reply",
        "from": customer(number % 20),
        "to": "+61700000000",
        "messageBody": f"hello {number}",
    }
    return Posted("/json", json.dumps(said).encode(), is_honest=True)


def _random(rng: Random, number: int) -> Posted:
    """Make an event that has random values in a few of its fields."""
    text = partial(_text, rng)
    if rng.random() < 0.2:
        form = {"id": f"f{number}", "recipient": customer(3), "message": "hi", "success": "yes"}
        form |= {name: text() for name in rng.sample(FORM_FIELDS, 2)}
        return Posted("/form", urlencode(form, errors="surrogatepass").encode())
    said: dict[str, Any] = json.loads(_honest(number).body) | {"messageId": f"r{number}"}
    for name in rng.sample(JSON_FIELDS, rng.randint(1, 3)):
        said[name] = _value(rng)
    if rng.random() < 0.2:
        said["metadata"] = {"accountId": _value(rng), text(255): _value(rng)}
    as_ascii = rng.random() < 0.5
    return Posted("/json", json.dumps(said, ensure_ascii=as_ascii).encode(errors="replace"))


def _value(rng: Random) -> Any:
    """Make what a field may hold: a text, most often."""
    if rng.random() < 0.8:
        return _text(rng)
    return rng.choice(
        [None, True, 0, -1, 2**63, 10**400, 1.5, 1e308, [], {}, ["+61400000001"] * 9, {"a": {}}]
    )


def _text(rng: Random, length: int | None = None) -> str:
    alphabet = SCRIPTS[rng.choice(list(SCRIPTS))]
    return "".join(rng.choices(alphabet, k=length or rng.choices(LENGTHS, WEIGHTS)[0]))


@pytest.fixture
def app(tmp_path: Path, database: Database, inbox: Inbox) -> Iterator[Flask]:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    config = load(path, find_connector=installed.find)
    refusals = Refusals(inbox.refuse)
    yield create_app(config, database=database, inbox=inbox, refusals=refusals)
    refusals.close()


def _post(app: Flask, posted: Posted) -> int:
    signature = hmac.new(SECRET, posted.body, hashlib.sha256).hexdigest()
    kind = "application/json" if posted.path == "/json" else "application/x-www-form-urlencoded"
    headers = {"Content-Type": kind, "X-GoFax-Signature": signature}
    return app.test_client().post(posted.path, data=posted.body, headers=headers).status_code


@pytest.mark.parametrize(
    "number", [100, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.long])]
)
def test_whatever_random_events_hold_every_honest_one_among_them_is_stored(
    app: Flask, queries: Queries, number: int
) -> None:
    rng = Random(number)
    posts = [_random(rng, each) for each in range(number)]
    posts += [_honest(each) for each in range(number // 4)]
    rng.shuffle(posts)

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(partial(_post, app), posts))

    answers = Counter(zip((each.is_honest for each in posts), statuses, strict=True))
    assert answers == {(True, 200): number // 4, (False, 200): number}
    stored = {view.event.message_id: view for view in queries.events()}
    for each in range(number // 4):
        assert stored[f"honest {each}"].event.body == f"hello {each}"
        assert [d.destination for d in stored[f"honest {each}"].deliveries][-1:] == ["crm"]
