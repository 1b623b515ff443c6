"""What each call of the API answers and does, on a well-filled store."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import apis
import consoles
import pytest
from apis import Api, Program
from consoles import Filled
from fakes import eventually

from relay import migrations
from relay.rules.delivery import State
from relay.store import Database, connect


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The same for all tests, which only look."""
    folder = tmp_path_factory.mktemp("still")
    database = connect(f"sqlite:///{folder}/relay.db")
    migrations.upgrade(database)
    with apis.api(folder, database) as made:
        yield made
    database.close()


@pytest.fixture
def api(tmp_path: Path, database: Database, filled_once: tuple[Path, Filled]) -> Iterator[Api]:
    with apis.api(tmp_path, database, filled=filled_once[1]) as made:
        yield made


def everything(program: Program, path: str, **query: Any) -> list[Any]:
    """Read a list to its end, page by page, as Link says."""
    answer = program.get(path, **query)
    found = list(answer.items)
    while answer.json["next"]:
        link = answer.headers["Link"]
        assert link.endswith('; rel="next"')
        answer = program.get(link[1:].partition(">")[0])
        found += answer.items
    assert "Link" not in answer.headers
    return found


class TestEvents:
    def test_every_event_comes_once_whatever_the_page_holds(self, still: Api) -> None:
        ids = [each["id"] for each in everything(still.reader, "/events")]

        assert len(ids) == 13
        for limit in (1, 3, 12, 13):
            pages = everything(still.reader, "/events", limit=limit)
            assert [each["id"] for each in pages] == ids

    def test_the_filters_of_the_command_line_go_on_from_page_to_page(self, still: Api) -> None:
        by = {
            "customer": "124",
            "text": "ord",
            "message_id": "m-held",
            "state": ["dead", "held"],
            "destination": "front-desk",
            "type": "SMS_OTHER",
            "standing": "conflict",
            "since": "15m",
        }
        found = {
            name: [each["message_id"] for each in everything(still.reader, "/events",
                   limit=1, **{name: value})]
            for name, value in by.items()
        }  # fmt: skip

        assert found["customer"] == ["m-held", "m-dead"]
        assert found["text"] == ["m-dead"]
        assert found["message_id"] == ["m-held"]
        assert found["state"] == ["m-held", "m-dead"]
        assert found["destination"] == ["m-held", "m-arrived"]
        assert found["type"] == ["m-unrouted"]
        assert found["standing"] == ["m-arrived"]
        assert "m-dead" not in found["since"] and "m-held" in found["since"]

    def test_one_event_explains_itself(self, still: Api) -> None:
        answer = still.reader.get(f"/events/{still.filled.dead}")

        assert answer.status == 200
        event = answer.json
        assert (event["message_id"], event["customer"]) == ("m-dead", consoles.BEN)
        assert event["payload"]["messageBody"] == "My order 4711 is broken"
        helpdesk = next(e for e in event["deliveries"] if e["destination"] == "helpdesk")
        assert helpdesk["history"][0]["outcome"] == "refused"
        assert "resend" in helpdesk["next"]
        assert [each["route"] for each in event["routes"]][0] == "all to the CRM"

    def test_an_event_is_found_by_its_message_and_a_part_of_its_id(self, still: Api) -> None:
        for name in ("m-dead", still.filled.dead[:-1]):
            assert still.reader.get(f"/events/{name}").json["id"] == still.filled.dead

    def test_what_was_removed_is_gone(self, api: Api) -> None:
        api.admin.post("/erase", number=consoles.ANN, dry_run=False)

        answer = api.reader.get(f"/events/{api.filled.arrived}")

        assert answer.status == 410
        assert answer.json["status"] == "purged"

    def test_an_unknown_one_is_a_problem(self, still: Api) -> None:
        answer = still.reader.get("/events/nothing")

        assert answer.status == 404
        assert answer.json == {"title": "Not Found", "status": 404, "detail": "no event nothing"}

    def test_a_conversation_is_found_by_any_form_of_a_number(self, still: Api) -> None:
        for number in (consoles.BEN, "0400 000 124", "000124"):
            found = everything(still.reader, f"/conversations/{number}", limit=1)
            assert [each["message_id"] for each in found] == ["m-held", "m-dead"]

    def test_digits_of_several_customers_name_them(self, api: Api) -> None:
        api.console.sms("m-other", customer="+61411000124")

        answer = api.reader.get("/conversations/000124")

        assert answer.status == 409
        assert "+61411000124" in answer.json["detail"] and consoles.BEN in answer.json["detail"]


class TestDeliveries:
    def test_what_stopped_is_listed_and_counted(self, still: Api) -> None:
        found = everything(still.reader, "/deliveries", limit=1)
        groups = still.reader.get("/deliveries/groups").items

        assert [(each["destination"], each["state"]) for each in found] == [
            ("front-desk", "held"),
            ("helpdesk", "dead"),
        ]
        assert sum(each["number"] for each in groups) == 2
        dead = everything(still.reader, "/deliveries", state="dead", destination="helpdesk")
        assert [each["message_id"] for each in dead] == ["m-dead"]
        assert everything(still.reader, "/deliveries", reason="no such reason") == []

    def test_one_has_its_attempts_and_what_comes_next(self, still: Api) -> None:
        [stopped] = everything(still.reader, "/deliveries", state="dead")

        one = still.reader.get(f"/deliveries/{stopped['id']}").json
        attempts = everything(still.reader, f"/deliveries/{stopped['id']}/attempts", limit=1)

        assert one["event_id"] == still.filled.dead
        assert one["history"] == attempts
        assert "gofax-relay resend" in one["next"]

    def test_named_ones_are_sent_again_at_once(self, api: Api) -> None:
        look = api.operator.post("/deliveries/resend", ids=["m-dead"], dry_run=True)
        assert look.json["act"] is None
        assert api.console.states("m-dead")["helpdesk"] == "dead"

        done = api.operator.post("/deliveries/resend", ids=["m-dead"], why="mended")

        assert done.status == 200
        assert done.json["changes"] == look.json["changes"]
        assert api.console.states("m-dead")["helpdesk"] == "pending"
        entry = api.last_action()
        assert (entry["what"], entry["who"]) == ("resend", "token operate")
        assert (entry["why"], entry["origin"]) == ("mended", "127.0.0.1")
        assert entry["act"] == done.json["act"]

    def test_one_is_settled(self, api: Api) -> None:
        [held] = everything(api.reader, "/deliveries", state="held")

        done = api.operator.post(
            "/deliveries/settle", ids=[held["id"]], **{"as": "delivered"}, why="it is there"
        )

        assert [each["does"] for each in done.json["changes"]] == ["end"]
        assert api.console.states("m-held")["front-desk"] == "delivered"

    def test_every_unknown_name_is_named_and_nothing_done(self, still: Api) -> None:
        answer = still.operator.post("/deliveries/resend", ids=["m-dead", "x1", "x2"])

        assert answer.status == 404
        assert "x1" in answer.json["detail"] and "x2" in answer.json["detail"]
        assert still.console.states("m-dead")["helpdesk"] == "dead"

    def test_a_filter_starts_an_act_that_goes_on_and_can_be_taken_back(self, api: Api) -> None:
        which = {"destination": ["helpdesk"], "reason": "*suspended*"}
        look = api.operator.post("/deliveries/resend", filter=which, dry_run=True).json
        assert (look["total"], len(look["changes"])) == (1, 1)

        begun = api.operator.post("/deliveries/resend", filter=which, why="mended")

        assert begun.status == 202
        at = begun.headers["Location"]
        eventually(lambda: api.reader.get(at).json["stage"] == "finished")
        act = api.reader.get(at).json
        assert (act["total"], act["done"], act["why"]) == (1, 1, "mended")
        assert [each["act"] for each in api.reader.get("/acts").items] == [act["act"]]
        assert api.console.states("m-dead")["helpdesk"] == "pending"

        assert api.operator.post(f"{at}/undo", dry_run=True).json["total"] == 1
        undone = api.operator.post(f"{at}/undo", why="too early").json

        assert [each["does"] for each in undone["changes"]] == ["restore"]
        assert api.console.states("m-dead")["helpdesk"] == "dead"
        # The undo is an act, too, of which the audit log tells.
        noted = api.reader.get(f"/acts/{undone['act']}").json
        assert (noted["verb"], noted["done"], noted["why"]) == ("undo", 1, "too early")

    def test_an_act_that_did_nothing_has_nothing_to_take_back(self, api: Api) -> None:
        begun = api.operator.post("/deliveries/resend", filter={"reason": "no such reason"})
        at = begun.headers["Location"]
        eventually(lambda: api.reader.get(at).json["stage"] == "finished")

        assert api.operator.post(f"{at}/undo").json["total"] == 0
        assert api.operator.post("/acts/act_0/undo").status == 404

    def test_an_act_is_stopped(self, api: Api) -> None:
        for number in range(5):
            api.console.sms(f"m-{number}", customer=f"+6140000020{number}", type="SMS_OTHER")
        begun = api.operator.post(
            "/events/replay", filter={"type": "SMS_OTHER"}, rate="1/1h", again=True
        )
        at = begun.headers["Location"]
        if api.reader.get(at).json["stage"] in ("waiting", "running"):
            assert api.operator.post(f"{at}/undo").status in (200, 409)

        assert api.operator.post(f"{at}/stop").status == 200

        eventually(lambda: api.reader.get(at).json["stage"] in ("stopped", "finished"))

    def test_a_replay_adds_what_todays_routes_name(self, api: Api) -> None:
        look = api.operator.post("/events/replay", ids=["m-dead"], again=True, dry_run=True)
        done = api.operator.post("/events/replay", ids=["m-dead"], again=True)

        assert look.json["replays"] == done.json["replays"]
        [replay] = done.json["replays"]
        assert any(each["adds"] for each in replay["destinations"])

    def test_names_and_a_filter_do_not_go_together(self, still: Api) -> None:
        for body in ({}, {"ids": ["m-dead"], "filter": {}}, {"ids": ["m"] * 101}):
            assert still.operator.post("/deliveries/resend", **body).status == 422


class TestRequests:
    def test_every_request_comes_once(self, still: Api) -> None:
        ids = [each["id"] for each in everything(still.reader, "/requests")]

        assert len(ids) == len(set(ids)) == 17
        for limit in (1, 4):
            pages = everything(still.reader, "/requests", limit=limit)
            assert [each["id"] for each in pages] == ids
        refused = everything(still.reader, "/requests", standing="refused")
        assert len(refused) == 3

    def test_one_is_shown(self, api: Api) -> None:
        assert api.reader.get(f"/requests/{api.filled.signed}").json["status"] == 401
        event = api.console.sms("m-now", ago=timedelta())
        brought = api.console.event(event).requests[0].id
        assert api.reader.get(f"/requests/{brought}").json["event_id"] == event
        assert api.reader.get("/requests/req_0").status == 404

    def test_a_further_secret_explains_a_signature_and_is_kept_nowhere(self, still: Api) -> None:
        path = f"/requests/{still.filled.signed}/diagnose"
        assert still.operator.post(path).json["matches"] == []

        found = still.operator.post(path, secret=consoles.THEIRS).json

        assert found["matches"][0]["secret"] == "the secret that you gave"
        assert consoles.THEIRS not in str(found)
        assert consoles.THEIRS not in str(still.admin.get("/audit").items)

    def test_one_is_let_in_on_a_persons_word(self, api: Api) -> None:
        path = "/requests/admit"
        assert api.operator.post(path, unverified=api.filled.signed).status == 422
        look = api.operator.post(path, ids=[api.filled.signed], dry_run=True).json
        assert [each["outcome"] for each in look["requests"]] == ["refused"]

        done = api.operator.post(path, unverified=api.filled.signed, why="GoFax says so").json

        [admitted] = done["requests"]
        assert admitted["outcome"] == "accepted"
        event = api.reader.get(f"/events/{admitted['event_id']}").json
        assert event["actions"][0]["why"] == "GoFax says so"

    def test_all_of_a_time_are_let_in_that_verify(self, api: Api) -> None:
        genuine = api.console.refuse(secret=consoles.OURS, reason="the path was wrong")

        done = api.operator.post("/requests/admit", since="1h", why="mended").json

        became = {each["id"]: each["outcome"] for each in done["requests"]}
        assert became == {genuine: "accepted", api.filled.signed: "refused"}


class TestDestinations:
    def test_they_are_listed(self, still: Api) -> None:
        found = {each["name"]: each for each in still.reader.get("/destinations").items}

        assert list(found) == ["helpdesk", "crm", "front-desk"]
        assert found["helpdesk"]["dead"] == 1
        one = still.reader.get("/destinations/helpdesk").json
        assert one == found["helpdesk"]

    def test_one_is_paused_for_a_time_and_resumed(self, api: Api) -> None:
        paused = api.operator.post(
            "/destinations/crm/pause", **{"for": "2h"}, why="maintenance"
        ).json

        assert paused["changed"]
        assert paused["destination"]["reason"] == "maintenance"
        assert paused["destination"]["until"] is not None
        resumed = api.operator.post("/destinations/crm/resume").json
        assert resumed["changed"] and resumed["destination"]["state"] == "served"
        assert not api.operator.post("/destinations/crm/resume").json["changed"]

    def test_unknown_ones_are_named(self, still: Api) -> None:
        for call in ("pause", "resume", "check", "test"):
            assert still.operator.post(f"/destinations/nobody/{call}").status == 404
        assert still.reader.get("/destinations/nobody").status == 404


class TestRoutes:
    def test_they_are_said_in_words(self, still: Api) -> None:
        rules = still.reader.get("/routes").items

        assert rules[0]["says"] == ["the event is SMS_REPLY or SMS_RECEIVED"]
        assert rules[2]["says"] == ["the text matches (?i)urgent"]

    def test_a_payload_shows_every_card_and_ticket(self, still: Api) -> None:
        said = {"messageId": "x", "eventType": "SMS_REPLY", "from": consoles.ANN,
                "to": consoles.OUR_NUMBER, "messageBody": "urgent"}  # fmt: skip
        for body in ({"payload": said}, {"raw": json.dumps(said)}):
            made = still.reader.post("/routes/try", **body).json
            shown = {each["destination"]: each["previews"] for each in made["destinations"]}
            assert set(shown) == {"crm", "helpdesk", "front-desk"}
            assert "urgent" in str(shown["front-desk"])

        assert still.reader.get("/events/x").status == 404

    def test_a_stored_event_and_a_refused_request_are_tried(self, still: Api) -> None:
        for name in (still.filled.arrived, "m-arrived", still.filled.signed):
            made = still.reader.post("/routes/try", event=name)
            assert made.status == 200, made.json
        assert still.reader.post("/routes/try", event="nothing").status == 404
        assert still.reader.post("/routes/try", raw="no json, no form").status == 422


class TestProblems:
    def test_one_is_acknowledged_with_a_reason(self, api: Api) -> None:
        problem = api.open_problem()

        listed = api.reader.get("/problems").items
        assert [each["id"] for each in listed] == [problem]
        answer = api.operator.post(f"/problems/{problem}/acknowledge", why="on it")

        assert answer.json["acknowledged_by"] == "token operate"
        assert api.reader.get("/problems").items[0]["acknowledged_by"] == "token operate"
        assert api.last_action()["why"] == "on it"
        assert api.reader.get("/problems/resolved").items == []


class TestSearch:
    def test_one_box_finds_whatever_is_typed(self, still: Api) -> None:
        def found(typed: str) -> dict[str, Any]:
            answer = still.reader.get("/search", q=typed)
            assert answer.status == 200
            return {kind: items for kind, items in answer.json.items() if items}

        assert [each["customer"] for each in found("000124")["customers"]] == [consoles.BEN]
        assert [each["id"] for each in found("m-dead")["events"]] == [still.filled.dead]
        assert {each["reference"] for each in found("1013")["records"]} == {"ticket 1013"}
        assert found("nothing of the kind") == {}
        assert still.reader.get("/search").fields == ["q"]

    def test_what_came_is_counted_over_time(self, still: Api) -> None:
        hours = still.reader.get("/traffic", since="2h").items
        minutes = still.reader.get("/traffic", since="2h", each="1m").items

        assert sum(each["came"] for each in hours) == sum(each["came"] for each in minutes)
        assert len(minutes) > 100
        assert still.reader.get("/traffic", since="30d", each="1m").status == 422
        assert still.reader.get("/traffic", each="90s").status == 422


class TestSettings:
    def test_they_show_no_secret(self, still: Api) -> None:
        answer = still.reader.get("/settings")

        assert answer.json["config"]["destinations"]["crm"]["connector"] == "hubspot"
        assert {each["name"] for each in answer.json["connectors"]} >= {"hubspot", "zendesk"}
        assert consoles.OURS not in str(answer.json)

    def test_the_audit_log_goes_page_by_page(self, api: Api) -> None:
        admin = api.admin
        for number in range(3):
            admin.post("/destinations/crm/pause", why=f"{number}")
            admin.post("/destinations/crm/resume")

        found = everything(admin, "/audit", what="pause", limit=2)

        assert [each["why"] for each in found] == ["2", "1", "0"]


class TestPeople:
    def test_a_user_is_added_changed_and_removed(self, api: Api) -> None:
        admin = api.admin
        made = admin.post("/users", name="mary", role="viewer", why="new")

        assert made.status == 201
        assert made.json["user"]["state"] == "invited"
        link = made.json["link"]
        assert link.startswith("http://127.0.0.1:8081/console/welcome/")
        welcome = api.console.nobody.get(link.removeprefix("http://127.0.0.1:8081"))
        assert "mary" in welcome.text
        assert admin.post("/users", name="mary", role="viewer").status == 409
        assert admin.post("/users/mary/role", role="admin").json["role"] == "admin"
        assert admin.post("/users/mary/link").json["link"] != link
        assert [each["name"] for each in admin.get("/users").items] == ["mary"]
        assert admin.post("/users/mary/remove").json == {"removed": "mary"}
        for call in ("role", "link", "remove"):
            body = {"role": "admin"} if call == "role" else {}
            assert admin.post(f"/users/mary/{call}", **body).status == 404

    def test_a_token_is_answered_once(self, api: Api) -> None:
        admin = api.admin
        made = admin.post("/tokens", name="bot", scopes=["operate"], **{"for": "90d"})

        assert made.status == 201
        assert made.json["token"]["scopes"] == ["operate", "read"]
        secret = made.json["secret"]
        assert secret not in str(admin.get("/tokens").items)
        bot = apis.Program(api.console, secret)
        assert bot.get("/events").status == 200
        assert admin.post("/tokens", name="bot", scopes=["read"]).status == 409
        assert admin.post("/tokens/bot/remove").json == {"removed": "bot"}
        assert bot.get("/events").status == 401

    def test_a_name_is_one_word(self, still: Api) -> None:
        admin = still.admin
        for name in ("", "a b", "a\n", "<b>", "x" * 101, "a/b", 5, None):
            answer = admin.post("/users", name=name, role="viewer")
            assert (answer.status, answer.fields) == (422, ["name"])


class TestCustomers:
    def test_everything_of_one_is_given_out_and_then_removed(self, api: Api) -> None:
        admin = api.admin
        given = admin.get("/export/0400000124", why="asked for").json
        assert len(given["events"]) == 2
        assert api.last_action()["why"] == "asked for"

        look = admin.post("/erase", number=consoles.BEN, dry_run=True).json
        gone = admin.post("/erase", number=consoles.BEN, dry_run=False, why="asked for").json

        assert look["events"] == gone["events"] > 0
        assert look["receipt"] is None
        assert gone["receipt"]["removed"]["events"] == gone["events"]
        assert gone["receipt"]["why"] == "asked for" and gone["receipt"]["complete"]
        assert gone["receipt"]["elsewhere"] == gone["elsewhere"]
        assert admin.get(f"/export/{consoles.BEN}").status == 404
        assert admin.post("/erase", number=consoles.BEN).fields == ["dry_run"]


def test_what_is_no_cursor_is_refused(still: Api) -> None:
    three = base64.urlsafe_b64encode(b"before 1,2,3").decode()
    admin = still.admin
    for path in ("/events", "/requests", "/deliveries", "/audit"):
        for cursor in ("", "x", "YmVmb3JlIA==", "\x00", "\u00e9", "9" * 400, three):
            answer = admin.get(path, cursor=cursor)
            assert (answer.status, answer.fields) == (422, ["cursor"])


def test_a_list_goes_on_while_more_comes_in(api: Api) -> None:
    first = api.reader.get("/events", limit=5)
    api.console.sms("m-new")

    later = everything(api.reader, "/events", limit=5, cursor=first.json["next"])

    ids = [each["id"] for each in [*first.items, *later]]
    assert len(ids) == len(set(ids)) == 13


def test_states_are_the_ones_of_deliveries(still: Api) -> None:
    for state in State:
        assert still.reader.get("/events", state=state.value).status == 200
