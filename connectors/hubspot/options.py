"""The options of a HubSpot destination, and what each relies on in the account."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, SecretStr, model_validator

from connectors.base import Options
from connectors.templates import Template

PropertyName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
RecordId = Annotated[str, Field(pattern=r"^[0-9]+$")]
Properties = dict[PropertyName, Template]
#: What the timeline says.
ENTRY = "{{ title }} · {{ parties }}\n\n{{ text }}{{ '\n\n' ~ url if url }}"
#: What mends an account that lacks what the options rely on.
SETUP = "run gofax-relay connectors setup"
#: Ways to sign in: the options of one of them.
WAYS_IN = (("access_token",), ("client_id", "client_secret", "refresh_token"))
#: Unique ticket property that names the conversation of a ticket.
TICKET_PROPERTY = "sms_relay_conversation"
#: Properties that have options of their own, or that only the connector writes.
TICKET_VALUES = (TICKET_PROPERTY, "hs_pipeline", "hs_pipeline_stage", "subject", "content")
TASK_VALUES = ("hs_task_subject", "hs_task_body", "hs_task_status", "hs_task_type", "hs_timestamp")
#: Phone properties of most accounts; of the first two HubSpot works out the number as E.164.
PHONES = ("phone", "mobilephone", "hs_whatsapp_phone_number")


def _fit_for_a_header(token: SecretStr) -> SecretStr:
    # The HTTP library would quote a token that no header can carry in its error.
    if not re.fullmatch(r"[!-~]+", token.get_secret_value()):
        raise ValueError("must be one word of printable ASCII characters")
    return token


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        raise ValueError("write a known time zone, such as Australia/Sydney") from error
    return name


def _expect_free(properties: Iterable[str], taken: Iterable[str], *, of: str) -> None:
    for name in sorted(set(properties) & set(taken)):
        raise ValueError(f"{of}: the connector fills in {name} by itself")


class ContactOptions(Options):
    """Properties of new contacts."""

    firstname: Template = Field(
        default=Template("{{ customer }}"),
        description="Template of a new contact's first name; HubSpot wants a name or an e-mail "
        "address.",
    )
    properties: Properties = Field(
        default={}, description="Further properties of a new contact: a template for each name."
    )


class TicketOptions(Options):
    """One ticket per conversation."""

    pipeline: str = Field(
        default="0", min_length=1, description="Id of the pipeline of new tickets."
    )
    stage: str = Field(
        default="1", min_length=1, description="Id of the stage of new and reopened tickets."
    )
    subject: Template = Field(
        default=Template("SMS conversation with {{ customer }}"),
        description="Template of a new ticket's subject.",
    )
    priority: Literal["LOW", "MEDIUM", "HIGH", "URGENT"] | None = Field(
        default=None, description="Priority of new tickets."
    )
    when_closed: Literal["reopen", "new"] = Field(
        default="reopen",
        description="When the customer writes and the ticket is closed: reopen it, or start "
        "a new one.",
    )
    properties: Properties = Field(
        default={}, description="Further properties of a new ticket: a template for each name."
    )

    @model_validator(mode="after")
    def _own_properties(self) -> Self:
        taken = (*TICKET_VALUES, "hs_ticket_priority")
        _expect_free(self.properties, taken, of="properties")
        return self


class TaskOptions(Options):
    """A task for the contact's owner."""

    subject: Template = Field(
        default=Template("Answer {{ customer }}: {{ text | truncate(60) }}"),
        description="Template of the task's subject.",
    )
    due_in_hours: int = Field(
        default=4, ge=0, le=8760, description="Hours from the message to the task's due date."
    )
    properties: Properties = Field(
        default={}, description="Further properties of a task: a template for each name."
    )

    @model_validator(mode="after")
    def _own_properties(self) -> Self:
        _expect_free(self.properties, TASK_VALUES, of="properties")
        return self


class InboxOptions(Options):
    """The conversations inbox, through a custom channel."""

    channel_id: RecordId = Field(description="Id of the custom channel that the app registered.")
    inbox_id: RecordId | None = Field(
        default=None, description="Id of the inbox to which setup connects our numbers."
    )
    numbers: tuple[Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$")], ...] = Field(
        default=(), description="Our numbers, in E.164, for setup to connect."
    )

    @model_validator(mode="after")
    def _with_an_inbox(self) -> Self:
        if self.numbers and self.inbox_id is None:
            raise ValueError("numbers: say with inbox_id to which inbox they belong")
        return self


class HubSpotOptions(Options):
    """The options of a HubSpot destination."""

    access_token: Annotated[SecretStr, AfterValidator(_fit_for_a_header)] | None = Field(
        default=None,
        description="Service key with the scopes crm.objects.contacts.read and "
        "crm.objects.contacts.write, or another token that does not expire.",
    )
    client_id: str | None = Field(
        default=None,
        min_length=1,
        description="Client id of an OAuth app, instead of access_token; goes with client_secret "
        "and refresh_token.",
    )
    client_secret: SecretStr | None = Field(
        default=None, description="Client secret of the OAuth app."
    )
    refresh_token: SecretStr | None = Field(
        default=None,
        description="Refresh token that HubSpot gave when the app was installed in the account.",
    )
    base_url: str = Field(
        default="https://api.hubapi.com",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        description="Address of HubSpot's API, or of a stand-in.",
    )
    unknown_contact: Literal["create", "skip"] = Field(
        default="create",
        description="When no contact has the customer's number: create one, or skip the event.",
    )
    phone_properties: tuple[PropertyName, ...] = Field(
        default=PHONES,
        min_length=1,
        max_length=20,
        description="Contact properties that hold phone numbers, by which contacts are found.",
    )
    unique_property: PropertyName = Field(
        default="sms_relay_phone",
        description="Contact property with unique values that holds the customer's number.",
    )
    owner_id: RecordId | None = Field(
        default=None,
        description="HubSpot id of the owner whom the timeline shows as the entry's creator, and "
        "who gets tickets and tasks of contacts without an owner.",
    )
    text: Template = Field(
        default=Template(ENTRY),
        description="Template of the timeline entry: plain text, whose line breaks are kept.",
    )
    contact: ContactOptions = Field(
        default=ContactOptions(), description="What a new contact is made with."
    )
    ticket: TicketOptions | None = Field(
        default=None, description="Keep one ticket per conversation. Needs the scope tickets."
    )
    task: TaskOptions | None = Field(
        default=None, description="Give the contact's owner a task when the customer writes."
    )
    opt_out_property: PropertyName | None = Field(
        default=None,
        description="Contact property (single checkbox) to tick at STOP and clear at START.",
    )
    inbox: InboxOptions | None = Field(
        default=None,
        description="Publish messages in the conversations inbox instead of on the timeline.",
    )
    time_zone: Annotated[str, AfterValidator(_known_zone)] | None = Field(
        default=None,
        description="Time zone of the HubSpot account, at whose midnight the daily limit ends; "
        "without it a used-up limit is looked at again every hour.",
    )

    @model_validator(mode="after")
    def _one_way_in(self) -> Self:
        given = {name for way in WAYS_IN for name in way if getattr(self, name) is not None}
        if given not in [set(way) for way in WAYS_IN]:
            ways = " or ".join(", ".join(way) for way in WAYS_IN)
            raise ValueError(f"give the options of one way to sign in: {ways}")
        return self

    @model_validator(mode="after")
    def _own_properties(self) -> Self:
        taken = ("phone", self.unique_property)
        _expect_free(self.contact.properties, taken, of="contact.properties")
        return self

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        if self.inbox and (self.ticket or self.task):
            raise ValueError(
                "inbox: goes with neither ticket nor task; the inbox's own settings make tickets"
            )
        return self

    def filled_in(self) -> Mapping[str, set[str]]:
        """Return the properties that new objects are given, by kind of object."""
        filled = {"contacts": {"firstname", "phone", self.unique_property}}
        filled["contacts"] |= self.contact.properties.keys()
        owned = {"hubspot_owner_id"} if self.owner_id else set()
        if self.ticket:
            priority = {"hs_ticket_priority"} if self.ticket.priority else set()
            filled["tickets"] = {*TICKET_VALUES, *self.ticket.properties, *owned, *priority}
        if self.task:
            filled["tasks"] = {*TASK_VALUES, *self.task.properties, *owned}
        return filled

    def relied_on(self) -> tuple[tuple[str, dict[str, Any]], ...]:
        """Return the properties that the account needs: kind of object, and definition."""
        unique = {"type": "string", "fieldType": "text", "hasUniqueValue": True}
        number = "The number by which gofax-relay finds this contact. Clear it to let go of it."
        made: list[tuple[str, dict[str, Any]]] = [
            ("contacts", unique | _named(self.unique_property, "SMS relay phone", number))
        ]
        if self.opt_out_property:
            said = "Ticked when the customer wrote STOP, cleared when START."
            box = {"type": "bool", "fieldType": "booleancheckbox", "options": _YES_NO}
            made.append(("contacts", box | _named(self.opt_out_property, "SMS opted out", said)))
        if self.ticket:
            said = "The conversation whose current ticket this is: customer's number ~ ours."
            ticket = _named(TICKET_PROPERTY, "SMS relay conversation", said)
            made.append(("tickets", unique | ticket | {"groupName": "ticketinformation"}))
        return tuple(made)


_YES_NO = [
    {"label": label, "value": value, "displayOrder": order, "hidden": False}
    for order, (label, value) in enumerate([("Yes", "true"), ("No", "false")])
]


def _named(name: str, label: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "description": description,
        "groupName": "contactinformation",
    }
