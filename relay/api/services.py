"""What the views of the API and of the console work with."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from flask import Flask, current_app

from relay.acts.bulk import Runner
from relay.api.guesses import Guesses
from relay.api.shared import Shared
from relay.config.model import Config
from relay.store import Database, Queries
from relay.store.actions import Actions
from relay.store.people import Tokens, Users
from relay.store.problems import Problems
from relay.store.recover import Recovery

_KEY = "gofax_relay"


@dataclass(frozen=True, slots=True)
class Services:
    """The store and the config of one relay, as its inner listener knows them."""

    config: Config
    database: Database
    #: Answers that all viewers share for some seconds.
    shared: Shared = field(default_factory=Shared)
    #: Wrong passwords by address.
    guesses: Guesses = field(default_factory=Guesses)
    #: Unknown tokens by address.
    unknown_tokens: Guesses = field(default_factory=Guesses)
    #: Acts on many deliveries, which go on after their answer.
    runner: Runner = field(default_factory=Runner)

    @property
    def queries(self) -> Queries:
        return Queries(self.database)

    @property
    def recovery(self) -> Recovery:
        return Recovery(self.database)

    @property
    def problems(self) -> Problems:
        return Problems(self.database)

    @property
    def actions(self) -> Actions:
        return Actions(self.database)

    @property
    def users(self) -> Users:
        return Users(self.database)

    @property
    def tokens(self) -> Tokens:
        return Tokens(self.database)

    def now(self) -> datetime:
        """Return the time by the clock that all nodes share."""
        return self.database.clock()


def install(app: Flask, services: Services) -> None:
    """Let the views of *app* work with *services*."""
    app.extensions[_KEY] = services
    # The secret is in the store, which may be away now: metrics are answered all the same.
    app.secret_key = None


def services() -> Services:
    """Return the services of the application that answers this request."""
    found: Services = current_app.extensions[_KEY]
    return found
