"""The description of the API: valid, whole, and what the API really answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apis
import consoles
import pytest
import schemathesis
from apis import PREFIX, Api
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from relay import migrations
from relay.rules.access import Scope
from relay.store import connect

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: They call other systems.
CALL_OUT = {"check_destination", "test_destination"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("described")
    database = connect(f"sqlite:///{folder}/relay.db")
    migrations.upgrade(database)
    with apis.api(folder, database) as made:
        yield made
    database.close()


@pytest.fixture(scope="module")
def described(api: Api) -> Any:
    answer = api.program().get("/openapi.json")
    assert answer.status == 200
    return answer.json


def operations(described: Any) -> Iterator[tuple[str, str, Any]]:
    for path, item in described["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def test_it_is_openapi_3_1(described: Any) -> None:
    assert described["openapi"].startswith("3.1.")

    schemathesis.openapi.from_dict(described).validate()
    for schema in described["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere(described: Any) -> None:
    schemas = described["components"]["schemas"]

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for each in value.values():
                yield from walk(each)
        if isinstance(value, list):
            for each in value:
                yield from walk(each)

    names = {each.removeprefix("#/components/schemas/") for each in walk(described)}
    assert names - schemas.keys() == set()


def test_it_has_every_call(api: Api, described: Any) -> None:
    there = {
        (rule.rule.replace("<", "{").replace(">", "}"), method.lower())
        for rule in api.console.app.url_map.iter_rules()
        if rule.rule.startswith(PREFIX) and not rule.rule.endswith("/openapi.json")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }

    assert {(path, method) for path, method, _ in operations(described)} == there


def test_every_call_says_in_words_what_it_does_and_asks_for_a_token(described: Any) -> None:
    ids = [operation["operationId"] for *_, operation in operations(described)]

    assert len(ids) == len(set(ids))
    for path, method, operation in operations(described):
        assert operation["summary"], path
        assert operation["security"] == [{"token": []}], path
        for parameter in operation.get("parameters", ()):
            assert parameter["description"], f"{path}: {parameter['name']}"
        assert {"401", "403", "422", "503"} <= operation["responses"].keys()
        if method == "post":
            assert {"400", "413", "415"} <= operation["responses"].keys()


def _known(api: Api, path: str) -> str:
    """Return what is there to be named in *path*."""
    filled = api.filled
    known = {
        "events": filled.dead,
        "deliveries": api.console.event(filled.held).deliveries[0].id,
        "requests": filled.signed,
        "destinations": "crm",
        "conversations": consoles.BEN,
        "export": consoles.BEN,
    }
    return known.get(path.removeprefix(f"{PREFIX}/").partition("/")[0], "unknown")


def _call_everything(api: Api, described: Any, *, examples: int) -> None:
    """Send *examples* of good and bad data to every call, and check each answer."""
    schema = schemathesis.openapi.from_dict(described)
    schema.config.generation.update(modes=list(GenerationMode))
    headers = api.program(*Scope).headers
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.definition.raw["operationId"] not in CALL_OUT:
            strategies = [operation.as_strategy(generation_mode=each) for each in GenerationMode]
            _send(api, headers, st.one_of(strategies), examples)


def _send(api: Api, headers: Any, cases: Any, examples: int) -> None:
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=cases, is_known=st.booleans())
    def send(case: Case, is_known: bool) -> None:
        if is_known:
            names = dict.fromkeys(case.path_parameters, _known(api, case.path))
            case.path_parameters = names
        # With a token, whatever else the case says.
        case.call_and_validate(app=api.console.app, headers=headers, checks=CHECKS)

    send()


def test_no_call_fails_or_answers_what_is_not_described(api: Api, described: Any) -> None:
    _call_everything(api, described, examples=3)


@pytest.mark.slow
@pytest.mark.long
def test_many_calls_neither_fail_nor_answer_what_is_not_described(
    api: Api, described: Any
) -> None:
    _call_everything(api, described, examples=60)
