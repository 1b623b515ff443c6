"""``webhooks``: the profiles of GoFax's portal, My Account → Webhooks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from sender import options, report, tables
from sender.delivery import shown
from sender.outbox import note
from sender.profiles import BOTH, KNOWN_EVENTS, Profile, Profiles
from sender.store import Store


def _events(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(each.strip() for each in value.split(",") if each.strip()))
    if not names:
        raise click.BadParameter("has no event: give one or more, like SMS_REPLY,SMS_RECEIVED")
    return names


def _name(value: str) -> str:
    if not value.strip() or not value.isprintable() or value != value.strip():
        raise click.BadParameter("give a name that can be printed, like front-desk")
    return value


_NAME = click.argument("name", type=_name)
_SECRET = click.option(
    "--secret",
    type=options.secret,
    metavar="S",
    envvar="GOFAX_SIGNING_SECRET",
    show_envvar=True,
    help="Signing secret; without one, nothing is signed.",
)
_EVENTS = click.option(
    "--events", type=_events, metavar="T,…", help="Events it subscribes to; both if left out."
)
_BODY = click.option(
    "--include-message-body/--no-include-message-body",
    default=None,
    help="Whether the text of the SMS is sent (default: it is).",
)
_BASIC = click.option(
    "--basic", type=options.credentials, metavar="USER:PW", help="Basic auth of SMS_STATUS forms."
)


@click.group()
def webhooks() -> None:
    """Keep webhook profiles, as in GoFax's portal: My Account → Webhooks.

    \b
    Example:
      gofax-sender webhooks add front-desk --url http://127.0.0.1:8080/webhooks/gofax --secret S
    """


@webhooks.command()
@_NAME
@click.option("--url", type=options.url, metavar="URL", required=True, help="Where events go.")
@_SECRET
@_EVENTS
@_BODY
@_BASIC
@click.option("--inactive", is_flag=True, help="Add it without deliveries for now.")
@options.store_option
def add(
    *,
    name: str,
    url: str,
    secret: str | None,
    events: tuple[str, ...] | None,
    include_message_body: bool | None,
    basic: str | None,
    inactive: bool,
    store: Store,
) -> None:
    """Add a New Webhook.

    Events are SMS_REPLY and SMS_RECEIVED; SMS_STATUS is the legacy send status, sent as form data.
    Any other name is taken too.

    \b
    Examples:
      gofax-sender webhooks add crm --url https://example.com/hook --secret S --events SMS_REPLY
      gofax-sender webhooks add status --url …/status --events SMS_STATUS --basic gofax:password
    """
    now = datetime.now(UTC)
    profile = Profile(
        name=name,
        url=url,
        events=events or BOTH,
        include_message_body=include_message_body is not False,
        secret=secret,
        basic=basic,
        is_active=not inactive,
        created_at=now,
        updated_at=now,
    )
    _note_oddities(profile)
    Profiles(store).add(profile)
    click.echo(f"added {name}")


@webhooks.command("list")
@options.json_option
@options.store_option
def list_(*, as_json: bool, store: Store) -> None:
    """List the webhook profiles.

    \b
    Example: gofax-sender webhooks list --json
    """
    profiles = Profiles(store).all()
    if not as_json:
        tables.show_profiles(profiles)
        return
    for each in profiles:
        click.echo(json.dumps(_fields(each)))


@webhooks.command()
@_NAME
@options.json_option
@options.store_option
def show(*, name: str, as_json: bool, store: Store) -> None:
    """Show a webhook profile; its secret is never shown.

    \b
    Example: gofax-sender webhooks show front-desk
    """
    profile = Profiles(store).get(name)
    if as_json:
        click.echo(json.dumps(_fields(profile)))
    else:
        tables.show_profile(profile)


@webhooks.command()
@_NAME
@click.option("--url", type=options.url, metavar="URL", help="Where events go.")
@click.option("--secret", type=options.secret, metavar="S", help="A new signing secret.")
@click.option("--no-secret", is_flag=True, help="Stop signing.")
@_EVENTS
@_BODY
@_BASIC
@options.store_option
def edit(*, name: str, no_secret: bool, store: Store, **fields: Any) -> None:
    """Change a webhook profile; what is left out stays.

    \b
    Examples:
      gofax-sender webhooks edit front-desk --events SMS_REPLY,SMS_RECEIVED
      gofax-sender webhooks edit front-desk --no-include-message-body
    """
    changes = {field: value for field, value in fields.items() if value is not None}
    if no_secret:
        if "secret" in changes:
            raise click.UsageError("--secret and --no-secret exclude each other: leave one out")
        changes["secret"] = None
    if not changes:
        raise click.UsageError("nothing to change: give an option, like --url or --events")
    _note_oddities(Profiles(store).edit(name, **changes))
    click.echo(f"changed {name}")


@webhooks.command()
@_NAME
@options.store_option
def pause(*, name: str, store: Store) -> None:
    """Make Inactive: send it nothing until it is resumed.

    \b
    Example: gofax-sender webhooks pause front-desk
    """
    Profiles(store).edit(name, is_active=False)
    click.echo(f"{name} is inactive")


@webhooks.command()
@_NAME
@options.store_option
def resume(*, name: str, store: Store) -> None:
    """Make Active: send it its events again. Those of the time between are not sent later.

    \b
    Example: gofax-sender webhooks resume front-desk
    """
    Profiles(store).edit(name, is_active=True)
    click.echo(f"{name} is active")


@webhooks.command()
@_NAME
@options.store_option
def remove(*, name: str, store: Store) -> None:
    """Forget a webhook profile; its log entries stay.

    \b
    Example: gofax-sender webhooks remove front-desk
    """
    Profiles(store).remove(name)
    click.echo(f"removed {name}")


def _note_oddities(profile: Profile) -> None:
    for each in profile.events:
        if each not in KNOWN_EVENTS:
            note(f"{report.one_line(each)} is not one of {', '.join(KNOWN_EVENTS)}: kept as it is")
    if profile.secret is None and profile.events != ("SMS_STATUS",):
        note("no secret: events of this profile are sent unsigned")


def _fields(profile: Profile) -> dict[str, object]:
    return {
        "name": profile.name,
        "url": shown(profile.url),
        "events": profile.events,
        "include_message_body": profile.include_message_body,
        "has_secret": profile.secret is not None,
        "has_basic": profile.basic is not None,
        "active": profile.is_active,
        "created_at": report.stamp(profile.created_at),
        "updated_at": report.stamp(profile.updated_at),
    }
