"""The JSON Schema of the config takes what the relay takes, and finds what an editor can."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from pydantic import BaseModel

from connectors.base import Connector
from relay.cli import cli
from relay.config.installed import find
from relay.config.json_schema import schema

ROOT = Path(__file__).parents[2]
EXAMPLE = yaml.safe_load((ROOT / "config.example.yaml").read_text(encoding="utf-8"))
ENDPOINT = {"path": "/hook", "allow_unsigned": True}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    printed = CliRunner().invoke(cli, ["check", "--schema"])
    assert printed.exit_code == 0, printed.output
    described = json.loads(printed.stdout)
    Draft202012Validator.check_schema(described)
    return Draft202012Validator(described)


def faults(validator: Draft202012Validator, config: Any) -> list[str]:
    return sorted(f"{error.json_path}: {error.message}" for error in validator.iter_errors(config))


def test_the_example_is_good(validator: Draft202012Validator) -> None:
    assert faults(validator, EXAMPLE) == []


@pytest.mark.parametrize(
    "config",
    [
        {"endpoints": [ENDPOINT]},
        {"endpoints": [ENDPOINT], "destinations": {"t": {"connector": "teams", "url": "x"}},
         "routes": [{"to": ["t"]}]},
        # References stand for anything that is no list and no mapping.
        {"endpoints": [{**ENDPOINT, "allow_unsigned": "${OPEN:-true}", "rate": "file:rate"}],
         "server": {"threads": "${THREADS}", "max_body": "${MAX}KiB", "listen": "${LISTEN}"},
         "retention": "${DAYS}d"},
        {"endpoints": [ENDPOINT], "retention": {"default": "90d", "SMS_STATUS": "${DAYS}d"}},
        {"endpoints": [ENDPOINT], "store": "postgresql://host/db",
         "engine": {"celery": {"broker": "${BROKER}"}}},
        # As people write them.
        {"endpoints": [ENDPOINT], "engine": "threads",
         "server": {"max_body": 65536}, "retention": "1h30m"},
        {"endpoints": [ENDPOINT], "routes": [
            {"to": ["a"], "when": {"event": "SMS_REPLY", "account": 12345, "has_body": True}},
            {"to": ["a"], "when": {"from": ["+61400000000", 61400000000], "any": [
                {"body": "x"}, {"not": {"keyword": ["STOP", "HELP"]}}]}},
        ]},
        {"endpoints": [ENDPOINT], "business_hours": {
            "days": {"mon-fri": "9:00-17:30", "sat": ["9:00-12:00", "13:00-15:00"]},
            "holidays": ["2026-12-25"]},
         "routes": [{"to": ["a"], "when": {"hours": "closed"}}]},
        {"endpoints": [ENDPOINT], "destinations": {"t": {
            "connector": "teams", "url": "x", "rate": "4/1s", "concurrency": 2, "deadline": "7s",
            "retry": {"schedule": ["1s"], "for": "1d"}, "on_dead": "hold"}}},
    ],
)  # fmt: skip
def test_what_the_relay_takes_is_good(validator: Draft202012Validator, config: Any) -> None:
    assert faults(validator, config) == []


def _at(*path: str | int, value: Any) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        for key in path[:-1]:
            config = config[key]
        config[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "place", "words"),
    [
        (_at("sever", value={}), "$", "'sever' was unexpected"),
        (_at("server", "threads", value=2), "$.server.threads", "not valid"),
        (_at("retention", value="90 days"), "$.retention", "not valid"),
        (_at("retention", value={"SMS_STATUS": 7}), "$.retention", "not valid"),
        (_at("endpoints", value=[]), "$.endpoints", "non-empty"),
        (_at("endpoints", 0, "format", value="xml"), "$.endpoints[0].format", "not valid"),
        (_at("destinations", "crm", value={}), "$.destinations.crm", "'connector' is a required"),
        (_at("destinations", "crm", "connector", value="hubsport"), "$.destinations.crm.connector",
         "not valid"),
        (_at("destinations", "crm", "acess_token", value="x"), "$.destinations.crm",
         "'acess_token' was unexpected"),
        (_at("destinations", "crm", "unknown_contact", value="maybe"),
         "$.destinations.crm.unknown_contact", "not valid"),
        # An option of another connector.
        (_at("destinations", "crm", "subdomain", value="acme"), "$.destinations.crm",
         "'subdomain' was unexpected"),
        (_at("destinations", "crm", "rate", value="fast"), "$.destinations.crm.rate", "not valid"),
        (_at("business_hours", value={"days": {"mon": "9-17"}}), "$.business_hours", "not valid"),
        (_at("routes", 0, "when", value={"hours": "now"}), "$.routes[0].when.hours", "not valid"),
        (_at("routes", 0, "too", value=["crm"]), "$.routes[0]", "'too' was unexpected"),
        (_at("routes", 0, "to", value=[]), "$.routes[0].to", "non-empty"),
        (_at("routes", 0, "when", value={"form": "x"}), "$.routes[0].when", "'form' does not"),
    ],
)  # fmt: skip
def test_faults_are_found_where_they_are(
    validator: Draft202012Validator, change: Callable[[Any], None], place: str, words: str
) -> None:
    config = copy.deepcopy(EXAMPLE)
    change(config)

    found = faults(validator, config)

    assert any(each.startswith(f"{place}: ") and words in each for each in found), found


def test_editors_can_show_descriptions_and_defaults(validator: Draft202012Validator) -> None:
    described = validator.schema

    destination = described["$defs"]["DestinationConfig"]["properties"]
    assert destination["deadline"]["default"] == "25s"
    assert destination["deadline"]["description"] == "Longest time for one attempt"
    assert described["$defs"]["Retry"]["properties"]["schedule"]["default"][2] == "2m"
    assert described["properties"]["retention"]["default"] == "90d"
    assert {"hubspot", "zendesk", "teams"} <= set(destination["connector"]["anyOf"][0]["enum"])


class Loose(Connector[Any]):
    """A connector whose options are no model of ours."""

    class Options(BaseModel):
        """Takes anything."""

        region: str = "au"
        #: Neither the type nor the default can be said in JSON.
        sort: Callable[[Any], Any] = sorted


def test_a_connector_that_cannot_be_loaded_may_say_anything() -> None:
    described = schema({"broken": None, "loose": Loose})
    validator = Draft202012Validator(described)
    destinations = {
        "one": {"connector": "broken", "whatever": 1},
        "two": {"connector": "loose", "region": "nz", "sort": "x", "rate": "1/1s"},
    }

    good = {"endpoints": [ENDPOINT], "destinations": destinations}
    assert faults(validator, good) == []
    destinations["two"]["region"] = 7
    assert faults(validator, good) == ["$.destinations.two.region: 7 is not of type 'string'"]


def test_two_connectors_may_have_options_of_one_name() -> None:
    class Options(BaseModel):
        token: str

    found = {"hubspot": find("hubspot"), "loose": Loose}
    found["other"] = type("Other", (Loose,), {"Options": Options})  # type: ignore[assignment]

    validator = Draft202012Validator(schema(found))

    destinations = {"a": {"connector": "loose", "region": "x"}, "b": {"connector": "other"}}
    assert faults(validator, {"endpoints": [ENDPOINT], "destinations": destinations}) == [
        "$.destinations.b: 'token' is a required property"
    ]
