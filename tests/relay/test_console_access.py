"""Who gets into the console, how, and how long: signing in, sessions, roles, foreign pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import consoles
import pytest
from consoles import Console, Page, Visitor
from flask import Flask
from freezing import moved

from relay.acts.links import link_for
from relay.console import passwords
from relay.rules.access import IDLE, LINK_LIVES, LOCKED_FOR, LONGEST_SESSION, TRIES, Role, Scope
from relay.store import Database
from relay.store.people import User
from relay.store.recover import Act

GOOD = "correct horse battery staple"
WRONG = "incorrect horse battery staple"


@pytest.fixture
def console(tmp_path: Path, sqlite: Database) -> Iterator[Console]:
    with consoles.console(tmp_path, sqlite) as made:
        yield made
