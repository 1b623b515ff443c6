"""What a suite is told about its connector: the hooks and declarations of every check."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

import pytest

from connectors.base import Connector, DeliveryError
from connectors.testing.bench import Bench, StandIn

CHECK = re.compile(r"test_(C\d\d_\w+)")


class Hooks:
    """The part of a suite that its author writes."""

    #: The class to check.
    connector: ClassVar[type[Connector[Any]]]
    #: Checks that cannot hold, with the reason: ``{"C03": "…"}`` for a whole id,
    #: ``{"C07_tls_error": "…"}`` for one check of it.
    exempt: ClassVar[Mapping[str, str]] = {}
    #: False for connectors that speak another protocol; the checks of HTTP then do not apply.
    over_http: ClassVar[bool] = True
    #: Statuses that mean something else in this system than elsewhere.
    verdicts: ClassVar[Mapping[int, type[DeliveryError] | tuple[type[DeliveryError], ...]]] = {}
    #: Parts of paths where tokens are fetched: a refusal there is Unauthorized, whatever it is.
    token_paths: ClassVar[tuple[str, ...]] = ()
    #: True if the system's 2xx decides by itself, whatever its body.
    takes_any_2xx: ClassVar[bool] = False
    #: Option as errors shall name it → options in which its template is :data:`BROKEN`.
    templates: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    #: Seconds that an attempt may take in the checks.
    deadline: ClassVar[float] = 10.0
    #: Source files whose every line is a place to be killed at; only without HTTP. By default
    #: the module of the connector.
    files: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name, reason in cls.exempt.items():
            if not any(_is_of(name, each) for each in dir(cls)):
                raise TypeError(f"{cls.__name__}.exempt: there is no check {name}")
            if len(reason.split()) < 3:
                raise TypeError(f"{cls.__name__}.exempt: say why {name} cannot hold")

    def options(self, url: str) -> Mapping[str, Any]:
        """Return options, as the YAML would have them, for a system that answers at *url*."""
        raise NotImplementedError("say which options reach a system at url")

    def stand_in(self) -> AbstractContextManager[StandIn]:
        """Start what plays the system, fresh and empty, and stop it at the end."""
        raise NotImplementedError("start what plays the system")

    def docs(self) -> str:
        """Return the page that documents the connector: by default its package's README."""
        package = self.connector.__module__.partition(".")[0]
        for entry in entry_points(group="gofax_relay.connectors"):
            if entry.dist and entry.module.partition(".")[0] == package:
                return entry.dist.read_text("METADATA") or ""
        return _readme_above(Path(str(sys.modules[self.connector.__module__].__file__)))

    @contextmanager
    def bench(self, **changes: Any) -> Iterator[Bench]:
        """Start the stand-in, and set the connector to work with it; *changes* are options."""
        with self.stand_in() as stand_in:
            yield Bench(
                self.connector,
                lambda url: {**self.options(url), **changes},
                stand_in,
                over_http=self.over_http,
                deadline=self.deadline,
            )

    @pytest.fixture(autouse=True)
    def _declared(self, request: pytest.FixtureRequest) -> None:
        """Leave out what is declared not to hold."""
        for name, reason in self.exempt.items():
            if _is_of(name, request.node.name):
                pytest.skip(f"exempt: {reason}")


def _is_of(name: str, test: str) -> bool:
    """Say whether *test* is the check *name*, or one of those with that id."""
    found = CHECK.match(test)
    return found is not None and f"{found[1]}_".startswith(f"{name}_")


def _readme_above(path: Path) -> str:
    """Return the README of the project that *path* is part of, if it is not installed."""
    found = [each / "README.md" for each in path.parents if (each / "pyproject.toml").exists()]
    return found[0].read_text(encoding="utf-8") if found and found[0].exists() else ""


def over_http_only(suite: Hooks) -> None:
    """Leave out a check that is about HTTP."""
    if not suite.over_http:
        pytest.skip("not applicable: the connector does not speak HTTP")


class Findings:
    """Collects what is wrong, so that one run names all of it."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def expect(self, held: object, words: str) -> None:
        """Note *words* unless *held* is true."""
        if not held:
            self._found.append(words)

    def report(self) -> None:
        """Fail if anything was noted."""
        if self._found:
            pytest.fail("\n".join(dict.fromkeys(self._found)), pytrace=False)


def told(outcome: object) -> str:
    """Say in words what an attempt came to."""
    if isinstance(outcome, Exception):
        return f"raised {type(outcome).__name__}({outcome})"
    return f"returned {outcome}"
