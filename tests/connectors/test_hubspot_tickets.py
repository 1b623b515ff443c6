"""HubSpot: tickets, tasks and opt-outs, one of each however often it is tried."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import pytest
from hubspot_portal import (
    COMMUNICATIONS,
    CONTACTS,
    LIFE,
    NUMBER,
    OURS,
    TASKS,
    TICKETS,
    Open,
    Portal,
    deliver,
)

from connectors import (
    Ambiguous,
    DeliveryError,
    Event,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.hubspot.connector import HubSpot
from connectors.testing import sample_event


def from_us(**changes: Any) -> Event:
    """Return a text of our own to the customer."""
    return sample_event(type="SMS_SENT", sender=OURS, recipient=NUMBER, **changes)


def status() -> Event:
    return sample_event(
        type="SMS_STATUS", ours=None, sender=None, recipient=NUMBER, body="SUCCESS"
    )


QUIET = {
    "a text of ours": from_us(),
    "a receipt": status(),
    "STOP": sample_event(body="stop", keyword="STOP"),
    "START": sample_event(body="start", keyword="START"),
}


class TestTicket:
    def test_a_conversation_has_one_ticket_with_its_entries(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})

        thread = deliver(connector).thread
        deliver(connector, key="key-2", thread=thread)

        [ticket] = portal.rows("tickets")
        assert ticket["properties"]["subject"] == f"SMS conversation with {NUMBER}"
        assert ticket["properties"]["sms_relay_conversation"] == f"{NUMBER}~{OURS}"
        assert portal.stand_in.linked("tickets", ticket["id"], "communications") == [
            record["reference"] for record in portal.made("communication")
        ]
        assert portal.stand_in.linked("tickets", ticket["id"], "contacts") == [thread]

    def test_conversations_of_one_customer_have_a_ticket_each(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})

        for number in range(2):
            deliver(connector, sample_event(ours=f"+6170000000{number}"), key=f"key-{number}")

        assert len(portal.timeline().tickets) == 2

    def test_a_number_of_ours_that_is_none_has_a_ticket_all_the_same(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        odd = ["A/B?c#%2F", "x" * 5000, "Ünïcødé\x00", "../..", ""]

        for ours in odd:
            for key in ("one", "two"):
                deliver(connector, sample_event(ours=ours), key=f"{key} {ours}")

        assert len(portal.rows("tickets")) == len(odd)

    def test_new_tickets_are_as_configured(self, portal: Portal) -> None:
        ticket = {"stage": "2", "priority": "HIGH", "subject": "{{ text }}\n{{ customer }}"}
        connector = portal.connector(ticket=ticket, owner_id="501")

        deliver(connector, sample_event(body="<b>hi</b>"))

        values = portal.rows("tickets")[0]["properties"]
        assert values["subject"] == f"<b>hi</b> {NUMBER}"
        assert (values["hs_pipeline_stage"], values["hs_ticket_priority"]) == ("2", "HIGH")
        assert values["hubspot_owner_id"] == "501"
        assert values["content"].startswith("&lt;b&gt;hi&lt;/b&gt;<br><br>gofax-relay ")

    def test_a_long_subject_is_cut(self, portal: Portal) -> None:
        deliver(portal.connector(ticket={"subject": "{{ text }}"}), sample_event(body="👋" * 999))

        subject = portal.rows("tickets")[0]["properties"]["subject"]
        assert (len(subject), subject[-2:]) == (255, "👋…")

    def test_an_empty_subject_is_filled(self, portal: Portal) -> None:
        deliver(portal.connector(ticket={"subject": "{{ text }}"}), sample_event(body=" \n "))

        assert portal.rows("tickets")[0]["properties"]["subject"] == "SMS"

    def test_a_subject_that_people_wrote_stays(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        [ticket] = portal.rows("tickets")
        wanted = {"properties": {"subject": "Broken kettle", "hs_pipeline_stage": "3"}}
        portal.ask("PATCH", f"{TICKETS}/{ticket['id']}", wanted)

        deliver(connector, key="key-2")

        [ticket] = portal.rows("tickets")
        assert ticket["properties"]["subject"] == "Broken kettle"
        assert ticket["properties"]["hs_pipeline_stage"] == "3"

    @pytest.mark.parametrize("event", QUIET.values(), ids=QUIET)
    def test_what_wants_no_answer_opens_none(self, portal: Portal, event: Event) -> None:
        deliver(portal.connector(ticket={}), event)

        assert portal.timeline().tickets == ()
        assert len(portal.made("communication")) == 1

    def test_a_text_of_ours_stands_on_the_ticket_and_leaves_it_closed(
        self, portal: Portal
    ) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        ticket = closed(portal)

        receipt = deliver(connector, from_us(), key="key-2")

        on_it = portal.stand_in.linked("tickets", ticket, "communications")
        assert receipt.reference in on_it
        assert portal.timeline().tickets[0].closed

    def test_help_opens_one(self, portal: Portal) -> None:
        deliver(portal.connector(ticket={}), sample_event(body="help", keyword="HELP"))

        assert len(portal.timeline().tickets) == 1

    def test_a_closed_ticket_is_reopened(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        closed(portal)

        deliver(connector, key="key-2")

        [ticket] = portal.timeline().tickets
        assert (ticket.stage, ticket.closed) == ("New", False)

    def test_or_followed_by_a_new_one(self, portal: Portal) -> None:
        connector = portal.connector(ticket={"when_closed": "new"})
        for number in range(3):
            deliver(connector, key=f"key-{number}")
            deliver(connector, key=f"again-{number}")
            closed(portal)

        tickets = portal.rows("tickets")
        assert [len(on_ticket(portal, each["id"])) for each in tickets] == [2, 2, 2]
        assert tickets[0]["properties"]["sms_relay_conversation"].endswith(
            f" (past: {tickets[0]['id']})"
        )

    def test_a_deleted_ticket_is_followed_by_a_new_one(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        portal.ask("DELETE", f"{TICKETS}/{portal.rows('tickets')[0]['id']}")

        deliver(connector, key="key-2")

        assert len(portal.timeline().tickets) == 1

    def test_a_ticket_in_another_pipeline_is_reopened_there(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        ticket = portal.rows("tickets")[0]["id"]
        elsewhere = {"hs_pipeline": "5", "hs_pipeline_stage": "53"}
        portal.fail(200, path=f"/tickets/{NUMBER}", body={"id": ticket, "properties": elsewhere})
        stages = [
            {"id": "53", "displayOrder": 3, "metadata": {"ticketState": "CLOSED"}},
            {"id": "52", "displayOrder": 2, "metadata": {"ticketState": "OPEN"}},
            {"id": "51", "displayOrder": 1, "metadata": {"ticketState": "OPEN"}},
        ]
        portal.fail(200, path="pipelines/2026-09/tickets/5", body={"stages": stages})
        portal.fail(200, path=f"/tickets/{ticket}", body={"id": ticket})

        deliver(connector, key="key-2")

        [asked] = [body for call, body in portal.sent if call == f"PATCH {TICKETS}/{ticket}"]
        assert asked == {"properties": {"hs_pipeline": "5", "hs_pipeline_stage": "51"}}

    def test_a_ticket_whose_pipeline_is_gone_is_left_as_it_is(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        closed(portal)
        portal.fail(404, path="pipelines")

        deliver(portal.connector(ticket={}), key="key-2")

        assert portal.timeline().tickets[0].closed

    @pytest.mark.parametrize(
        ("option", "ticket"), [("stage", {"stage": "9"}), ("pipeline", {"pipeline": "7"})]
    )
    def test_a_stage_that_is_not_there_pauses_the_destination(
        self, portal: Portal, option: str, ticket: dict[str, str]
    ) -> None:
        with pytest.raises(Unauthorized, match=rf"is ticket\.{option} right"):
            deliver(portal.connector(ticket=ticket))

    def test_an_account_without_the_property_is_told_to_set_up(self, open_portal: Open) -> None:
        portal = open_portal(prepared=False)
        portal.define("contacts", "sms_relay_phone", hasUniqueValue=True)

        with pytest.raises(Unauthorized, match="connectors setup") as caught:
            deliver(portal.connector(ticket={}))

        assert caught.value.acted
        assert len(portal.made("communication")) == 1

    def test_a_missing_scope_is_named(self, portal: Portal) -> None:
        token = "scopes:crm.objects.contacts.read,crm.objects.contacts.write"

        with pytest.raises(Unauthorized, match="missing scopes: tickets"):
            deliver(portal.connector(ticket={}, access_token=token))

    def test_a_ticket_that_another_has_just_made_is_taken(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        portal.fail(404, path=f"/tickets/{NUMBER}")

        deliver(connector, key="key-2")

        [ticket] = portal.rows("tickets")
        assert len(on_ticket(portal, ticket["id"])) == 2

    def test_a_ticket_that_disappears_meanwhile_is_made_anew(self, portal: Portal) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        portal.fail(404, path="/associations/default/")
        with pytest.raises(Transient, match="disappeared") as caught:
            deliver(connector, key="key-2")

        deliver(connector, key="key-2", repeat=caught.value.acted)

        [ticket] = portal.rows("tickets")
        assert len(on_ticket(portal, ticket["id"])) == 2

    def test_a_stage_that_was_removed_from_another_pipeline_is_asked_for_again(
        self, portal: Portal
    ) -> None:
        connector = portal.connector(ticket={})
        deliver(connector)
        ticket = portal.rows("tickets")[0]["id"]
        elsewhere = {"hs_pipeline": "5", "hs_pipeline_stage": "53"}
        stages = [
            {"id": "53", "metadata": {"ticketState": "CLOSED"}},
            {"id": "51", "metadata": {"ticketState": "OPEN"}},
        ]
        for _ in range(2):
            row = {"id": ticket, "properties": elsewhere}
            portal.fail(200, path=f"/tickets/{NUMBER}", body=row)
            portal.fail(200, path="pipelines/2026-09/tickets/5", body={"stages": stages})

        for key in ("key-2", "key-3"):
            with pytest.raises(Transient, match="hs_pipeline"):
                deliver(connector, key=key)

        assert portal.calls.count("GET /crm/pipelines/2026-09/tickets/5") == 2

    def test_a_conversation_taken_by_no_ticket_that_can_be_read_is_tried_later(
        self, portal: Portal
    ) -> None:
        context = {"propertyName": ["sms_relay_conversation"]}
        taken = {"errors": [{"code": "CONFLICTING_UNIQUE_VALUE", "context": context}]}
        portal.fail(400, only=f"POST {TICKETS}", body=taken)

        with pytest.raises(Transient, match="taken"):
            deliver(portal.connector(ticket={}))

    def test_ten_conversations_at_once_have_ten_tickets(self, open_portal: Open) -> None:
        portal = open_portal(search_lag=LIFE)
        connector = portal.connector(ticket={}, task={})

        def one(number: int) -> None:
            event = sample_event(ours=f"+617{number:08}")
            deliver(connector, event, key=f"key-{number}", deadline=25.0)

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(one, range(10)))

        timeline = portal.timeline()
        assert [len(timeline.tickets), len(timeline.tasks), len(timeline.entries)] == [10] * 3


class TestTask:
    def test_the_owner_of_the_contact_is_told(self, portal: Portal) -> None:
        contact = portal.contact(phone=NUMBER, hubspot_owner_id="501")

        deliver(portal.connector(task={"due_in_hours": 2}))

        [task] = portal.rows("tasks")
        values = task["properties"]
        assert values["hs_task_subject"] == f"Answer {NUMBER}: Thanks for your message"
        assert (values["hs_task_status"], values["hs_task_type"]) == ("NOT_STARTED", "TODO")
        assert values["hubspot_owner_id"] == "501"
        assert values["hs_timestamp"].startswith("2025-12-04T02:24:07")
        assert portal.stand_in.linked("contacts", contact, "tasks") == [task["id"]]

    @pytest.mark.parametrize("owner", [None, "501"])
    def test_a_contact_without_an_owner_goes_to_the_configured_one(
        self, portal: Portal, owner: str | None
    ) -> None:
        deliver(portal.connector(task={}, owner_id=owner))

        assert portal.rows("tasks")[0]["properties"].get("hubspot_owner_id") == owner

    def test_an_owner_who_has_left_is_replaced(self, portal: Portal) -> None:
        portal.contact(phone=NUMBER)
        left = {"id": "1", "properties": {"hubspot_owner_id": "404"}}
        connector = portal.connector(task={}, ticket={}, owner_id="501")
        thread = deliver(connector, QUIET["START"], key="key-0").thread
        portal.fail(200, only=f"GET {CONTACTS}/{thread}", body=left)
        portal.fail(200, only=f"GET {CONTACTS}/{thread}", body=left)

        deliver(connector, thread=thread)

        owners = [row["properties"]["hubspot_owner_id"] for row in portal.rows("tickets")]
        owners += [row["properties"]["hubspot_owner_id"] for row in portal.rows("tasks")]
        assert owners == ["501", "501"]
        assert [len(portal.made(kind)) for kind in ("ticket", "task")] == [1, 1]

    def test_an_owner_who_is_configured_and_not_there_pauses_the_destination(
        self, portal: Portal
    ) -> None:
        with pytest.raises(Unauthorized, match="is owner_id right"):
            deliver(portal.connector(task={}, owner_id="404"))

    def test_one_waits_at_a_time(self, portal: Portal) -> None:
        connector = portal.connector(task={})
        thread = None
        for number in range(3):
            thread = deliver(connector, key=f"key-{number}", thread=thread).thread

        assert len(portal.rows("tasks")) == 1

    def test_the_next_one_is_made_when_it_is_done(self, portal: Portal) -> None:
        connector = portal.connector(task={})
        deliver(connector)
        finished(portal)

        deliver(connector, key="key-2")

        assert [each.done for each in portal.timeline().tasks] == [True, False]

    def test_conversations_have_their_own(self, portal: Portal) -> None:
        connector = portal.connector(task={})

        deliver(connector)
        deliver(connector, sample_event(ours="+61700000009"), key="key-2")

        assert len(portal.rows("tasks")) == 2

    @pytest.mark.parametrize("event", QUIET.values(), ids=QUIET)
    def test_what_wants_no_answer_makes_none(self, portal: Portal, event: Event) -> None:
        deliver(portal.connector(task={}), event)

        assert portal.rows("tasks") == []

    def test_it_stands_on_the_ticket_too(self, portal: Portal) -> None:
        deliver(portal.connector(task={}, ticket={}))

        [ticket], [task] = portal.rows("tickets"), portal.rows("tasks")
        assert portal.stand_in.linked("tickets", ticket["id"], "tasks") == [task["id"]]

    def test_a_template_that_only_replies_can_fill_in_stops_no_receipts(
        self, portal: Portal
    ) -> None:
        connector = portal.connector(task={"subject": "{{ metadata.campaign }}"})

        deliver(connector, status())

        with pytest.raises(Refused, match=r"^task\.subject: "):
            deliver(connector, key="key-2")


class TestOptOut:
    @pytest.mark.parametrize(("keyword", "value"), [("STOP", "true"), ("START", "false")])
    def test_every_contact_with_the_number_is_marked(
        self, portal: Portal, keyword: str, value: str
    ) -> None:
        marked = [portal.contact(phone=NUMBER), portal.contact(mobilephone="0400 000 000")]
        other = portal.contact(phone="+44 400 000 000")
        connector = portal.connector(opt_out_property="sms_opted_out")

        deliver(connector, sample_event(body=keyword.lower(), keyword=keyword))

        assert [portal.property(each, "sms_opted_out") for each in marked] == [value, value]
        assert portal.property(other, "sms_opted_out") is None
        assert len(portal.made("communication")) == 1

    @pytest.mark.parametrize("keyword", [None, "HELP"])
    def test_nothing_else_marks(self, portal: Portal, keyword: str | None) -> None:
        deliver(portal.connector(opt_out_property="sms_opted_out"), sample_event(keyword=keyword))

        assert portal.property(portal.timeline().contact, "sms_opted_out") is None

    def test_a_text_of_ours_that_says_stop_marks_nobody(self, portal: Portal) -> None:
        deliver(portal.connector(opt_out_property="sms_opted_out"), from_us(keyword="STOP"))

        assert not portal.timeline().opted_out

    def test_a_contact_that_the_index_does_not_know_is_marked(self, open_portal: Open) -> None:
        portal = open_portal(search_lag=LIFE)

        deliver(portal.connector(opt_out_property="sms_opted_out"), sample_event(keyword="STOP"))

        assert portal.timeline().opted_out

    def test_many_contacts_are_marked_in_batches(self, portal: Portal) -> None:
        for _ in range(120):
            portal.contact(phone=NUMBER)

        deliver(portal.connector(opt_out_property="sms_opted_out"), sample_event(keyword="STOP"))

        assert all(each.opted_out for each in portal.stand_in.page())

    def test_a_property_that_is_not_there_pauses_the_destination(self, portal: Portal) -> None:
        with pytest.raises(Unauthorized, match="connectors setup") as caught:
            deliver(portal.connector(opt_out_property="no_sms"), sample_event(keyword="STOP"))

        assert caught.value.acted
        assert len(portal.made("communication")) == 1

    def test_contacts_that_were_not_marked_are_marked_later(self, portal: Portal) -> None:
        connector = portal.connector(opt_out_property="sms_opted_out")
        portal.fail(207, path="batch/update", body="<html>")
        with pytest.raises(Transient, match="some contacts were not written") as caught:
            deliver(connector, sample_event(keyword="STOP"))

        deliver(connector, sample_event(keyword="STOP"), repeat=caught.value.acted)

        assert portal.timeline().opted_out
        assert len(portal.made("communication")) == 1


EVERYTHING: dict[str, Any] = {"ticket": {}, "task": {}, "opt_out_property": "sms_opted_out"}
KINDS = ("communication", "ticket", "task")


class TestRepeat:
    """Whatever answer is lost, the next attempt makes what lacks and nothing twice."""

    @pytest.mark.parametrize("path", [TICKETS, TASKS, COMMUNICATIONS])
    @pytest.mark.parametrize("with_thread", [False, True])
    def test_an_answer_lost_after_acting_leaves_one_of_each(
        self, portal: Portal, path: str, with_thread: bool
    ) -> None:
        connector = portal.connector(**EVERYTHING)
        thread = portal.contact(phone=NUMBER) if with_thread else None
        portal.fail(504, only=f"POST {path}", act=True)

        settle(connector, thread=thread)

        assert [len(portal.made(kind)) for kind in KINDS] == [1, 1, 1]

    @pytest.mark.parametrize("path", [TICKETS, TASKS, COMMUNICATIONS])
    def test_a_limit_reached_half_way_leaves_one_of_each(self, portal: Portal, path: str) -> None:
        connector = portal.connector(**EVERYTHING)
        portal.fail(429, only=f"POST {path}")

        error = settle(connector)

        assert isinstance(error, Throttled)
        assert error.acted is (path != COMMUNICATIONS)
        assert [len(portal.made(kind)) for kind in KINDS] == [1, 1, 1]

    def test_a_task_done_in_the_meantime_is_not_made_again(self, portal: Portal) -> None:
        connector = portal.connector(**EVERYTHING)
        portal.fail(500, only=f"POST {TASKS}", act=True)
        with pytest.raises(Ambiguous):
            deliver(connector)
        finished(portal)

        deliver(connector, repeat=True)

        assert [len(portal.made(kind)) for kind in KINDS] == [1, 1, 1]

    def test_a_task_that_no_look_up_finds_is_ambiguous(self, portal: Portal) -> None:
        portal.fail(201, only=f"POST {TASKS}", body="{}")

        with pytest.raises(Ambiguous, match="neither the answer nor a look-up"):
            deliver(portal.connector(task={}))

    @pytest.mark.parametrize("step", [TICKETS, TASKS])
    def test_a_ticket_closed_in_the_meantime_stays_closed(self, portal: Portal, step: str) -> None:
        connector = portal.connector(**EVERYTHING)
        portal.fail(500, only=f"POST {step}", act=True)
        with pytest.raises((Ambiguous, Transient)) as caught:
            deliver(connector)
        closed(portal)

        deliver(connector, repeat=caught.value.acted)

        assert portal.timeline().tickets[0].closed
        assert [len(portal.made(kind)) for kind in KINDS] == [1, 1, 1]

    def test_a_new_ticket_after_a_closed_one_is_made_once(self, portal: Portal) -> None:
        connector = portal.connector(ticket={"when_closed": "new"})
        deliver(connector)
        ticket = closed(portal)
        portal.fail(500, only=f"PATCH {TICKETS}/{ticket}", act=True)

        settle(connector, key="key-2")

        assert len(portal.rows("tickets")) == 2
        assert len(portal.made("communication")) == 2

    def test_stop_is_marked_again_if_the_answer_was_lost(self, portal: Portal) -> None:
        portal.fail(503, path="batch/update")

        settle(portal.connector(**EVERYTHING), sample_event(keyword="STOP"))

        assert portal.timeline().opted_out
        assert len(portal.made("communication")) == 1

    def test_a_refused_entry_leaves_nothing_behind(self, portal: Portal) -> None:
        connector = portal.connector(**EVERYTHING)
        portal.fail(400, only=f"POST {COMMUNICATIONS}", body={"message": "no"})
        with pytest.raises(Refused, match="no") as caught:
            deliver(connector)
        assert [len(portal.made(kind)) for kind in KINDS] == [0, 0, 0]

        deliver(connector, repeat=caught.value.acted)

        assert [len(portal.made(kind)) for kind in KINDS] == [1, 1, 1]

    def test_a_contact_that_is_gone_takes_its_ticket_along(self, portal: Portal) -> None:
        connector = portal.connector(**EVERYTHING)
        thread = deliver(connector).thread
        portal.ask("DELETE", f"{CONTACTS}/{thread}")

        receipt = deliver(connector, key="key-2", thread=thread)

        assert receipt.thread == portal.timeline().contact != thread
        assert len(portal.rows("tickets")) == 1


def settle(
    connector: HubSpot, event: Event | None = None, *, thread: str | None = None, key: str = "key"
) -> DeliveryError:
    """Deliver with one failure and one more attempt, as the relay would; return the failure."""
    with pytest.raises(DeliveryError) as caught:
        deliver(connector, event, key=key, thread=thread)
    repeat = caught.value.acted or isinstance(caught.value, Ambiguous)
    deliver(connector, event, key=key, thread=thread, repeat=repeat)
    return caught.value


def closed(portal: Portal) -> str:
    """Close the newest ticket, as an agent would."""
    ticket: str = portal.rows("tickets")[-1]["id"]
    portal.ask("PATCH", f"{TICKETS}/{ticket}", {"properties": {"hs_pipeline_stage": "4"}})
    return ticket


def finished(portal: Portal) -> None:
    """Finish the newest task, as its owner would."""
    task = portal.rows("tasks")[-1]["id"]
    portal.ask("PATCH", f"{TASKS}/{task}", {"properties": {"hs_task_status": "COMPLETED"}})


def on_ticket(portal: Portal, ticket: str) -> list[str]:
    return portal.stand_in.linked("tickets", ticket, "communications")


def test_due_dates_are_reckoned_from_the_message(portal: Portal) -> None:
    deliver(portal.connector(task={}))

    due = datetime.fromisoformat(portal.timeline().tasks[0].due)
    assert due - datetime.fromisoformat(portal.timeline().entries[0].at) == timedelta(hours=4)
