"""What the API answers when it does not do what was asked: problem details of RFC 9457."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from flask import Response
from pydantic import BaseModel, ValidationError

CONTENT_TYPE = "application/problem+json"


class FieldFault(BaseModel):
    """What is wrong with one field."""

    field: str
    detail: str


class Problem(BaseModel):
    """Problem details of RFC 9457; ``errors`` names every field that is at fault."""

    title: str
    status: int
    detail: str
    errors: list[FieldFault] = []


class Fault(Exception):
    """A request of the API that is answered by a problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[FieldFault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """Return the answer."""
        status = HTTPStatus(self.status)
        problem = Problem(
            title=status.phrase, status=status, detail=self.detail, errors=self.errors
        )
        text = json.dumps(problem.model_dump(exclude_defaults=True))
        return Response(text, status, self.headers, content_type=CONTENT_TYPE)


def of_validation(error: ValidationError) -> Fault:
    """Return the fault of a request whose fields are not as they have to be."""
    found = [
        FieldFault(field=".".join(map(str, each["loc"])) or "body", detail=_said(each))
        for each in error.errors(include_url=False, include_input=False, include_context=False)
    ]
    return Fault(422, "; ".join(f"{each.field}: {each.detail}" for each in found), errors=found)


def documented(*statuses: int) -> dict[str | int | HTTPStatus, Any]:
    """Return the part of an OpenAPI description that says which problems a view answers."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {CONTENT_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


def _said(error: Any) -> str:
    """Return pydantic's message without its own beginning."""
    return str(error["msg"]).removeprefix("Value error, ")
