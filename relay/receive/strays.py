"""Calls that reach no endpoint: a wrong URL or method is found out by what is noted of them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import structlog
from flask import request

from relay.callers import Callers, Rates, TooMany
from relay.config.endpoints import DEFAULT_SCHEME
from relay.config.model import Config
from relay.receive.answers import Refusal, too_often
from relay.receive.call import Call, kept, remote_of
from relay.refused import Refusals
from relay.rules import addresses, paths, payload
from relay.store.values import Request

LOOPBACK = ("127.0.0.0/8", "::1/128")


@dataclass(frozen=True, kw_only=True)
class Strays:
    """Notes calls that reach no endpoint, so that a wrong URL or method can be found out."""

    config: Config
    refusals: Refusals
    callers: Callers
    rates: Rates
    clock: Callable[[], datetime]

    def over(self, *, kind: str = "") -> Refusal | None:
        """Return why the current request is not looked at; None: it is.

        *kind*: counted apart, and not if it comes from this machine.
        """
        server = self.config.server
        if server.rate_per_address is None:
            return None
        remote = remote_of(request.environ, proxies=server.trusted_proxies)
        if kind and addresses.is_within(remote, LOOPBACK):
            return None
        return too_often(self.rates, server.rate_per_address, remote, kind=kind)

    def note(self, status: int) -> None:
        """Note the current request, which was answered *status*: 404 or 405."""
        method, path = request.method[:20], payload.clean(request.path)[:200]
        if status == 404 and method in ("GET", "HEAD", "OPTIONS"):
            return  # Whoever looks around; senders post.
        call = Call(
            request.environ,
            signature_header=DEFAULT_SCHEME.header or "",
            proxies=self.config.server.trusted_proxies,
            at=self.clock(),
        )
        most = self.config.server.max_body
        if status == 404 and call.may_be_signed and (call.content_length or 0) <= most:
            with suppress(TooMany), self.callers.reading(addresses.holder(call.remote)):
                call.read(most + 1)
        noted = Request(
            id=call.id,
            at=call.at,
            endpoint=path,
            method=method,
            remote=call.remote,
            headers=call.headers,
            status=status,
            outcome="refused",
            reason=self._reason(status, method, path),
            **kept(call, status=status),
        )
        self.refusals.note(noted)
        if self.refusals.is_logged(noted):
            structlog.get_logger().info(
                "request.received",
                request_id=noted.id,
                remote=noted.remote,
                status=status,
                outcome="refused",
                reason=noted.reason,
            )

    def _reason(self, status: int, method: str, path: str) -> str:
        if status == 405:
            return f"method {method}, not POST"
        known = [endpoint.path for endpoint in self.config.endpoints]
        meant = paths.meant(path, known)
        probably = f"; {meant} was probably meant" if meant else f", only {', '.join(known)}"
        return f"no endpoint has the path {path}{probably}"
