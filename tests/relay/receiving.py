"""Clients of a relay's endpoints, by Flask, and what they post."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from fakes import eventually
from flask.testing import FlaskClient

from relay.app import create_app
from relay.config.load import load
from relay.refused import Refusals
from relay.store import Database, Inbox, Queries
from relay.store.values import Request
from relay.telling.watch import OldSecrets

CONFIG = """\
endpoints:
  - {path: /signed, signing_secrets: [new, old]}
  - {path: /hex, signing_secrets: [new], signature: {header: X-Other, encoding: hex}}
  - {path: /form, format: form, basic_auth: {username: gofax, password: päss}}
  - {path: /signed-form, format: form, signing_secrets: [new]}
  - {path: /both, signing_secrets: [new], basic_auth: {username: gofax, password: pass}}
  - {path: /open, allow_unsigned: true}
  - {path: /near, allow_unsigned: true, allow_from: [198.51.100.0/24, "2001:db8::/32"]}
  - {path: /slow, allow_unsigned: true, rate: 2/60s}
"""
BODY = json.dumps({"messageId": "m1", "eventType": "SMS_REPLY"}).encode()

#: Makes the client of a relay with another `server:` than CONFIG's.
NewClient = Callable[..., FlaskClient]


@contextmanager
def clients(folder: Path, database: Database, inbox: Inbox) -> Iterator[NewClient]:
    """Give what makes clients, and end what they share."""
    with closing(Refusals(inbox.refuse)) as refusals:

        def new_client(server: str, old_secrets: OldSecrets | None = None) -> FlaskClient:
            path = folder / "config.yaml"
            path.write_text(f"server: {{{server}}}\n{CONFIG}")
            config = load(path, find_connector=lambda name: pytest.fail(name))
            app = create_app(
                config,
                database=database,
                inbox=inbox,
                refusals=refusals,
                old_secrets=old_secrets,
            )
            return app.test_client()

        yield new_client


def sign(body: bytes = BODY, secret: str = "new") -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def last_request(database: Database) -> Request:
    """Return the newest request of the log, once there is one."""
    eventually(lambda: list(Queries(database).requests()))
    return list(Queries(database).requests())[-1]
