"""Whatever stands behind a 2xx, nothing comes out but an answer of Zendesk or the error said."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import requests
import urllib3
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from zenpy.lib.api_objects import Ticket

from connectors import DeliveryError, Http, Transient
from connectors.testing import sample_event
from connectors.zendesk.answers import Unread
from connectors.zendesk.client import Client
from connectors.zendesk.limits import UpdateLimits
from connectors.zendesk.message import compose
from connectors.zendesk.options import ZendeskOptions

OPTIONS = ZendeskOptions(subdomain="acme", access_token=SecretStr("a-token"))
MESSAGE = compose(sample_event(), key="a-key", options=OPTIONS)
NUMBER = 4711

#: What no call of ours may take for its answer.
GARBAGE = [b"", b"<html>hello</html>", b"[]", b"{}", b"null", b"7", b'"text"', b"[" * 100_000]
GARBAGE += [b"\xff\xfe\x00", "{}".encode("utf-16"), b'{"job_status": 7}', b'{"count": {}}']
GARBAGE += [b'{"ticket": null}', b'{"ticket": 7}', b'{"ticket": {}}', b'{"ticket": {"id": "x"}}']
GARBAGE += [b'{"ticket": {}, "audit": 7}', b'{"user": null}', b'{"user": {"id": "x"}}']
GARBAGE += [b'{"tickets": [7]}', b'{"users": [null]}', b'{"comments": 7}', b'{"tags": {}}']
#: What further garbage there is for some calls; for others it is an answer.
UNFIT = {
    # Nobody's ticket: in whose name would we write?
    "read a ticket": [b'{"ticket": {"id": 4711, "requester_id": null}}'],
    "list tickets": [b'{"tickets": [{"id": 1, "requester_id": 2, "tags": 7}]}'],
    "comment": [b'{"ticket": {"id": 1}, "audit": {"events": []}}'],
    "make a profile": [b'{"user": {}}'],
    "tag a profile": [b'{"tags": []}', b'{"tags": 7}'],
}


class Canned(HTTPAdapter):
    """Answers everything with the same bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = b""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        raw = urllib3.HTTPResponse(io.BytesIO(self.body), status=200, preload_content=False)
        return self.build_response(request, raw)


def ticket() -> Ticket:
    return Ticket(id=NUMBER, requester_id=7, status="open", updated_at="2026-11-28T10:00:00Z")


CALLS: dict[str, tuple[Callable[[Client], object], type[DeliveryError]]] = {
    "who am I": (lambda client: client.me(), Transient),
    "read a ticket": (lambda client: client.ticket(str(NUMBER), MESSAGE), Transient),
    "list tickets": (lambda client: client.tickets(MESSAGE), Transient),
    "list comments": (lambda c: c.find(MESSAGE, ticket(), in_comments=True), Transient),
    "comment": (lambda client: client.comment(MESSAGE, ticket()), Unread),
    "create": (lambda client: client.create(MESSAGE, person=7, after=None), Unread),
    "find a profile": (lambda client: client.people.find(MESSAGE), Transient),
    "make a profile": (lambda client: client.people.make(MESSAGE), Transient),
    "tag a profile": (lambda c: c.people.tag(7, tag="sms_opt_out", present=True), Transient),
}


@pytest.mark.parametrize("call", CALLS)
def test_garbage_is_no_answer(call: str) -> None:
    ask, error = CALLS[call]
    canned = Canned()
    client = Client(OPTIONS, Http(), sign_in="Bearer a-token", limits=UpdateLimits())
    client._session.mount("https://", canned)
    taken = []

    for canned.body in GARBAGE + UNFIT.get(call, []):
        try:
            taken.append((canned.body[:60], ask(client)))
        except DeliveryError as raised:
            if type(raised) is not error:
                taken.append((canned.body[:60], raised))

    assert taken == []
    client.close()
