"""All pages of the console."""

from __future__ import annotations

from flask import Blueprint

from relay.console import (
    acts,
    attention,
    conversation,
    destinations,
    event,
    events,
    pages,
    people,
    requests,
    routes,
    search,
    settings,
    stopped,
    try_api,
)

#: The files that have pages.
PARTS = (
    attention, search, conversation, events, event, requests, stopped, acts, destinations, routes,
    settings, people, try_api,
)  # fmt: skip


def blueprint() -> Blueprint:
    """Make the console of one application."""
    made = pages.blueprint()
    for each in PARTS:
        each.add(made)
    return made
