"""``log`` and ``resend``: GoFax's Webhook Log, and the Resend of one of its entries."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from typing import Any

import click

from sender import options, report, tables
from sender.attempt import Retries, Target
from sender.delivery import shown
from sender.log import Entry, Filter, Log
from sender.options import Aim
from sender.outbox import Outbox, note
from sender.profiles import Profiles
from sender.store import Store


@click.group(invoke_without_command=True)
@click.option("--profile", metavar="NAME", help="Only what went through this webhook profile.")
@click.option("--message-id", metavar="ID", help="Only attempts at this message.")
@click.option("--status", type=options.statuses, metavar="N", help="Only this answer: 503, 5xx.")
@click.option("--failed", is_flag=True, help="Only what was not answered 2xx.")
@click.option("--unanswered", is_flag=True, help="Only what was not answered at all.")
@click.option("--since", type=options.moment, metavar="TIME", help="2026-11-24T09:30, or 90m, 7d.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many (table: 50).")
@options.json_option
@options.store_option
@click.pass_context
def log(
    context: click.Context,
    *,
    profile: str | None,
    message_id: str | None,
    status: tuple[int, int] | None,
    failed: bool,
    unanswered: bool,
    since: datetime | None,
    limit: int | None,
    as_json: bool,
    store: Store,
) -> None:
    """List what was sent, oldest first: Open Log in GoFax's portal.

    \b
    Examples:
      gofax-sender log --failed --since 1h
      gofax-sender log --profile front-desk --json
      gofax-sender log show 12
    """
    if context.invoked_subcommand is not None:
        return
    wanted = Filter(
        profile=profile,
        message_id=message_id,
        statuses=status,
        failed=failed,
        unanswered=unanswered,
        since=since,
        limit=limit if limit or as_json else 50,
    )
    entries = Log(store).entries(wanted)
    if not as_json:
        tables.show_entries(entries)
        return
    for each in entries:
        click.echo(json.dumps(_fields(each)))


@log.command("show")
@click.argument("entry_id", type=int, metavar="ID")
@options.json_option
@options.store_option
def show(*, entry_id: int, as_json: bool, store: Store) -> None:
    """Show one attempt with its headers and bodies.

    \b
    Examples:
      gofax-sender log show 12
      gofax-sender log show 12 --json
    """
    entry = Log(store).get(entry_id)
    if as_json:
        click.echo(json.dumps(_fields(entry) | _details(entry)))
    else:
        tables.show_entry(entry)


@click.command()
@click.argument("entry_ids", nargs=-1, required=True, type=int, metavar="ID…")
@options.target_options
@click.option("--basic", type=options.credentials, metavar="USER:PW", help="Basic auth of forms.")
@options.retry_options
@options.json_option
@options.store_option
def resend(
    *,
    entry_ids: tuple[int, ...],
    aim: Aim,
    basic: str | None,
    retries: Retries,
    as_json: bool,
    store: Store,
) -> None:
    """Send log entries again, byte for byte: Actions → Resend in GoFax's portal.

    The messageId stays, so the receiver has to see a duplicate. An entry goes through its webhook
    profile as it is now, or without one to its URL with --secret. --url sends it elsewhere.

    \b
    Examples:
      gofax-sender resend 12
      gofax-sender resend 12 13 --url http://127.0.0.1:8080/webhooks/gofax --secret S
    """
    log, profiles = Log(store), Profiles(store)
    entries = [log.get(each) for each in entry_ids]
    letters = [(each, _target(each, aim, profiles, basic=basic)) for each in entries]
    outbox = Outbox(store, retries=retries, as_json=as_json)
    for entry, target in letters:
        outbox.post(entry.payload, target, resend_of=entry.id)
    outbox.finish(summary=len(letters) > 1)


def _target(entry: Entry, aim: Aim, profiles: Profiles, *, basic: str | None) -> Target:
    profile = profiles.find(entry.profile) if entry.profile and aim.url is None else None
    if profile is not None:
        if not profile.is_active:
            note(f"{profile.name} is inactive: entry {entry.id} is sent anyway")
        return aim.target_of(profile)
    target = replace(aim, url=aim.url or entry.url).target(basic=basic)
    if entry.kind == "json" and target.secret is None:
        note(f"entry {entry.id}: no --secret and no GOFAX_SIGNING_SECRET: sending unsigned")
    return target


def _fields(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "message_id": entry.message_id,
        "url": shown(entry.url),
        "status": entry.status,
        "at": report.stamp(entry.at),
        "profile": entry.profile,
        "event": entry.event_type,
        "try": entry.number,
        "resend_of": entry.resend_of,
        "duration_ms": None if entry.duration_ms is None else round(entry.duration_ms, 1),
        "answer": entry.answer,
        "error": entry.error,
    }


def _details(entry: Entry) -> dict[str, Any]:
    return {
        "headers": entry.headers,
        "body": entry.body.decode("utf-8", "replace"),
        "answer_headers": entry.answer_headers,
    }
