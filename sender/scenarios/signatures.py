"""Signatures: right, wrong, missing, cut short, by an old secret, or of other bytes."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

from sender.event import Event
from sender.scenarios.base import Check, Skip, accepted, refused, scenario
from sender.scenarios.stage import Stage
from sender.signing import SIGNATURE_HEADER

VALIDATE = "GoFax asks receivers to validate X-GoFax-Signature before they process anything"


@scenario(
    "signature-bad",
    title="a signature of other bytes",
    right="401 or 403; no effect",
    why=VALIDATE,
)
def bad(stage: Stage) -> Iterator[Check]:
    event = _unwanted(stage)
    other = stage.signature(event.encode() + b" ")
    yield refused(stage.post(event, headers=other), "signed with the right secret for other bytes")
    zeros = {SIGNATURE_HEADER: "0" * 64}
    yield refused(stage.post(event, headers=zeros), "zeros")
    yield refused(stage.post(event, headers={SIGNATURE_HEADER: "not a digest"}), "no digest")


@scenario(
    "signature-missing",
    title="no signature",
    right="401 or 403; no effect",
    why="an unsigned event can be from anyone who knows the URL",
)
def missing(stage: Stage) -> Iterator[Check]:
    event = _unwanted(stage)
    yield refused(stage.post_unsigned(event), "without the header")
    yield refused(stage.post(event, headers={SIGNATURE_HEADER: ""}), "with an empty header")


@scenario(
    "signature-truncated",
    title="the first part of the right signature",
    right="401 or 403; no effect",
    why="a comparison of only the digits that are there takes a short value, which can be guessed",
)
def truncated(stage: Stage) -> Iterator[Check]:
    event = _unwanted(stage)
    whole = stage.signature(event.encode())[SIGNATURE_HEADER]
    for length in (63, 32, 2):
        headers = {SIGNATURE_HEADER: whole[:length]}
        yield refused(stage.post(event, headers=headers), f"{length} of 64 digits")


@scenario(
    "signature-foreign",
    title="a signature made with another secret",
    right="401 or 403; no effect",
    why="each webhook has a secret of its own",
)
def foreign(stage: Stage) -> Iterator[Check]:
    event = _unwanted(stage)
    yield refused(stage.post(event, secret=secrets.token_hex(32)), "signed with another secret")


@scenario(
    "secret-rotated",
    title="the previous secret, while secrets are being changed",
    right="2xx with both; one effect each",
    why="secrets cannot change on both sides in the same moment: both must work for a while",
)
def rotated(stage: Stage) -> Iterator[Check]:
    previous = stage.setting.previous_secret
    if previous is None:
        raise Skip("needs a second secret that the receiver accepts: --previous-secret S")
    for what, secret in (("the present secret", None), ("the previous secret", previous)):
        event = stage.once(stage.event())
        yield accepted(stage.post(event, secret=secret), what)


@scenario(
    "body-reserialised",
    title="JSON that no library would write like that",
    right="2xx for the bytes that were signed; 401 or 403 for other bytes",
    why="the signature is of the raw bytes: a receiver that parses first and signs what a library "
    "makes of it refuses honest events and accepts changed ones",
)
def reserialised(stage: Stage) -> Iterator[Check]:
    event = _unwanted(stage)
    honest = stage.once(stage.event("né 👋"))
    odd = json.dumps(honest.payload(), indent=3, ensure_ascii=True, separators=(" ,", " : "))
    yield accepted(
        stage.post(odd.encode() + b"\r\n"), "odd spaces and escapes, signed as they are"
    )
    body = json.dumps(event.payload(), separators=(",", ":")).encode()
    headers = stage.signature(event.encode())
    yield refused(stage.post(body, headers=headers), "the same JSON in other bytes than signed")


def _unwanted(stage: Stage) -> Event:
    """Make an event that must not be accepted."""
    if stage.setting.target.secret is None:
        raise Skip("needs the signing secret of the receiver: --secret S")
    return stage.never(stage.event())


SIGNATURES = (bad, missing, truncated, foreign, rotated, reserialised)
