"""Groups of commands: one that lists them in whole sentences, and one that lists by default."""

from __future__ import annotations

import click

#: Longer than the first sentence of any command's help: click would cut it off with an ellipsis.
_WHOLE = 200


class Group(click.Group):
    """Shows the whole first sentence of each command, over several lines if it has to."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, each.get_short_help_str(_WHOLE)) for name, each in found if each]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class ListingGroup(Group):
    """Lists, unless one of the other commands is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = bool(args) and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["list", *args])
