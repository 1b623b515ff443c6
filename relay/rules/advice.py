"""Problems in plain words: what is wrong, what that means, what to do. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from relay.rules.kinds import Kind


@dataclass(frozen=True, slots=True)
class Advice:
    """What a kind of problem means; ``{}`` stands for the subject."""

    title: str
    #: What it means for customers and messages.
    means: str
    #: What to do, and who can.
    do: str
    #: The page where it is done, and what its button says; none: it is done elsewhere.
    page: str = ""
    button: str = ""


_WAITS = "Messages for it wait in their order. Nothing is lost."

ADVICE: Mapping[Kind, Advice] = {
    Kind.UNAUTHORIZED: Advice(
        "{} refuses our credentials",
        _WAITS,
        "Somebody with an account there has to renew the token or grant the scope; write it into "
        "the config and reload. Then resume it here.",
        "destination",
        "Look at {}",
    ),
    Kind.FAILING: Advice(
        "{} does not work",
        f"It fails again and again. {_WAITS} The relay keeps trying.",
        "Look at the status page of that system, and at what its last error says.",
        "destination",
        "Look at {}",
    ),
    Kind.PAUSED: Advice(
        "{} is paused",
        _WAITS,
        "A person paused it, or it asked us to wait. Resume it when it is time.",
        "destination",
        "Resume {}",
    ),
    Kind.DEAD: Advice(
        "Messages did not arrive at {}",
        "They were tried as often as the config says, or were refused. Nobody there sees them.",
        "Read the reasons, mend the cause, then resend them as a group.",
        "stopped",
        "See and resend them",
    ),
    Kind.HELD: Advice(
        "Messages to {} need your decision",
        "Nobody knows whether they arrived: a second try could make a second ticket or card.",
        "Look there whether they arrived, then settle them as arrived, or send them again.",
        "stopped",
        "Decide",
    ),
    Kind.BACKLOG: Advice(
        "{} is behind",
        "Messages arrive there late.",
        "Either it is slower than messages come in, or its worker hangs. Is its rate too low?",
        "destination",
        "Look at {}",
    ),
    Kind.NO_WORKER: Advice(
        "Nothing is being delivered",
        "Messages still come in and are kept, but no worker runs.",
        "Start gofax-relay serve or gofax-relay work on the server.",
        "settings",
        "See what runs",
    ),
    Kind.SILENT_NODE: Advice(
        "{} is silent",
        "A process stopped without saying so. Others take over its work within 30 s.",
        "Look at its machine, and start it again.",
        "settings",
        "See what runs",
    ),
    Kind.SIGNATURES: Advice(
        "Messages are refused at {}",
        "Their signature does not match. They are kept and can be let in later.",
        "Probably the secret in the config is not the one in GoFax. Diagnose one of them.",
        "requests",
        "Diagnose them",
    ),
    Kind.UNKNOWN_PATH: Advice(
        "Messages come to {}, which is no endpoint",
        "They are refused, and kept for a while.",
        "Correct the URL of the webhook in GoFax, or add the endpoint to the config.",
        "requests",
        "See them",
    ),
    Kind.CONFIG: Advice(
        "The config on {} was changed, but is not in use",
        "What runs still does what the earlier one said.",
        "Check it and take it: gofax-relay check --diff, then gofax-relay reload.",
        "settings",
        "See what runs",
    ),
    Kind.STORE: Advice(
        "Messages cannot be accepted",
        "GoFax gets the answer 503. It does not send again by itself.",
        "Make room on the disk, or bring the database back.",
    ),
    Kind.ALERTS: Advice(
        "Alerts to {} cannot be sent",
        "Whoever relies on them hears of nothing.",
        "Check its address in the config, and try it: gofax-relay alerts test.",
    ),
    Kind.CERTIFICATE: Advice(
        "The certificate of {} is not well",
        "GoFax cannot post once it is not trusted.",
        "Renew it, and find out why that does not happen by itself.",
    ),
    Kind.OLD_SECRET: Advice(
        "{} is signed with an old secret, or one that ends",
        "All works, until that secret ends or is removed from the config.",
        "Set another one in GoFax, and remove the old one a day later.",
    ),
    Kind.SILENCE: Advice(
        "No message came for long",
        "Perhaps nobody wrote. Perhaps GoFax does not reach us.",
        "Is the webhook in GoFax active, and is its URL right?",
        "requests",
        "See what was refused",
    ),
}


def title(kind: Kind, subject: str) -> str:
    """Return what is wrong in a few words."""
    return ADVICE[kind].title.format(f"“{subject}”" if subject else "")
