"""What the YAML of a Zendesk destination may say."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Discriminator, Field, SecretStr, Tag, field_validator, model_validator

from connectors.base import Options
from connectors.oauth import PRINTABLE
from connectors.templates import Template
from connectors.zendesk.numbers import REGIONS

#: The ways to sign in, each by the options that it needs.
WAYS_IN = (("client_id", "client_secret"), ("access_token",), ("email", "api_token"))


class CommentTemplate(Template):
    """A template of a comment; it also knows whether customers may see the comment."""

    extra = ("public",)


Id = Annotated[int, Field(ge=1)]
TagName = Annotated[str, Field(pattern=r"^[^\s,]+$", max_length=255)]

#: Of a comment: the link is for colleagues alone.
COMMENT = "{{ parties }}\n\n{{ text }}{{ '\n\n' ~ url if url and not public }}"

_KINDS = {str: "text", Template: "text", bool: "switch", int: "number", float: "number"}


def _kind_of(value: object) -> str | None:
    return "list" if isinstance(value, list) else _KINDS.get(type(value))


# By the value's kind, so that a wrong value gives one error instead of five.
FieldValue = Annotated[
    Annotated[Template, Tag("text")]
    | Annotated[bool, Tag("switch")]
    | Annotated[int | float, Tag("number")]
    | Annotated[list[str], Tag("list")],
    Discriminator(
        _kind_of,
        custom_error_type="custom_field",
        custom_error_message="write a text, a number, true or false, or a list of texts",
    ),
]


class ZendeskOptions(Options):
    """What the YAML of a Zendesk destination may say."""

    subdomain: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9-]*$",
        description="The account's name: acme, if agents sign in at acme.zendesk.com.",
    )
    client_id: str | None = Field(
        default=None,
        description="Identifier of a confidential OAuth client; goes with client_secret.",
    )
    client_secret: SecretStr | None = Field(
        default=None, description="Secret of the OAuth client."
    )
    access_token: SecretStr | None = Field(
        default=None, description="An OAuth access token that you manage, instead of a client."
    )
    email: str | None = Field(
        default=None, description="E-mail address of the agent that api_token belongs to."
    )
    api_token: SecretStr | None = Field(
        default=None, description="API token. Zendesk ends API tokens on 2027-04-30."
    )
    base_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^@?#]+$",
        description="Zendesk's address; by default https://SUBDOMAIN.zendesk.com.",
    )
    subject: Template = Field(
        default=Template("{{ title }}"), description="Template of a new ticket's subject."
    )
    comment: CommentTemplate = Field(
        default=CommentTemplate(COMMENT),
        description="Template of a comment; a short reference follows it. `public` is true where "
        "customers may see the comment.",
    )
    public: bool = Field(
        default=True,
        description="true: customers may see their messages; false: internal notes. "
        "Anything else is an internal note in any case.",
    )
    tags: list[TagName] = Field(
        default=["sms", "gofax"],
        description="Tags of every ticket that we create or add to, for triggers to exclude.",
    )
    custom_fields: dict[Id, FieldValue] = Field(
        default={},
        description="Values of ticket fields in new tickets, by the field's id; "
        "a text is a template.",
    )
    group_id: Id | None = Field(default=None, description="Group that gets new tickets.")
    assignee_id: Id | None = Field(default=None, description="Agent who gets new tickets.")
    priority: Literal["low", "normal", "high", "urgent"] | None = Field(
        default=None, description="Priority of new tickets."
    )
    status: Literal["new", "open", "pending", "hold", "solved"] | None = Field(
        default=None, description="Status of new tickets; by default Zendesk's own (new)."
    )
    brand_id: Id | None = Field(default=None, description="Brand of new tickets.")
    ticket_form_id: Id | None = Field(default=None, description="Form of new tickets.")
    when_solved: Literal["reopen", "new_ticket"] = Field(
        default="reopen",
        description="What a message after the ticket was solved does: reopen it, "
        "or open a new one.",
    )
    unknown_customer: Literal["create", "skip"] = Field(
        default="create",
        description="What to do if no end user has the customer's number: create one, "
        "or skip the event.",
    )
    region: str = Field(
        default="AU",
        description="Region of numbers without a country code in profiles, such as "
        "0400 000 000: AU, NZ, US, …",
    )
    opt_out_tag: TagName | None = Field(
        default="sms_opt_out",
        description="Tag that STOP adds to the customer's profile and START removes; null: none.",
    )
    on_stop: Literal["comment", "message", "mark"] = Field(
        default="comment",
        description="What else STOP does: a comment in the ticket if one is open, "
        "the same as any message, or nothing but the tag.",
    )

    @property
    def address(self) -> str:
        """The address that every path is added to, without a slash at the end."""
        return (self.base_url or f"https://{self.subdomain}.zendesk.com").rstrip("/")

    @field_validator("region")
    @classmethod
    def _is_region(cls, region: str) -> str:
        if region not in REGIONS:
            raise ValueError("is no region of phone numbers: write two capitals, as in AU")
        return region

    @field_validator("client_secret", "access_token", "api_token")
    @classmethod
    def _is_usable(cls, secret: SecretStr | None) -> SecretStr | None:
        # A secret from a file often ends with a line break.
        if secret is None:
            return None
        trimmed = secret.get_secret_value().strip()
        if not PRINTABLE.fullmatch(trimmed):
            raise ValueError("is empty or holds characters that no secret of Zendesk has")
        return SecretStr(trimmed)

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        begun = [way for way in WAYS_IN if any(getattr(self, name) for name in way)]
        if len(begun) != 1 or not all(getattr(self, name) for name in begun[0]):
            raise ValueError(
                "give exactly one way to sign in: client_id and client_secret, "
                "or access_token, or email and api_token"
            )
        return self

    @model_validator(mode="after")
    def _marks_with_something(self) -> Self:
        if self.on_stop == "mark" and self.opt_out_tag is None:
            raise ValueError("on_stop: mark needs an opt_out_tag")
        return self
