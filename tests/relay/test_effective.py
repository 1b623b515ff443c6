"""The effective config: no secret is in it, and its version follows what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.config import installed
from relay.config.effective import differences, effective, version_of
from relay.config.load import load
from relay.config.model import Config

Load = Callable[..., Config]

TEXT = """\
store: postgresql://relay:hidden-1@db/relay
endpoints:
  - {{path: /a, signing_secrets: [hidden-2], basic_auth: {{username: u, password: hidden-3}}}}
destinations:
  flow: {{connector: webhook, url: "https://example.com/hidden-4", headers: {{X-Key: hidden-5}}}}
  crm: {{connector: hubspot, access_token: {token}}}
routes: [{{name: {name}, to: [flow, crm]}}]
"""


@pytest.fixture
def loaded(tmp_path: Path) -> Load:
    def loaded(*, token: str = "hidden-6", name: str = "all") -> Config:
        path = tmp_path / "config.yaml"
        path.write_text(TEXT.format(token=token, name=name))
        return load(path, find_connector=installed.find)

    return loaded


def test_it_has_every_default_and_no_secret(loaded: Load) -> None:
    said = json.dumps(effective(loaded()))

    assert "hidden" not in said
    assert '"threads": 512' in said
    assert '"base_url": "https://api.hubapi.com"' in said


def test_a_version_follows_what_is_said_and_not_secrets(loaded: Load) -> None:
    first = version_of(loaded())

    assert version_of(loaded()) == first
    assert version_of(loaded(token="hidden-7")) == first
    assert version_of(loaded(name="others")) != first


def test_differences_name_the_place(loaded: Load) -> None:
    before, after = effective(loaded()), effective(loaded(name="others"))

    assert list(differences(before, after)) == ['routes[0].name: "all" → "others"']
    assert list(differences({"a": [1]}, {"a": [1, 2], "b": "x"})) == [
        "a: [1] → [1, 2]",
        'b: not there → "x"',
    ]
