"""Why did a signature not match? Tries what senders do, and says which scheme would accept it.

The forms are those that public webhook senders use: GitHub, Slack, Stripe, Shopify, Square,
Standard Webhooks. What signs no content, or only a part of it, is named and never recommended:
whoever saw one such request could put any text under its signature.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from relay.rules import scheme as schemes
from relay.rules import signature
from relay.rules.scheme import FIELD, Scheme, SecretEncoding

#: Names that may hold a time, and of fields that may hold a signature.
_TIME = re.compile(r"time|date|stamp|^t$")
_SIGNATURE = re.compile(r"sign|hmac|hash|digest")
#: Headers and fields that are tried; a request has few, a stranger's may have many.
MOST = 40
#: Lengths of digests, and what gives them.
_HASHES = {32: "sha256", 20: "sha1", 64: "sha512"}
_WORD = re.compile(r"(?:[A-Za-z0-9_-]{1,12}=)?([0-9A-Za-z+/_-]{27,128}={0,2})")
#: What the secrets of Standard Webhooks begin with.
_PREFIX = "whsec_"


@dataclass(frozen=True, kw_only=True, slots=True)
class Secret:
    """A secret to try, and what people call it."""

    name: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A signature of the request that a secret explains."""

    #: Where the signature stands, which secret made it, and over what.
    place: str
    secret: str
    covers: str
    #: What to do to the secret, in words; empty: nothing.
    amend: str = ""
    secret_encoding: SecretEncoding = "text"
    #: What the endpoint would have to say; None: ``signature:`` cannot say it.
    scheme: Scheme | None = None
    #: Whether what the message says is not signed.
    is_open: bool = False
    hash: str = "sha256"

    @property
    def is_recommended(self) -> bool:
        return self.scheme is not None and not self.is_open

    @property
    def yaml(self) -> str:
        """Return the line for the endpoint; empty: the defaults accept it."""
        if self.scheme is None:
            return ""
        default, said = Scheme(), self.scheme
        keys = {}
        if said.header is None:
            keys["field"] = said.field
        elif said.header.lower() != (default.header or "").lower():
            keys["header"] = said.header
        if said.signs != default.signs:
            keys["signs"] = said.signs
        if said.header and said.signs == "body-without-field" and said.field != FIELD:
            keys["field"] = said.field
        if said.timestamp_header:
            keys["timestamp_header"] = said.timestamp_header
        if self.secret_encoding != "text":
            keys["secret_encoding"] = self.secret_encoding
        listed = ", ".join(f"{name}: {value}" for name, value in keys.items())
        return f"signature: {{{listed}}}" if keys else ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """What was found, the best first, and what was tried."""

    matches: Sequence[Match]
    #: Where values stand that may be signatures.
    places: Sequence[str]
    secrets: int
    contents: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Claim:
    """A value that may be a signature."""

    place: str
    digest: bytes
    #: Where it would be said to stand.
    header: str | None
    field: str = FIELD


@dataclass(frozen=True, kw_only=True, slots=True)
class _Content:
    """Bytes that may have been signed."""

    covers: str
    data: bytes
    #: How ``signature:`` says it; None: it cannot.
    signs: schemes.Signs | None = None
    timestamp_header: str | None = None
    #: The field that is not signed.
    left_out: str | None = None
    is_open: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class _Key:
    name: str
    data: bytes
    amend: str = ""
    encoding: SecretEncoding | None = "text"


def diagnose(
    *, headers: Mapping[str, str], body: bytes, secrets: Sequence[Secret], path: str = ""
) -> Diagnosis:
    """Find what explains a signature of the request.

    *headers*: by lower-case name, as they are kept; *path*: of the URL that was called.
    """
    claims = list(_claims(headers, body))
    contents = list(_contents(headers, body, path=path))
    matches = [
        _match(claim, content, key, hash_name)
        for key in _keys(secrets)
        for content in contents
        for claim, hash_name in _made_by(key, content, claims)
    ]
    # Sorting is stable: what needs least to be said stands first within its kind.
    matches.sort(key=lambda match: (not match.is_recommended, len(match.yaml) + len(match.amend)))
    return Diagnosis(
        matches=matches,
        places=list(dict.fromkeys(claim.place for claim in claims)),
        secrets=len(secrets),
        contents=len(contents),
    )


def _made_by(
    key: _Key, content: _Content, claims: Sequence[_Claim]
) -> Iterator[tuple[_Claim, str]]:
    for size, name in _HASHES.items():
        ours = [claim for claim in claims if len(claim.digest) == size]
        if ours:
            digest = hmac.digest(key.data, content.data, name)
            yield from (
                (claim, name) for claim in ours if hmac.compare_digest(claim.digest, digest)
            )


def _match(claim: _Claim, content: _Content, key: _Key, hash_name: str) -> Match:
    found = Match(
        place=claim.place,
        secret=key.name,
        covers=content.covers,
        amend=key.amend,
        is_open=content.is_open,
        hash=hash_name,
        secret_encoding=key.encoding or "text",
    )
    if content.signs is None or key.encoding is None or hash_name != "sha256":
        return found
    if not _is_sayable(claim, content):
        return found
    said = Scheme(
        header=claim.header,
        field=content.left_out or FIELD,
        signs=content.signs,
        timestamp_header=content.timestamp_header,
    )
    return replace(found, scheme=said)


def _is_sayable(claim: _Claim, content: _Content) -> bool:
    """Return whether ``signature:`` has words for a signature there, over that."""
    if claim.header is None:
        # What stands in the body cannot be of the body that it stands in.
        return content.left_out == claim.field
    return content.signs == "body-without-field" or content.left_out is None


def _claims(headers: Mapping[str, str], body: bytes) -> Iterator[_Claim]:
    for name, value in list(headers.items())[:MOST]:
        title = name.title()
        for digest in _digests(value):
            yield _Claim(place=f"header {title}", digest=digest, header=title)
    for name, given in _fields(body):
        if isinstance(given, str) and _SIGNATURE.search(name.lower()):
            for digest in _digests(given):
                yield _Claim(place=f"field {name}", digest=digest, header=None, field=name)


def _digests(value: str) -> Iterator[bytes]:
    """Yield what *value* may hold: digests of SHA-256, and those of SHA-1 and SHA-512."""
    yield from signature.digests(value, encoding="auto")
    for word in re.split(r"[ ,\t]+", value[: signature.MAX_HEADER]):
        if not (found := _WORD.fullmatch(word)):
            continue
        text = found[1]
        if re.fullmatch(r"[0-9a-fA-F]+", text) and len(text) in (40, 128):
            yield bytes.fromhex(text)
            continue
        try:
            digest = base64.urlsafe_b64decode(text.translate(_URL_SAFE).rstrip("=") + "==")
        except binascii.Error:
            continue
        if len(digest) in (20, 64):
            yield digest


def _contents(headers: Mapping[str, str], body: bytes, *, path: str) -> Iterator[_Content]:
    yield _Content(covers="the body", data=body, signs="body")
    named = (name for name, _ in _fields(body) if _SIGNATURE.search(name.lower()))
    for name in named:
        for data in schemes.without(body, name):
            covers = f"the body without its field {name}"
            yield _Content(covers=covers, data=data, signs="body-without-field", left_out=name)
        for data in schemes.sorted_json(body, leave_out=name):
            covers = f"the fields in order, without {name}"
            yield _Content(covers=covers, data=data, signs="sorted-json", left_out=name)
    for data in schemes.sorted_json(body, leave_out=None):
        yield _Content(covers="the fields in order", data=data, signs="sorted-json")
    yield from _with_times(headers, body)
    yield from _open_contents(headers, body, path=path)


def _with_times(headers: Mapping[str, str], body: bytes) -> Iterator[_Content]:
    for name, value in list(headers.items())[:MOST]:
        title, stamp = name.title(), value.encode("latin-1", "replace")
        if _TIME.search(name) or schemes.unix(value):
            covers = f"{title}, a dot, and the body"
            data = stamp + b"." + body
            yield _Content(
                covers=covers, data=data, signs="timestamp.body", timestamp_header=title
            )
            yield _Content(
                covers=f"v0:{title}:body (Slack's way)", data=b"v0:%b:%b" % (stamp, body)
            )
            for other, word in list(headers.items())[:MOST]:
                if other.endswith("id"):
                    told = f"{other.title()}.{title}.body (Standard Webhooks)"
                    signed = word.encode("latin-1", "replace") + b"." + data
                    yield _Content(covers=told, data=signed)
        if stripe := re.search(r"(?:^|,)\s*t=(\d{9,13})(?:,|$)", value):
            told = f"the t of {title}, a dot, and the body (Stripe's way)"
            yield _Content(covers=told, data=stripe[1].encode() + b"." + body)


def _open_contents(headers: Mapping[str, str], body: bytes, *, path: str) -> Iterator[_Content]:
    """Yield what leaves the message open."""
    yield _Content(covers="nothing", data=b"", is_open=True)
    if path:
        yield _Content(covers="the path of the URL", data=path.encode(), is_open=True)
    for name, value in list(headers.items())[:MOST]:
        told = f"only the header {name.title()}"
        yield _Content(covers=told, data=value.encode("latin-1", "replace"), is_open=True)
    for name, given in _fields(body):
        if isinstance(given, str | int):
            data = str(given).encode("utf-8", "replace")
            yield _Content(covers=f"only the field {name}", data=data, is_open=True)


def _keys(secrets: Sequence[Secret]) -> Iterator[_Key]:
    for secret in secrets:
        written = [("", secret.text)]
        written += [(f"without the {s}", text) for text, s in signature.stray_signs(secret.text)]
        for amend, text in written:
            yield _Key(name=secret.name, data=_bytes(text), amend=amend)
            rest, prefixed = text.removeprefix(_PREFIX), text.startswith(_PREFIX)
            said = " and ".join(filter(None, (amend, f"without {_PREFIX}" if prefixed else "")))
            for encoding in _ENCODINGS:
                try:
                    data = schemes.key(rest, encoding)
                except ValueError:
                    continue
                if data:
                    yield _Key(name=secret.name, data=data, amend=said, encoding=encoding)


def _fields(body: bytes) -> Sequence[tuple[str, object]]:
    return list((schemes.members(body) or {}).items())[:MOST]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


_ENCODINGS: tuple[SecretEncoding, ...] = ("hex", "base64")
_URL_SAFE = str.maketrans("+/", "-_")
