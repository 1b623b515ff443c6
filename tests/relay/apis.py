"""The API on a well-filled store, and programs that call it: for tests of all its calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import consoles
from consoles import Console, Filled
from werkzeug.test import TestResponse

from relay.rules.access import Scope, scopes_of
from relay.rules.kinds import Kind
from relay.rules.problems import Finding
from relay.store import Database
from relay.store.actions import Act
from relay.store.problems import Problems

PREFIX = "/api/v1"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the API."""

    status: int
    json: Any
    headers: Any

    @classmethod
    def of(cls, answer: TestResponse) -> Answer:
        return cls(answer.status_code, answer.get_json(), answer.headers)

    @property
    def items(self) -> list[Any]:
        assert self.status == 200, self.json
        found: list[Any] = self.json["items"]
        return found

    @property
    def fields(self) -> list[str]:
        """Return the fields that a problem says are at fault."""
        return [each["field"] for each in self.json.get("errors", ())]


class Program:
    """A program that calls the API with a token, or without."""

    def __init__(self, console: Console, token: str | None) -> None:
        self.client = console.app.test_client()
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def get(self, path: str, **query: Any) -> Answer:
        return self.call("GET", path, **({"query_string": query} if query else {}))

    def post(self, path: str, **body: Any) -> Answer:
        return self.call("POST", path, json=body)

    def call(self, method: str, path: str, **options: Any) -> Answer:
        headers = {**self.headers, **options.pop("headers", {})}
        url = path if path.startswith(PREFIX) else f"{PREFIX}{path}"
        return Answer.of(self.client.open(url, method=method, headers=headers, **options))


@dataclass(frozen=True, slots=True)
class Api:
    """The real application on a real store, with what is in it."""

    console: Console
    filled: Filled
    _tokens: dict[str, str] = field(default_factory=dict)

    def program(self, *scopes: Scope, expires_at: datetime | None = None) -> Program:
        """Return a program with a token of these scopes; without any, it has none."""
        if not scopes:
            return Program(self.console, None)
        name = "-".join([*scopes, *(["expired"] if expires_at else [])])
        if name not in self._tokens:
            act = Act(who="test", why=None, at=self.console.now)
            tokens = self.console.services.tokens
            made = tokens.add(name, scopes_of(scopes), act, expires_at=expires_at)
            assert made is not None
            self._tokens[name] = made[1]
        return Program(self.console, self._tokens[name])

    @property
    def reader(self) -> Program:
        return self.program(Scope.READ)

    @property
    def operator(self) -> Program:
        return self.program(Scope.OPERATE)

    @property
    def admin(self) -> Program:
        return self.program(*Scope)

    def open_problem(self) -> str:
        """Open a problem, and return its id."""
        problems = self.console.services.problems
        finding = Finding(kind=Kind.PAUSED, subject="crm", said="crm is paused", number=3)
        problems.judge([finding], channels=lambda problem, change: [])
        opened = problems.unresolved()
        if not opened:  # it has to last for a while first
            later = self.console.now + timedelta(days=1)
            Problems(self.console.database, clock=lambda: later).judge(
                [finding], channels=lambda problem, change: []
            )
            opened = problems.unresolved()
        return opened[0].id

    def last_action(self) -> Any:
        """Return the newest entry of the audit log that is not about tokens."""
        entries = self.admin.get("/audit", limit=20).items
        return next(each for each in entries if not each["what"].endswith(" token"))


@contextmanager
def api(
    folder: Path, database: Database, *, mask: bool = False, filled: consoles.Filled | None = None
) -> Iterator[Api]:
    """Make the application on the store *database*, and fill that if it is not *filled*."""
    with consoles.console(folder, database, mask=mask) as console:
        yield Api(console, filled or consoles.fill(console))
