"""The example config: all of it works, and it says what the defaults are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
import yaml
from config_files import (
    ENVIRON,
    EXAMPLE,
    FURTHER,
    HIDDEN,
)
from pydantic import BaseModel

from relay.config import installed
from relay.config.business_hours import BusinessHours
from relay.config.endpoints import BasicAuth, Endpoint, SignatureScheme
from relay.config.load import load
from relay.config.model import (
    Admin,
    AlertChannel,
    Config,
    DestinationConfig,
    Logs,
    Outbound,
    Requests,
    Retry,
    Server,
)
from relay.rules.delivery import Policy
from relay.rules.routing import Route, When
from relay.rules.tests import EventPattern


class TestExample:
    @pytest.fixture
    def text(self) -> str:
        return EXAMPLE.read_text(encoding="utf-8")

    @pytest.fixture
    def everything(self, text: str, file: Path) -> Config:
        """The example with every key that is off switched on."""
        file.write_text(re.sub(r"(?m)^( *)#(?=[a-z]|- )", r"\1", text), encoding="utf-8")
        (file.parent / "ca.pem").write_bytes(trustme.CA().cert_pem.bytes())
        return load(file, find_connector=installed.find, environ=ENVIRON | FURTHER)

    @pytest.fixture
    def example(self) -> Config:
        return load(EXAMPLE, find_connector=installed.find, environ=ENVIRON)

    def test_it_needs_no_other_variables(self, text: str) -> None:
        live = re.sub(r"(?m)^ *#.*", "", text)

        assert set(re.findall(r"\$\{(\w+)", live)) == set(ENVIRON)

    def test_the_server_is_as_without_it(self, example: Config) -> None:
        assert example.server == Server()
        assert example.outbound == Outbound()
        for key in ("retention", "engine"):
            assert getattr(example, key) == Config.model_fields[key].default

    def test_its_first_endpoint_shows_the_defaults(self, example: Config) -> None:
        first = example.endpoints[0]

        plain = Endpoint(path=first.path, signing_secrets=first.signing_secrets)
        assert first == plain.model_copy(update={"name": first.name})

    def test_its_second_endpoint_takes_forms(self, example: Config) -> None:
        second = example.endpoints[1]

        assert (second.path, second.format) == ("/webhooks/gofax/status", "form")
        assert second.basic_auth is not None

    def test_its_first_destination_shows_the_defaults(self, example: Config) -> None:
        crm = example.destinations["crm"]
        connector = installed.find("hubspot")

        assert crm.policy == Policy()
        assert crm.deadline == DestinationConfig.model_fields["deadline"].default
        assert (crm.rate, crm.concurrency) == (
            connector.default_rate,
            connector.default_concurrency,
        )

    @pytest.mark.parametrize("name", ["inbox", "flow", "archive"])
    def test_what_is_off_shows_defaults_too(self, everything: Config, name: str) -> None:
        options = everything.destinations[name].options
        free = {"ca", "username", "password", "body", "secrets", "headers"}

        for key, field in type(options).model_fields.items():
            if not field.is_required() and key not in free:
                assert getattr(options, key) == field.default, key

    @pytest.mark.parametrize("name", ["crm", "helpdesk", "front-desk"])
    def test_the_options_of_its_connectors_are_their_defaults(
        self, example: Config, name: str
    ) -> None:
        destination = example.destinations[name]
        credentials = {"subdomain", "client_id", "client_secret", "access_token", "url"}

        for key, field in installed.find(destination.connector).Options.model_fields.items():
            if not field.is_required() and key not in credentials:
                assert getattr(destination.options, key) == field.default, key

    def test_everything_in_it_can_be_switched_on(self, everything: Config) -> None:
        assert everything.server.rate_per_address is not None
        assert everything.endpoints[0].rate is not None
        assert everything.sentiment == "vader"
        assert [each.name for each in everything.alerts] == ["on call"]
        assert everything.heartbeat is not None
        assert everything.public_url == "https://sms.example.com"
        assert everything.longest_silence is not None
        when = everything.routes[1].when
        assert [key for key in When.model_fields if not getattr(when, key)] == ["keyword"]
        assert when.not_ == When(keyword="STOP")  # a keyword has no sentiment

    def test_it_shows_every_key(self, text: str, everything: Config) -> None:
        models: list[type[BaseModel]] = [
            Config, Server, Admin, Endpoint, SignatureScheme, BasicAuth, Requests, Outbound, Retry,
            Route, When, AlertChannel, Logs, BusinessHours, EventPattern,
            *(type(each.options) for each in everything.destinations.values()),
        ]  # fmt: skip
        assert {each.connector for each in everything.destinations.values()} == {
            "hubspot", "zendesk", "teams", "email", "webhook", "archive"
        }  # fmt: skip
        keys = {key for model in models for key in _keys(model)}
        keys |= set(_keys(DestinationConfig)) - {"options"}
        keys = keys - {"metadata"} | {"metadata.campaign"}

        missing = {key for key in keys if not re.search(rf"(?m)^ *(#|# |- )?{key}:", text)}

        assert not missing

    def test_each_of_its_keys_has_a_comment_near_by(self, text: str) -> None:
        lines = text.splitlines()
        keys = [n for n, line in enumerate(lines) if re.match(r" +#?[a-z_]+:(?! *$)", line)]

        bare = [lines[n] for n in keys if not any("# " in line for line in lines[n - 4 : n])]

        assert not bare

    def test_status_events_stay_out_of_chat_and_tickets(self, example: Config) -> None:
        chat, tickets = ("front-desk", "helpdesk")

        for route in example.routes:
            if {chat, tickets} & set(route.to):
                assert route.when.event is not None
                assert "SMS_STATUS" not in route.when.event

    def test_it_holds_no_secret(self, text: str, example: Config) -> None:
        for key, value in _leaves(yaml.safe_load(text)):
            named = re.search("secret|password|token|url", key)
            if named and key not in ("base_url", "secret_encoding"):
                assert value.startswith("${"), key
        shown = repr(example) + str(example) + example.model_dump_json()
        assert HIDDEN not in shown


def _keys(model: type[BaseModel]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield field.alias or name


def _leaves(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a parsed file with the key that it stands under."""
    if isinstance(value, dict):
        for inner_key, inner in value.items():
            yield from _leaves(inner, inner_key)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    elif isinstance(value, str):
        yield key, value
