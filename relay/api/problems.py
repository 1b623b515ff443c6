"""The problems: ``/problems``."""

from __future__ import annotations

from flask_openapi3.blueprint import APIBlueprint
from pydantic import Field

from relay.api import blueprint as parts
from relay.api.answers import answers
from relay.api.identity import acting, needs
from relay.api.paging import Answer, answer, pages
from relay.api.problem import Fault
from relay.api.reading import Asked, Text, Why
from relay.api.services import services
from relay.rules.access import Scope
from relay.rules.problems import Problem
from relay.shapes.problems import ProblemJson, problem_json

#: Resolved problems that are listed, unless asked otherwise, and at the most.
RESOLVED, MOST_RESOLVED = 50, 500


class ProblemPath(Asked):
    id: Text = Field(description="Id of a problem")


class ResolvedQuery(Asked):
    limit: int = Field(RESOLVED, ge=1, le=MOST_RESOLVED, description="How many, at the most")


def blueprint() -> APIBlueprint:
    made = parts.blueprint("problems", about="What a person should know")

    @made.get(
        "/problems",
        summary="List the open problems, oldest first",
        responses=pages(ProblemJson),
    )
    @needs(Scope.READ)
    def list_problems() -> Answer:
        found = services()
        problems = found.shared.get("problems", found.problems.unresolved)
        return answer([problem_json(each) for each in problems])

    @made.get(
        "/problems/resolved",
        summary="List the newest resolved problems, oldest first",
        responses=pages(ProblemJson),
    )
    @needs(Scope.READ)
    def list_resolved_problems(query: ResolvedQuery) -> Answer:
        found = services().problems.resolved(limit=query.limit)
        return answer([problem_json(each) for each in found])

    @made.post(
        "/problems/<id>/acknowledge",
        summary="Note that somebody knows of a problem",
        responses=answers(ProblemJson),
    )
    @needs(Scope.OPERATE)
    def acknowledge_problem(path: ProblemPath, body: Why) -> ProblemJson:
        found = _named(path.id)
        services().problems.acknowledge([found], acting(body.why))
        services().shared.forget()
        return problem_json(_named(found.id))

    return made


def _named(id_: str) -> Problem:
    for each in services().problems.unresolved():
        if each.id == id_:
            return each
    raise Fault(404, f"no open problem {id_}")
