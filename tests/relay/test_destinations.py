"""Connectors are found by entry point: ours, others', and those that cannot be used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from connectors.teams.connector import Teams
from relay import destinations
from relay.config import installed
from relay.config.load import load

ROOT = Path(__file__).parents[2]
GOOD = """
from connectors import Connector, Options, Receipt

class Good(Connector):
    Options = Options
    def deliver(self, event, *, key, thread, repeat, deadline):
        return Receipt(reference="1")
    def check(self):
        return "fine"

class NoConnector:
    pass

class NoOptions(Connector):
    deliver = check = None

def function():
    pass

instance = Good(Options(), http=None)
"""
#: Distribution, its entry points, and the modules it brings.
DISTRIBUTIONS: list[tuple[str, dict[str, str], dict[str, str]]] = [
    ("acme-good", {"good": "acme_good:Good"}, {"acme_good": GOOD}),
    (
        "acme-bad",
        {
            "needy": "acme_needy:Needy",
            "gone": "acme_gone:Gone",
            "renamed": "acme_good:OldName",
            "class": "acme_good:NoConnector",
            "optionless": "acme_good:NoOptions",
            "fatal": "acme_broken:Broken",
            "function": "acme_good:function",
            "instance": "acme_good:instance",
            "module": "acme_good",
        },
        {"acme_needy": "import acme_sdk_that_nobody_has", "acme_broken": "1 / 0"},
    ),
    ("acme-one", {"twice": "acme_good:Good"}, {}),
    ("acme-two", {"twice": "acme_good:Good"}, {}),
    # Stands before the real SDK on the path, as if that were not installed.
    ("acme-shadow", {}, {"pymsteams": "raise ModuleNotFoundError(name=__name__)"}),
]
SCRIPT = """
import json, sys
from relay.config import installed

found = {"loaded before": [m for m in sys.modules if m.startswith("acme")]}
for name in sys.argv[1:]:
    try:
        found[name] = installed.find(name).__name__
    except LookupError as error:
        found[name] = str(error)
found["loaded after"] = [m for m in ("connectors.zendesk", "acme_good") if m in sys.modules]
print(json.dumps(found))
"""
NAMES = ["good", "needy", "gone", "renamed", "class", "optionless", "fatal", "function",
         "instance", "module", "twice", "teams", "hubspot", "nobody"]  # fmt: skip


def _install(folder: Path, name: str, entries: dict[str, str], modules: dict[str, str]) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{entry} = {value}" for entry, value in entries.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{installed.GROUP}]", *lines, ""]))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own says of every name, with throw-away packages installed."""
    folder = tmp_path_factory.mktemp("site")
    for name, entries, modules in DISTRIBUTIONS:
        _install(folder, name, entries, modules)
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *NAMES],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        check=True,
        timeout=120,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("good", "Good"),  # somebody else's, by the same door as ours
        ("hubspot", "HubSpot"),
        ("needy", 'connector "needy" needs acme_sdk_that_nobody_has: '
                  'pip install "acme-bad[needy]"'),
        ("teams", 'connector "teams" needs pymsteams: pip install "gofax-relay[teams]"'),
        ("gone", 'connector "gone" needs acme_gone: pip install "acme-bad[gone]"'),
        ("renamed", 'connector "renamed": there is no acme_good:OldName'),
        ("class", 'connector "class": acme_good:NoConnector is not a Connector class'),
        ("optionless", 'connector "optionless": acme_good:NoOptions has no Options model'),
        ("fatal", 'connector "fatal": acme_broken:Broken cannot be imported: '
                   "ZeroDivisionError: division by zero"),
        ("function", 'connector "function": acme_good:function is not a Connector class'),
        ("instance", 'connector "instance": acme_good:instance is not a Connector class'),
        ("module", 'connector "module": acme_good is not a Connector class'),
        ("twice", 'two packages have a connector named "twice": acme-one and acme-two; '
                  "remove one"),
    ],
)  # fmt: skip
def test_a_connector_is_found_or_the_mend_is_named(
    found: dict[str, Any], name: str, words: str
) -> None:
    assert found[name] == words


def test_an_unknown_name_is_told_what_there_is(found: dict[str, Any]) -> None:
    words = found["nobody"]

    assert words.startswith('no connector named "nobody" (installed: archive, class, ')
    assert {"good", "hubspot", "teams", "zendesk"} <= set(words[:-1].split(": ")[1].split(", "))


def test_only_what_is_asked_for_is_loaded(found: dict[str, Any]) -> None:
    assert found["loaded before"] == []
    assert found["loaded after"] == ["acme_good"]


def test_a_config_becomes_connectors_that_can_deliver(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "endpoints: [{path: /hook, allow_unsigned: true}]\n"
        "destinations:\n"
        "  front-desk: {connector: teams, url: 'https://example.com/flow', deadline: 7s}\n"
        "  back-desk: {connector: teams, url: 'https://example.com/other'}\n"
    )

    built = destinations.build(load(path, find_connector=installed.find))

    assert list(built) == ["front-desk", "back-desk"]
    front, back = built.values()
    assert (front.name, front.settings.deadline.total_seconds()) == ("front-desk", 7)
    assert type(front.connector) is Teams
    assert front.connector.options is front.settings.options
    assert front.connector is not back.connector
    assert [each.connector.http.default_deadline for each in (front, back)] == [7, 25]
    for destination in built.values():
        destination.connector.close()
