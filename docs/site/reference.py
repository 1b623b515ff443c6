"""Write the reference pages from the code: `python docs/site/reference.py` writes docs/reference.

`--check` writes nothing, and ends with 1 where a page is not what the code says.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from relay import cli as relay_cli
from relay.admin_app import create_admin_app
from relay.api.services import Services
from relay.config import installed
from relay.config.json_schema import REFERENCE, schema
from relay.config.model import Admin, Config
from relay.store import connect
from relay.telling.metrics import ASKED, COUNTED, Family
from sender import cli as sender_cli

ROOT = Path(__file__).parents[2]
TO = ROOT / "docs/reference"
Json = dict[str, Any]

#: How values are written that a pattern describes.
FORMS = {
    r"ms|[smhdw]": "time",
    r"[Ii]?[Bb]": "size",
}
LEVELS = ("debug", "info", "warning", "error")
#: What each line of the log says.
MEANING = {
    "access.refused": "somebody who is signed in, or a program with a token, may not do that",
    "admin.not_served": "the inner listener has no port; console, API and metrics are away",
    "admin.served": "where console and metrics answer",
    "alert.failed": "an alert was not sent; it is tried again for a day",
    "attempt.not_recorded": "the store did not take how an attempt ended; its lease will run out",
    "backup.removed": "a backup that the relay had made is past its time",
    "broker.available": "hints go through the broker again",
    "broker.not_told": "a command of Celery was not sent",
    "broker.unavailable": "hints do not reach the broker; workers ask the store meanwhile",
    "bulk_act.failed": "an act on many deliveries ended early; what was done stays done",
    "commit.not_told": "whoever waited for a commit was not told",
    "config.not_taken": "a changed config has faults or does not start; what ran goes on",
    "config.reloaded": "a changed config is in use",
    "connector.failed": "a connector raised what it must not: a bug of it",
    "delivery.attempted": "an attempt to deliver ended",
    "destination.paused": "a destination is left alone from now on",
    "destination.resumed": "a destination is served again",
    "endpoint.served": "a URL that takes posts, and what a request must bring",
    "heartbeat.failed": "the call that says that all is well was not answered",
    "log": "what a library says, under the name of its logger",
    "log.dropped": "how many lines found no room, because nobody read the others",
    "loop.failed": "something that repeats failed, and goes on",
    "metrics.not_counted": "there is no room for a count",
    "problem.escalated": "a problem is told again: it has grown, or nobody has acknowledged it",
    "problem.opened": "something that a person should know",
    "problem.resolved": "a problem is over",
    "process.died": "a process ended by itself; another takes its place",
    "process.killed": "a process did not end in time",
    "process.replaced": "a reload put the installed version in place of the running one",
    "receiver.silent": "the receiver stopped answering; another takes its place",
    "reload.not_reachable": "this command will hear of no `reload`",
    "request.received": "a request was answered",
    "requests.evicted": "refused requests were removed, because the disk is short",
    "requests.not_kept": "refused requests were not kept",
    "requests.not_logged": "how many lines of a flood were left out",
    "sign_in.failed": "a name and a password did not go together",
    "store.gone": "the file of the store was removed or moved",
    "store.log_kept": "the write-ahead log could not be made shorter",
    "store.no_wake_ups": "no pipe beside the store; the worker finds events up to 50 ms later",
    "store.pruned": "what was older than the config's times was removed",
    "store.unavailable": "the store could not be asked; it is asked again",
    "tls.not_renewed": "renewed files cannot be used; the old certificate stays",
    "tls.renewed": "a renewed certificate is in use",
    "tls.served": "the relay speaks TLS by itself, with this certificate",
    "token.unknown": "a program showed a token that does not exist or has expired",
    "web.started": "the receiver listens",
    "worker.started": "the worker delivers",
    "worker.stopped": "the worker has ended; how many attempts it left to their leases",
}
#: Fields that are handed over together, by how the code writes that.
TOGETHER = {
    "claim.names": ("event_id", "message_id", "delivery_id", "destination"),
    "answer.logged": ("endpoint", "reason", "event_id", "message_id"),
    "said": ("cause", "reason", "until"),
}


def cell(text: object) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def code(names: Iterable[str]) -> str:
    return ", ".join(f"`{each}`" for each in names)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, each)) + " |" for each in lines) + "\n"


def page(title: str, about: str, *parts: str) -> str:
    note = "This page is made from the code: `python docs/site/reference.py`."
    return "\n".join([f"# {title}\n", f"{about}\n", f"{note}\n", *parts])


def is_null(given: Json) -> bool:
    return given == REFERENCE or given.get("type") == "null"


def kind(given: Any) -> str:
    """Say of which kind a value is that a JSON Schema describes."""
    if not isinstance(given, dict) or not given:
        return "any"
    if "$ref" in given:
        name = given["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if kinds := given.get("anyOf") or given.get("oneOf"):
        said = dict.fromkeys(kind(each) for each in kinds if not is_null(each))
        return " or ".join(said)
    if "enum" in given or "const" in given:
        values = given.get("enum", [given.get("const")])
        return ", ".join(f"`{json.dumps(each)[1:-1] or each}`"
                         if isinstance(each, str) else f"`{json.dumps(each)}`"
                         for each in values)  # fmt: skip
    if given.get("format") == "password":
        return "secret"
    if pattern := given.get("pattern"):
        return next((form for part, form in FORMS.items() if part in pattern), "text")
    match given.get("type"):
        case "array":
            return f"list of {kind(given.get('items'))}"
        case "object":
            return f"mapping to {kind(given.get('additionalProperties'))}"
        case "string":
            return "text"
        case "boolean":
            return "`true`, `false`"
        case [*several]:
            return " or ".join(kind({"type": each}) for each in several if each != "null")
        case found:
            return str(found or "any")


def default(given: Json, *, required: bool) -> str:
    if "default" in given:
        return f"`{json.dumps(given['default'], ensure_ascii=False)}`"
    return "**required**" if required else ""


def about(given: Json) -> str:
    said = " ".join(str(given.get("description", "")).replace("``", "`").split())
    return said if not said or said.endswith((".", "?")) else f"{said}."


def keys(described: Json) -> str:
    needed = described.get("required", ())
    rows = [
        (f"`{name}`", kind(each), default(each, required=name in needed), about(each))
        for name, each in described.get("properties", {}).items()
        if each is not True
    ]
    return table(("key", "value", "default", "meaning"), rows) if rows else ""


def config() -> str:
    found = schema({each.name: each.connector for each in installed.connectors()})
    definitions = found.pop("$defs")
    parts = ["## The file\n", keys(found)]
    for name, each in sorted(definitions.items()):
        parts += [f"## {name}\n", f"{about(each)}\n", keys(each) or f"One of {kind(each)}.\n"]
    return page(
        "Reference: config",
        "Every key of `config.yaml`, what it takes, and its default."
        " [Configuration](../configuration.md) explains them.",
        *parts,
    )


def commands(command: click.Command, ctx: click.Context) -> Iterator[str]:
    """Yield the help of *command* and of those below it, as a terminal shows it."""
    if not isinstance(command, click.Group) or ctx.parent is None or command.commands:
        yield f"## {ctx.command_path}\n"
        yield f"```text\n{command.get_help(ctx).strip()}\n```\n"
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            inner = command.get_command(ctx, name)
            if inner is not None and not inner.hidden:
                yield from commands(inner, below(ctx, inner, name))


def below(parent: click.Context | None, command: click.Command, name: str) -> click.Context:
    return click.Context(
        command, parent=parent, info_name=name, terminal_width=100, max_content_width=100
    )


def cli() -> str:
    programs = (relay_cli.cli, "gofax-relay"), (sender_cli.main, "gofax-sender")
    parts = [part for each, name in programs for part in commands(each, below(None, each, name))]
    return page(
        "Reference: command line",
        "Every command with its options, as `--help` prints them.",
        *parts,
    )


def metrics() -> str:
    def rows(families: Iterable[Family]) -> str:
        head = ("metric", "kind", "labels", "meaning")
        return table(
            head,
            [(f"`{each.name}`", each.kind, code(each.labels), each.help) for each in families],
        )

    return page(
        "Reference: metrics",
        "Every metric at `/metrics` of the inner listener."
        " [Watch it](../watching.md#metrics) says how to collect them.",
        "## Counted by processes\n",
        rows(COUNTED),
        "## Read when somebody asks\n",
        rows(ASKED),
    )


def described() -> Json:
    with tempfile.TemporaryDirectory() as folder:
        given = Config.model_validate({"endpoints": [{"path": "/in", "allow_unsigned": True}]})
        services = Services(given, connect(f"sqlite:///{folder}/relay.db"))
        client = create_admin_app(Admin(), services, scrape=lambda: b"").test_client()
        answer = client.get("/api/v1/openapi.json", base_url="http://127.0.0.1:8081")
        found: Json = json.loads(answer.text)
        return found


def body_of(call: Json, where: str) -> str:
    content = call.get(where, {}).get("content", {})
    return next((kind(each.get("schema")) for each in content.values()), "")


def call_of(method: str, path: str, call: Json) -> Iterator[str]:
    yield f"### {method.upper()} {path}\n"
    yield f"{about({'description': call.get('description') or call.get('summary', '')})}\n"
    if taken := body_of(call, "requestBody"):
        yield f"Body: {taken}.\n"
    given = [
        (f"`{each['name']}`", each["in"], kind(each["schema"]),
         default(each["schema"], required=each.get("required", False)), about(each))
        for each in call.get("parameters", ())
    ]  # fmt: skip
    if given:
        yield table(("parameter", "in", "value", "default", "meaning"), given)
    statuses = sorted(call["responses"])
    good = [each for each in statuses if each < "300"]
    for status in good:
        yield f"Answer: {status} with {body_of(call['responses'], status) or 'nothing'}.\n"
    faults = ", ".join(each for each in statuses if each not in good)
    yield f"Faults: {faults}, by [Problem](#problem).\n"


def api() -> str:
    found = described()
    parts = []
    for tag in found["tags"]:
        parts.append(f"## {tag['name'].capitalize()}\n")
        parts.append(f"{about(tag)}\n")
        for path, item in found["paths"].items():
            for method, call in item.items():
                if tag["name"] in call["tags"]:
                    parts += call_of(method, path, call)
    parts.append("## Shapes\n")
    for name, each in sorted(found["components"]["schemas"].items()):
        said = about(each)
        parts += [
            f"### {name}\n",
            *([f"{said}\n"] if said else []),
            keys(each) or f"{kind(each)}.\n",
        ]
    return page(
        "Reference: calls of the API",
        "Every call of `/api/v1/`, as `openapi.json` there describes it."
        " [Use the API](../api.md) has examples.",
        *parts,
    )


def lines() -> Iterator[tuple[str, str, list[str]]]:
    """Yield what the code logs: the name of the line, its level, and its fields."""
    # The writer's own, which goes no way of the others; and what is bound before the line.
    yield "log.dropped", "warning", ["count"]
    yield "log", "", ["logger", "said"]
    for path in sorted((ROOT / "relay").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or (level := level_of(node.func)) is None:
                continue
            for name in (name for arg in node.args for name in names(arg)):
                yield name, level, list(fields(node))


def level_of(function: ast.expr) -> str | None:
    """Return the level of a line that *function* writes; empty: one that is not written there."""
    if isinstance(function, ast.Name):
        return "" if function.id == "level" else None
    name = str(getattr(function, "attr", ""))
    return {"exception": "error", "log": ""}.get(name, name if name in LEVELS else None)


def names(arg: ast.expr) -> list[str]:
    """Return the names of lines that the argument of a call may be."""
    if isinstance(arg, ast.JoinedStr) and ast.unparse(arg) == "f'problem.{step.told}'":
        return ["problem.opened", "problem.escalated", "problem.resolved"]
    if isinstance(arg, ast.Constant) and isinstance(arg.value, str):
        return [arg.value] if re.fullmatch(r"log|[a-z_]+\.[a-z_]+", arg.value) else []
    return []


def fields(call: ast.Call) -> Iterator[str]:
    for given in call.keywords:
        if given.arg is None:
            yield from TOGETHER[ast.unparse(given.value)]
        elif given.arg != "exc_info":
            yield given.arg


def logs() -> str:
    levels: dict[str, set[str]] = {}
    said: dict[str, dict[str, None]] = {}
    for name, level, given in lines():
        levels.setdefault(name, set()).update(filter(None, [level]))
        said.setdefault(name, {}).update(dict.fromkeys(given))
    if found := MEANING.keys() ^ said.keys():
        raise SystemExit(f"docs/site/reference.py: MEANING and the code differ in {sorted(found)}")
    rows = [
        (f"`{name}`", ", ".join(sorted(levels[name])) or "any", code(said[name]), meaning)
        for name, meaning in sorted(MEANING.items())
    ]
    return page(
        "Reference: logs",
        "Every line of the log, by its name (`event`). Beside its fields each has `timestamp` and"
        " `level`, and errors may have `exception`."
        " [Watch it](../watching.md#logs) says what never stands in them.",
        table(("line", "level", "fields", "meaning"), rows),
    )


PAGES: Mapping[str, Any] = {
    "config": config,
    "cli": cli,
    "metrics": metrics,
    "api": api,
    "logs": logs,
}


def stale() -> list[str]:
    """Return the pages that are not what the code says."""
    return [name for name, make in PAGES.items() if read(TO / f"{name}.md") != make()]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def write() -> None:
    TO.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (TO / f"{name}.md").write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    if "--check" not in sys.argv:
        write()
    elif found := stale():
        sys.exit(f"not what the code says: {', '.join(found)}; run python docs/site/reference.py")
