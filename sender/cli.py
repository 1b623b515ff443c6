"""``gofax-sender``: all commands, and how they fail."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from sender.commands.load import load
from sender.commands.log import log, resend
from sender.commands.replay import replay, samples
from sender.commands.scenario import scenario
from sender.commands.send import send, test
from sender.commands.webhooks import webhooks
from sender.errors import SenderError
from sender.report import clean


class _Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SenderError as error:
            raise click.ClickException(clean(str(error))) from error


@click.version_option(package_name="gofax-relay", prog_name="gofax-sender")
@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Play GoFax: sign SMS events and post them to a webhook endpoint.

    Exit code: 0 if everything was answered 2xx, 1 if not, 2 if the command made no sense and
    nothing was sent.

    \b
    Examples:
      export GOFAX_SIGNING_SECRET=…
      gofax-sender send --url http://127.0.0.1:8080/webhooks/gofax --body "Hello"
      gofax-sender webhooks add front-desk --url http://127.0.0.1:8080/webhooks/gofax
      gofax-sender test front-desk
      gofax-sender log
      gofax-sender scenario run --all --url http://127.0.0.1:8080/webhooks/gofax
    """
    for stream in (sys.stdout, sys.stderr):
        # An answer that the terminal's encoding cannot show must not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


for _command in (send, test, webhooks, log, resend, replay, samples, scenario, load):
    main.add_command(_command)
