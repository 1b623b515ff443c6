"""Operators' texts, filled in from an event: a small, bounded part of Jinja.

Every template ends soon and stays small: it has no calls, powers or ranges; one budget pays for
loops, joined texts and the results of filters; the output has a limit. Values are text and nothing
else: a connector whose destination reads markup passes *escape*, which applies to every value and
to nothing that the operator wrote.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, cast

import jinja2
from jinja2 import meta, nodes
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from connectors import plain
from connectors.base import Event, Refused
from connectors.filters import FILTERS, Fault, Value, written

#: Longest template, in characters.
LONGEST_SOURCE = 20_000
#: Longest output, in characters.
LONGEST_OUTPUT = 200_000
#: Budget of one rendering: a character costs 1, a turn of a loop 1,000.
BUDGET = 1_000_000
TURN = 1_000
#: Largest number in a template's arithmetic.
LARGEST_NUMBER = 2**63

#: Names that every template may use.
NAMES = (*(field.name for field in fields(Event)), "text", "title", "parties", "time")

#: The personal data that a template discloses, by the names it uses, in the order listed.
GIVES_AWAY: Mapping[str, tuple[str, ...]] = {
    "customer's number": ("customer", "sender", "recipient", "parties", "title", "conversation"),
    "text": ("body", "text"),
    "keyword": ("keyword",),
    "sentiment": ("sentiment",),
    "our number": ("ours", "sender", "recipient", "parties", "conversation"),
    "time": ("time", "occurred_at", "received_at"),
    "everything that GoFax sent": ("payload",),
    "metadata": ("metadata", "account_id"),
    "link to the console": ("url",),
}
#: All of it, for what sends events whole.
WHOLE = ("customer's number", "text", "our number", "time", "everything that GoFax sent")

Escape = Callable[[str], str]

# Blanks keep them out of reach: no template can write these names.
_WORK, _ESCAPE = " work", " escape"

_UNSENDABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

_TESTS = (
    "defined", "undefined", "none", "string", "number", "mapping", "sequence", "boolean",
    "in", "eq", "equalto", "==", "ne", "!=", "lt", "<", "le", "<=", "gt", ">", "ge", ">=",
    "true", "false", "odd", "even",
)  # fmt: skip

_KNOWN_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Const, nodes.Tuple,
    nodes.List, nodes.Keyword, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.CondExpr, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or,
    nodes.Not, nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv,
    nodes.Mod, nodes.Concat, nodes.If, nodes.For, nodes.Assign,
)  # fmt: skip

_MENDS: Mapping[type[nodes.Node], str] = {
    nodes.Call: "calls are not available; use a filter, such as {{ text | upper }}",
    nodes.Pow: "** is not available",
    nodes.NSRef: "attributes cannot be set",
}

#: Errors that a template can raise when it meets an event.
_FAULTS = (
    jinja2.TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    RecursionError,
)


class Template:
    """A template, checked when the config is read; a pydantic type for options.

    A connector with further names lists them in *extra* of its own subclass.
    """

    #: Names beside :data:`NAMES` that this kind of template may use.
    extra: ClassVar[tuple[str, ...]] = ()

    def __init__(self, source: str) -> None:
        """Raises ValueError that names the fault and its line."""
        self.source = source
        self._compiled = _compiled(source, names=(*NAMES, *self.extra))
        #: The name that is the whole template, as in ``{{ text }}``.
        self._only = _only_name(source)

    @property
    def names(self) -> frozenset[str]:
        """The names that the template uses."""
        return frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(self.source)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.source!r})"

    def __str__(self) -> str:
        return self.source

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.source == self.source

    def __hash__(self) -> int:
        return hash(self.source)

    def __reduce__(self) -> tuple[type[Template], tuple[str]]:
        return type(self), (self.source,)

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validated,
            serialization=core_schema.plain_serializer_function_ser_schema(str),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "string", "format": "jinja", "maxLength": LONGEST_SOURCE}

    @classmethod
    def _validated(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str):
            raise ValueError('write a text in quotes, such as "SMS from {{ customer }}"')
        return cls(value)


def render(
    template: Template,
    event: Event,
    values: Mapping[str, Any] | None = None,
    *,
    field: str,
    escape: Escape | None = None,
    **extra: Any,
) -> str:
    """Fill *template* in with *event*; *field* names the template's option.

    *values*: :func:`variables` of the event, if several templates are filled in with it.
    *escape* makes a value harmless where the text goes; without it, escape the whole afterwards,
    or send it where nothing is markup. *extra*: values for the template's further names.

    Raises :class:`Refused` that names field and event.
    """
    known = variables(event) if values is None else values
    given = {**known, **extra, _WORK: _Work(), _ESCAPE: escape}
    try:
        if template._only is not None:
            # Jinja's way to a single value takes ten times as long.
            return _collected([_finalized(given, given[template._only])])
        # Not by generate(), which copies the values to put globals beside them: there are none.
        context = template._compiled.new_context(given, shared=True)
        return _collected(template._compiled.root_render_func(context))
    except _FAULTS as error:
        fault = _said(error)
    # Without its cause, which may quote the customer's text.
    raise Refused(f"{field}: the template does not work for event {event.id}: {fault}")


def given_away(*templates: Template, also: Iterable[str] = ()) -> tuple[str, ...]:
    """Say what *templates* give away, and *also* what is given away beside them."""
    names = {name for each in templates for name in each.names}
    beside = tuple(also)
    said = [what for what, by in GIVES_AWAY.items() if what in beside or not names.isdisjoint(by)]
    return tuple(dict.fromkeys((*said, *beside)))


def variables(event: Event) -> dict[str, Any]:
    """Return the values of a template: the fields of *event*, and words for people."""
    return {
        **plain.named_values(event),
        "text": plain.spoken(event),
        "title": plain.title(event),
        "parties": plain.parties(event),
        "time": event.occurred_at or event.received_at,
    }


@dataclass(slots=True)
class _Work:
    """The rest of one rendering's budget."""

    left: int = BUDGET

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            raise Fault("it does too much work: its loops and texts are too long")


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja without calls, attributes of objects and operators that grow without bound."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _joined(context, [left, right])
        for operand in (left, right):
            if not isinstance(operand, int | float):
                raise Fault(f"{operator} takes numbers (texts are joined by ~)")
            if abs(operand) > LARGEST_NUMBER:
                raise Fault(f"{operator}: a number is too large")
        return self.binop_table[operator](left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, LoopContext):
            return super().getattr(obj, attribute)
        if isinstance(obj, jinja2.Undefined):
            return obj
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return self.undefined(hint=f"there is no {attribute}; try | default(…)")

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Mapping | str | list | tuple):
            try:
                return obj[argument]
            except (LookupError, TypeError):
                pass
        return self.undefined(hint="there is no such key or position; try | default(…)")


class _Bounding(NodeTransformer):
    """Puts everything that can grow under the budget."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        parts = [self.visit(each) for each in node.nodes]
        return _through(" joined", nodes.List(parts, lineno=node.lineno))

    def visit_List(self, node: nodes.List) -> nodes.Node:
        self.generic_visit(node)
        return _through(" listed", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return node if node.ctx == "store" else _through(" listed", node)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _through(" turns", cast(nodes.Expr, node.iter))
        return node

    def visit_CondExpr(self, node: nodes.CondExpr) -> nodes.Node:
        self.generic_visit(node)
        node.expr2 = node.expr2 or nodes.Const("", lineno=node.lineno)
        return node


def _through(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


@jinja2.pass_context
def _finalized(context: Context | Mapping[str, Any], value: Any) -> str:
    """Write a value into the output, as text whatever it looks like."""
    words = written(value)
    context[_WORK].spend(len(words))
    escape: Escape | None = context[_ESCAPE]
    return escape(words) if escape else words


@jinja2.pass_context
def _joined(context: Context, parts: Iterable[Any]) -> str:
    words = [written(part) for part in parts]
    context[_WORK].spend(sum(map(len, words)))
    return "".join(words)


@jinja2.pass_context
def _listed(context: Context, parts: Iterable[Any]) -> list[Any]:
    """Refuse lists in lists: a few that hold each other twice grow without end."""
    listed = list(parts)
    if any(isinstance(part, list | tuple | Mapping) for part in listed):
        raise Fault("a list in a template holds texts and numbers only")
    return listed


@jinja2.pass_context
def _turns(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    work: _Work = context[_WORK]
    for item in items:
        work.spend(TURN)
        yield item


def _paid(filter_: Callable[..., Value]) -> Callable[..., Value]:
    """Charge the budget for the result of *filter_*."""

    @jinja2.pass_context
    def paid(context: Context, value: Any, *args: Any, **options: Any) -> Value:
        made = filter_(value, *args, **options)
        context[_WORK].spend(len(made) if isinstance(made, str | list) else 1)
        return made

    return paid


def _environment() -> _Environment:
    made = _Environment(
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        finalize=_finalized,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.clear()
    made.tests = {name: made.tests[name] for name in _TESTS}
    made.filters = {name: _paid(each) for name, each in FILTERS.items()}
    made.filters |= {" joined": _joined, " listed": _listed, " turns": _turns}
    return made


_ENVIRONMENT = _environment()


def _compiled(source: str, *, names: tuple[str, ...]) -> jinja2.Template:
    if len(source) > LONGEST_SOURCE:
        raise ValueError(f"a template has at most {LONGEST_SOURCE:,} characters")
    try:
        tree = _ENVIRONMENT.parse(source)
        _check(tree, names)
        code = _ENVIRONMENT.compile(_Bounding().visit(tree))
        return jinja2.Template.from_code(_ENVIRONMENT, code, globals={})
    except jinja2.TemplateSyntaxError as error:
        fault = f"line {error.lineno}: {_lowered(error.message or 'not a template')}"
    except (RecursionError, SyntaxError, MemoryError):
        fault = "too deeply nested"
    raise ValueError(fault)


def _only_name(source: str) -> str | None:
    """Return the name that is all that a template consists of; None if there is more to it."""
    match _ENVIRONMENT.parse(source).body:
        case [nodes.Output(nodes=[nodes.Name(name=str(name))])]:
            return name
    return None


def _check(tree: nodes.Template, names: tuple[str, ...]) -> None:
    """Raise TemplateSyntaxError for anything outside this part of Jinja."""
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.Filter) and node.name not in FILTERS:
            fault = f"no filter named {node.name}{_meant(node.name or '', FILTERS)}"
            raise jinja2.TemplateSyntaxError(fault, node.lineno)
        if isinstance(node, nodes.For) and node.recursive:
            raise jinja2.TemplateSyntaxError("loops cannot be recursive", node.lineno)
        if not isinstance(node, _KNOWN_NODES):
            kind = type(node)
            fault = _MENDS.get(kind, f"{kind.__name__.lower()} is not available here")
            raise jinja2.TemplateSyntaxError(fault, node.lineno)
    # Jinja declares self by itself, and it leads to the template's insides.
    mentioned = {node.name: node.lineno for node in tree.find_all(nodes.Name)}
    unknown = meta.find_undeclared_variables(tree) - set(names) | {"self"} & set(mentioned)
    for name in sorted(unknown):
        line = mentioned[name]
        raise jinja2.TemplateSyntaxError(f"nothing is named {name}{_meant(name, names)}", line)


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else f" (have: {', '.join(sorted(known))})"


def _collected(pieces: Iterable[str]) -> str:
    """Join the output up to its limit, without characters that cannot be sent."""
    kept, length = [], 0
    for piece in pieces:
        length += len(piece)
        if length > LONGEST_OUTPUT:
            raise Fault(f"it makes more than {LONGEST_OUTPUT:,} characters")
        kept.append(piece)
    words = "".join(kept)
    if words.isprintable():
        return words
    return _UNSENDABLE.sub("", words).encode("utf-8", "replace").decode()


def _said(error: Exception) -> str:
    """Name the fault without the customer's words."""
    if isinstance(error, jinja2.TemplateError):
        return _lowered(error.message or type(error).__name__)
    if isinstance(error, TypeError):
        return f"values of kinds that do not go together ({error})"
    return f"a value of the wrong kind ({type(error).__name__})"


def _lowered(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")
