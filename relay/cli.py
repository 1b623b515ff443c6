"""The command ``gofax-relay``: its commands, and how they fail."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module

import click
import click.shell_completion

from relay.commands.groups import Group

#: The command and the file in relay/commands/ that has it, in the order of the help.
COMMANDS = {
    "demo": "demo",
    "serve": "serve", "web": "serve", "work": "serve", "reload": "serve",
    "sandbox": "sandbox",
    "check": "check",
    "secrets": "secrets",
    "connectors": "connectors",
    "events": "events", "explain": "inspect", "conversation": "inspect", "nodes": "inspect",
    "requests": "requests",
    "doctor": "doctor", "destinations": "destinations", "send-test": "send_test",
    "problems": "problems", "alerts": "problems",
    "dead": "recover", "resend": "recover", "replay": "recover", "settle": "recover",
    "pause": "recover", "resume": "recover", "undo": "recover",
    "prune": "maintain", "erase": "maintain", "export": "maintain", "migrate": "maintain",
    "backup": "backup", "restore": "backup",
    "users": "users", "tokens": "users",
    "archive": "archive",
    "migrate-store": "migrate_store",
}  # fmt: skip


class _Commands(Group):
    """Imports a command when it is called: all of them together take longer than most need."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        with _for_good():
            module = import_module(f"relay.commands.{COMMANDS[name]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that *args* name, or say which name comes close."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], COMMANDS, n=1)
            if not near:
                raise
            raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from error

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Propose commands by their names: to import them all for their help takes seconds."""
        items = [
            click.shell_completion.CompletionItem(name)
            for name in COMMANDS
            if name.startswith(incomplete)
        ]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; a store that is away is one line, not a stack trace."""
        with _for_good():
            _import_structlog()
            store = import_module("relay.store.database")
        try:
            return super().invoke(ctx)
        except store.StoreUnavailable as error:
            raise click.ClickException(f"the store cannot be used: {error}") from error


def _import_structlog() -> None:
    """Keep structlog from importing rich, for a look of lines that is not ours.

    Rich is a tenth of what ``serve`` would import, which prints no tables.
    """
    if not {"rich", "structlog"} & sys.modules.keys():
        sys.modules["rich"] = None  # type: ignore[assignment]  # so Python marks what is not there
        import_module("structlog")
        del sys.modules["rich"]


@contextmanager
def _for_good() -> Iterator[None]:
    """Let the collector pass over what is imported inside, now and when the process ends.

    It finds nothing there, and took a fifth of the time of a short command.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="gofax-relay")
def cli() -> None:
    """Receive GoFax SMS events and deliver them to HubSpot, Zendesk and Microsoft Teams.

    \b
    Try it:            gofax-relay demo
    Check a config:    gofax-relay check --config config.yaml
    Run it:            gofax-relay serve --config config.yaml
    What came in:      gofax-relay events
    Why (not):         gofax-relay explain MESSAGE_ID
    What stopped:      gofax-relay dead --group
    For the console:   gofax-relay users add NAME --role admin
    """


if __name__ == "__main__":
    cli()
