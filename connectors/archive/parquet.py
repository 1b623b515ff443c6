"""The rows of a day as a Parquet file, and back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_TEXTS = (
    "key", "id", "endpoint", "message_id", "type", "direction", "customer", "ours", "sender",
    "recipient", "body", "keyword", "sentiment", "account_id", "conversation", "url",
)  # fmt: skip
_TIMES = ("occurred_at", "received_at")
_FLAGS = ("test",)
#: Columns of any shape, which stay JSON; "more" holds fields of later versions.
_JSON = ("metadata", "payload", "more")
SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [(name, pa.timestamp("us", tz="UTC")) for name in _TIMES]
    + [(name, pa.bool_()) for name in _FLAGS]
    + [(name, pa.string()) for name in _JSON]
)


def write(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write *rows* as one Parquet file."""
    table = pa.Table.from_pylist([_flat(row) for row in rows], schema=SCHEMA)
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def read(content: bytes) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file as they were before."""
    return [_deep(row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]


def keys(content: bytes) -> list[str]:
    """Return the keys in a Parquet file."""
    found: list[str] = pq.read_table(io.BytesIO(content), columns=["key"])["key"].to_pylist()
    return found


def has(content: bytes, key: str) -> bool:
    """Say whether a Parquet file has the row of *key*."""
    column = pq.read_table(io.BytesIO(content), columns=["key"])["key"]
    return bool(pc.any(pc.equal(column, key)).as_py())


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    known = {*_TEXTS, *_TIMES, *_FLAGS, "metadata", "payload"}
    more = {name: value for name, value in row.items() if name not in known}
    flat = {name: row.get(name) for name in (*_TEXTS, *_FLAGS)}
    flat |= {name: _moment(row.get(name)) for name in _TIMES}
    flat |= {name: _json(row.get(name)) for name in ("metadata", "payload")}
    return flat | {"more": _json(more or None)}


def _deep(flat: Mapping[str, Any]) -> dict[str, Any]:
    row = {name: flat[name] for name in (*_TEXTS, *_FLAGS)}
    row |= {name: flat[name].isoformat() if flat[name] else None for name in _TIMES}
    row |= {
        name: json.loads(flat[name]) if flat[name] else None for name in ("metadata", "payload")
    }
    return row | (json.loads(flat["more"]) if flat["more"] else {})


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)
