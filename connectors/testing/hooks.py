"""What a suite is told about its connector: the hooks and declarations of every check."""

from __future__ import annotations

import re
import sys
import tomllib
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
        """Return options, as the YAML would have them, for a system that answers at *url*.

        Every suite has its own. pytest makes the suite, so an abstract method could not say this.
        """
        raise NotImplementedError("say which options reach a system at url")

    def stand_in(self) -> AbstractContextManager[StandIn]:
        """Start what plays the system, fresh and empty, and stop it at the end.

        Every suite has its own, for the reason given at :meth:`options`.
        """
        raise NotImplementedError("start what plays the system")

    def docs(self) -> str:
        """Return the page that documents the connector: by default its package's README.

        The one beside the sources counts: installed metadata is as old as the installation.
        """
        package = self.connector.__module__.partition(".")[0]
        entries = entry_points(group="gofax_relay.connectors")
        owners = [each.dist for each in entries if each.module.partition(".")[0] == package]
        owner = owners[0] if owners else None
        source = Path(str(sys.modules[self.connector.__module__].__file__))
        page = _readme_above(source, of=owner.name if owner else None)
        return page or (owner.read_text("METADATA") if owner else None) or ""

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


def _readme_above(source: Path, *, of: str | None) -> str:
    """Return the README of the project that *source* is part of, if that is the project *of*."""
    folder = next((each for each in source.parents if (each / "pyproject.toml").exists()), None)
    if folder is None or not (folder / "README.md").exists():
        return ""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8")).get("project", {})
    if of is not None and _normal(str(project.get("name"))) != _normal(of):
        return ""
    return (folder / "README.md").read_text("utf-8")


def _normal(name: str) -> str:
    """Return the name of a distribution as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def over_http_only(suite: Hooks) -> None:
    """Leave out a check that is about HTTP."""
    if not suite.over_http:
        pytest.skip("not applicable: the connector does not speak HTTP")
