"""Applications of stand-ins, which many tests make for themselves alone."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.routing import Rule

#: What makes URLs, by rule: to compile it takes nine tenths of an application's time.
_BUILDERS: dict[tuple[str, str, bool], Any] = {}


class _Rule(Rule):
    def _compile_builder(self, append_unknown: bool = True) -> Any:
        key = self.rule, repr(self.defaults), append_unknown
        if key not in _BUILDERS:
            _BUILDERS[key] = super()._compile_builder(append_unknown)
        return _BUILDERS[key]


class StandInApp(Flask):
    """An application whose rules are compiled once in a process."""

    url_rule_class = _Rule
