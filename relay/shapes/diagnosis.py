"""Why a signature did not match, as JSON and in words."""

from __future__ import annotations

from collections.abc import Iterator

from typing_extensions import TypedDict

from relay.rules.diagnose import Diagnosis, Match
from relay.shapes.times import ShowTime, full_time
from relay.shapes.words import count
from relay.store.values import Request


class MatchJson(TypedDict):
    """A signature of the request that a secret explains."""

    place: str
    secret: str
    covers: str
    amend: str | None
    yaml: str | None
    hash: str
    recommended: bool
    open: bool


class DiagnosisJson(TypedDict):
    """What was found about the signatures of a refused request, the best first."""

    request_id: str
    matches: list[MatchJson]
    places: list[str]
    secrets: int
    contents: int
    says: list[str]


def diagnosis_json(
    request: Request, found: Diagnosis, *, show_time: ShowTime = full_time
) -> DiagnosisJson:
    """Return what a diagnosis came to."""
    return {
        "request_id": request.id,
        "matches": [match_json(each) for each in found.matches],
        "places": list(found.places),
        "secrets": found.secrets,
        "contents": found.contents,
        "says": list(told(request, found, show_time=show_time)),
    }


def match_json(match: Match) -> MatchJson:
    return {
        "place": match.place,
        "secret": match.secret,
        "covers": match.covers,
        "amend": match.amend or None,
        "yaml": match.yaml or None,
        "hash": match.hash,
        "recommended": match.is_recommended,
        "open": match.is_open,
    }


def recommended(found: Diagnosis) -> Match | None:
    """Return the best match that the endpoint can be made to accept."""
    return next((match for match in found.matches if match.is_recommended), None)


def told(request: Request, found: Diagnosis, *, show_time: ShowTime = full_time) -> Iterator[str]:
    """Say what a diagnosis came to, and what to do."""
    yield f"{request.method} {request.endpoint} at {show_time(request.at)}"
    yield f"refused with {request.status}: {request.reason}"
    yield ""
    best = recommended(found)
    if best is not None:
        yield from _recommended(request, best)
    elif found.matches:
        yield from _not_recommended(found.matches[0])
    else:
        yield from _unexplained(request, found)


def _recommended(request: Request, best: Match) -> Iterator[str]:
    yield f"The signature in {best.place} is of {best.covers}, made with {best.secret}."
    if best.amend:
        yield f"The secret has to be written {best.amend}."
    if best.yaml:
        yield "Write at this endpoint:"
        yield f"    {best.yaml}"
    if not (best.amend or best.yaml):
        yield "Put that secret under `signing_secrets` of this endpoint, if it is not there yet."
    yield "Then let the relay take it, and let in what was refused:"
    yield "    gofax-relay reload"
    yield f"    gofax-relay requests admit --id {request.id}"


def _not_recommended(match: Match) -> Iterator[str]:
    made = f"The signature in {match.place} is of {match.covers}, made with {match.secret}"
    if match.is_open:
        yield f"{made}."
        yield "What the message says is not signed: whoever saw one such request can put any text"
        yield "under its signature. The relay does not take this; have the sender sign the body."
        return
    by = "" if match.hash == "sha256" else f", by HMAC with {match.hash}"
    yield f"{made}{by}."
    yield "`signature:` has no words for that. Please report what the sender is."


def _unexplained(request: Request, found: Diagnosis) -> Iterator[str]:
    if not found.places:
        yield "Nothing in this request looks like a signature."
        yield "Set a Signing Secret in GoFax's portal, at the profile of this webhook."
        return
    secrets = count(found.secrets, "secret", "secrets")
    yield f"No secret explains the signature in {', '.join(found.places)}."
    yield f"Tried {secrets} over {count(found.contents, 'content', 'contents')}. Possible causes:"
    yield "- another secret: look in GoFax's portal, and try it with --secret-from ENV"
    if not request.whole:
        yield "- the body was not kept whole, so that nothing can match"
    else:
        yield "- something between GoFax and here that rewrites bodies: a proxy, a filter"
