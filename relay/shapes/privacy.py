"""What a config keeps of customers, where and for how long, and what goes to whom."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from typing_extensions import TypedDict

from connectors.base import Disclosure
from relay.config.model import Config
from relay.config.store_urls import without_password
from relay.rules.units import written
from relay.store.connect import file_of
from relay.store.refused import RING_BYTES, ROWS_KEPT
from relay.store.traffic import KEPT as TRAFFIC_KEPT

FOR_EVER = "for ever"


class KeptJson(TypedDict):
    """One kind of thing that the relay keeps."""

    what: str
    contains: str
    where: str
    how_long: str


class ToldJson(TypedDict):
    """Somebody who is told something."""

    who: str
    kind: str
    where: list[str]
    what: list[str]


class PrivacyJson(TypedDict):
    """What is kept, who is told, who sees it here, and what a person may ask for."""

    kept: list[KeptJson]
    told: list[ToldJson]
    seen_by: list[str]
    rights: list[str]


def privacy(config: Config, disclosures: Mapping[str, Disclosure | None]) -> PrivacyJson:
    """Describe *config*; *disclosures*: what each destination's connector says that it sends."""
    return {
        "kept": [*_store(config), *_beside_the_store(config)],
        "told": [*_destinations(config, disclosures), *_alerts(config)],
        "seen_by": list(_readers(config)),
        "rights": list(_rights()),
    }


def markdown(found: PrivacyJson) -> str:
    """Write it for who answers for personal data, to paste into their own document."""
    kept = [[each["what"], each["contains"], each["where"], each["how_long"]]
            for each in found["kept"]]  # fmt: skip
    told = [
        [each["who"], each["kind"], ", ".join(each["where"]), ", ".join(each["what"])]
        for each in found["told"]
    ]
    parts = [
        "## What is kept",
        _table(("what", "contains", "where", "how long"), kept),
        "## What goes to whom",
        _table(("destination", "kind", "where", "what of a message"), told)
        if told
        else "Nothing leaves the relay: there is no destination and no alert.",
        "## Who sees it here",
        "\n".join(f"- {each}" for each in found["seen_by"]),
        "## What a person may ask for",
        "\n".join(f"- {each}" for each in found["rights"]),
    ]
    return "\n\n".join(parts) + "\n"


def _store(config: Config) -> Iterator[KeptJson]:
    file = file_of(config.store)
    where = f"store: the SQLite file {file.name}" if file else f"store: {config.store_name}"
    default = written(config.kept.default)
    by_type = "".join(f"; {name} {written(age)}" for name, age in config.kept.types.items())
    refused = written(min(config.requests.for_, config.kept.default))
    keys = FOR_EVER if config.dedupe_horizon is None else written(config.dedupe_horizon)

    def kept(what: str, contains: str, how_long: str) -> KeptJson:
        return {"what": what, "contains": contains, "where": where, "how_long": how_long}

    yield kept(
        "messages (events)",
        "customer's number, our number, text, all that GoFax sent; headers without credentials; "
        "address of the caller",
        f"{default}{by_type}; longer while a delivery is unfinished",
    )
    yield kept(
        "deliveries and attempts",
        "what each destination answered, links and ids of tickets, contacts and messages",
        "with their message",
    )
    yield kept("conversations", "the two numbers, id of ticket or contact", "with their messages")
    yield kept("index for search", "words of the texts", "with their message, at most a day more")
    yield kept(
        "refused requests that carry a signature",
        "headers and body, which may have a number and a text; address of the caller",
        f"{refused}, at most {_size(config.requests.keep)}",
    )
    yield kept(
        "other refused requests",
        "headers, beginning of the body; address of the caller",
        f"{refused}, at most the newest {ROWS_KEPT:,} and {_size(RING_BYTES)}",
    )
    yield kept("repeated requests", "headers; address of the caller", default)
    yield kept(
        "keys, which tell repeated messages",
        "digest of the messageId; of numbers and text digests under a secret of the store",
        keys,
    )
    yield kept(
        "audit log: what people did, and why",
        "names of users, their addresses, their reasons; of customers the last three digits",
        f"{FOR_EVER}; words about a customer until that customer is erased",
    )
    yield kept(
        "users and tokens",
        "names, roles; passwords as argon2id, tokens as SHA-256",
        "until a person removes them",
    )
    yield kept("problems and alerts", "what does not work; nothing of a customer", default)
    yield kept("traffic by minute", "counts", written(TRAFFIC_KEPT))


def _beside_the_store(config: Config) -> Iterator[KeptJson]:
    yield {
        "what": "log",
        "contains": f"from level {config.logs.level} on: ids, outcomes, durations, addresses of "
        "callers, names of users who were refused something; numbers masked, no text",
        "where": "standard error: what runs the relay keeps it",
        "how_long": "as that is set",
    }
    yield {
        "what": "backups that the relay makes before it changes a store",
        "contains": "all of the store",
        "where": "beside the store",
        "how_long": written(config.backups.for_),
    }
    yield {
        "what": "backups, exports and receipts that people make",
        "contains": "all of the store; all of a customer; how much was erased",
        "where": "where they put them; only they can read the files",
        "how_long": "until they remove them",
    }
    if config.admin is not None:
        guard = "with a token" if config.admin.metrics_token else "for this machine alone"
        yield {
            "what": "metrics",
            "contains": "counts and durations by endpoint and destination; nothing of a customer",
            "where": f"/metrics at {config.admin.listen}, {guard}",
            "how_long": "what collects them decides",
        }


def _destinations(
    config: Config, disclosures: Mapping[str, Disclosure | None]
) -> Iterator[ToldJson]:
    for name, each in config.destinations.items():
        found = disclosures.get(name)
        unknown = "its connector does not say: ask its author"
        yield {
            "who": name,
            "kind": each.connector,
            "where": _relative(found.to, config) if found else [unknown],
            "what": list(found.what) if found else [unknown],
        }


def _alerts(config: Config) -> Iterator[ToldJson]:
    for each in config.alerts:
        yield {
            "who": f"alerts to {each.name}",
            "kind": f"Apprise, {each.url.get_secret_value().partition('://')[0]}",
            "where": ["as its URL says, which is a secret"],
            "what": ["nothing: which destination or endpoint has which problem, since when"],
        }
    if config.heartbeat is not None:
        host = urllib.parse.urlsplit(config.heartbeat.get_secret_value()).hostname or ""
        yield {
            "who": "heartbeat",
            "kind": "GET",
            "where": [host],
            "what": ["nothing: that the relay is well"],
        }
    if config.engine.celery is not None:
        broker = without_password(config.engine.celery.broker.get_secret_value())
        yield {
            "who": "broker",
            "kind": "Celery",
            "where": [broker],
            "what": ["nothing: which destination has work, and how much"],
        }


def _readers(config: Config) -> Iterator[str]:
    if config.admin is None:
        yield "Console and API are off: who may read the store's files, on the command line."
        return
    masked = (
        "numbers by their last digits, and no text, until they say why; that is noted"
        if config.admin.mask
        else "numbers and texts"
    )
    yield f"Viewers, and tokens with the scope `read`: {masked}."
    yield "Operators, and tokens with the scope `operate`: numbers and texts; acts are noted."
    yield "Admins, and tokens with the scope `admin`: also the audit log, erase and export."
    yield "Nobody without a password or a token. The host's administrators can read the store."
    yield f"All of it at {config.admin.address}."


def _rights() -> Iterator[str]:
    yield "Access: `gofax-relay export NUMBER` gives all that is kept of a number, as JSON."
    yield (
        "Erasure: `gofax-relay erase NUMBER --receipt FILE` removes it, and lists what "
        "destinations and backups hold, which is removed there."
    )
    yield "Keys stay after an erasure: without the store's secret nobody can tell whose they are."


def _relative(places: Sequence[str], config: Config) -> list[str]:
    """Write folders beside the config as the config does."""
    if config.origin is None:
        return list(places)
    folder = config.origin.path.parent
    return [
        str(Path(each).relative_to(folder))
        if each.startswith("/") and Path(each).is_relative_to(folder)
        else each
        for each in places
    ]


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size and count % size == 0:
            return f"{count // size} {unit}"
    return f"{count:,} bytes"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return re.sub(r"([|<>])", r"\\\1", text)
