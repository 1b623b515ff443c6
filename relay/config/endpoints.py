"""Endpoints in the YAML file: their paths, and what a request must bring."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SecretStr,
    Tag,
    field_validator,
    model_validator,
)

from relay.config.section import Date, Network, Positive, Secret, Section
from relay.rules import scheme
from relay.rules.payload import DedupeField, Format
from relay.rules.scheme import Scheme, SecretEncoding, Signs
from relay.rules.signature import Encoding, SigningKey, fingerprint
from relay.rules.units import Rate

#: Paths that the relay uses itself.
RESERVED = ("/api", "/console", "/livez", "/metrics", "/readyz")


class SignatureScheme(Section):
    """How the sender signs; ``gofax-relay requests diagnose`` finds it out."""

    header: str = Field(
        "X-GoFax-Signature",
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header that carries the signature, unless only field says where it is",
    )
    field: str | None = Field(
        None,
        min_length=1,
        description="Field of the JSON body that carries the signature; beside header: the field "
        "that is not signed",
    )
    encoding: Encoding = Field("auto", description="auto, hex or base64")
    signs: Signs = Field("body", description="What is signed: the raw body, or more, or less")
    timestamp_header: str | None = Field(
        None, pattern=r"^[A-Za-z0-9-]+$", description="Header whose time is signed with the body"
    )
    tolerance: Positive | None = Field(
        None, description="Age of that time above which a request is refused; default: any age"
    )
    secret_encoding: SecretEncoding = Field(
        "text", description="How signing_secrets are written: text, hex or base64"
    )

    @property
    def scheme(self) -> Scheme:
        return Scheme(
            header=None if self._is_in_body else self.header,
            field=self.field or DEFAULT_SCHEME.field,
            encoding=self.encoding,
            signs=self.signs,
            timestamp_header=self.timestamp_header,
        )

    @property
    def _is_in_body(self) -> bool:
        return self.field is not None and "header" not in self.model_fields_set

    @model_validator(mode="after")
    def _possible(self) -> SignatureScheme:
        if self.signs == "timestamp.body" and self.timestamp_header is None:
            raise ValueError("signs: timestamp.body needs timestamp_header")
        if self._is_in_body and self.signs not in ("body-without-field", "sorted-json"):
            raise ValueError(
                "a signature in the body cannot be of the whole body: "
                "write signs: body-without-field, or sorted-json"
            )
        return self


DEFAULT_SCHEME = Scheme()


class BasicAuth(Section):
    """The sender's name and password."""

    username: str
    password: Secret


class DatedSecret(Section):
    """A signing secret that has an end."""

    secret: Secret = Field(description="The secret itself")
    not_after: Date | None = Field(
        None, description="Last day, in UTC, on which it is accepted; default: for good"
    )


def _kind(value: object) -> str:
    return DATED if isinstance(value, dict | DatedSecret) else PLAIN


#: Pydantic puts them into the place of a fault.
PLAIN, DATED = "[plain]", "[dated]"
SigningSecret = Annotated[
    Annotated[Secret, Tag(PLAIN)] | Annotated[DatedSecret, Tag(DATED)], Discriminator(_kind)
]


class Endpoint(Section):
    """An inbound URL of ours."""

    path: str = Field(pattern=r"^/[A-Za-z0-9/_.~-]*$", description="Path of the URL")
    name: str = Field("", description="Its name in logs and commands; default: the path")
    format: Format = Field("json", description="json, or form for legacy notifications")
    signing_secrets: tuple[SigningSecret, ...] = Field(
        (),
        description="Secrets, newest first; any of them may have signed. One that has an end is "
        "written {secret: …, not_after: 2027-01-31}",
    )
    signature: SignatureScheme = SignatureScheme()
    basic_auth: BasicAuth | None = None
    allow_unsigned: bool = Field(False, description="Accept unsigned requests")
    on_duplicate: Literal["revive", "ignore"] = Field(
        "revive", description="Whether a resend from GoFax sends dead deliveries again"
    )
    dedupe_by: tuple[DedupeField, ...] = Field(
        ("messageId",), min_length=1, description="Fields that distinguish two events"
    )
    rate: Rate | None = Field(
        None, description="Requests in any span of time; more are answered 429"
    )

    allow_from: tuple[Network, ...] | None = Field(
        None,
        min_length=1,
        description="Networks that may call; others are answered 403. Default: all",
    )

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("name"):
            return {**values, "name": str(values.get("path", ""))}
        return values

    @field_validator("path")
    @classmethod
    def _not_reserved(cls, path: str) -> str:
        if any(path == own or path.startswith(own + "/") for own in RESERVED):
            raise ValueError(f"the relay uses this path itself ({', '.join(RESERVED)})")
        return path

    @field_validator("dedupe_by")
    @classmethod
    def _with_message_id(cls, fields: tuple[DedupeField, ...]) -> tuple[DedupeField, ...]:
        if "messageId" not in fields:
            raise ValueError("must contain messageId: without it, different events look alike")
        return fields

    @property
    def guard(self) -> str:
        """Say what a request must bring to be accepted."""
        number = len(self.signing_secrets)
        signed = (
            "signed with its secret" if number == 1 else f"signed with any of {number} secrets"
        )
        nearby = [f"from {', '.join(self.allow_from)}"] if self.allow_from else []
        guards = [*([signed] if number else []), *(["Basic auth"] if self.basic_auth else [])]
        anybody = f"UNSIGNED: anybody {'there ' if nearby else ''}may post"
        return ", ".join([self.format, *nearby, " and ".join(guards) or anybody])

    @property
    def secrets(self) -> tuple[DatedSecret, ...]:
        """The signing secrets, each with its end."""
        return tuple(
            DatedSecret(secret=each) if isinstance(each, SecretStr) else each
            for each in self.signing_secrets
        )

    @property
    def signing_keys(self) -> tuple[SigningKey, ...]:
        """The signing secrets as bytes."""
        encoding = self.signature.secret_encoding
        return tuple(
            SigningKey(
                key=scheme.key(each.secret.get_secret_value(), encoding), not_after=each.not_after
            )
            for each in self.secrets
        )

    @property
    def fingerprints(self) -> tuple[str, ...]:
        """A line about each signing secret, without the secret."""
        return tuple(
            f"secret {number} has the fingerprint {fingerprint(each.secret.get_secret_value())}"
            + (f", and is accepted until {each.not_after} (UTC)" if each.not_after else "")
            for number, each in enumerate(self.secrets, 1)
        )

    @model_validator(mode="after")
    def _readable_secrets(self) -> Endpoint:
        for number, each in enumerate(self.secrets, 1):
            try:
                scheme.key(each.secret.get_secret_value(), self.signature.secret_encoding)
            except ValueError as error:
                raise ValueError(f"signing_secrets: secret {number} {error}") from None
        return self

    @model_validator(mode="after")
    def _signed_json(self) -> Endpoint:
        if self.format == "form" and self.signature.signs in ("body-without-field", "sorted-json"):
            raise ValueError(f"signature: {self.signature.signs} is of JSON, and format is form")
        return self

    @model_validator(mode="after")
    def _guarded(self) -> Endpoint:
        if not (self.signing_secrets or self.basic_auth or self.allow_unsigned):
            raise ValueError(
                "needs signing_secrets or basic_auth (or allow_unsigned: true: anybody may post)"
            )
        return self
