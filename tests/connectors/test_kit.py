"""The kit finds what is wrong with a connector: each check fails for one that breaks its rule.

The connectors are what ``connectors new`` writes, with one change.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.testing import ConnectorSuite, Effect
from relay import scaffold

CONNECTOR, README = "__init__.py", "README.md"
# Names of packages: a name must not come twice in one process.
names = map("broken{}".format, itertools.count())

#: Makes the suite of a package in which each first text is replaced by the second.
Break = Callable[..., ConnectorSuite]


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Break:
    def make(*changes: tuple[str, str], file: str = CONNECTOR) -> ConnectorSuite:
        name = next(names)
        folder = tmp_path / name
        scaffold.write(name, folder)
        path = folder / file if file == README else folder / f"src/gofax_relay_{name}" / file
        text = path.read_text(encoding="utf-8")
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(str(folder / "src"))
        module = importlib.import_module(f"gofax_relay_{name}.suite")
        suite: ConnectorSuite = getattr(module, f"Test{name.capitalize()}")()
        return suite

    return make


def complaint(suite: ConnectorSuite, check: str) -> str:
    with pytest.raises((pytest.fail.Exception, AssertionError)) as raised:
        getattr(suite, f"test_{check}")()
    return str(raised.value)


ASK = "self._ask('GET', '/me')"
RATE = '    default_rate = "10/1s"\n'
INIT = "        self._session = http.session()\n"
REPEAT = "self._written_before(key) if repeat else None"
RAISE = "            raise error\n"
FIRST = "        with self.http.within(deadline):\n"
POST = 'json={"key": key, **_content(event)}'
ONE_AT_A_TIME = f"            self._now = event\n            {ASK}\n"
CHECK = f"return f\"signed in as {{{ASK}.get('name')}}\""
LAX = [("from pydantic import Field", "from pydantic import BaseModel, Field"),
       ("Options(Options)", "Options(BaseModel)")]  # fmt: skip
UNGUARDED = [(INIT, "        self._session = requests.Session()\n")]

#: Check, changes that it has to find, and words of its complaint.
BROKEN: list[tuple[str, list[tuple[str, str]], str]] = [
    ("C01_options_are_valid", LAX, "unknown option is not refused"),
    ("C01_options_are_valid", [('description="Address of the API."', 'title="x"')], "base_url"),
    ("C01_secrets_are_marked", [("token: SecretStr", "token: str")], "token: make it a SecretStr"),
    (
        "C01_secrets_are_not_shown",
        [(RATE, f"{RATE}    def __repr__(self): return self.options.token.get_secret_value()\n")],
        "repr(connector) shows a secret",
    ),
    (
        "C01_secrets_are_not_shown",
        [('+ path,', '+ path + "?t=" + self.options.token.get_secret_value(),')],
        "a URL shows a secret",
    ),
    ("C02_check_says_who_we_are", [(CHECK, 'return ""')], "must say who we are"),
    (
        "C02_check_says_who_we_are",
        [(ASK, "self._ask('POST', '/notes', json={'text': ''})")],
        "must change nothing",
    ),
    ("C02_check_tells_authorization_from_permission", [(CHECK, 'return "fine"')], "wanted Unauth"),
    (
        "C02_check_tells_authorization_from_permission",
        [(RAISE, "            raise type(error)('no')\n")],
        "the same of 401 and of 403",
    ),
    ("C02_check_tells_unreachable", [(CHECK, 'return "fine"')], "nobody listens: check() ret"),
    ("C03_same_key_twice_has_one_effect", [(REPEAT, "None")], "3 of kind note, wanted 1"),
    (
        "C03_repetition_without_a_first_attempt_delivers",
        [(REPEAT, "{'id': 'x'} if repeat else None")],
        "0 of kind note, wanted 1",
    ),
    (
        "C03_lost_answers_have_one_effect",
        [('method == "GET"\n', "True\n")],
        "acted and then 503 at request 1: 2 of kind note, wanted 1",
    ),
    (
        "C04_garbage_behind_2xx_is_no_success",
        [("raise otherwise(", "return {'id': 'made up'}\n        raise otherwise(")],
        "200 with a page of a proxy from request 1 on: returned Receipt",
    ),
    (
        "C04_garbage_behind_2xx_is_no_success",
        [("except (ValueError, RecursionError)", "except KeyError")],
        "raised JSONDecodeError",
    ),
    (
        "C05_refusals_are_told_apart",
        [(RAISE, "            raise Transient(str(error))\n")],
        "422 from request 1 on, last to request 1 (POST /notes): raised Transient",
    ),
    (
        "C06_too_fast_is_throttled",
        [("headers=response.headers", "headers={}")],
        "wanted Throttled with a retry_after of 7 to 8 s",
    ),
    (
        "C07_trouble_of_the_system_is_transient_or_ambiguous",
        [(RAISE, "            raise DeliveryError(str(error))\n")],
        "500 from request 1 on",
    ),
    (
        "C07_broken_connections_are_transient_or_ambiguous",
        UNGUARDED,
        "reset at request 1: raised ConnectionError",
    ),
    ("C07_tls_error_is_transient", UNGUARDED, "raised SSLError"),
    (
        "C07_silence_ends_as_transient_or_ambiguous",
        [(FIRST, f"{FIRST[:-1].replace('deadline', 'deadline + 3.5')}\n")],
        "wrap it in http.within()",
    ),
    ("C08_no_redirect_is_followed", UNGUARDED, "a redirect was followed"),
    ("C08_private_addresses_are_left_alone", UNGUARDED, "went to 127.0.0.1"),
    (
        "C09_texts_of_all_scripts_arrive",
        [("{spoken(event)}", "{spoken(event).encode('ascii', 'replace').decode()}")],
        "did not arrive as it was",
    ),
    (
        "C09_odd_events_are_delivered_or_refused",
        [("{spoken(event)}", "{event.body.strip()}")],
        "no text: raised AttributeError",
    ),
    (
        "C10_destinations_share_nothing",
        [
            (RATE, f"{RATE}    seen: dict = {{}}\n"),
            (FIRST, f"        if key in self.seen: return self.seen[key]\n{FIRST}"),
            ("return _receipt(note)", "return self.seen.setdefault(key, _receipt(note))"),
        ],
        "in the other: 0 of kind note, wanted 3",
    ),
    (
        "C10_fifty_threads",
        [(FIRST, FIRST + ONE_AT_A_TIME), (POST, POST.replace("(event)", "(self._now)"))],
        "texts did not arrive",
    ),
    (
        "C10_two_conversations_of_one_customer_at_once",
        [(FIRST, FIRST + ONE_AT_A_TIME), (POST, POST.replace("(event)", "(self._now)"))],
        "of 2 texts did not arrive",
    ),
    (
        "C11_slow_answers_end_at_the_deadline",
        [(FIRST, f"{FIRST[:-1].replace('deadline', 'deadline + 3.5')}\n")],
        "a byte now and then at request 1: took",
    ),
    ("C13_construction_makes_no_request", [(INIT, f"{INIT}        {ASK}\n")], "__init__ went out"),
    (
        "C13_construction_has_no_effect",
        [(INIT, f"{INIT}        self._ask('POST', '/notes', json={{'text': ''}})\n")],
        "left something",
    ),
    (
        "C14_diagnostics_are_redacted",
        [(RAISE, "            raise type(error)(response.text)\n")],
        "400 that quotes the request: an error shows a secret",
    ),
    (
        "C14_diagnostics_are_redacted",
        [(FIRST, f"        __import__('logging').getLogger('x').debug(event.body)\n{FIRST}")],
        "undisturbed: the log shows the text",
    ),
    ("C15_rate_is_declared", [(RATE, "")], "declare default_rate"),
    ("C15_rate_is_declared", [(RATE, RATE.replace("10/1s", "fast"))], "write such as 4/1s"),
    (
        "C17_a_killed_process_leaves_one_effect_of_each_kind",
        [(REPEAT, "None")],
        "first event, killed at request 1 and repeated: 2 of kind note, wanted 1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "changes", "words"), BROKEN, ids=[f"{each[0]}-{each[2]}" for each in BROKEN]
)
def test_a_broken_rule_is_found(
    broken: Break, check: str, changes: list[tuple[str, str]], words: str
) -> None:
    assert words in complaint(broken(*changes), check)


def test_every_check_is_tried() -> None:
    checks = {each.removeprefix("test_") for each in dir(ConnectorSuite) if "test_C" in each}
    elsewhere = {
        "C10_close_may_be_called_twice",
        "C12_template_errors_name_field_and_event",
        "C16_documentation_is_complete",
    }

    assert checks == {each[0] for each in BROKEN} | elsewhere
    assert {each[:3] for each in checks} == {f"C{number:02}" for number in range(1, 18)}


def test_closing_twice_is_tried(broken: Break) -> None:
    suite = broken(("self._session.close()\n", "self._session.close(); del self._session\n"))

    with pytest.raises(AttributeError):
        suite.test_C10_close_may_be_called_twice()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("## Limits", "## Else", "the page has no section on limits"),
        ("token", "key", "the page does not name the option token"),
        ("## Set-up", "Set-up", "the page has no section on set-up"),
    ],
)
def test_gaps_in_the_documentation_are_found(
    broken: Break, old: str, new: str, words: str
) -> None:
    suite = broken((old, new), file=README)

    assert words in complaint(suite, "C16_documentation_is_complete")


TEMPLATE = [
    ("    # What a header", '    subject: str = Field(default="SMS", description="x")\n    #'),
    (FIRST, "        subject = self._subject(event)\n" + FIRST),
    (POST, 'json={"key": key, **_content(event), "title": subject}'),
]  # fmt: skip
RENDER = """
    def _subject(self, event: Event) -> str:
        try:
            return SandboxedEnvironment().from_string(self.options.subject).render(event=event)
        except Exception as error:
            raise {error} from error

    def check("""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ('Refused(f"subject: {event.id}: {error}")', None),
        ('Refused(f"subject: {error}")', "the error names no evt_"),
        ("error", "subject: raised ZeroDivisionError"),
    ],
)
def test_template_errors_are_judged(broken: Break, error: str, words: str | None) -> None:
    suite = broken(
        *TEMPLATE,
        ("\n    def check(", RENDER.format(error=error)),
        (
            "import requests\n",
            "import requests\nfrom jinja2.sandbox import SandboxedEnvironment\n",
        ),
        ("    Receipt,\n", "    Receipt,\n    Refused,\n"),
    )
    type(suite).templates = {"subject": {"subject": "{{ 1 // 0 }}"}}

    if words is None:
        suite.test_C12_template_errors_name_field_and_event()
        return
    assert words in complaint(suite, "C12_template_errors_name_field_and_event")


def test_a_stand_in_that_counts_nothing_is_found(broken: Break) -> None:
    suite = broken(("[Effect(", "[] and [Effect("), file="suite.py")

    assert "effects() must count it" in complaint(suite, "C03_same_key_twice_has_one_effect")


@pytest.mark.parametrize(
    ("exempt", "words"),
    [
        ({"C99": "there is no such thing"}, "there is no check C99"),
        ({"C1": "it is only a part"}, "there is no check C1"),
        ({"C03": "no"}, "say why C03 cannot hold"),
    ],
)
def test_exemptions_need_a_check_and_a_reason(exempt: dict[str, str], words: str) -> None:
    with pytest.raises(TypeError, match=words):
        type("TestIt", (ConnectorSuite,), {"exempt": exempt})


def test_effects_are_told_by_their_kind() -> None:
    assert Effect("note") != Effect("ticket")
