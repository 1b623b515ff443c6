"""What Microsoft's services put into their answers: JSON objects, error codes."""

from __future__ import annotations

import json
import re

import requests

_CODE = re.compile(r"[A-Za-z0-9]{1,60}")


def json_object(response: requests.Response) -> dict[str, object] | None:
    """Return the JSON object that was answered, if it is one."""
    try:
        answer = json.loads(response.content)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def error_code(response: requests.Response) -> str:
    """Name the vendor's error code, if any; the message beside it may quote the address."""
    answer = json_object(response) or {}
    inner = answer.get("error")
    code = (inner if isinstance(inner, dict) else answer).get("code")
    return code if isinstance(code, str) and _CODE.fullmatch(code) else ""
