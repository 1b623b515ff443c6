"""HubSpot: what administrators require is filled in, or refused by name without losing the SMS."""

from __future__ import annotations

from typing import Any

import pytest
from hubspot_portal import CONTACTS, NUMBER, OURS, TICKETS, Portal, deliver

from connectors import Receipt, Refused, Unauthorized
from connectors.hubspot.connector import HubSpot
from connectors.testing import sample_event

OTHER = "+61411111111"
REQUIRED, CONDITIONAL = "MISSING_REQUIRED_PROPERTY", "MISSING_CONDITIONAL_REQUIRED_PROPERTY"
#: Conditional logic: a new ticket in the first stage needs a category.
BY_STAGE = {"when": {"hs_pipeline_stage": "1"}, "require": ["category"]}


def rules(portal: Portal, **settings: Any) -> None:
    """Set the account's rules, as an administrator would."""
    portal.ask("PATCH", "/sandbox", settings)


def refused(connector: HubSpot, event: Any = None, **options: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        deliver(connector, event, **options)
    return caught.value


def values(portal: Portal, kind: str) -> dict[str, str]:
    """Return the properties of the only object of *kind*."""
    [row] = portal.rows(kind)
    found: dict[str, str] = row["properties"]
    return found


class TestNewContact:
    def test_it_has_the_number_as_its_first_name(self, portal: Portal) -> None:
        rules(portal, required={"contacts": ["firstname"]})

        deliver(portal.connector())

        assert values(portal, "contacts")["firstname"] == NUMBER

    @pytest.mark.parametrize(
        ("template", "name"),
        [("SMS {{ customer }}", f"SMS {NUMBER}"), (" ", NUMBER), ("{{ account_id }}", "12345")],
    )
    def test_its_first_name_follows_a_template(
        self, portal: Portal, template: str, name: str
    ) -> None:
        deliver(portal.connector(contact={"firstname": template}))

        assert values(portal, "contacts")["firstname"] == name

    def test_its_properties_follow_templates_and_blank_ones_are_left_out(
        self, portal: Portal
    ) -> None:
        portal.define("contacts", "city", "note", "source")
        made = {
            "city": "Perth\x00",
            "note": "{{ body | replace('x', '') }}",
            "source": " {{ ours }} ",
        }
        connector = portal.connector(contact={"properties": made})

        deliver(connector, sample_event(body="xx"))

        found = values(portal, "contacts")
        assert (found["city"], found["source"]) == ("Perth", OURS)
        assert "note" not in found

    def test_a_refused_one_is_named_with_the_rule_and_the_delivery_works_once_filled_in(
        self, portal: Portal
    ) -> None:
        rules(portal, required={"contacts": ["city"]})
        known = portal.contact(phone=OTHER, city="Perth")
        connector = portal.connector()

        error = refused(connector)
        other = deliver(connector, sample_event(customer=OTHER), key="key-2")

        assert not error.acted
        for words in ("contact property city is required", REQUIRED, 'the "Create contact" form'):
            assert words.lower() in str(error).lower()
        assert other.thread == known
        again = deliver(portal.connector(contact={"properties": {"city": "Perth"}}))
        assert portal.property(str(again.thread), "city") == "Perth"
        assert len(portal.made("communication")) == 2

    def test_without_the_unique_property_it_is_refused_and_filled_in_too(
        self, portal: Portal
    ) -> None:
        rules(portal, required={"contacts": ["city"]})
        connector = portal.connector(unique_property="not_set_up")
        assert "contact property city" in str(refused(connector))

        filled = {"contact": {"properties": {"city": "Perth"}}}
        deliver(portal.connector(unique_property="not_set_up", **filled))

        assert values(portal, "contacts")["city"] == "Perth"

    def test_conditional_logic_is_told_apart(self, portal: Portal) -> None:
        rule = {"when": {"source": "SMS"}, "require": ["city"]}
        rules(portal, conditional={"contacts": [rule]})

        error = refused(portal.connector(contact={"properties": {"source": "SMS"}}))

        assert CONDITIONAL in str(error)
        assert "Contact properties > Conditional logic" in str(error)

    def test_a_template_that_fails_concerns_new_customers_only(self, portal: Portal) -> None:
        portal.define("contacts", "city")
        portal.contact(phone=OTHER)
        connector = portal.connector(contact={"properties": {"city": "{{ metadata.city }}"}})

        error = refused(connector)
        deliver(connector, sample_event(customer=OTHER), key="key-2")

        assert str(error).startswith("contact.properties.city: the template does not work")
        assert len(portal.stand_in.page()) == 1


class TestKnownContact:
    """The SMS is logged before anything that may be refused."""

    @pytest.fixture(autouse=True)
    def known(self, portal: Portal) -> str:
        return portal.contact(phone=NUMBER, sms_relay_phone=NUMBER)

    @pytest.mark.parametrize(
        ("settings", "code", "place"),
        [
            (
                {"required": {"tickets": ["category"]}},
                REQUIRED,
                'Customize the "Create ticket" form',
            ),
            ({"conditional": {"tickets": [BY_STAGE]}}, CONDITIONAL, "Ticket properties"),
        ],
    )
    def test_a_refused_ticket_leaves_entry_and_task_and_is_made_once_filled_in(
        self, portal: Portal, settings: dict[str, Any], code: str, place: str
    ) -> None:
        rules(portal, **settings)

        error = refused(portal.connector(ticket={}, task={}))

        entry = portal.made("communication")[0]["reference"]
        assert error.acted
        assert str(error).startswith(f"the SMS is in HubSpot ({entry}); after that: answered 400")
        for words in ("ticket property category is required", code, place, "ticket.properties"):
            assert words in str(error)
        assert [len(portal.made(kind)) for kind in ("ticket", "task")] == [0, 1]
        filled = {"properties": {"category": "SMS"}}
        deliver(portal.connector(ticket=filled, task={}), repeat=error.acted)
        [ticket] = portal.rows("tickets")
        assert ticket["properties"]["category"] == "SMS"
        assert portal.stand_in.linked("tickets", ticket["id"], "communications") == [entry]
        kinds = ("communication", "ticket", "task")
        assert [len(portal.made(kind)) for kind in kinds] == [1, 1, 1]

    def test_a_required_owner_is_no_wrong_option(self, portal: Portal) -> None:
        rules(portal, required={"tickets": ["hubspot_owner_id"]})
        error = refused(portal.connector(ticket={}))
        assert "ticket property hubspot_owner_id is required" in str(error)

        owner = {"properties": {"hubspot_owner_id": "501"}}
        deliver(portal.connector(ticket=owner), repeat=True)

        assert values(portal, "tickets")["hubspot_owner_id"] == "501"

    def test_a_refused_task_leaves_the_rest_and_is_made_once_filled_in(
        self, portal: Portal
    ) -> None:
        rules(portal, required={"tasks": ["hs_task_priority"]})
        error = refused(portal.connector(ticket={}, task={}))
        assert "task property hs_task_priority is required" in str(error)

        task = {"properties": {"hs_task_priority": "HIGH"}}
        deliver(portal.connector(ticket={}, task=task), repeat=error.acted)

        assert values(portal, "tasks")["hs_task_priority"] == "HIGH"
        kinds = ("communication", "ticket", "task")
        assert [len(portal.made(kind)) for kind in kinds] == [1, 1, 1]

    def test_all_that_was_refused_is_named(self, portal: Portal) -> None:
        rules(portal, required={"tickets": ["category"], "tasks": ["hs_task_priority"]})

        error = refused(portal.connector(ticket={}, task={}))

        assert "ticket property category" in str(error)
        assert "task property hs_task_priority" in str(error)

    def test_a_ticket_is_reopened_with_what_its_stage_requires(self, portal: Portal) -> None:
        deliver(portal.connector(ticket={}))
        [ticket] = portal.rows("tickets")
        closed = {"properties": {"hs_pipeline_stage": "4"}}
        portal.ask("PATCH", f"{TICKETS}/{ticket['id']}", closed)
        rules(portal, conditional={"tickets": [BY_STAGE]})

        error = refused(portal.connector(ticket={}), key="key-2")
        filled = {"properties": {"category": "SMS"}}
        deliver(portal.connector(ticket=filled), key="key-2", repeat=error.acted)

        found = values(portal, "tickets")
        assert (found["hs_pipeline_stage"], found["category"]) == ("1", "SMS")
        assert len(portal.made("communication")) == 2

    def test_what_people_wrote_on_a_ticket_stays_when_it_is_reopened(self, portal: Portal) -> None:
        portal.define("tickets", "category")
        connector = portal.connector(ticket={"properties": {"category": "SMS"}})
        deliver(connector)
        [ticket] = portal.rows("tickets")
        written = {"properties": {"hs_pipeline_stage": "4", "category": "Kettles"}}
        portal.ask("PATCH", f"{TICKETS}/{ticket['id']}", written)
        rules(portal, conditional={"tickets": [BY_STAGE]})

        deliver(connector, key="key-2")

        assert values(portal, "tickets")["category"] == "Kettles"

    def test_an_opt_out_that_a_rule_refuses_is_reported(self, portal: Portal, known: str) -> None:
        rule = {"when": {"lastname": "Miller"}, "require": ["city"]}
        rules(portal, conditional={"contacts": [rule]})
        connector = portal.connector(opt_out_property="sms_opted_out")
        stop = sample_event(keyword="STOP")

        error = refused(connector, stop)

        assert "fill it in on the contact" in str(error)
        assert len(portal.made("communication")) == 1
        portal.ask("PATCH", f"{CONTACTS}/{known}", {"properties": {"city": "Perth"}})
        deliver(connector, stop, repeat=error.acted)
        assert portal.timeline().opted_out
        assert len(portal.made("communication")) == 1

    def test_a_contact_that_cannot_be_marked_keeps_nobody_else_from_it(
        self, portal: Portal, known: str
    ) -> None:
        other = portal.contact(phone=NUMBER, lastname="Smith")
        rule = {"when": {"lastname": "Miller"}, "require": ["city"]}
        rules(portal, conditional={"contacts": [rule]})

        refused(portal.connector(opt_out_property="sms_opted_out"), sample_event(keyword="STOP"))

        assert portal.property(other, "sms_opted_out") == "true"
        assert portal.property(known, "sms_opted_out") is None

    def test_a_stage_that_is_not_there_is_still_a_wrong_option(self, portal: Portal) -> None:
        rules(portal, conditional={"tickets": [BY_STAGE]})

        with pytest.raises(Unauthorized, match=r"is ticket\.stage right"):
            deliver(portal.connector(ticket={"stage": "9"}))


def test_a_contact_that_people_made_keeps_its_thread_though_it_cannot_be_marked(
    portal: Portal,
) -> None:
    contact = portal.contact(phone=NUMBER)
    rule = {"when": {"lastname": "Miller"}, "require": ["city"]}
    rules(portal, conditional={"contacts": [rule]})
    connector = portal.connector()

    receipt = deliver(connector)
    second = deliver(connector, key="key-2", thread=receipt.thread)

    [entry, _] = portal.made("communication")
    assert receipt.thread == contact
    assert receipt.reference.startswith(f"{entry['reference']} (contact {contact} keeps an empty ")
    assert "contact property city is required" in receipt.reference
    assert isinstance(second, Receipt)
    assert "(" not in second.reference


class TestCheck:
    def test_names_what_new_objects_lack_where_hubspot_shows_it(self, portal: Portal) -> None:
        rules(portal, required={"contacts": ["firstname", "city"], "tickets": ["subject", "kind"]})
        options = {"ticket": {"properties": {"kind": "SMS"}}}

        said = portal.connector(**options).check()

        assert "; but HubSpot refuses a new contact without city" in said
        assert "give values in contact.properties" in said
        assert "new ticket" not in said

    def test_says_nothing_of_rules_that_the_key_may_not_read(self, portal: Portal) -> None:
        rules(portal, required={"contacts": ["city"]})
        scopes = "scopes:crm.objects.contacts.read,crm.objects.contacts.write"

        assert "city" not in portal.connector(access_token=scopes).check()
