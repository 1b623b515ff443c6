"""Templates of payloads: the samples of this package, and files of the same kinds."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

from sender.errors import SenderError
from sender.event import DIRECTIONS
from sender.payload import Payload, parse_form, parse_json, renewed, retimed
from sender.replay import read

SAMPLES = Path(__file__).parent / "samples"

#: Our word for a field: its name in the JSON payload, and in the legacy form if it is there.
_JSON_NAMES = {
    "type": "eventType",
    "message_id": "messageId",
    "direction": "direction",
    "sender": "from",
    "recipient": "to",
    "body": "messageBody",
}
_FORM_NAMES = {"message_id": "ID", "recipient": "Recipient", "body": "Message"}


def load(name: str) -> Payload:
    """Return the sample of that name, or the one payload that the file holds.

    Raises :class:`SenderError`.
    """
    path = Path(name)
    if path.suffix:
        (payload, *more) = read([path])
        if more:
            raise SenderError(f"{name}: holds {len(more) + 1} payloads: a template is one")
        return payload
    found = sorted(SAMPLES.glob("*.*"))
    for sample in found:
        if sample.stem == name:
            return read([sample])[0]
    names = ", ".join(each.stem for each in found)
    raise SenderError(f'no sample "{name}" (have: {names}); for a file give its name with .json')


def filled(template: Payload, fields: Mapping[str, Any], *, at: datetime) -> Payload:
    """Return *template* under a new id and with the time *at*, changed by *fields*.

    A body that is None takes the text out. Raises :class:`SenderError` for a field that the
    legacy form does not have.
    """
    fresh = replace(retimed(renewed(template), at), source="")
    if not fields:
        return fresh
    return _filled_form(fresh, fields) if fresh.kind == "form" else _filled_json(fresh, fields)


def _filled_json(payload: Payload, fields: Mapping[str, Any]) -> Payload:
    try:
        content: dict[str, Any] = json.loads(payload.body)
    except ValueError as error:
        raise SenderError(f"the template has a number that cannot be kept: {error}") from error
    if "type" in fields and "direction" not in fields:
        content["direction"] = DIRECTIONS.get(fields["type"], "inbound")
    content |= {_JSON_NAMES[name]: value for name, value in fields.items()}
    if "body" in fields and fields["body"] is None:
        del content["messageBody"]
    text = json.dumps(content, ensure_ascii=False)
    return parse_json(text.encode("utf-8", "backslashreplace"))


def _filled_form(payload: Payload, fields: Mapping[str, Any]) -> Payload:
    unknown = sorted(fields.keys() - _FORM_NAMES.keys())
    if unknown:
        raise SenderError(f"the legacy form has no {unknown[0]}: it has id, recipient and text")
    content = dict(parse_qsl(payload.body.decode("ascii"), keep_blank_values=True))
    content |= {_FORM_NAMES[name]: value or "" for name, value in fields.items()}
    return parse_form(urlencode(content).encode("ascii"))
