"""A request as its WSGI environment has it: only what an endpoint needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any

from relay.intake import charset_of
from relay.rules import addresses, headers, scheme
from relay.store.ids import new_id
from relay.store.refused import NEVER_ADMITTED

#: Labels that say JSON too.
JSON_LIKE = re.compile(r"application/(?:[a-z0-9.+-]+\+)?json|text/json")
#: How much of a refused body is kept.
REFUSED_BODY = 4096


class Call:
    """A request as its WSGI environment has it: only what an endpoint needs."""

    def __init__(
        self,
        environ: Mapping[str, Any],
        *,
        signature_header: str,
        proxies: int,
        at: datetime,
    ) -> None:
        """*at*: when it came."""
        self.id = new_id("req")
        self.at = at
        self._environ = environ
        self._signature_header = signature_header
        #: What was read of the body.
        self.body = b""
        #: Whether it was read, and whether to its end.
        self.has_body = False
        self.is_read = False
        self.remote = remote_of(environ, proxies=proxies)
        self.query: str = environ.get("QUERY_STRING", "")
        label = environ.get("CONTENT_TYPE", "")
        self.content_type: str = label.partition(";")[0].strip().lower()
        #: The charset that the content type states.
        self.charset = charset_of(label) if ";" in label else None
        length = environ.get("CONTENT_LENGTH") or ""
        #: None if the body is chunked.
        self.content_length = int(length) if length.isascii() and length.isdigit() else None

    @property
    def is_chunked(self) -> bool:
        return self.content_length is None and "HTTP_TRANSFER_ENCODING" in self._environ

    def header(self, name: str) -> str | None:
        return self._environ.get("HTTP_" + name.upper().replace("-", "_"))

    def read(self, limit: int) -> bytes:
        """Read up to *limit* bytes; fewer only if no more come."""
        stream = self._environ["wsgi.input"]
        body: bytes = stream.read(limit)
        while body and len(body) < limit and (piece := stream.read(limit - len(body))):
            body += piece
        self.body, self.has_body, self.is_read = body, True, len(body) < limit
        return body

    @property
    def may_be_signed(self) -> bool:
        """Return whether a signature may stand in a header, or in a field of the body."""
        return self._header_signed or self.content_type == "" or is_json(self.content_type)

    @property
    def is_signed(self) -> bool:
        """Return whether there is anything like a signature; the body has to be read before."""
        return self._header_signed or bool((scheme.members(self.body) or {}).get(scheme.FIELD))

    @property
    def _header_signed(self) -> bool:
        return headers.carries_signature(self.headers, signature=self._signature_header)

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers to keep, by lower-case name."""
        named = (
            (key[5:].replace("_", "-").lower(), value)
            for key, value in self._environ.items()
            if key.startswith("HTTP_")
        )
        kept = headers.kept(named, signature=self._signature_header)
        return kept | {"content-type": self._environ.get("CONTENT_TYPE", "")[:256]}


def remote_of(environ: Mapping[str, Any], *, proxies: int) -> str:
    """Return the address of who calls, as the last of our *proxies* saw it."""
    return addresses.caller(
        environ.get("REMOTE_ADDR", ""), environ.get("HTTP_X_FORWARDED_FOR", ""), proxies=proxies
    )


def is_json(content_type: str) -> bool:
    return bool(JSON_LIKE.fullmatch(content_type))


def kept(call: Call, *, status: int) -> dict[str, Any]:
    """Return what is kept of the body that *call* has read, as fields of a Request."""
    cut = call.content_length is not None and len(call.body) < call.content_length
    whole = call.has_body and call.is_read and not cut and status not in NEVER_ADMITTED
    signed = whole and call.is_signed
    body = call.body if signed else call.body[:REFUSED_BODY]
    return {
        "signed": signed,
        "whole": whole and (signed or len(call.body) <= REFUSED_BODY),
        "body": body if call.has_body else None,
        "query": call.query[:REFUSED_BODY],
    }
