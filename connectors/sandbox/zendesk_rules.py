"""What Zendesk's API says and in which shape: pages, errors, and the fields of users."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flask import request, url_for

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One comment, as the sandbox's page shows it."""

    author: str
    text: str
    public: bool
    created_at: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Thread:
    """One ticket with its comments, as the sandbox's page shows it."""

    number: int
    subject: str
    status: str
    tags: tuple[str, ...]
    requester: str
    lines: tuple[Line, ...]


class Refusal(Exception):
    """An answer of Zendesk that is an error."""

    def __init__(self, status: int, error: str, description: str = "", **more: Any) -> None:
        super().__init__(error)
        self.status = status
        self.body = {"error": error} | ({"description": description} if description else {}) | more


def payload(name: str | None = None) -> Json:
    """Return the JSON object that was sent, or what it holds under *name*."""
    sent = request.get_json(silent=True)
    inner = sent.get(name) if name and isinstance(sent, dict) else sent
    if not isinstance(inner, dict):
        raise Refusal(400, "BadRequest", f"a JSON object {name or ''} was expected")
    return inner


def cut_page(rows: Iterable[Json], name: str) -> Mapping[str, Any]:
    """Cut the page out of *rows* that the request asks for, by cursor or all at once."""
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


def user_fields(asked: Json) -> Json:
    """Pick what a caller may set of a user."""
    names = ("name", "email", "external_id", "phone", "role")
    return {name: asked[name] for name in names if name in asked}


def mentions(user: Json, query: str) -> bool:
    """Say whether a search for *query* finds *user*."""
    texts = (user["name"], user["email"], user["phone"])
    return any(query.casefold() in (text or "").casefold() for text in texts)


def is_same(one: str | None, other: str | None) -> bool:
    """Compare as Zendesk compares external ids and addresses; nothing is like nothing."""
    return bool(one) and bool(other) and str(one).casefold() == str(other).casefold()


def customer_of(user: Json) -> str:
    """Return the number of *user*, or the name of one who has none."""
    digits = (user["external_id"] or "").removeprefix("sms-")
    name: str = user["name"]
    return user["phone"] or (f"+{digits}" if digits.isdecimal() else name)


def invalid(field: str, description: str) -> Refusal:
    """Make the refusal of a value."""
    details = {field: [{"description": description}]}
    return Refusal(422, "RecordInvalid", "Record validation errors", details=details)


def timestamp() -> str:
    """Return the time of day as Zendesk writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
