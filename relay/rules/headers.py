"""Which headers of a request are kept, and which of them may carry a signature?

Strangers write headers, so what is kept is bounded. It is no allow-list: a signature may stand
under any name, and a person must be able to find it later.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence

from relay.rules.payload import clean

#: Characters of one value, and of all names and values together.
LONGEST_VALUE, LONGEST_TOGETHER = 1024, 8192
#: Characters of a time, however it is written.
LONGEST_MOMENT = 40

#: Credentials by name; HTTP_PROXY is what a server that puts its own environment into WSGI's
#: would give us.
_CREDENTIAL = re.compile(
    r"token|secret|password|passwd|passphrase|credential|session|cookie|authorization|^proxy$"
    r"|(?:^|-)auth(?:entication)?$|(?:^|-)(?:jwt|bearer)(?:-|$)"
    r"|(?:api|access|auth|subscription|function|functions|master|admin|private|account|client"
    r"|app|application)-?key"
)
#: Credentials by value: what belongs into Authorization, and JSON Web Tokens.
_AUTHORIZATION = re.compile(
    r"[\s\"']*(?:(?i:bearer|negotiate)\s+\S"
    r"|(?i:basic)\s+[A-Za-z0-9+/_-]{4,}={0,2}[\s\"']*$)",
    re.ASCII,
)
_WEB_TOKEN_BEGINS = "eyJ"
_WEB_TOKEN = re.compile(rf"(?<![\w-]){_WEB_TOKEN_BEGINS}[\w-]+\.[\w-]+\.[\w-]", re.ASCII)
#: Names of signatures, and of the time that is signed with them.
_SIGNATURE = re.compile(r"(?<!de)(?<!as)sign(?!-?(?:in|on|up|out)\b)|hmac|hash|digest")
_MOMENT = re.compile(r"(?:^|-)time$|timestamp$")
#: Names that are kept when there is no room for all.
_SIGNED = re.compile(r"sign|hmac|hash|digest|time")
_HEX = re.compile(r"(?:[A-Za-z0-9_-]{1,12}=)?(?:[0-9a-fA-F]{40}|[0-9a-fA-F]{64}|[0-9a-fA-F]{128})")
# Base64 of 20, 32 and 64 bytes, with and without its padding.
_BASE64 = re.compile(
    r"(?:[A-Za-z0-9_-]{1,12}[=,])?(?:[A-Za-z0-9+/_-]{27}=?|[A-Za-z0-9+/_-]{43}=?|[A-Za-z0-9+/_-]{86}(?:==)?)"
)
#: What stands between the parts of a signature, as in ``t=1764331200,v1=…``.
_PARTS = re.compile(r"[,;\s]+")


def kept(headers: Iterable[tuple[str, str]], *, signature: str) -> dict[str, str]:
    """Return names in lower case and values, credentials removed, bounded in size.

    *signature*: the header that the endpoint takes its signature from.
    """
    wanted = signature.lower()
    found = [
        (name, clean(value)[:LONGEST_VALUE])
        for name, value in headers
        if name == wanted or not _is_credential(name, value)
    ]
    if sum(len(name) + len(value) for name, value in found) > LONGEST_TOGETHER:
        # Sorting is stable: the sender's order stays within each kind.
        found.sort(key=lambda pair: (pair[0] != wanted, not looks_signed(*pair)))
        found = _within(found, LONGEST_TOGETHER)
    return dict(found)


def _within(pairs: Sequence[tuple[str, str]], room: int) -> list[tuple[str, str]]:
    """Return those of *pairs* that fit, the first ones first."""
    found = []
    for name, value in pairs:
        size = len(name) + len(value)
        if size <= room:
            room -= size
            found.append((name, value))
    return found


def looks_signed(name: str, value: str) -> bool:
    """Return whether a header may be a signature, or the time that is signed."""
    return bool(_SIGNED.search(name)) or _is_digest(value)


def carries_signature(headers: Mapping[str, str], *, signature: str) -> bool:
    """Return whether a request has the configured header, or anything that looks like one."""
    return signature.lower() in headers or any(
        "sign" in name or "hmac" in name or _is_digest(value) for name, value in headers.items()
    )


def _is_credential(name: str, value: str) -> bool:
    if _AUTHORIZATION.match(value):
        return True
    # Almost no value has the beginning, which is found sooner than the whole pattern is not.
    if _WEB_TOKEN_BEGINS in value and _WEB_TOKEN.search(value):
        return True
    return _names_credential(name) and not _belongs_to_signature(name, value)


@functools.lru_cache(maxsize=256)
def _names_credential(name: str) -> bool:
    return bool(_CREDENTIAL.search(name))


def _belongs_to_signature(name: str, value: str) -> bool:
    """Return whether *value* is what its *name* says: a signature, or the time of one."""
    if _MOMENT.search(name):
        return len(value) <= LONGEST_MOMENT and any(map(str.isdigit, value))
    return bool(_SIGNATURE.search(name)) and any(map(_is_digest, _PARTS.split(value)))


def _is_digest(text: str) -> bool:
    return bool(_HEX.fullmatch(text) or _BASE64.fullmatch(text))
