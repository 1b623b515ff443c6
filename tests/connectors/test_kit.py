"""The kit finds what is wrong with a connector: each check fails for one that breaks its rule.

The connectors are what ``connectors new`` writes, with one change.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from connectors.base import ContractError
from connectors.testing import ConnectorSuite, Effect
from connectors.testing.findings import CRASH, MENDS
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
SHOWS = "C18_preview_shows_what_delivery_sends"
PREVIEW = '        return [Preview(kind="note"'
POST = "json=_content(event, key)"
ONE_AT_A_TIME = f"            self._now = event\n            {ASK}\n"
CHECK = f"return f\"signed in as {{{ASK}.get('name')}}\""
LAX = [("from pydantic import Field", "from pydantic import BaseModel, Field"),
       ("Options(Options)", "Options(BaseModel)")]  # fmt: skip
UNGUARDED = [(INIT, "        self._session = requests.Session()\n")]

#: Check, changes that it has to find, and words of its complaint.
BROKEN: list[tuple[str, list[tuple[str, str]], str]] = [
    ("C01_options_are_valid", LAX, "unknown option is not refused"),
    ("C01_options_are_valid", [('description="Address of the API."', 'title="x"')], "base_url"),
    (
        "C01_secrets_are_marked",
        [("token: SecretStr", "token: str")],
        "a secret is no SecretStr\n  token",
    ),
    (
        "C01_secrets_are_not_shown",
        [(RATE, f"{RATE}    def __repr__(self): return self.options.token.get_secret_value()\n")],
        "a secret is shown\n  repr(connector)",
    ),
    (
        "C01_secrets_are_not_shown",
        [('+ path,', '+ path + "?t=" + self.options.token.get_secret_value(),')],
        "a secret is shown\n  a URL",
    ),
    ("C02_check_says_who_we_are", [(CHECK, 'return ""')], "does not say who we are"),
    (
        "C02_check_says_who_we_are",
        [(ASK, "self._ask('POST', '/notes', json={'text': ''})")],
        "check() changes something",
    ),
    ("C02_check_tells_authorization_from_permission", [(CHECK, 'return "fine"')],
     "check() returned str, wanted Unauthorized\n  401"),
    (
        "C02_check_tells_authorization_from_permission",
        [(RAISE, "            raise type(error)('no')\n")],
        "the same of 401 and of 403",
    ),
    ("C02_check_tells_unreachable", [(CHECK, 'return "fine"')],
     "check() returned str, wanted Transient\n  nobody listens"),
    ("C03_same_key_twice_has_one_effect", [(REPEAT, "None")], "3 of kind note, wanted 1"),
    (
        "C03_repetition_without_a_first_attempt_delivers",
        [(REPEAT, "{'id': 'x'} if repeat else None")],
        "0 of kind note, wanted 1",
    ),
    (
        "C03_lost_answers_have_one_effect",
        [('method == "GET"\n', "True\n")],
        "2 of kind note, wanted 1\n  first event, acted and then 500 at request 1",
    ),
    (
        "C04_garbage_behind_2xx_is_no_success",
        [("raise otherwise(", "return {'id': 'made up'}\n        raise otherwise(")],
        "returned Receipt, wanted a DeliveryError\n  200 with a page of a proxy from request 1 on",
    ),
    (
        "C04_garbage_behind_2xx_is_no_success",
        [("except (ValueError, RecursionError)", "except KeyError")],
        "raised JSONDecodeError",
    ),
    (
        "C05_refusals_are_told_apart",
        [(RAISE, "            raise Transient(str(error))\n")],
        "raised Transient, wanted Refused\n"
        "  400 from request 1 on, last to request 1 (POST /notes): answered 400\n",
    ),
    (
        "C06_too_fast_is_throttled",
        [("headers=response.headers", "headers={}")],
        "wanted Throttled with a retry_after of 7 to 8 s",
    ),
    (
        "C06_a_failing_systems_wait_is_kept",
        [("headers=response.headers", "headers={}")],
        "wanted an error with a retry_after of 7 s",
    ),
    (
        "C07_trouble_of_the_system_is_transient_or_ambiguous",
        [(RAISE, "            raise DeliveryError(str(error))\n")],
        "500 from request 1 on",
    ),
    (
        "C07_broken_connections_are_transient_or_ambiguous",
        UNGUARDED,
        "raised ConnectionError(",
    ),
    ("C07_tls_error_is_transient", UNGUARDED, "raised SSLError"),
    (
        "C07_silence_ends_as_transient_or_ambiguous",
        [(FIRST, f"{FIRST[:-1].replace('deadline', 'deadline + 3.5')}\n")],
        "took more than the 1 s of its deadline\n  silence before acting at request 1: ",
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
        "raised AttributeError('NoneType' object has no attribute 'strip') in __init__.py:",
    ),
    (
        "C10_destinations_share_nothing",
        [
            (RATE, f"{RATE}    seen: dict = {{}}\n"),
            (FIRST, f"        if key in self.seen: return self.seen[key]\n{FIRST}"),
            ("return _receipt(note)", "return self.seen.setdefault(key, _receipt(note))"),
        ],
        "0 of kind note, wanted 3\n  three events to two destinations, in the other",
    ),
    (
        "C10_fifty_threads",
        [(FIRST, FIRST + ONE_AT_A_TIME), (POST, POST.replace("(event,", "(self._now,"))],
        "texts did not arrive",
    ),
    (
        "C10_two_conversations_of_one_customer_at_once",
        [(FIRST, FIRST + ONE_AT_A_TIME), (POST, POST.replace("(event,", "(self._now,"))],
        "of 2 texts did not arrive",
    ),
    (
        "C11_slow_answers_end_at_the_deadline",
        [(FIRST, f"{FIRST[:-1].replace('deadline', 'deadline + 3.5')}\n")],
        "took more than the 1 s of its deadline\n  a byte now and then at request 1: ",
    ),
    ("C13_construction_makes_no_request", [(INIT, f"{INIT}        {ASK}\n")],
     "__init__ makes a request"),
    (
        "C13_construction_has_no_effect",
        [(INIT, f"{INIT}        self._ask('POST', '/notes', json={{'text': ''}})\n")],
        "__init__ leaves something",
    ),
    (
        "C14_diagnostics_are_redacted",
        [(RAISE, "            raise type(error)(response.text)\n")],
        "an error shows a secret\n  400 that quotes the request",
    ),
    (
        "C14_diagnostics_are_redacted",
        [(FIRST, f"        __import__('logging').getLogger('x').debug(event.body)\n{FIRST}")],
        "the log shows the text\n  undisturbed",
    ),
    ("C15_rate_is_declared", [(RATE, "")], "default_rate is not declared"),
    ("C15_rate_is_declared", [(RATE, RATE.replace("10/1s", "fast"))], "write such as 4/1s"),
    (
        "C17_a_killed_process_leaves_one_effect_of_each_kind",
        [(REPEAT, "None")],
        "2 of kind note, wanted 1\n  first event, killed at request 1 and repeated",
    ),
    (SHOWS, [("content=_content(event, key))", "content=_content(event, 'x'))")],
     "what is sent differs from the preview\n  note"),
    (SHOWS, [(PREVIEW, f"        {ASK}\n{PREVIEW}")], "preview() makes a request"),
    (SHOWS, [(PREVIEW, f"        event.body.strip()\n{PREVIEW}")],
     "preview() raised AttributeError"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "changes", "words"), BROKEN, ids=[f"{each[0]}-{each[2]}" for each in BROKEN]
)
def test_a_broken_rule_is_found(
    broken: Break, check: str, changes: list[tuple[str, str]], words: str
) -> None:
    said = complaint(broken(*changes), check)

    assert words in said
    assert said.endswith(f"\nmend: {MENDS[check[:3]]}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (("return _receipt(note)", "return 'note'"), r"deliver\(\) returned str, not a Receipt"),
        (('reference=note["id"]', 'reference=[note["id"]]'), "Receipt.reference takes text"),
    ],
)
def test_what_breaks_the_contract_is_found_wherever_it_is_delivered(
    broken: Break, changes: tuple[str, str], words: str
) -> None:
    with pytest.raises(ContractError, match=words):
        broken(changes).test_C03_same_key_twice_has_one_effect()


def test_every_check_is_tried() -> None:
    checks = {each.removeprefix("test_") for each in dir(ConnectorSuite) if "test_C" in each}
    elsewhere = {
        "C10_close_may_be_called_twice",
        "C12_template_errors_name_field_and_event",
        "C16_documentation_is_complete",
    }

    assert checks == {each[0] for each in BROKEN} | elsewhere
    assert {each[:3] for each in checks} == {f"C{number:02}" for number in range(1, 19)}
    assert {each[:3] for each in checks} == set(MENDS)


def test_closing_twice_is_tried(broken: Break) -> None:
    suite = broken(("self._session.close()\n", "self._session.close(); del self._session\n"))

    with pytest.raises(AttributeError) as raised:
        suite.test_C10_close_may_be_called_twice()

    assert raised.value.__notes__ == [f"mend: {CRASH}"]


def test_readme_beside_the_sources_counts_and_not_the_installed_one(
    broken: Break, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = broken()
    name = type(suite).connector.__module__
    site = tmp_path / "site" / f"{name}-0.1.0.dist-info"
    site.mkdir(parents=True)
    entry = f"[gofax_relay.connectors]\nold = {name}:Old\n"
    (site / "entry_points.txt").write_text(entry)
    (site / "METADATA").write_text(f"Name: {name}\nVersion: 0.1.0\n\n# as it was installed")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))

    assert suite.docs().startswith(f"# gofax-relay-{name.removeprefix('gofax_relay_')}\n")
    suite.test_C16_documentation_is_complete()

    # A page of another project above the sources is not the connector's.
    (site / "METADATA").write_text("Name: somebody-else\nVersion: 0.1.0\n\n# as it was installed")
    assert suite.docs().endswith("# as it was installed")


def test_a_cause_is_told_once_with_some_of_its_places(broken: Break) -> None:
    suite = broken((RAISE, "            raise DeliveryError(str(error))\n"))

    said = complaint(suite, "C05_refusals_are_told_apart").splitlines()

    causes = [line for line in said if not line.startswith((" ", "mend: "))]
    assert len(said) <= 5 * len(causes) + 1
    assert any(line.startswith("  and ") and line.endswith(" more") for line in said)
    assert len(set(causes)) == len(causes)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("## Limits", "## Else", "the page lacks a section\n  limits\nmend: give the README"),
        ("token", "key", "the page does not name an option\n  token\nmend: give the README"),
        ("## Set-up", "Set-up", "the page lacks a section\n  set-up\nmend: give the README"),
    ],
)
def test_gaps_in_the_documentation_are_found(
    broken: Break, old: str, new: str, words: str
) -> None:
    suite = broken((old, new), file=README)

    assert words in complaint(suite, "C16_documentation_is_complete")


TEMPLATE = [
    ("    token: ", '    subject: str = Field(default="SMS", description="x")\n    token: '),
    (FIRST, "        subject = self._subject(event)\n" + FIRST),
    (POST, 'json={**_content(event, key), "title": subject}'),
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
        ('Refused(f"subject: {error}")', "the error names no event\n  subject: evt_"),
        ("error", "raised ZeroDivisionError("),
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
