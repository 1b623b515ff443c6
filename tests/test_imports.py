"""Imports run one way, and every library has one door."""

from __future__ import annotations

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("connectors", "relay", "sender")
SANDBOX = "connectors.sandbox"
WEB = {"relay.app", "relay.admin_app", "relay.receive", "relay.console", "relay.api", SANDBOX}

#: The modules, and those below them, that may import a library with a door.
DOORS = {
    "yaml": {"relay.config.document"},
    "itsdangerous": {"relay.rules.signature", "relay.acts.links"},
    "sqlalchemy": {"relay.store", "relay.migrations"},
    "alembic": {"relay.migrations"},
    "psycopg": {"relay.store"},
    "celery": {"relay.cluster"},
    "kombu": {"relay.cluster"},
    "flask": WEB,
    "werkzeug": WEB,
    "granian": {"relay.processes"},
    "orjson": {"relay.rules.jsontext", "connectors.plain"},
    "limits": {"relay.api.guesses"},
    "argon2": {"relay.console.passwords"},
    "markupsafe": {"relay.console"},
    "flask_openapi3": {"relay.api", "relay.admin_app", "relay.console.try_api"},
    "flask_wtf": {"relay.admin_app"},
    "prometheus_client": {"relay.telling"},
    "click": {"relay.cli", "relay.commands", "sender"},
    "jinja2": {"connectors.templates", "connectors.filters", "sender.scorecard"},
    "fsspec": {"connectors.archive.objects"},
    "pyarrow": {"connectors.archive.parquet"},
    "aiosmtpd": {"connectors.suites.mailbox"},
    "apprise": {"relay.telling"},
    "rich": {"relay.commands", "sender"},
    "aiohttp": {"sender.load"},
    "hdrh": {"sender.load"},
    "phonenumbers": {
        "relay.rules.phones",
        "connectors.hubspot.contacts",
        "connectors.zendesk.numbers",
        SANDBOX,
    },
    "hubspot": {"connectors.hubspot.api"},
    "zenpy": {"connectors.zendesk"},
    "pymsteams": {"connectors.teams.workflow"},
}

#: The floors of the relay: a room imports from floors below, or from its own.
FLOORS = [
    {"rules"},
    {"clock", "every", "logs", "scaffold"},
    {"config", "store"},
    {"telling"},
    {"migrations", "destinations"},
    {"callers", "intake", "refused", "node"},
    {"attempts", "leases", "pool", "receive", "worker"},
    {"shapes", "acts"},
    {"api"},
    {"console"},
    {"app", "admin_app", "processes", "cluster"},
    {"commands"},
    {"cli"},
]


@functools.cache
def trees() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


def relay() -> list[str]:
    return [name for name in trees() if name.startswith("relay.")]


def pure() -> list[str]:
    return [name for name in trees() if name.startswith("relay.rules.")]


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield what *node* imports; ``from a import b`` is ``a.b`` where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        module = node.module or ""
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            yield inner if inner in trees() else module


def _for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Return the nodes under ``if TYPE_CHECKING:``, which never run."""
    guards = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )
    return {inner for guard in guards for inner in ast.walk(guard)}


def _imports(tree: ast.Module) -> set[str]:
    unused = _for_types_only(tree)
    return {name for node in ast.walk(tree) if node not in unused for name in _imported(node)}


@functools.cache
def imports() -> dict[str, set[str]]:
    """Return every module that a module imports when it runs."""
    return {module: _imports(tree) for module, tree in trees().items()}


def ours(module: str) -> set[str]:
    return {name for name in imports()[module] if name.partition(".")[0] in PACKAGES}


def is_below(module: str, doors: set[str]) -> bool:
    return any(module == door or module.startswith(door + ".") for door in doors)


def floor(module: str) -> int:
    room = module.split(".")[1]
    heights = [height for height, rooms in enumerate(FLOORS) if room in rooms]
    assert len(heights) == 1, f"give relay.{room} its place in FLOORS"
    return heights[0]


def test_the_tree_is_looked_at() -> None:
    assert {"relay.cli", "relay.store.claim", "connectors.base", "sender.signing"} <= set(trees())
    assert "relay.rules.payload" in imports()["relay.rules.routing"]
    assert "relay.config.document" in imports()["relay.config.load"]  # from … import document
    assert "connectors.http" not in imports()["connectors.base"]  # for types only


def test_a_library_is_imported_by_its_door_only() -> None:
    wrong = [
        f"{module} imports {library}"
        for module in trees()
        for library in {name.partition(".")[0] for name in imports()[module]} & set(DOORS)
        if not is_below(module, DOORS[library])
    ]

    assert wrong == []


def test_a_module_of_the_relay_imports_nothing_above_it() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in relay()
        for name in ours(module)
        if name.startswith("relay.") and floor(name) > floor(module)
    ]

    assert wrong == []


def test_nothing_but_the_command_line_imports_commands() -> None:
    users = {module for module in relay() if is_below("relay.commands", ours(module))}
    users |= {m for m in relay() if any(is_below(name, {"relay.commands"}) for name in ours(m))}

    assert {m for m in users if not is_below(m, {"relay.commands", "relay.cli"})} == set()


def test_a_rule_imports_the_contract_and_other_rules() -> None:
    allowed = {"connectors.base", *pure()}

    assert {m: ours(m) - allowed for m in pure() if ours(m) - allowed} == {}


def test_a_rule_has_no_clock_no_chance_and_no_way_out() -> None:
    # random gives the type of what is passed in.
    ways_out = {"os", "io", "pathlib", "socket", "subprocess", "time", "threading", "logging",
                "secrets", "sqlite3", "requests", "structlog"}  # fmt: skip
    calls = {"datetime.now", "datetime.utcnow", "Random", "open", "print", "input"}
    wrong = []
    for module in pure():
        called = {
            ast.unparse(n.func) for n in ast.walk(trees()[module]) if isinstance(n, ast.Call)
        }
        libraries = {name.partition(".")[0] for name in imports()[module]}
        wrong += [f"{module}: {name}" for name in libraries & ways_out | called & calls]

    assert wrong == []


def test_connectors_and_sender_need_nothing_else_of_ours() -> None:
    wrong = [
        f"{module} imports {name}"
        for module in trees()
        if not module.startswith("relay")
        for name in ours(module)
        if name.partition(".")[0] != module.partition(".")[0]
    ]

    assert wrong == []


def test_the_relay_knows_connectors_by_entry_point_only() -> None:
    allowed = {
        "connectors.base": set(relay()),
        "connectors.http": {"relay.destinations", "relay.telling.heartbeat"},
        "connectors.wire": {"relay.telling.sender"},
        SANDBOX: {"relay.commands.sandbox"},
    }
    wrong = [
        f"{module} imports {name}"
        for module in relay()
        for name in ours(module)
        if name.startswith("connectors") and module not in allowed.get(name, set())
    ]

    assert wrong == []


def test_the_contract_is_made_of_types_only() -> None:
    foreign = {name.partition(".")[0] for name in imports()["connectors.base"]}

    assert foreign - set(sys.stdlib_module_names) == {"pydantic"}


def test_the_environment_is_read_with_the_config_only() -> None:
    readers = {"os.environ", "os.environb", "os.getenv", "os.putenv"}
    wrong = []
    for module in set(relay()) - {"relay.config.document", "relay.config.environment"}:
        for node in ast.walk(trees()[module]):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in readers:
                wrong.append(f"{module}:{node.lineno}")
            if isinstance(node, ast.ImportFrom) and node.module == "os":
                names = {f"os.{alias.name}" for alias in node.names}
                wrong += [f"{module}:{node.lineno}"] if names & readers else []

    assert wrong == []


def test_imports_stand_at_the_top() -> None:
    wrong = [
        f"{module}:{node.lineno}"
        for module, tree in trees().items()
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(outer)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]

    assert wrong == []


def test_no_two_modules_import_each_other() -> None:
    wrong = [
        f"{module} and {name}"
        for module in trees()
        for name in ours(module) & set(trees())
        # A package that re-exports its parts is no partner in a circle.
        if not module.startswith(name + ".") and not name.startswith(module + ".")
        if module in ours(name)
    ]

    assert wrong == []


def test_every_module_says_what_it_knows() -> None:
    silent = [m for m, tree in trees().items() if tree.body and not ast.get_docstring(tree)]

    assert silent == []


def test_the_top_of_each_package_stays_small() -> None:
    tops = {package: len(list((ROOT / package).glob("[a-z]*.py"))) for package in PACKAGES}

    assert tops["relay"] <= 16
    assert tops["connectors"] <= 12
