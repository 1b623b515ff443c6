"""All pages of the console."""

from __future__ import annotations

from flask import Blueprint

from relay.console import attention, destinations, pages, people, routes, settings


def blueprint() -> Blueprint:
    """Make the console of one application."""
    made = pages.blueprint()
    for each in (attention, destinations, routes, settings, people):
        each.add(made)
    return made
