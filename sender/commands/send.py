"""``send`` and ``test``: one event made here, to one URL or to the profiles that want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from click.core import ParameterSource

from sender import options, templates
from sender.attempt import Retries, Target
from sender.errors import SenderError
from sender.event import STATUS, Event, Status, new_message_id
from sender.options import Aim
from sender.outbox import Outbox, note
from sender.payload import Payload, parse_form
from sender.profiles import Profile, Profiles
from sender.store import Store

EXAMPLE_URL = "--url http://127.0.0.1:8080/webhooks/gofax"


@click.command()
@options.target_options
@click.option("--event", "type", type=options.text, metavar="T", help="SMS_REPLY, SMS_RECEIVED, …")
@click.option("--from", "sender", type=options.text, metavar="N", help="The customer's number.")
@click.option("--to", "recipient", type=options.text, metavar="N", help="Our number.")
@click.option("--body", type=options.text, metavar="TEXT", help="The text of the SMS.")
@click.option("--no-body", is_flag=True, help="Without text, as with Include Message body off.")
@click.option("--message-id", type=options.text, metavar="ID", help="Random if left out.")
@click.option("--direction", type=options.text, metavar="D", help="Follows --event if left out.")
@click.option("--template", metavar="NAME", help="Start from a sample, or from a .json file.")
@click.option("--form", is_flag=True, help="The legacy send status: form data, Basic auth.")
@click.option("--undelivered", is_flag=True, help="With --form: the SMS was not delivered.")
@click.option("--basic", type=options.credentials, metavar="USER:PW", help="Basic auth of --form.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True)
@options.retry_options
@options.json_option
@options.log_option
@click.pass_context
def send(
    context: click.Context,
    /,
    *,
    aim: Aim,
    store: Store,
    retries: Retries,
    as_json: bool,
    no_body: bool,
    template: str | None,
    form: bool,
    undelivered: bool,
    basic: str | None,
    count: int,
    **fields: str | None,
) -> None:
    """Send an event like GoFax's example, changed by the options.

    Without --url it goes to every active webhook profile that subscribes to it, with the profile's
    secret. With --count and --message-id every event has the same id: duplicates, as GoFax's
    Resend makes them. With --form, --to is the customer, --body the message.

    \b
    Examples:
      gofax-sender send --url http://127.0.0.1:8080/webhooks/gofax --secret S
      gofax-sender send --event SMS_RECEIVED --from +61411111111 --body "Are you open?"
      gofax-sender send --url … --message-id abc123 --count 2
      gofax-sender send --template stop --retries 3
      gofax-sender send --form --undelivered --url …/status --basic gofax:password
    """
    if no_body and fields["body"] is not None:
        raise click.UsageError("--body and --no-body exclude each other: leave one out")
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if no_body:
        given["body"] = None
    make = _maker(given, template=template, form=form, undelivered=undelivered)
    first = make()
    targets = _targets(context, aim, store, first, basic=basic)
    outbox = Outbox(store, retries=retries, as_json=as_json)
    outbox.post_all(_letters(make, first, targets, count=count))
    outbox.finish(summary=count * len(targets) > 1)


@click.command()
@click.argument("name", required=False)
@options.target_options
@options.json_option
@options.log_option
def test(*, name: str | None, aim: Aim, store: Store, as_json: bool) -> None:
    """Simulate a delivery, as the Test button of GoFax's portal does.

    NAME is a webhook profile; it may be inactive. The endpoint has passed if it answered 2xx.

    \b
    Examples:
      gofax-sender test front-desk
      gofax-sender test --url http://127.0.0.1:8080/webhooks/gofax --secret S
    """
    if (name is None) == (aim.url is None):
        raise click.UsageError(f"give the name of a webhook profile, or {EXAMPLE_URL}")
    outbox = Outbox(store, retries=Retries(), as_json=as_json)
    if name is None:
        warn_if_unsigned(aim.target())
        outbox.post(_test_payload("SMS_REPLY"), aim.target())
    else:
        profile = _profile(store, name)
        payload = _test_payload(profile.events[0])
        outbox.post(profile.trimmed(payload), aim.target_of(profile))
    if not as_json:
        click.echo("passed" if outbox.tally.is_success else "failed")
    outbox.finish(summary=False)


def warn_if_unsigned(target: Target) -> None:
    """Note that nothing will be signed, which is rarely meant."""
    if target.secret is None:
        note("no --secret and no GOFAX_SIGNING_SECRET: sending unsigned")


def no_endpoint(event_type: str | None) -> click.UsageError:
    """Return the error for an event without a receiver."""
    return click.UsageError(
        f"no endpoint to post to: give its URL, like {EXAMPLE_URL}, or add an active webhook "
        f"profile for {event_type or 'its event type'}: gofax-sender webhooks add --help"
    )


Letters = Iterator[tuple[Payload, Target]]


def _letters(
    make: Callable[[], Payload],
    first: Payload,
    targets: Sequence[tuple[Profile | None, Target]],
    *,
    count: int,
) -> Letters:
    for number in range(count):
        payload = make() if number else first
        for profile, target in targets:
            yield (profile.trimmed(payload) if profile else payload), target


def _targets(
    context: click.Context, aim: Aim, store: Store, payload: Payload, *, basic: str | None
) -> list[tuple[Profile | None, Target]]:
    if aim.url is not None:
        target = aim.target(basic=basic)
        warn_of_missing_credentials({payload.kind}, target)
        return [(None, target)]
    for option in ("secret", "basic"):
        if context.get_parameter_source(option) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{option} belongs to --url: profiles have their own")
    wanting = Profiles(store).wanting(payload)
    if not wanting:
        raise no_endpoint(payload.event_type)
    return [(profile, aim.target_of(profile)) for profile in wanting]


def warn_of_missing_credentials(kinds: set[str], target: Target) -> None:
    """Note credentials that GoFax would use and *target* lacks."""
    if "json" in kinds:
        warn_if_unsigned(target)
    if "form" in kinds and target.basic is None:
        note("no --basic: sending forms without Basic auth")


def _maker(
    given: dict[str, Any], *, template: str | None, form: bool, undelivered: bool
) -> Callable[[], Payload]:
    if undelivered and not form:
        raise click.UsageError("--undelivered belongs to --form")
    if form:
        if template is not None:
            raise click.UsageError("--form and --template exclude each other: leave one out")
        if given.get("body", "") is None:
            raise click.UsageError("--no-body: the legacy form always has a Message")
        return lambda: _form(given, undelivered=undelivered)
    if template is None:
        return lambda: _made(Event(**given))
    try:
        start = templates.load(template)
        templates.filled(start, given, at=datetime.now(UTC))
    except SenderError as error:
        raise click.UsageError(f"nothing was sent: {error}") from error
    return lambda: templates.filled(start, given, at=datetime.now(UTC))


def _made(event: Event) -> Payload:
    return Payload(body=event.encode(), message_id=str(event.message_id), event_type=event.type)


def _form(given: dict[str, Any], *, undelivered: bool) -> Payload:
    foreign = sorted(given.keys() - {"message_id", "recipient", "body"})
    if foreign:
        name = {"type": "event", "sender": "from"}.get(foreign[0], foreign[0])
        raise click.UsageError(f"--{name}: the legacy form has no such field")
    fields = {"message" if name == "body" else name: value for name, value in given.items()}
    return parse_form(Status(**fields, success=not undelivered).encode())


def _test_payload(event_type: str) -> Payload:
    # Receivers can recognise it.
    message_id = f"test-{new_message_id()}"
    if event_type == STATUS:
        return parse_form(Status(message_id=message_id).encode())
    text = "This is a test from gofax-sender"
    return _made(Event(type=event_type, message_id=message_id, body=text))


def _profile(store: Store, name: str) -> Profile:
    try:
        profile = Profiles(store).get(name)
    except SenderError as error:
        raise click.UsageError(str(error)) from error
    if not profile.is_active:
        note(f"{name} is inactive: this test is sent anyway")
    return profile
