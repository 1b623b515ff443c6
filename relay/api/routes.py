"""The routes, and what they would make of a message: ``/routes``."""

from __future__ import annotations

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field, JsonValue, model_validator

from relay.api import blueprint as parts
from relay.api import masking
from relay.api.answers import answers
from relay.api.identity import needs
from relay.api.paging import Answer, answer, pages
from relay.api.problem import Fault
from relay.api.reading import Body, Text
from relay.api.services import services
from relay.rules import jsontext
from relay.rules.access import Scope
from relay.shapes import sample
from relay.shapes.routes import RuleJson, rule_json
from relay.shapes.sample import NoSample, Sample, SampleJson, sample_json

#: Characters of a pasted body.
LONGEST_RAW = 1_000_000


class Try(Body):
    """What is tried: a payload, a body as it would come, or a stored event or refused request."""

    payload: dict[str, JsonValue] | None = Field(
        None, description="What GoFax would send, as JSON"
    )
    raw: str | None = Field(
        None, max_length=LONGEST_RAW, description="The body as it would come: JSON or form data"
    )
    event: Text | None = Field(
        None, description="Id or messageId of an event, or id of a refused request"
    )
    endpoint: Text | None = Field(
        None, description="Name of the endpoint that it comes to; not with event"
    )

    @model_validator(mode="after")
    def _is_one(self) -> Try:
        given = [each for each in (self.payload, self.raw, self.event) if each is not None]
        if len(given) != 1:
            raise ValueError("give one of payload, raw and event")
        if self.event is not None and self.endpoint is not None:
            raise ValueError("what is stored has its endpoint")
        return self


def blueprint() -> APIBlueprint:
    made = parts.blueprint("routes", about="The rules that say where events go")

    @made.get(
        "/routes",
        summary="List the routes of the config, in the order in which they are asked",
        responses=pages(RuleJson),
    )
    @needs(Scope.READ)
    def list_routes() -> Answer:
        return answer([rule_json(each) for each in services().config.routes])

    @made.post(
        "/routes/try",
        summary="Show every card, mail and ticket that a message would make",
        description="Nothing is sent, and nothing is kept.",
        responses=answers(SampleJson),
    )
    @needs(Scope.READ)
    def try_routes(body: Try) -> SampleJson:
        config = services().config
        try:
            found = _sample(body)
        except NoSample as error:
            raise Fault(422, str(error)) from error
        made = sample_json(config, found, sample.shown(config, found))
        return made if body.event is None else masking.shown(made)

    return made


def _sample(asked: Try) -> Sample:
    found = services()
    if asked.event is not None:
        return sample.of_stored(found.config, found.database, asked.event)
    if asked.raw is not None:
        raw = asked.raw.encode("utf-8", "surrogatepass")
    else:
        raw = jsontext.dumps(asked.payload).encode()
    return sample.of_bytes(found.config, raw, endpoint=asked.endpoint)
