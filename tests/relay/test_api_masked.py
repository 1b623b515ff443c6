"""With ``admin.mask``, who may only look sees no number and no text, in no answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apis
import consoles
import pytest
from apis import Api, Program
from consoles import Filled
from fakes import failed

from relay.rules.access import Scope
from relay.rules.delivery import OutcomeKind
from relay.store import Database

WHO = [consoles.ANN, consoles.BEN, consoles.CAT, consoles.DAN, consoles.EVE]
SAID = ["order 4711", "quote", "Where are you", "let me in", "URGENT call", "Hello?"]


@pytest.fixture
def api(tmp_path: Path, database: Database, filled_once: tuple[Path, Filled]) -> Iterator[Api]:
    with apis.api(tmp_path, database, mask=True, filled=filled_once[1]) as made:
        yield made


def looks(api: Api, program: Program) -> Iterator[str]:
    """Yield the text of everything that a reader can look at."""
    ids = [each["id"] for each in program.get("/events").items]
    paths = ["/events", "/requests", "/deliveries", "/deliveries/groups", "/problems"]
    paths += ["/destinations", "/destinations/crm"]
    paths += [f"/events/{each}" for each in ids]
    paths += [
        f"/requests/{each['id']}" for each in program.get("/requests", standing="refused").items
    ]
    paths += [f"/deliveries/{each['id']}" for each in program.get("/deliveries").items]
    paths += [f"/conversations/{each}" for each in WHO]
    paths += [f"/search?q={each}" for each in ("000124", "4711", "m-dead", "order", "1013")]
    for path in paths:
        answer = program.get(path)
        assert answer.status == 200, path
        yield str(answer.json)
    for name in (api.filled.arrived, api.filled.signed):
        answer = program.post("/routes/try", event=name)
        assert answer.status == 200
        yield str(answer.json)


def test_no_answer_to_a_reader_has_a_number_or_a_text(api: Api) -> None:
    for text in looks(api, api.reader):
        assert [each for each in [*WHO, *SAID] if each.removeprefix("+61") in text] == []


@pytest.mark.parametrize("scope", [Scope.OPERATE, Scope.ADMIN])
def test_who_may_do_more_than_look_sees_them(api: Api, scope: Scope) -> None:
    seen = " ".join(looks(api, api.program(scope)))

    assert [each for each in [*WHO, *SAID] if each not in seen] == []


def test_what_a_destination_said_last_is_masked(api: Api) -> None:
    said = f"crm.example/contacts/%2B{consoles.ANN[1:]}: not reached"
    api.console.sms("m-refused-there", customer=consoles.ANN, type="SMS_RECEIVED")
    api.console.attempt("crm", failed(OutcomeKind.REFUSED, said))
    viewer = api.console.visitor("viewer")

    answers = [str(api.reader.get(each).json) for each in ("/destinations", "/destinations/crm")]
    pages = [viewer.get(f"/console/destinations{each}").html for each in ("", "/crm")]

    for each in [*answers, *pages]:
        assert "contacts/" in each and consoles.ANN[1:] not in each


def test_several_customers_are_named_by_their_last_digits(api: Api) -> None:
    api.console.sms("m-other", customer="+61411000124")

    answer = api.reader.get("/conversations/000124")

    assert answer.status == 409
    assert "…124" in answer.json["detail"] and "+61" not in answer.json["detail"]


def test_one_is_read_after_all_and_the_audit_log_says_why(api: Api) -> None:
    path = f"/events/{api.filled.dead}/unmask"
    assert api.reader.post(path).fields == ["why"]

    answer = api.reader.post(path, why="the customer is on the phone")

    assert answer.json["body"] == "My order 4711 is broken"
    assert answer.json["customer"] == consoles.BEN
    entry = api.last_action()
    assert (entry["what"], entry["event_id"]) == ("unmask", api.filled.dead)
    assert (entry["who"], entry["why"]) == ("token read", "the customer is on the phone")
    assert api.reader.get(f"/events/{api.filled.dead}").json["body"] == "…"


def test_a_request_and_a_conversation_are_read_after_all(api: Api) -> None:
    request = api.reader.post(f"/requests/{api.filled.signed}/unmask", why="odd").json
    talk = api.reader.post(f"/conversations/{consoles.BEN}/unmask", why="on the phone")

    assert "let me in" in request["body"]
    assert [each["body"] for each in talk.items] == ["URGENT call me", "My order 4711 is broken"]
    entries = api.admin.get("/audit", what="unmask").items
    assert [each["why"] for each in entries] == ["on the phone", "odd"]
    assert consoles.BEN not in str(entries)
