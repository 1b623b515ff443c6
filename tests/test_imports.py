"""Imports run one way, and every library has one door."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("connectors", "relay", "sender")
SANDBOX = "connectors.sandbox"
WEB = {"relay.app", "relay.receive", "relay.console", "relay.api", SANDBOX}

#: Of the libraries that have doors: the modules (and those below them) that may import them.
DOORS = {
    "yaml": {"relay.config.model.document"},
    "itsdangerous": {"relay.rules.signature", "relay.console"},
    "sqlalchemy": {"relay.store", "relay.migrations"},
    "alembic": {"relay.migrations"},
    "psycopg": {"relay.store"},
    "celery": {"relay.cluster"},
    "kombu": {"relay.cluster"},
    "flask": WEB,
    "werkzeug": WEB,
    "granian": {"relay.processes"},
    "orjson": {"relay.jsontext", "connectors.plain"},
    "limits": {"relay.receive"},
    "click": {
        "relay.cli",
        "relay.commands.options",
        "relay.commands.maintain",
        "relay.commands.migrate_store",
        "relay.commands.connectors",
        "relay.commands.output",
        "relay.commands.deskviews",
        "relay.commands.bulk",
        "relay.commands.recover",
        "sender",
    },
    "jinja2": {"connectors.templates", "connectors.filters", "sender.scorecard"},
    "fsspec": {"connectors.archive_objects"},
    "pyarrow": {"connectors.archive_parquet"},
    "aiosmtpd": {"connectors.suites.mailbox"},
    "rich": {"relay.commands.output", "relay.commands.paced", "sender"},
    "aiohttp": {"sender.load"},
    "hdrh": {"sender.load"},
    "phonenumbers": {"relay.rules.payload", "connectors.hubspot_contacts", SANDBOX},
    "hubspot": {"connectors.hubspot_api"},
    "zenpy": {
        "connectors.zendesk",
        "connectors.zendesk_answers",
        "connectors.zendesk_desk",
        "connectors.zendesk_people",
        "connectors.zendesk_session",
    },
    "pymsteams": {"connectors.teams_workflow"},
}

#: The floors of the relay: a module imports what stands above it in here, or its own floor.
FLOORS = [
    {"units", "ids", "jsontext", "logs", "nodes", "clock", "scaffold", "sentiment"},
    {"payload", "routing", "signature", "delivery", "remedy"},
    {"settings", "document", "store"},
    {"engine", "config", "migrations", "refusals", "pruner", "heartbeat"},
    {"loading", "registry", "config_schema"},
    {"arguments", "bulk", "attempts"},
    {"leases"},
    {
        "receive",
        "worker",
        "views",
        "explanation",
        "deskviews",
        "errands",
        "console",
        "api",
        "doctor",
        "kit",
    },
    {"workbench", "housekeeping", "moves"},
    {"app", "cluster", "demo"},
    {"processes"},
    {"cli"},
]
PURE = {
    "relay.rules.units",
    "relay.rules.payload",
    "relay.rules.sentiment",
    "relay.rules.routing",
    "relay.rules.signature",
    "relay.rules.delivery",
    "relay.rules.recovery",
}


def _trees() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return found


TREES = _trees()


def _imported(node: ast.AST) -> Iterator[str]:
    """Yield what *node* imports; ``from a import b`` is ``a.b`` where that is a module."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"line {node.lineno}: imports are absolute"
        module = node.module or ""
        for alias in node.names:
            inner = f"{module}.{alias.name}"
            yield inner if inner in TREES else module


def _for_types_only(tree: ast.Module) -> set[ast.AST]:
    """Return what stands under ``if TYPE_CHECKING:`` and is never run."""
    guards = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return {inner for guard in guards for inner in ast.walk(guard)}


def imports(module: str) -> set[str]:
    """Return every module that *module* imports when it runs."""
    tree = TREES[module]
    unused = _for_types_only(tree)
    return {name for node in ast.walk(tree) if node not in unused for name in _imported(node)}


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.partition(".")[0] in PACKAGES}


def is_below(module: str, doors: set[str]) -> bool:
    return any(module == door or module.startswith(door + ".") for door in doors)


def floor(module: str) -> int:
    part = module.split(".")[1]
    heights = [height for height, parts in enumerate(FLOORS) if part in parts]
    assert len(heights) == 1, f"give relay.{part} its place in FLOORS"
    return heights[0]


RELAY = sorted(name for name in TREES if name.startswith("relay."))


def test_the_tree_is_looked_at() -> None:
    assert {"relay.cli", "relay.store.claim", "connectors.base", "sender.signing"} <= set(TREES)
    assert "relay.rules.payload" in imports("relay.rules.routing")
    assert "relay.config.model.document" in imports(
        "relay.config.model.load"
    )  # from relay import document
    assert "connectors.http" not in imports("connectors.base")  # for types only


@pytest.mark.parametrize("module", sorted(TREES))
def test_a_library_is_imported_by_its_door_only(module: str) -> None:
    libraries = {name.partition(".")[0] for name in imports(module)}

    wrong = {name for name in libraries & set(DOORS) if not is_below(module, DOORS[name])}

    assert not wrong


@pytest.mark.parametrize("module", RELAY)
def test_a_module_of_the_relay_imports_nothing_above_it(module: str) -> None:
    for name in ours(module):
        if name.startswith("relay."):
            assert floor(name) <= floor(module), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_imports_the_contract_and_its_like(module: str) -> None:
    assert ours(module) <= PURE | {"connectors.base"}


@pytest.mark.parametrize("module", sorted(PURE))
def test_a_pure_module_has_no_clock_no_chance_and_no_way_out(module: str) -> None:
    # random gives the type of what is passed in.
    ways_out = {"os", "io", "pathlib", "socket", "subprocess", "time", "threading", "logging",
                "secrets", "sqlite3", "requests", "structlog"}  # fmt: skip
    called = {ast.unparse(node.func) for node in ast.walk(TREES[module])
              if isinstance(node, ast.Call)}  # fmt: skip

    assert not {name.partition(".")[0] for name in imports(module)} & ways_out
    assert not called & {"datetime.now", "datetime.utcnow", "Random", "open", "print", "input"}


@pytest.mark.parametrize("module", sorted(name for name in TREES if name.startswith("connectors")))
def test_connectors_need_neither_relay_nor_sender(module: str) -> None:
    assert not {name for name in ours(module) if not name.startswith("connectors")}


@pytest.mark.parametrize("module", sorted(name for name in TREES if name.startswith("sender")))
def test_the_sender_needs_neither_relay_nor_connectors(module: str) -> None:
    assert not {name for name in ours(module) if not name.startswith("sender")}


@pytest.mark.parametrize("module", RELAY)
def test_the_relay_knows_connectors_by_entry_point_only(module: str) -> None:
    known = {name for name in ours(module) if name.startswith("connectors")}
    allowed = {"connectors.base", "connectors.http", "connectors.testing", SANDBOX}

    assert known <= allowed
    assert "connectors.http" not in known or module == "relay.destinations"
    assert SANDBOX not in known or module in ("relay.cli", "relay.commands.demo")


def test_the_contract_is_made_of_types_only() -> None:
    foreign = {name.partition(".")[0] for name in imports("connectors.base")}

    assert foreign - set(sys.stdlib_module_names) == {"pydantic"}


@pytest.mark.parametrize("module", RELAY)
def test_the_environment_is_read_with_the_config_only(module: str) -> None:
    reads = {ast.unparse(node) for node in ast.walk(TREES[module])
             if isinstance(node, ast.Attribute | ast.Name)}  # fmt: skip
    imported = {alias.name for node in ast.walk(TREES[module])
                if isinstance(node, ast.ImportFrom) and node.module == "os"
                for alias in node.names}  # fmt: skip

    if module != "relay.config.model.document":
        assert not reads & {"os.environ", "os.environb", "os.getenv", "os.putenv"}
        assert not imported & {"environ", "environb", "getenv"}


@pytest.mark.parametrize("module", sorted(TREES))
def test_imports_stand_at_the_top(module: str) -> None:
    tree = TREES[module]
    inside = {
        node.lineno
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(outer)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }

    assert not inside


@pytest.mark.parametrize("module", sorted(TREES))
def test_no_two_modules_import_each_other(module: str) -> None:
    for name in ours(module) & set(TREES):
        # A package that re-exports its parts is no partner in a circle.
        if not module.startswith(name + ".") and not name.startswith(module + "."):
            assert module not in ours(name)


@pytest.mark.parametrize("module", sorted(TREES))
def test_every_module_says_what_it_knows(module: str) -> None:
    tree = TREES[module]

    assert ast.get_docstring(tree) or not tree.body
