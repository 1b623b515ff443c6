"""A page to try the API: the server makes the call for the person who is signed in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import quote, urlencode

from flask import Blueprint, abort, current_app, g, render_template, request
from flask.typing import ResponseReturnValue
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import EnvironBuilder, run_wsgi_app

from relay.api.identity import SPOKEN_FOR, asking
from relay.api.services import services
from relay.console.pages import needs, needs_password
from relay.rules.access import Scope

#: Characters of an answer that are shown.
MOST_SHOWN = 100_000
#: Headers of an answer that say something about it.
_SHOWN = ("Content-Type", "Link", "Location", "Allow", "Retry-After", "WWW-Authenticate")
_WORDS = re.compile(r"[^\s,]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call of the API, as its description has it."""

    name: str
    method: str
    path: str
    summary: str
    description: str
    tag: str
    parameters: Sequence[Mapping[str, Any]]
    #: The schema of the body; None: it has none.
    body: Mapping[str, Any] | None
    scope: Scope


@dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """A call that was made, and its answer."""

    command: str
    status: str
    headers: Sequence[tuple[str, str]]
    body: str
    is_cut: bool

    @property
    def is_good(self) -> bool:
        return self.status.startswith("2")


def add(console: Blueprint) -> None:
    """Add the page."""

    @console.get("/api")
    @needs(Scope.READ)
    def try_api() -> ResponseReturnValue:
        name = request.args.get("call")
        if name is None:
            return render_template("try_api.html", tags=_by_tag())
        call = _named(name)
        body = None if call.body is None else json.dumps(_example(call.body), indent=2)
        return _page(call, values={}, body=body)

    @console.post("/api")
    @needs(Scope.READ)
    def make_call() -> ResponseReturnValue:
        call = _named(request.form.get("call", ""))
        # What the console asks the password for, it asks for here, too.
        view = needs_password(_answered) if call.scope is Scope.ADMIN else _answered
        return cast(ResponseReturnValue, view(call))


def _answered(call: Call) -> ResponseReturnValue:
    values = {each["name"]: request.form.get(f"p.{each['name']}", "") for each in call.parameters}
    body = None if call.body is None else request.form.get("body", "")
    missing = [each["name"] for each in call.parameters if each["in"] == "path"
               and not values[each["name"]].strip()]  # fmt: skip
    if missing:
        return _page(call, values=values, body=body, fault=f"{missing[0]} is empty"), 422
    return _page(call, values=values, body=body, made=_make(call, values, body))


def _page(call: Call, *, values: Mapping[str, str], body: str | None, **more: Any) -> str:
    return render_template(
        "try_call.html",
        call=call,
        fields=[_field(each, values) for each in call.parameters],
        body=body,
        properties=list(_properties(call.body or {})),
        allowed=asking().may(call.scope),
        **more,
    )


def _make(call: Call, values: Mapping[str, str], body: str | None) -> Made:
    """Call the API as the person who is signed in, by the way that every caller comes."""
    path, query = call.path, []
    for each in call.parameters:
        name, value = each["name"], values[each["name"]].strip()
        if each["in"] == "path":
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        elif value:
            is_list = each["schema"].get("type") == "array"
            query += [(name, word) for word in (_WORDS.findall(value) if is_list else [value])]
    raw = None if body is None else body.encode("utf-8", "surrogatepass")
    builder = EnvironBuilder(
        path=path,
        method=call.method,
        base_url=request.host_url,
        query_string=urlencode(query, errors="surrogatepass"),
        data=raw,
        content_type=None if raw is None else "application/json",
    )
    environ = builder.get_environ() | {SPOKEN_FOR: g.identity}
    chunks, status, headers = run_wsgi_app(current_app.wsgi_app, environ)
    text = b"".join(chunks).decode("utf-8", "replace")
    shown = _pretty(text)
    return Made(
        command=_command(call, path, query, body),
        status=status,
        headers=[(name, headers[name]) for name in _SHOWN if name in headers],
        body=shown[:MOST_SHOWN],
        is_cut=len(shown) > MOST_SHOWN,
    )


def _command(call: Call, path: str, query: Sequence[tuple[str, str]], body: str | None) -> str:
    """Return the same call for a terminal."""
    admin = services().config.admin
    address = admin.address if admin else ""
    url = f"{address}{path}" + (f"?{urlencode(query, errors='replace')}" if query else "")
    parts = ["curl", shlex.quote(url), '-H "Authorization: Bearer $TOKEN"']
    if body is not None:
        parts += ["-H 'Content-Type: application/json'", "-d", shlex.quote(" ".join(body.split()))]
    return " ".join(parts)


def _pretty(text: str) -> str:
    """Indent JSON; what is no plain character stays escaped."""
    try:
        read = json.loads(text)
    except ValueError:
        return text
    lines = json.dumps(read, indent=2, ensure_ascii=False)
    return "".join(
        each if each.isprintable() or each == "\n" else f"\\u{ord(each):04x}" for each in lines
    )


def _calls() -> Iterator[Call]:
    described = cast(OpenAPI, current_app).api_doc
    scopes = {
        name.rpartition(".")[2]: getattr(view, "needed_scope", Scope.ADMIN)
        for name, view in current_app.view_functions.items()
        if name.startswith("api_")
    }
    for path, item in described["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {})
            yield Call(
                name=operation["operationId"],
                method=method.upper(),
                path=path,
                summary=operation["summary"],
                description=operation.get("description", ""),
                tag=operation["tags"][0],
                parameters=operation.get("parameters", ()),
                body=_resolved(content["application/json"]["schema"]) if content else None,
                scope=scopes[operation["operationId"]],
            )


def _by_tag() -> Mapping[str, tuple[str, list[Call]]]:
    """Return the calls by what they are about, with a sentence about that."""
    described = cast(OpenAPI, current_app).api_doc
    found: dict[str, tuple[str, list[Call]]] = {
        each["name"]: (each.get("description", ""), []) for each in described["tags"]
    }
    for call in _calls():
        found[call.tag][1].append(call)
    return found


def _named(name: str) -> Call:
    found = {each.name: each for each in _calls()}.get(name)
    return found or abort(404, "The API has no such call.")


def _resolved(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a schema that only refers to another one refers to."""
    if "$ref" not in schema:
        return schema
    schemas = cast(OpenAPI, current_app).api_doc["components"]["schemas"]
    found: Mapping[str, Any] = schemas[schema["$ref"].rpartition("/")[2]]
    return found


def _kind(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema of a value that is not null."""
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return _resolved(kinds[0] if kinds else schema)


def _field(parameter: Mapping[str, Any], values: Mapping[str, str]) -> Mapping[str, Any]:
    schema = _kind(parameter["schema"])
    inner = _kind(schema.get("items", schema))
    return {
        "name": parameter["name"],
        "description": parameter["description"],
        "required": parameter.get("required", False),
        "choices": inner.get("enum", ()),
        "is_list": schema.get("type") == "array",
        "value": values.get(parameter["name"], ""),
    }


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, bool, str]]:
    """Yield the fields of a body: name, whether it is needed, and what it is."""
    for name, each in schema.get("properties", {}).items():
        kind = _kind(each)
        inner = _kind(kind.get("items", kind))
        choices = inner.get("enum") or [kind["const"]] if "const" in kind else inner.get("enum")
        said = each.get("description") or kind.get("description", "")
        of = f" ({', '.join(map(str, choices))})" if choices else ""
        yield name, name in schema.get("required", ()), f"{said}{of}"


def _example(schema: Mapping[str, Any]) -> Any:
    """Return a body to begin with: what it needs, and why."""
    wanted = [*schema.get("required", ()), *({"why", "ids", "dry_run"} & {*schema["properties"]})]
    return {name: _value(each) for name, each in schema["properties"].items() if name in wanted}


def _value(schema: Mapping[str, Any]) -> Any:
    kind = _kind(schema)
    if kind.get("enum"):
        return kind["enum"][0]
    match kind.get("type"):
        case "boolean":
            return True
        case "array":
            return []
        case "object":
            return {}
        case _:
            return ""
