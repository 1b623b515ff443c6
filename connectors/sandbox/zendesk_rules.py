"""Zendesk's forms of errors, pages and times, and how it compares ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from flask import request, url_for

Json = dict[str, Any]


class Refusal(Exception):
    """An answer of Zendesk that is an error."""

    def __init__(
        self,
        status: int,
        error: str,
        description: str = "",
        *,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(error)
        self.status = status
        self.headers = dict(headers or {})
        self.body = {"error": error} | ({"description": description} if description else {}) | more


def payload(name: str | None = None) -> Json:
    """Return the JSON object of the request, or the one under *name* in it. Raises Refusal."""
    sent = request.get_json(silent=True)
    inner = sent.get(name) if name and isinstance(sent, dict) else sent
    if not isinstance(inner, dict):
        raise Refusal(400, "BadRequest", f"a JSON object {name or ''} was expected")
    return inner


def cut_page(rows: Iterable[Json], name: str) -> Mapping[str, Any]:
    """Return the page of *rows* that the request asks for by cursor, or all of them."""
    everything = list(rows)
    size = request.args.get("page[size]", type=int)
    if size is None:
        links = {"next_page": None, "previous_page": None, "count": len(everything)}
        return {name: everything} | links
    start = request.args.get("page[after]", default=0, type=int)
    end = start + size
    more = end < len(everything)
    kept = {key: value for key, value in request.args.items() if key != "page[after]"}
    following = url_for(
        request.endpoint or "", **(request.view_args or {}), **kept, _external=True
    )
    return {
        name: everything[start:end],
        "meta": {"has_more": more, "after_cursor": str(end) if more else None},
        "links": {"next": f"{following}&page[after]={end}" if more else None, "prev": None},
    }


def is_same(one: object, other: object) -> bool:
    """Compare external ids or addresses as Zendesk does; an empty one equals none."""
    return bool(one) and bool(other) and str(one).casefold() == str(other).casefold()


def not_found() -> Refusal:
    """Return the refusal for what is not there (any more)."""
    return Refusal(404, "RecordNotFound", "Not found")


def invalid(field: str, description: str) -> Refusal:
    """Return the refusal of a value."""
    details = {field: [{"description": description}]}
    return Refusal(422, "RecordInvalid", "Record validation errors", details=details)


def timestamp() -> str:
    """Return the time as Zendesk writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
