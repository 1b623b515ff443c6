"""Templates: what they can say, and that no text in them or in an event gets out of hand."""

from __future__ import annotations

import copy
import html
import pickle
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from connectors import Options, Refused
from connectors.templates import BUDGET, LONGEST_OUTPUT, LONGEST_SOURCE, NAMES, Template, render
from connectors.testing import sample_event

NAME = "Zoë"
EVENT = sample_event(
    metadata={"accountId": "12345", "name": NAME, "tags": ["a", "b"], "none": None, "n": 6},
    payload={"big": 10**30},
)


def rendered(source: str, event: Any = EVENT, **options: Any) -> str:
    return render(Template(source), event, field="subject", **options)


class WithTemplate(Options):
    subject: Template = Field(Template("SMS from {{ customer }}"), description="Subject")


# What a template says of EVENT.
SAID = [
        ("SMS from {{ customer }}", "SMS from +61400000000"),
        ("{{ title }}: {{ text }}", "SMS reply from +61400000000: Thanks for your message"),
        ("{{ parties }}", "+61400000000 → +61700000000"),
        # What is not there is nothing, and true is written as everywhere else.
        ("[{{ url }}{{ keyword }}{{ metadata.none }}] {{ 1 == 1 }}", "[] true"),
        ("{{ occurred_at }}", "2025-12-04 00:24:07 UTC"),
        ('{{ time | date("%d %b %H:%M", "Australia/Sydney") }}', "04 Dec 11:24"),
        ("{{ metadata.name }} {{ metadata['name'] }}", "Zoë Zoë"),
        ("{{ metadata.nick | default('nobody') }}", "nobody"),
        ("{{ metadata.none | default('nobody') }}", "nobody"),
        ("{{ '' | default('nobody', true) }}", "nobody"),
        ("{{ metadata.deep.deeper is defined }}", "false"),
        ("{{ metadata.tags }} {{ metadata.tags | join(', ') }}", '["a", "b"] a, b'),
        ("{% for k, v in metadata | items %}{{ loop.index }}{{ k }} {% endfor %}",
         "1accountId 2name 3tags 4none 5n "),
        ("{% for t in metadata.tags %}{{ t }}{% if not loop.last %}+{% endif %}{% endfor %}",
         "a+b"),
        ("{{ 'yes' if body }}{{ 'no' if keyword }}", "yes"),
        ("{% set who = metadata.name ~ '/' ~ metadata.n %}{{ who }}", "Zoë/6"),
        ("{{ metadata.n * 2 + 1 }} {{ metadata.n // 4 }} {{ -metadata.n }}", "13 1 -6"),
        ("{{ 'a' + 'b' }}", "ab"),
        ("{{ text | upper | truncate(10) }}", "THANKS FO…"),
        ("{{ text[:6] }}|{{ text[0] }}|{{ text | length }}", "Thanks|T|23"),
        ("{{ text | replace('Thanks', 'Ta') | lower | trim }}", "ta for your message"),
        ("{{ metadata.tags | tojson }}", '["a", "b"]'),
        ("{{ text | tojson }} {{ occurred_at | tojson }}",
         '"Thanks for your message" "2025-12-04T00:24:07.112733+00:00"'),
        ("{{ '17x' | int(3) }} {{ '17' | int }} {{ '1.5' | float }} {{ 2.567 | round(1) }}",
         "3 17 1.5 2.6"),
        ("{{ 'a b&c' | urlencode }}", "a%20b%26c"),
        ("{{ type in ['SMS_REPLY', 'SMS_RECEIVED'] }}", "true"),
        ("{{ [metadata.name, customer] | join(' ') }}", "Zoë +61400000000"),
        ("{% if direction == 'reply' %}\nx\n{% endif %}\n", "x\n"),
        ("no {braces} and \U0001f600", "no {braces} and \U0001f600"),
        ("", ""),
]  # fmt: skip


def test_templates_say() -> None:
    assert [(source, rendered(source)) for source, _ in SAID] == SAID


def test_a_missing_text_says_why() -> None:
    event = sample_event(body=None)

    assert rendered("{{ text }}", event).startswith("(no text: Include Message body is off")
    assert rendered("{{ body | default('nothing') }}", event) == "nothing"


def test_every_field_of_an_event_can_be_named() -> None:
    assert len(rendered("\n".join(f"{{{{ {name} }}}}" for name in NAMES)).splitlines()) >= 20


# What is found when the config is read.
WRONG: list[tuple[object, str]] = [
    ("{{ bdy }}", "line 1: nothing is named bdy; did you mean body?"),
    ("\n{{ password }}", "line 2: nothing is named password (have: account_id, body"),
    ("{{ body | uper }}", "line 1: no filter named uper; did you mean upper?"),
    ("{{ body | format('x') }}", "no filter named format"),
    ("{{ body is callable }}", "line 1: no test named 'callable'"),
    ("{{ body.upper() }}", "line 1: calls are not available; use a filter"),
    ("{{ range(10) }}", "calls are not available"),
    ("{{ lipsum }}", "nothing is named lipsum"),
    ("{{ self }}", "nothing is named self"),
    ("{{ body", "line 1: unexpected end of template"),
    ("{% if %}", "line 1: expected an expression"),
    ("a\n{% endfor %}", "line 2: encountered unknown tag 'endfor'"),
    ("{% macro x() %}{% endmacro %}", "macro is not available here"),
    ("{% include 'x' %}", "include is not available here"),
    ("{% import 'x' as y %}", "import is not available here"),
    ("{% extends 'x' %}", "extends is not available here"),
    ("{% block x %}{% endblock %}", "block is not available here"),
    ("{% set x %}a{% endset %}", "assignblock is not available here"),
    ("{% filter upper %}a{% endfilter %}", "filterblock is not available here"),
    ("{% for x in [1] recursive %}{% endfor %}", "loops cannot be recursive"),
    ("{{ 2 ** 9 }}", "** is not available"),
    ("{{ {'a': 1} }}", "dict is not available here"),
    ("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}", "too deeply nested"),
    ("{% for a in [1] %}" * 40 + "{% endfor %}" * 40, "too deeply nested"),
    ("x" * (LONGEST_SOURCE + 1), "at most 20,000 characters"),
    (5, "write a text in quotes"),
    (None, "write a text in quotes"),
    (["{{ body }}"], "write a text in quotes"),
]


def test_a_name_alone_says_the_same_as_beside_nothing() -> None:
    for name in NAMES:
        for escape in (None, html.escape):
            alone = rendered(f"{{{{ {name} }}}}", escape=escape)
            assert alone == rendered(f"{{{{ {name} }}}}{{{{ '' }}}}", escape=escape), name


def test_a_wrong_template_is_found_with_the_config() -> None:
    for source, fault in WRONG:
        with pytest.raises(ValidationError) as caught:
            WithTemplate.model_validate({"subject": source})

        [error] = caught.value.errors()
        assert error["loc"] == ("subject",)
        assert fault in error["msg"], str(source)[:60]
        assert "\n" not in error["msg"]


# What is found when the template meets EVENT.
BROKEN = [
    ("{{ metadata.nick }}", "there is no nick; try | default(…)"),
    ("{{ metadata.nick.first }}", "there is no nick"),
    ("{{ metadata.tags[7] }}", "no such key or position"),
    ("{{ metadata[body] }}", "no such key or position"),
    ("{{ body.__class__ }}", "there is no __class__"),
    ("{{ ''['__class__'] }}", "no such key or position"),
    ("{{ occurred_at.year }}", "there is no year"),
    ("{% for x in [1] %}{{ loop._iterator }}{% endfor %}", "unsafe"),
    ("{{ metadata.n + body }}", "+ takes numbers"),
    ("{{ metadata.n / 0 }}", "ZeroDivisionError"),
    ("{{ -body }}", "do not go together"),
    ("{{ body > 3 }}", "do not go together"),
    ("{{ body | date }}", "date takes a time"),
    ("{{ time | date('%999999999Y') }}", "date: write a form"),
    ("{{ time | date('%H', body) }}", "no such time zone"),
    ("{{ time | date('%H', '/etc/passwd') }}", "no such time zone"),
    ("{{ metadata.nick | tojson }}", "not there"),
    ("{{ body | items }}", "items takes keys"),
    ("{{ body | truncate('x') }}", "do not go together"),
    ("{{ body | truncate(1, 2, 3, 4) }}", "do not go together"),
    ("{{ payload.big * 2 }}", "a number is too large"),
    ("{% for x in metadata.n %}{% endfor %}", "do not go together"),
]


def test_a_template_that_does_not_work_is_refused() -> None:
    for source, fault in BROKEN:
        with pytest.raises(Refused) as caught:
            rendered(source)

        said = str(caught.value)
        assert said.startswith(f"subject: the template does not work for event {EVENT.id}: ")
        assert fault in said, source
        assert EVENT.body is not None and EVENT.body not in said
        assert caught.value.__cause__ is None and caught.value.__suppress_context__ is False
        assert caught.value.__context__ is None


DOUBLING = "{% set x = body %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}"
NESTING = "{% set x = [1, 1] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}"
DEEP = "".join(f"{{% for a{n} in payload.many %}}" for n in range(8))
GREEDY = {
    "a text times a number": "{{ 'a' * 999999999 }}",
    "a list times a number": "{{ [1] * 999999999 }}",
    "a printed width": "{{ '%999999999d' % 1 }}",
    "texts that double": DOUBLING,
    "texts that double by +": DOUBLING.replace("~", "+"),
    "lists that hold each other": NESTING,
    "loops in loops": DEEP + "x" + "{% endfor %}" * 8,
    "a loop that says nothing": DEEP + "{% endfor %}" * 8,
    "much of little": "{% for a in payload.many %}{{ body }}{{ body }}{% endfor %}" * 20,
    "replacing each letter": "{{ body" + " | replace('a', body)" * 5 + " }}",
    "joining with much": "{{ payload.many | join(body ~ body) }}",
    "upper and upper": "{{ body | upper | first }}" * 100,
}


def test_no_template_hangs_or_fills_the_memory() -> None:
    event = sample_event(body="a" * 60_000, payload={"many": [1] * 30_000})
    for name, source in GREEDY.items():
        began = time.process_time()

        with pytest.raises(Refused):
            rendered(source, event)

        assert time.process_time() - began < 5, name


def test_the_output_has_a_limit_even_without_values() -> None:
    source = "{% for a in payload.many %}" + "x" * 1000 + "{% endfor %}"
    turns = LONGEST_OUTPUT // 1000
    event = sample_event(payload={"many": [1] * turns})

    assert len(rendered(source, event)) == LONGEST_OUTPUT
    with pytest.raises(Refused, match="makes more than 200,000 characters"):
        rendered(source, sample_event(payload={"many": [1] * (turns + 1)}))


def test_a_budget_is_of_one_rendering() -> None:
    event = sample_event(body="a" * (BUDGET // 10))
    template = Template("{{ (body | upper)[0] }}")

    assert {render(template, event, field="body") for _ in range(30)} == {"A"}


HOSTILE = "<b onclick='x'>{{ 7*7 }} & {% raw %} </b>"


def test_a_value_is_never_read_as_a_template() -> None:
    assert rendered("{{ text }}", sample_event(body=HOSTILE)) == HOSTILE


def test_values_can_be_escaped_while_the_operators_markup_stays() -> None:
    event = sample_event(body=HOSTILE, metadata={"<i>": ["<u>", None]})
    source = (
        "<p>{{ text }}</p>{{ '<' ~ body[:2] }}{{ metadata }}"
        "{% for k, v in metadata | items %}<li>{{ k }}{{ v | join }}{% endfor %}"
    )

    said = rendered(source, event, escape=html.escape)
    metadata = html.escape('{"<i>": ["<u>", null]}')

    assert said == (f"<p>{html.escape(HOSTILE)}</p>&lt;&lt;b{metadata}<li>&lt;i&gt;&lt;u&gt;")


def test_what_nobody_can_send_is_left_out() -> None:
    event = sample_event(metadata={"x": "a\0b\x1bc\ud800d\ne"})

    assert rendered("{{ metadata.x }}", event) == "abc?d\ne"


def test_a_connector_can_give_further_names() -> None:
    class Ticket(Template):
        extra = ("ticket",)

    assert render(Ticket("#{{ ticket }}"), EVENT, field="subject", ticket=7) == "#7"
    with pytest.raises(ValueError, match="nothing is named ticket"):
        Template("#{{ ticket }}")


def test_the_default_and_the_kind_show_in_the_schema() -> None:
    schema = WithTemplate.model_json_schema()["properties"]["subject"]

    assert schema["default"] == "SMS from {{ customer }}"
    assert (schema["type"], schema["format"]) == ("string", "jinja")
    assert WithTemplate().model_dump() == {"subject": "SMS from {{ customer }}"}


def test_a_template_is_a_value() -> None:
    template = Template("{{ body }}")

    assert template == Template("{{ body }}") != Template("{{ text }}")
    assert len({template, Template("{{ body }}")}) == 1
    assert pickle.loads(pickle.dumps(template)) == template == copy.deepcopy(template)
    assert repr(template) == "Template('{{ body }}')"


@settings(deadline=None)
@given(st.text())
def test_any_text_comes_out_as_it_went_in(words: str) -> None:
    event = sample_event(body=words, occurred_at=datetime(2025, 1, 1, tzinfo=UTC))
    sendable = "".join(c for c in words if c >= " " and c != "\x7f" or c in "\t\n\r")

    assert rendered("{{ body }}", event) == sendable.encode("utf-8", "replace").decode()


@settings(deadline=None)
@given(st.text(alphabet="{}%#-+~|.()[] \nabtexbody01'\"*/", max_size=60))
def test_no_source_breaks_anything(source: str) -> None:
    try:
        template = Template(source)
    except ValueError as error:
        assert "\n" not in str(error)
        return
    try:
        render(template, EVENT, field="subject")
    except Refused as refused:
        assert "subject" in str(refused)
