"""Checks of what a connector declares, says and keeps to itself: C01, C02, C08, C13 to C16."""

from __future__ import annotations

import json
import logging
import re
import socket
import traceback
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr, ValidationError

from connectors.base import Connector, DeliveryError, Transient, Unauthorized
from connectors.testing.bench import Bench, Line
from connectors.testing.findings import Findings, check
from connectors.testing.gateway import Asked, Fault, Gateway, Plan, lasting
from connectors.testing.hooks import Hooks, over_http_only

#: Names of options whose values are secrets, whatever their author says.
SECRET_NAME = re.compile(r"(^|_)(token|secrets?|password|passphrase|api_?key|private_key)$")
RATE = re.compile(r"[1-9]\d*/(\d+(\.\d+)?(ms|[smhdw]))+")
#: Sections that a page about a connector must have, and patterns of their headings.
SECTIONS = {
    "set-up": r"set-?\s?up|install|getting started",
    "options": r"options|configuration",
    "behaviour": r"behaviou?r|what|how",
    "limits": r"limit",
}


class ContractChecks(Hooks):
    """What can be seen from outside, without looking at effects."""

    @check
    def test_C01_options_are_valid(self) -> None:
        findings = Findings()
        model = self.connector.Options
        with self.bench() as bench:
            values = dict(bench.options(bench.stand_in.url))
        model.model_validate(values)

        for name, option in model.model_fields.items():
            findings.expect(option.description, "an option has no description", at=name)
        findings.expect(json.dumps(model.model_json_schema()), "the options have no JSON Schema")
        unknown = _refusal(model, {**values, "no_such_option": "x"})
        findings.expect(unknown, "an unknown option is not refused")
        findings.report()

    @check
    def test_C01_secrets_are_marked(self) -> None:
        findings = Findings()
        for path, option in _annotated(self.connector.Options):
            marked = any(kind in _types(option) for kind in (SecretStr, SecretBytes))
            name = path.rpartition(".")[2]
            findings.expect(
                marked or not SECRET_NAME.search(name), "a secret is no SecretStr", at=path
            )
        findings.report()

    @check
    def test_C01_secrets_are_not_shown(self) -> None:
        findings = Findings()
        with self.bench() as bench, bench.line() as line:
            model = self.connector.Options
            values = dict(bench.options(_url(bench, line)))
            options = model.model_validate(values)
            case = bench.first()
            bench.settle(line.connector, case)
            shown = {
                "repr(options)": repr(options),
                "str(options)": str(options),
                "options as JSON": options.model_dump_json(),
                "repr(connector)": repr(line.connector),
                "the error for an unknown option": _refusal(model, {**values, "no_such": "x"}),
                "a URL": " ".join(each.target for each in _requests(line)),
            }
            for name in values:
                broken = {**values, name: [values[name]]}
                shown[f"the error for a wrong {name}"] = _refusal(model, broken)
        for secret in secrets_of(options):
            for where, text in shown.items():
                findings.expect(secret not in text, "a secret is shown", at=where)
        findings.report()

    @check
    def test_C02_check_says_who_we_are(self) -> None:
        with self.bench() as bench, bench.line() as line:
            before = bench.effects()
            said = line.connector.check()
            after = bench.effects()
        findings = Findings()
        findings.expect(isinstance(said, str) and said.strip(), "check() does not say who we are")
        findings.expect(before == after, "check() changes something")
        findings.report()

    @check
    def test_C02_check_tells_authorization_from_permission(self) -> None:
        over_http_only(self)
        findings = Findings()
        said = {}
        with self.bench() as bench:
            for status in (401, 403):
                outcome = _checked(bench, lasting(Fault(status=status)))
                wanted = isinstance(outcome, Unauthorized)
                findings.judge(
                    wanted, outcome, wanted="Unauthorized", at=str(status), by="check()"
                )
                said[status] = str(outcome)
        findings.expect(said[401] != said[403], "check() says the same of 401 and of 403")
        findings.report()

    @check
    def test_C02_check_tells_unreachable(self) -> None:
        over_http_only(self)
        findings = Findings()
        with self.bench() as bench, closing(socket.create_server(("127.0.0.1", 0))) as free:
            port = free.getsockname()[1]
            free.close()
            outcomes = {
                "nobody listens": _checked(
                    bench, readdress=lambda url: re.sub(r":\d+", f":{port}", url, count=1)
                ),
                "503": _checked(bench, lasting(Fault(status=503))),
                "reset": _checked(bench, lasting(Fault(ends="reset"))),
            }
        for what, outcome in outcomes.items():
            wanted = isinstance(outcome, Transient)
            findings.judge(wanted, outcome, wanted="Transient", at=what, by="check()")
        findings.report()

    @check
    def test_C08_no_redirect_is_followed(self) -> None:
        over_http_only(self)
        findings = Findings()
        with self.bench() as bench, Gateway(bench.stand_in.url) as trap:
            for status in (301, 302, 303, 307, 308):
                fault = Fault(status=status, headers={"Location": trap.url})
                with bench.line(lasting(fault)) as line:
                    outcome = bench.attempt(line.connector, bench.first())
                failed = isinstance(outcome, DeliveryError)
                findings.judge(failed, outcome, wanted="a DeliveryError", at=str(status))
            findings.expect(not trap.connections, "a redirect was followed")
        findings.report()

    @check
    def test_C08_private_addresses_are_left_alone(self) -> None:
        over_http_only(self)
        with self.bench() as bench, bench.line(allow=()) as line:
            outcome = bench.attempt(line.connector, bench.first())
            assert line.gateway is not None
            connections = line.gateway.connections
        findings = Findings()
        findings.expect(not connections, "went to 127.0.0.1, which http does not allow")
        wanted = isinstance(outcome, Unauthorized)
        findings.judge(wanted, outcome, wanted="Unauthorized", at="127.0.0.1")
        findings.report()

    @check
    def test_C13_construction_makes_no_request(self) -> None:
        over_http_only(self)
        with self.bench() as bench, bench.line() as line:
            assert line.gateway is not None
            findings = Findings()
            findings.expect(not line.gateway.connections, "__init__ makes a request")
            findings.report()

    @check
    def test_C13_construction_has_no_effect(self) -> None:
        findings = Findings()
        with self.bench() as bench, bench.line():
            findings.expect(not bench.effects(), "__init__ leaves something in the system")
        findings.report()

    @check
    def test_C14_diagnostics_are_redacted(self) -> None:
        findings = Findings()
        marker = "the words of a customer 4711"
        with self.bench() as bench, _logged() as log:
            for name, plan in self._troubles():
                with bench.line(plan) as line:
                    case = bench.first(body=marker)
                    outcome = bench.attempt(line.connector, case)
                    errors = [outcome, _outcome_of_check(line.connector)]
                    words = "\n".join([repr(line.connector), *map(_everything, errors)])
                    secrets = secrets_seen(bench, line)
                for secret in secrets:
                    findings.expect(secret not in words, "an error shows a secret", at=name)
                    findings.expect(secret not in log(), "the log shows a secret", at=name)
                findings.expect(marker not in words, "an error shows the text", at=name)
                findings.expect(marker not in log(), "the log shows the text", at=name)
        findings.report()

    def _troubles(self) -> Iterator[tuple[str, Plan | None]]:
        yield "undisturbed", None
        if self.over_http:
            for status in (200, 400, 401, 403, 429, 500):
                yield f"{status} that quotes the request", _quoting(status)
            yield "reset", lasting(Fault(ends="reset"))

    @check
    def test_C15_rate_is_declared(self) -> None:
        declared = [kind for kind in self.connector.__mro__ if "default_rate" in vars(kind)]
        rate = self.connector.default_rate

        findings = Findings()
        findings.expect(declared[0] is not Connector, "default_rate is not declared")
        with self.bench() as bench:
            options = self.connector.Options.model_validate(bench.options(bench.stand_in.url))
        for each in (rate, self.connector.rate_for(options)):
            readable = each is None or RATE.fullmatch(each)
            findings.expect(readable, "a rate cannot be read: write such as 4/1s", at=repr(each))
        burst, concurrency = self.connector.default_burst, self.connector.default_concurrency
        findings.expect((burst or 1) >= 1, "default_burst is below 1")
        findings.expect(concurrency >= 1, "default_concurrency is below 1")
        findings.report()

    @check
    def test_C16_documentation_is_complete(self) -> None:
        page = self.docs()
        findings = Findings()
        findings.expect(page, "there is no README beside the sources, and docs() returns none")
        headings = re.findall(r"^#+ +(.+)$", page, re.MULTILINE)
        for section, pattern in SECTIONS.items():
            found = any(re.search(pattern, each, re.IGNORECASE) for each in headings)
            findings.expect(found or not page, "the page lacks a section", at=section)
        for name, option in self.connector.Options.model_fields.items():
            named = re.search(rf"\b{re.escape(option.alias or name)}\b", page)
            findings.expect(named or not page, "the page does not name an option", at=name)
        findings.report()


def secrets_of(model: BaseModel) -> list[str]:
    """Return every secret in validated options."""
    return list(_secrets(model))


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield from filter(None, [value.get_secret_value()])
    elif isinstance(value, SecretBytes):
        yield value.get_secret_value().decode("latin-1")
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, dict):
        for each in value.values():
            yield from _secrets(each)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _secrets(each)


def secrets_seen(bench: Bench, line: Line) -> set[str]:
    """Return the secrets of the options, and what went out as authorization."""
    options = bench.kind.Options.model_validate(bench.options(_url(bench, line)))
    sent = {
        value.rpartition(" ")[2]
        for asked in _requests(line)
        for name, value in asked.headers.items()
        if name.lower() == "authorization"
    }
    return sent | set(secrets_of(options))


def _url(bench: Bench, line: Line) -> str:
    return line.gateway.url if line.gateway else bench.stand_in.url


def _requests(line: Line) -> list[Asked]:
    return line.gateway.requests if line.gateway else []


def _refusal(model: type[BaseModel], values: dict[str, Any]) -> str:
    """Return what the model says of *values*; nothing if it takes them."""
    try:
        model.model_validate(values)
    except ValidationError as error:
        return f"{error}\n{error!r}"
    return ""


def _annotated(model: type[BaseModel], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every option with its type, those of nested models too."""
    for name, field in model.model_fields.items():
        yield f"{before}{name}", field.annotation
        for kind in _types(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _annotated(kind, f"{before}{name}.")


def _types(annotation: Any) -> set[Any]:
    """Return the types that an annotation is made of."""
    inner = getattr(annotation, "__args__", ())
    return {annotation}.union(*map(_types, inner)) if inner else {annotation}


def _outcome_of_check(connector: Connector[Any]) -> str | Exception:
    try:
        return connector.check()
    except Exception as error:
        return error


def _checked(bench: Bench, plan: Plan | None = None, **how: Any) -> str | Exception:
    with bench.line(plan, **how) as line:
        return _outcome_of_check(line.connector)


def _everything(outcome: object) -> str:
    """Say all that can be seen of an outcome: its words, its causes, its place in the code."""
    if isinstance(outcome, BaseException):
        return "".join(traceback.format_exception(outcome)) + repr(outcome)
    return repr(outcome)


def _quoting(status: int) -> Plan:
    """Answer with the request's own headers and body wherever a vendor's words may stand."""

    def plan(asked: Asked) -> Fault:
        words = f"wrong: {dict(asked.headers)} {asked.body.decode('utf-8', 'replace')}"
        said = {"code": words, "type": words, "message": words, "title": words, "detail": words}
        said |= {"description": words, "error_description": words, "category": words}
        body = json.dumps(said | {"error": {**said}, "errors": [said], "details": [said]})
        return Fault(
            status=status, headers={"Content-Type": "application/json"}, body=body.encode()
        )

    return plan


@contextmanager
def _logged() -> Iterator[Any]:
    """Collect what is logged at any level; yields a function that returns it."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    root, collector = logging.getLogger(), Collector()
    level = root.level
    root.addHandler(collector)
    root.setLevel(logging.DEBUG)
    try:
        yield lambda: "\n".join(lines)
    finally:
        root.setLevel(level)
        root.removeHandler(collector)
