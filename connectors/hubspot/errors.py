"""What HubSpot's error answers mean, by status, category, codes and context.

No word in a message decides anything: messages quote texts of customers and names of properties.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from connectors.base import DeliveryError, Refused, Throttled, Transient, Unauthorized
from connectors.http import error_for, retry_after
from connectors.hubspot.answers import dicts, parsed, text

#: Waits per policy of a 429 without Retry-After; DAILY ends at midnight.
POLICY_WAITS = {"SECONDLY": timedelta(seconds=1), "TEN_SECONDLY_ROLLING": timedelta(seconds=10)}
LOCKED_WAIT = timedelta(seconds=2)
MIGRATION_WAIT = timedelta(minutes=10)
#: How often to look whether a new day has begun in the account's time zone, if it is unknown.
DAILY_PROBE = timedelta(hours=1)

#: Codes of values that an administrator made required, enforced since 2026-09-08
#: (developers.hubspot.com/changelog/crm-api-write-validation-enforcement).
REQUIRED, CONDITIONAL = "MISSING_REQUIRED_PROPERTY", "MISSING_CONDITIONAL_REQUIRED_PROPERTY"
#: Code of a unique value that another record has.
TAKEN = "CONFLICTING_UNIQUE_VALUE"

_SCOPE_LISTS = ("missingScopes", "requiredGranularScopes", "requiredScopes")
_E164 = re.compile(r"\+\d{7,15}")
_OBJECTS = "/crm/objects/2026-09/"
#: Faults of single values, as JSON within the message of bodies that have no ``errors``.
_EMBEDDED = re.compile(r"Property values were not valid: (\[.*\])", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One property that HubSpot refused, and why."""

    #: Name of the property; empty if HubSpot did not say.
    name: str
    code: str
    message: str = ""


class Invalid(Refused):
    """HubSpot refused the values of a record."""

    def __init__(self, message: str, *, status: int | None, faults: Iterable[Fault]) -> None:
        super().__init__(message, status=status)
        self.faults = tuple(faults)

    @property
    def missing(self) -> frozenset[str]:
        """Names of properties that a rule of the account requires."""
        return frozenset(each.name for each in self.faults if each.code in (REQUIRED, CONDITIONAL))

    def is_taken(self, name: str) -> bool:
        """Return whether another record has the value of the unique property *name*."""
        return any(each.code == TAKEN and each.name in (name, "") for each in self.faults)

    def wrong_of(self, *names: str) -> str | None:
        """Return the first of *names* whose value, or which itself, HubSpot does not know."""
        others = {REQUIRED, CONDITIONAL, TAKEN}
        wrong = {each.name for each in self.faults if each.code not in others}
        return next((name for name in names if name in wrong), None)


@contextmanager
def after_acting(done: str) -> Iterator[None]:
    """Let errors inside say that a part of the delivery is done, and which."""
    try:
        yield
    except DeliveryError as error:
        error.acted = True
        error.args = (f"{done}; after that: {error}",)
        raise


def blamed(error: Invalid, advice: Mapping[str, str]) -> Refused | Unauthorized:
    """Return *error*, as Unauthorized if it is about an option and so about every event.

    *advice*: names of properties that options alone fill in, with what to do.
    """
    name = error.wrong_of(*advice)
    return Unauthorized(f"{error} ({advice[name]})", status=error.status) if name else error


def error_of(
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    request: tuple[str, str],
    safe: bool,
    zone: ZoneInfo | None = None,
) -> DeliveryError:
    """Translate an error answer.

    *request*: its method and the template of its path; *safe*: it may be repeated; *zone*: of the
    account, if it is known.
    """
    found = parsed(body)
    said: Mapping[str, Any] = found if isinstance(found, dict) else {}
    faults = tuple(faults_in(said)) if status in (400, 409) else ()
    detail = _detail(said, faults, request=request)
    message = f"answered {status}: {detail}" if detail else f"answered {status}"
    if faults:
        return Invalid(message, status=status, faults=faults)
    throttled = _throttled(status, said, headers, message=message, zone=zone)
    mapped = error_for(status, headers=headers, detail=detail, safe=safe)
    return throttled or mapped or Transient(message, status=status)


def error_of_part(said: Mapping[str, Any], *, request: tuple[str, str]) -> DeliveryError | None:
    """Translate the error of one part of a batch; None if its record or link is not there."""
    category = text(said, "category")
    if category == "OBJECT_NOT_FOUND":
        return None
    faults = tuple(faults_in(said))
    message = f"failed in part: {_detail(said, faults, request=request)}"
    if faults or category == "VALIDATION_ERROR":
        return Invalid(message, status=400, faults=faults)
    return Transient(message)


def faults_in(said: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults of single values, from ``errors`` or from JSON within the message."""
    coded = [each for each in dicts(said, "errors") if text(each, "code")]
    for each in coded:
        code, message = text(each, "code") or "", text(each, "message") or ""
        for name in _named(each.get("context")):
            yield Fault(name=name, code=code, message=message)
    embedded = _EMBEDDED.fullmatch(text(said, "message") or "")
    if embedded and not coded:
        for each in dicts({"faults": parsed(embedded[1].encode())}, "faults"):
            yield Fault(
                name=text(each, "name") or "",
                code=text(each, "error") or "",
                message=text(each, "message") or "",
            )


def policy_wait(policy: str, *, now: datetime, zone: ZoneInfo | None) -> timedelta:
    """Return how long to stay away after reaching the limit named *policy*."""
    if policy != "DAILY":
        return POLICY_WAITS.get(policy, POLICY_WAITS["TEN_SECONDLY_ROLLING"])
    if zone is None:
        return DAILY_PROBE
    tomorrow = now.astimezone(zone).date() + timedelta(days=1)
    return datetime.combine(tomorrow, time(), tzinfo=zone).astimezone(UTC) - now


def _named(context: object) -> list[str]:
    """Return the properties that an error is about, or one empty name."""
    found = context.get("propertyName") if isinstance(context, dict) else None
    names = found if isinstance(found, list) else [found]
    return [each for each in names if isinstance(each, str) and each] or [""]


def _throttled(
    status: int,
    said: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    message: str,
    zone: ZoneInfo | None,
) -> Throttled | None:
    asked = retry_after(headers)
    if status == 423:
        wait = max(asked or LOCKED_WAIT, LOCKED_WAIT)
        return Throttled(message, retry_after=wait, scope="conversation", status=status)
    if status == 477:
        return Throttled(message, retry_after=asked or MIGRATION_WAIT, status=status)
    if status == 429:
        wait = asked or policy_wait(_policy(said), now=datetime.now(UTC), zone=zone)
        return Throttled(message, retry_after=wait, status=status)
    return None


def _policy(said: Mapping[str, Any]) -> str:
    """Return the limit that was reached; searches name it only in this sentence."""
    sentence = re.fullmatch(r"You have reached your (\w+) limit\.", text(said, "message") or "")
    return (text(said, "policyName") or (sentence[1] if sentence else "")).upper()


def _detail(
    said: Mapping[str, Any], faults: tuple[Fault, ...], *, request: tuple[str, str]
) -> str:
    """Say what a person needs to know, without phone numbers."""
    correlation = text(said, "correlationId")
    parts = [_explained(each, request=request) for each in faults]
    parts = parts or [text(said, "message") or ""]
    parts += [_scopes(said), f"correlation id {correlation}" if correlation else ""]
    return _E164.sub("(number)", "; ".join(part[:400] for part in parts if part))


def _explained(fault: Fault, *, request: tuple[str, str]) -> str:
    """Say what is wrong with a property; of a missing one, also where it is required."""
    method, path = request
    kind = path.removeprefix(_OBJECTS).partition("/")[0].removesuffix("s")
    known = path.startswith(_OBJECTS)
    name = f"{kind} property {fault.name}" if known and fault.name else fault.name or "a property"
    if fault.code not in (REQUIRED, CONDITIONAL):
        return f"{name}: {fault.message[:200]} ({fault.code})"
    updates = kind == "contact" and (method == "PATCH" or path.endswith("/update"))
    mend = "fill it in on the contact" if updates else f"give it a value in {kind}.properties"
    rule = f'Settings > Objects > {kind.capitalize()}s > Customize the "Create {kind}" form'
    if fault.code == CONDITIONAL:
        rule = f"Settings > Properties > {kind.capitalize()} properties > Conditional logic"
    return f"{name} is required in HubSpot ({fault.code}): {mend}, or change the rule under {rule}"


def _scopes(said: Mapping[str, Any]) -> str:
    contexts = [each.get("context") for each in (said, *dicts(said, "errors"))]
    named = [
        str(scope)
        for context in contexts
        if isinstance(context, dict)
        for name in _SCOPE_LISTS
        if isinstance(context.get(name), list)
        for scope in context[name]
    ]
    return f"missing scopes: {', '.join(dict.fromkeys(named))}" if named else ""
