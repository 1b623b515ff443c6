"""Calls over HTTP, of which many fail."""

from __future__ import annotations

import pytest

from connectors.base import DeliveryError
from connectors.http import Session

LOOPBACK = ["127.0.0.0/8", "::1/128"]
#: Stands for a credential in a path or query.
SECRET = "sig" + "natureofaworkflow"


def caught(session: Session, url: str, *, method: str = "POST") -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        session.request(method, url, data=b"{}" if method == "POST" else None)
    return raised.value
