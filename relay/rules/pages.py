"""Pages as others link to them: the console's, and those that say how to mend things. Pure."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from relay.rules.advice import ADVICE
from relay.rules.kinds import Kind

#: Where the console begins, below its address.
CONSOLE = "/console"
#: Where people read the pages of documentation that files of the repository are.
REPOSITORY = "https://github.com/gofax-relay/gofax-relay/blob/main"


def event_page(id: str) -> str:
    """Return the path of the page that shows an event."""
    return f"{CONSOLE}/events/{quote(id, safe='')}"


def problem_page(kind: Kind, subject: str) -> str:
    """Return the path of the page where a problem is mended, or else the start page."""
    match ADVICE[kind].page:
        case "destination" if subject:
            return f"{CONSOLE}/destinations/{quote(subject, safe='')}"
        case "stopped":
            return f"{CONSOLE}/stopped?{urlencode({'destination': subject})}"
        case "requests":
            return f"{CONSOLE}/requests?standing=refused"
        case "settings":
            return f"{CONSOLE}/settings"
    return f"{CONSOLE}/"


def mending_page(kind: Kind) -> str:
    """Return the section of the documentation that says how a kind of problem is mended."""
    return f"docs/mending.md#{kind}"
