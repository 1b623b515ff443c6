"""What things look like as JSON: each shape is one that a schema can be made of."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any, get_type_hints

import pytest
from pydantic import TypeAdapter
from typing_extensions import is_typeddict

from relay import shapes


def _shapes() -> Iterator[type[Any]]:
    for module in pkgutil.iter_modules(shapes.__path__, f"{shapes.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            if is_typeddict(value) and value.__module__ == module.name:
                yield value


@pytest.mark.parametrize("shape", list(_shapes()), ids=lambda shape: shape.__name__)
def test_a_schema_says_the_type_of_every_field(shape: type[Any]) -> None:
    schema = TypeAdapter(shape).json_schema()

    assert Any not in get_type_hints(shape).values()
    assert set(schema["required"]) == set(schema["properties"])
    assert schema["title"] == shape.__name__


def test_every_shape_is_named_once() -> None:
    names = [shape.__name__ for shape in _shapes()]

    assert {"EventJson", "ExplanationJson", "ProblemJson", "SampleJson"} <= set(names)
    assert sorted(set(names)) == sorted(names)
