"""Needs attention: the start page, with what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from relay.api.identity import acting
from relay.api.services import services
from relay.console.chart import Chart, chart
from relay.console.destinations import views
from relay.console.pages import needs, tell
from relay.console.wording import count
from relay.rules.access import Scope
from relay.rules.advice import ADVICE, title
from relay.rules.kinds import Kind
from relay.rules.pages import REPOSITORY, mending_page, problem_page
from relay.rules.problems import Problem
from relay.store.traffic import Traffic
from relay.store.waiting import Waiting, waiting

#: What the chart shows: how far back, and the time of a bar.
SPANS: Mapping[str, tuple[timedelta, timedelta]] = {
    "day": (timedelta(hours=24), timedelta(minutes=30)),
    "week": (timedelta(days=7), timedelta(hours=6)),
}


def add(console: Blueprint) -> None:
    """Add the page, and what can be done on it."""

    @console.get("/")
    @needs(Scope.READ)
    def attention() -> ResponseReturnValue:
        span = request.args.get("span", "day")
        if span not in SPANS:
            abort(404, "The chart shows a day or a week.")
        found = services()
        return render_template(
            "attention.html",
            problems=[_shown(each, _waiting()) for each in open_problems()],
            resolved=found.shared.get(
                "resolved", lambda: found.problems.resolved(limit=5)[::-1], good_for=10
            ),
            title=title,
            chart=_chart(span),
            span=span,
            backlog=sum(view.backlog for view in views()),
            destinations=views(),
        )

    @console.post("/problems/<id_>/acknowledge")
    @needs(Scope.OPERATE)
    def acknowledge(id_: str) -> ResponseReturnValue:
        found = [each for each in services().problems.unresolved() if each.id == id_]
        if not found:
            abort(404, "This problem is resolved.")
        services().problems.acknowledge(found, acting())
        services().shared.forget()
        tell("The others can see that you know. You are not told again.", "good")
        return redirect(url_for("console.attention"))


def open_problems() -> Sequence[Problem]:
    """Return the open problems, as all viewers share them."""
    found = services()
    return found.shared.get("problems", found.problems.unresolved)


def _waiting() -> Mapping[str, Waiting]:
    found = services()
    return found.shared.get("waiting", lambda: waiting(found.database), good_for=5)


def _shown(problem: Problem, lanes: Mapping[str, Waiting]) -> dict[str, Any]:
    """Return a problem with its words and the page where it is mended."""
    advice = ADVICE[problem.kind]
    return {
        "problem": problem,
        "title": title(problem.kind, problem.subject),
        "advice": advice,
        "button": advice.button.format(problem.subject),
        "target": problem_page(problem.kind, problem.subject) if advice.page else None,
        "help": f"{REPOSITORY}/{mending_page(problem.kind)}",
        "waiting": _customers(problem, lanes.get(problem.subject)),
    }


def _customers(problem: Problem, lanes: Waiting | None) -> str:
    """Say how many customers a problem concerns, where that can be counted."""
    if lanes is None or not ADVICE[problem.kind].page:
        return ""
    found = lanes.stopped if problem.kind in (Kind.DEAD, Kind.HELD) else lanes.unfinished
    least = "at least " if found.more else ""
    return f"{least}{count(found.number, 'customer', 'customers')}" if found.number else ""


def _chart(span: str) -> Chart:
    length, size = SPANS[span]
    found = services()

    def ask() -> Chart:
        # Bars begin at round times of the clock on the wall.
        now = found.now().astimezone(found.config.zone)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        until = midnight + ((now - midnight) // size + 1) * size
        buckets = Traffic(found.database).series(since=until - length, until=until, size=size)
        return chart([(each.begins_at, each.came, each.arrived) for each in buckets])

    return found.shared.get(("chart", span), ask, good_for=15)
