"""The problems: ``/problems``."""

from __future__ import annotations

from flask_openapi3.blueprint import APIBlueprint
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from relay.api import blueprint as parts
from relay.api.answers import answers
from relay.api.identity import acting, needs
from relay.api.problem import Fault
from relay.api.services import services
from relay.rules.access import Scope
from relay.rules.problems import Problem
from relay.shapes.problems import ProblemJson, problem_json


class ProblemsJson(TypedDict):
    """The open problems."""

    items: list[ProblemJson]


class ProblemPath(BaseModel):
    id: str = Field(description="Id of a problem")


def blueprint() -> APIBlueprint:
    made = parts.blueprint("problems")

    @made.get(
        "/problems",
        summary="List the open problems, oldest first",
        responses=answers(ProblemsJson),
    )
    @needs(Scope.READ)
    def list_problems() -> ProblemsJson:
        found = services()
        problems = found.shared.get("problems", found.problems.unresolved)
        return {"items": [problem_json(each) for each in problems]}

    @made.post(
        "/problems/<id>/acknowledge",
        summary="Note that somebody knows of a problem",
        responses=answers(ProblemJson),
    )
    @needs(Scope.OPERATE)
    def acknowledge(path: ProblemPath) -> ProblemJson:
        found = _named(path.id)
        services().problems.acknowledge([found], acting())
        services().shared.forget()
        return problem_json(_named(found.id))

    return made


def _named(id_: str) -> Problem:
    for each in services().problems.unresolved():
        if each.id == id_:
            return each
    raise Fault(404, f"no open problem {id_}")
