"""All pages of the console."""

from __future__ import annotations

from flask import Blueprint

from relay.console import attention, pages


def blueprint() -> Blueprint:
    """Make the console of one application."""
    made = pages.blueprint()
    attention.add(made)
    return made
