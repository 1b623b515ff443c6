"""Long answers, a page at a time: each page says where the next one begins."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from flask import request
from pydantic import BeforeValidator, Field, create_model

from relay.api.reading import LONGEST_TEXT, Asked

T = TypeVar("T")

#: What a page holds unless asked otherwise, and at the most.
PAGE, LARGEST_PAGE = 50, 200
#: What a cursor says: before which rows, of one or two kinds, the next page begins.
_CURSOR = re.compile(rb"before (\d{1,18}|-)(?:,(\d{1,18}|-))?")

#: A page as a view answers it, with its headers.
Answer = tuple[dict[str, Any], int, dict[str, str]]
Place = tuple[int | None, ...]


def _place(written: object) -> Place:
    try:
        found = _CURSOR.fullmatch(base64.urlsafe_b64decode(f"{written}".encode("ascii")))
    except (ValueError, binascii.Error, UnicodeError):
        found = None
    if found is None:
        raise ValueError("not a cursor: take the one that the page before gave as next")
    return tuple(None if each == b"-" else int(each) for each in found.groups() if each)


def cursor_at(*place: int | None) -> str:
    """Return the cursor of what comes before the rows *place*."""
    numbers = ",".join("-" if each is None else str(each) for each in place)
    return base64.urlsafe_b64encode(f"before {numbers}".encode()).decode()


_Written = Annotated[str, Field(max_length=LONGEST_TEXT)]
Cursor = Annotated[Place, BeforeValidator(_place, json_schema_input_type=_Written)]


class Paged(Asked):
    """Which page is wanted."""

    limit: int = Field(PAGE, ge=1, le=LARGEST_PAGE, description="How many, at the most")
    cursor: Cursor | None = Field(
        None, description="Where the page begins: what the page before gave as next"
    )

    @property
    def before(self) -> int | None:
        """Return the row before which the page begins; None: it is the first page."""
        return self.cursor[0] if self.cursor else None


def pages(shape: Any) -> dict[str | int | HTTPStatus, Any]:
    """Describe that a view answers a page of *shape*, a TypedDict of :mod:`relay.shapes`."""
    model = create_model(
        f"{shape.__name__.removesuffix('Json')}Page",
        items=(list[shape], ...),
        next=(str | None, Field(description="The cursor of the next page; null: it is the last")),
    )
    return {200: model}


def page(rows: Sequence[T], asked: Paged, *, at: Callable[[T], int]) -> tuple[list[T], str | None]:
    """Return the rows of a page, and the cursor of the next one.

    *rows*: one more than is wanted, if there are so many; *at*: the position of one.
    """
    shown = list(rows[: asked.limit])
    return shown, cursor_at(at(shown[-1])) if len(rows) > asked.limit else None


def answer(items: Sequence[Any], following: str | None = None) -> Answer:
    """Answer a page; *following*: the cursor of the next one."""
    headers = {}
    if following is not None:
        given = [(k, v) for k, v in request.args.items(multi=True) if k != "cursor"]
        query = urlencode([*given, ("cursor", following)])
        headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return {"items": list(items), "next": following}, 200, headers
