"""``gofax-sender``: parse, build, call, print, exit code."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from sender import options, report
from sender.attempt import Attempt, Target, attempt
from sender.errors import SenderError
from sender.event import Event, new_message_id
from sender.options import target_options
from sender.payload import Payload, renewed
from sender.replay import paced, read

SAMPLES = Path(__file__).parent / "samples"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Play GoFax: sign SMS events and post them to a webhook endpoint.

    Exit code: 0 if everything was answered 2xx, 1 if not, 2 if the command could not be understood
    and nothing was sent.

    \b
    Examples:
      export GOFAX_SIGNING_SECRET=…
      gofax-sender send --url http://127.0.0.1:8080/webhooks/gofax --body "Hello"
      gofax-sender test --url http://127.0.0.1:8080/webhooks/gofax
      gofax-sender replay captured/ --url http://127.0.0.1:8080/webhooks/gofax
      gofax-sender samples
    """
    for stream in (sys.stdout, sys.stderr):
        # An answer that the terminal's encoding cannot show must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@main.command()
@target_options
@click.option("--event", "type", type=options.text, metavar="T", help="SMS_REPLY, SMS_RECEIVED, …")
@click.option("--from", "sender", type=options.text, metavar="N", help="The customer's number.")
@click.option("--to", "recipient", type=options.text, metavar="N", help="Our number.")
@click.option("--body", type=options.text, metavar="TEXT", help="The text of the SMS.")
@click.option("--no-body", is_flag=True, help="Without text, as with Include Message body off.")
@click.option("--message-id", type=options.text, metavar="ID", help="Random if left out.")
@click.option("--direction", type=options.text, metavar="D", help="Follows --event if left out.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True)
def send(
    *,
    url: str | None,
    secret: str | None,
    timeout: float,
    as_json: bool,
    no_body: bool,
    count: int,
    **fields: str | None,
) -> None:
    """Send an event like GoFax's example, changed by the options.

    With --count and --message-id every event has the same id: duplicates, as GoFax's Resend makes
    them.

    \b
    Examples:
      gofax-sender send --url http://127.0.0.1:8080/webhooks/gofax --secret S
      gofax-sender send --url … --event SMS_RECEIVED --from +61411111111 --body "Are you open?"
      gofax-sender send --url … --message-id abc123 --count 2
      gofax-sender send --url … --no-body --json
    """
    if no_body and fields["body"] is not None:
        raise click.UsageError("--body and --no-body exclude each other: leave one out")
    target = Target(url=_required(url), secret=secret, timeout=timeout)
    given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if no_body:
        given["body"] = None
    payloads = (_made(Event(**given)) for _ in range(count))
    _warn_if_unsigned(target)
    tally = _post_all(payloads, target, as_json=as_json)
    _finish(tally, summary=count > 1)


@main.command()
@target_options
def test(*, url: str | None, secret: str | None, timeout: float, as_json: bool) -> None:
    """Simulate a delivery, as the Test button of GoFax's portal does.

    The endpoint has passed if it answered 2xx.

    \b
    Example:
      gofax-sender test --url http://127.0.0.1:8080/webhooks/gofax --secret S
    """
    target = Target(url=_required(url), secret=secret, timeout=timeout)
    event = Event(message_id=f"test-{new_message_id()}", body="This is a test from gofax-sender")
    _warn_if_unsigned(target)
    tally = _post_all([_made(event)], target, as_json=as_json)
    if not as_json:
        click.echo("passed" if tally.is_success else "failed")
    _finish(tally, summary=False)


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH…")
@target_options
@click.option("--form-url", type=options.url, metavar="URL", help="For forms; else --url.")
@click.option("--basic", type=options.credentials, metavar="USER:PW", help="Basic auth of forms.")
@click.option("--keep-ids/--renew-ids", default=True, help="Byte for byte (default), or new ids.")
@click.option("--rate", type=options.rate, metavar="N/s", help="At most so many a second.")
@click.option("--dry-run", is_flag=True, help="Read everything, say what would be sent.")
def replay(
    *,
    paths: tuple[Path, ...],
    url: str | None,
    secret: str | None,
    timeout: float,
    as_json: bool,
    form_url: str | None,
    basic: str | None,
    keep_ids: bool,
    rate: float | None,
    dry_run: bool,
) -> None:
    """Send captured payloads again, from files and folders.

    .json is a payload, .jsonl one a line, .form legacy form data. JSON is signed, forms get Basic
    auth. Folders are read sorted by name. Everything is read before anything is sent.

    \b
    Examples:
      gofax-sender replay captured/ --url http://127.0.0.1:8080/webhooks/gofax --secret S
      gofax-sender replay day.jsonl --url … --secret S --renew-ids --rate 5/s
      gofax-sender replay captured/ --dry-run
      gofax-sender replay "$(gofax-sender samples)" --url … --secret S
          --form-url http://127.0.0.1:8080/webhooks/gofax/status --basic gofax:password
    """
    payloads = _read(paths)
    if not keep_ids:
        payloads = [renewed(each) for each in payloads]
    target = Target(
        url=(url or "") if dry_run else _required(url),
        form_url=form_url,
        secret=secret,
        basic=basic,
        timeout=timeout,
    )
    if dry_run:
        _print_plan(payloads, target)
        return
    _warn_of_missing_credentials(payloads, target)
    tally = _post_all(paced(payloads, per_second=rate), target, as_json=as_json)
    _finish(tally, summary=True)


@main.command()
def samples() -> None:
    """Print the folder of sample payloads that come with gofax-sender.

    \b
    Examples:
      ls "$(gofax-sender samples)"
      gofax-sender replay "$(gofax-sender samples)"/*.json --url … --secret S
    """
    click.echo(SAMPLES)


def _required(url: str | None) -> str:
    if url is None:
        example = "--url http://127.0.0.1:8080/webhooks/gofax"
        raise click.UsageError(f"no endpoint to post to: give its URL, like {example}")
    return url


def _made(event: Event) -> Payload:
    return Payload(body=event.encode(), message_id=str(event.message_id))


def _read(paths: Iterable[Path]) -> list[Payload]:
    try:
        return read(paths)
    except SenderError as error:
        raise click.UsageError(f"nothing was sent:\n{error}") from error


def _warn_if_unsigned(target: Target) -> None:
    if target.secret is None:
        _note("no --secret and no GOFAX_SIGNING_SECRET: sending unsigned")


def _warn_of_missing_credentials(payloads: Iterable[Payload], target: Target) -> None:
    kinds = {each.kind for each in payloads}
    if "json" in kinds:
        _warn_if_unsigned(target)
    if "form" in kinds and target.basic is None:
        _note("no --basic: sending forms without Basic auth")


def _post_all(payloads: Iterable[Payload], target: Target, *, as_json: bool) -> report.Tally:
    tally = report.Tally()
    for payload in payloads:
        made = attempt(payload, target)
        tally.add(made)
        _print_attempt(made, as_json=as_json)
    return tally


def _print_attempt(made: Attempt, *, as_json: bool) -> None:
    if as_json:
        click.echo(report.as_json(made))
    elif made.answer is not None:
        click.echo(report.line(made.payload, made.answer))
    if made.error is not None:
        _note(f"error: {report.label_of(made.payload)}: {made.error}")


def _print_plan(payloads: Sequence[Payload], target: Target) -> None:
    for payload in payloads:
        click.echo(report.plan(payload, target))
    click.echo(f"{len(payloads)} would be sent")


def _finish(tally: report.Tally, *, summary: bool) -> None:
    for hint in tally.hints():
        _note(hint)
    if summary:
        _note(tally.summary())
    if not tally.is_success:
        raise click.exceptions.Exit(1)


def _note(text: str) -> None:
    click.echo(text, err=True)
