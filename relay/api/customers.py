"""Everything of one customer, given out or removed: ``/export``, ``/erase``."""

from __future__ import annotations

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from relay.acts import erasing, exporting
from relay.acts.exporting import ExportJson
from relay.api import blueprint as parts
from relay.api.answers import answers
from relay.api.identity import needs, person
from relay.api.problem import Fault
from relay.api.reading import Asked, Body, Flag, Number, Reason
from relay.api.services import services
from relay.rules.access import Scope
from relay.shapes.removal import RemovalJson, removal_json


class NumberPath(Asked):
    number: Number = Field(description="The customer's number, in any form")


class WhyQuery(Asked):
    why: Reason | None = Field(None, description="Why it is given out; kept with the action")


class Erase(Body):
    """Whose events go."""

    number: Number = Field(description="The customer's number, in any form")
    dry_run: Flag = Field(description="true: say what would go; look at that first")
    why: Reason | None = Field(None, description="Why you do this; kept with the action")


def blueprint() -> APIBlueprint:
    made = parts.blueprint("customers", about="Everything of one customer")

    @made.get(
        "/export/<number>",
        summary="Give out everything that is here about a customer",
        responses=answers(ExportJson),
    )
    @needs(Scope.ADMIN)
    def export_customer(path: NumberPath, query: WhyQuery) -> ExportJson:
        found = services()
        made = exporting.export(found.config, found.database, path.number, person(query.why))
        if made is None:
            raise Fault(404, f"nothing about {path.number} is here")
        return made

    @made.post(
        "/erase",
        summary="Remove every event of a customer",
        description="This cannot be taken back. What destinations received stays there. The "
        "answer holds a signed receipt, which `gofax-relay erase --verify FILE` checks.",
        responses=answers(RemovalJson),
    )
    @needs(Scope.ADMIN)
    def erase_customer(body: Erase) -> RemovalJson:
        found = services()
        removal = erasing.erase(
            found.database, body.number, person(body.why), dry_run=body.dry_run
        )
        found.shared.forget()
        return removal_json(removal)

    return made
