"""Secrets with which GoFax may sign: how to make one that nobody guesses."""

from __future__ import annotations

import base64
import secrets as chance
from typing import Literal

import click

from relay.commands.groups import Group
from relay.rules.signature import fingerprint

#: Bytes of a secret: as many as the digest that it signs with.
LENGTH = 32


@click.group(cls=Group)
def secrets() -> None:
    """Make signing secrets.

    \b
    Example: gofax-relay secrets generate
    """


@secrets.command()
@click.option(
    "--as",
    "form",
    type=click.Choice(["hex", "urlsafe"]),
    default="hex",
    show_default=True,
    help="How it is written; either is safe to paste anywhere.",
)
def generate(form: Literal["hex", "urlsafe"]) -> None:
    """Print a new secret, once: 32 random bytes.

    It is kept nowhere. Enter it in GoFax, and in a file or a variable that the config names. Its
    fingerprint, by which `check` shows it, goes to stderr.

    \b
    Examples: gofax-relay secrets generate
              (umask 077; gofax-relay secrets generate > /etc/gofax-relay/gofax-secret)
    """
    drawn = chance.token_bytes(LENGTH)
    made = drawn.hex() if form == "hex" else _urlsafe(drawn)
    click.echo(made)
    click.echo(f"fingerprint {fingerprint(made)}", err=True)


def _urlsafe(drawn: bytes) -> str:
    return base64.urlsafe_b64encode(drawn).decode().rstrip("=")
