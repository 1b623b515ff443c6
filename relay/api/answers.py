"""How the answers of the API are described: by the shapes that the command line prints, too."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from pydantic import RootModel


def answers(shape: Any, *, status: int = 200) -> dict[str | int | HTTPStatus, Any]:
    """Describe that a view answers *shape*, a TypedDict of :mod:`relay.shapes`."""
    model = type(shape.__name__, (RootModel[shape],), {"__doc__": shape.__doc__})
    return {status: model}
