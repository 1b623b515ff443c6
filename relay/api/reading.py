"""What a call of the API says: refused before any view where no view would understand it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, cast

from flask import current_app, request
from flask.json.provider import DefaultJSONProvider
from flask_openapi3.openapi import OpenAPI
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StringConstraints,
    model_validator,
)
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from relay.api.problem import Fault, FieldFault
from relay.api.services import services
from relay.config.retention import LONGEST_AGE
from relay.rules import jsontext, payload, text, units
from relay.rules.units import RateLimit
from relay.rules.wording import Wording

#: Characters of a name, a number or words to look for, and of a reason.
LONGEST_TEXT, LONGEST_REASON = 500, 2000
#: Digits of a number's end that say enough: fewer fit too many customers.
FEWEST_DIGITS = 3
#: How the description writes the variable parts of a path.
_IN_DESCRIPTION = str.maketrans("<>", "{}")


class Json(DefaultJSONProvider):
    """JSON as the relay reads and writes it everywhere."""

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        try:
            return json.loads(s, parse_constant=_refuse_constant, **kwargs)
        except RecursionError as error:
            raise ValueError("too deep") from error

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return jsontext.printable(obj)


def understand() -> None:
    """Refuse a call that its description does not allow. Raises :class:`Fault`."""
    operation = _operation()
    faults = list(_faults_of_query(operation))
    if faults:
        raise Fault(422, "; ".join(f"{e.field}: {e.detail}" for e in faults), errors=faults)
    if "requestBody" in operation:
        _read_body()


def _operation() -> Mapping[str, Any]:
    """Return the description of what is called; nothing for OPTIONS."""
    assert request.url_rule is not None
    path = request.url_rule.rule.translate(_IN_DESCRIPTION)
    method = "get" if request.method == "HEAD" else request.method.lower()
    described = cast(OpenAPI, current_app).api_doc["paths"].get(path, {})
    operation: Mapping[str, Any] = described.get(method, {})
    return operation


def _faults_of_query(operation: Mapping[str, Any]) -> Iterator[FieldFault]:
    found = [each for each in operation.get("parameters", ()) if each["in"] == "query"]
    known = {each["name"]: each["schema"].get("type") == "array" for each in found}
    for name, values in request.args.lists():
        if name not in known:
            have = ", ".join(known) or "none"
            yield FieldFault(field=name, detail=f"there is no such parameter (have: {have})")
        elif len(values) > 1 and not known[name]:
            yield FieldFault(field=name, detail="given more than once")


def _read_body() -> None:
    try:
        raw = request.get_data()
    except RequestEntityTooLarge as error:
        most = f"{current_app.config['MAX_CONTENT_LENGTH']:,} bytes"
        raise Fault(413, f"the body has more than {most}") from error
    if not raw:
        return
    if not request.is_json:
        raise Fault(415, "send the body with Content-Type: application/json")
    try:
        given = request.get_json()
    except BadRequest as error:
        raise Fault(400, "the body is not JSON") from error
    if not isinstance(given, dict):
        raise Fault(422, "body: an object", errors=[FieldFault(field="body", detail="an object")])


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _cleaned(written: str) -> str:
    found = payload.clean(written).strip()
    if not found:
        raise ValueError("is empty")
    return found


def _number(written: str) -> str:
    return payload.number(written) or written


def _ending(written: str) -> str:
    ending = text.ending(written)
    if not ending:
        raise ValueError("write a number, its last digits, or a name")
    if ending.isdigit() and len(ending) < FEWEST_DIGITS:
        raise ValueError(f"too many numbers end so: {FEWEST_DIGITS} digits or more")
    return ending


def _wording(written: object) -> Wording:
    found = Wording.of(_cleaned(written)) if isinstance(written, str) else None
    if found is None:
        raise ValueError("nothing to search for: write a word or a number")
    return found


def _moment(written: object) -> datetime:
    read = payload.moment(written, zone=services().config.zone)
    if read is not None:
        return read
    try:
        return services().now() - units.duration(written)
    except (ValueError, OverflowError):
        raise ValueError("write 2h or 3d (ago), 2026-11-24 or 2026-11-24T09:00Z") from None


def _length(written: object) -> timedelta:
    length = units.duration(written)
    if not timedelta() < length <= LONGEST_AGE:
        raise ValueError(f"more than 0s, at most {LONGEST_AGE.days}d")
    return length


_Written = Annotated[str, Field(max_length=LONGEST_TEXT)]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT), AfterValidator(_cleaned)]
Reason = Annotated[str, StringConstraints(max_length=LONGEST_REASON), AfterValidator(_cleaned)]
#: A phone number in any form, written as E.164.
Number = Annotated[Text, AfterValidator(_number)]
#: A phone number in any form, or its last digits, as :func:`relay.rules.text.ending` writes it.
NumberEnd = Annotated[Text, AfterValidator(_ending)]
Words = Annotated[Wording, BeforeValidator(_wording, json_schema_input_type=_Written)]
Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=_Written)]
Length = Annotated[timedelta, BeforeValidator(_length, json_schema_input_type=_Written)]
Rate = Annotated[RateLimit, BeforeValidator(units.rate, json_schema_input_type=_Written)]
Flag = StrictBool


class Asked(BaseModel):
    """What a call says: nothing besides its fields."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)


class Body(Asked):
    """The body of a call; what has no body says nothing."""

    @model_validator(mode="before")
    @classmethod
    def _nothing(cls, given: Any) -> Any:
        return {} if given is None else given


class Why(Body):
    """Why a person, or a program, does it."""

    # A call that may leave everything out may leave the body out, too.
    model_config = ConfigDict(openapi_extra={"required": False})  # type: ignore[typeddict-unknown-key]

    why: Reason | None = Field(None, description="Why you do this; kept with the action")


class Unmask(Body):
    """Why a text is read that is hidden."""

    why: Reason = Field(description="Why you read it; kept with the action")


class Span(Asked):
    """From when until when."""

    since: Moment | None = Field(
        None, description="Only since: 2h or 3d (ago), 2026-11-24, 2026-11-24T09:00Z"
    )
    until: Moment | None = Field(None, description="Only before")

    @model_validator(mode="after")
    def _is_span(self) -> Span:
        if self.since is not None and self.until is not None and self.since >= self.until:
            raise ValueError("since is not before until: nothing is between them")
        return self
