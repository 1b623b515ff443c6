"""The email connector over TLS, and how it signs in: with a password, or with tokens."""

from __future__ import annotations

import json
import ssl
import traceback
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs

import pytest
from mails import PASSWORD, connector, deliver
from rawserver import Connection, RawServer, answer

from connectors.base import DeliveryError, Throttled, Transient, Unauthorized
from connectors.email.connector import Email
from connectors.suites.mailbox import Mailbox


class TestTls:
    def test_starttls_and_signing_in(self, tls: ssl.SSLContext, ca: str) -> None:
        login = {"username": "relay", "password": PASSWORD}
        with Mailbox(tls=tls, login=("relay", PASSWORD)) as mailbox:
            email = connector(mailbox.port, host="localhost", security="starttls", ca=ca, **login)

            deliver(email)

            assert len(mailbox.messages) == 1
            assert "localhost" in email.check() and "signed in as relay" in email.check()
            assert len(mailbox.messages) == 1

    def test_tls_from_the_first_byte(self, tls: ssl.SSLContext, ca: str) -> None:
        login = {"username": "relay", "password": PASSWORD}
        with Mailbox(tls=tls, from_the_start=True, login=("relay", PASSWORD)) as mailbox:
            deliver(connector(mailbox.port, host="localhost", security="tls", ca=ca, **login))

            assert len(mailbox.messages) == 1

    @pytest.mark.parametrize("security", ["starttls", "tls"])
    def test_a_certificate_must_be_trusted_and_name_the_host(
        self, tls: ssl.SSLContext, ca: str, security: str
    ) -> None:
        with Mailbox(tls=tls, from_the_start=security == "tls") as mailbox:
            for given in ({"host": "127.0.0.1", "ca": ca}, {"host": "localhost"}):
                with pytest.raises(Transient, match="certificate verify failed"):
                    deliver(connector(mailbox.port, security=security, **given))

            assert mailbox.taken == []

    def test_a_server_without_starttls_gets_nothing(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, security="starttls", username="relay", password=PASSWORD)

        with pytest.raises(Unauthorized, match="STARTTLS extension not supported"):
            deliver(email)

    def test_a_wrong_password_pauses_the_destination(self, tls: ssl.SSLContext, ca: str) -> None:
        with Mailbox(tls=tls, login=("relay", "another")) as mailbox:
            email = connector(
                mailbox.port, host="localhost", security="starttls", ca=ca, username="relay",
                password=PASSWORD,
            )  # fmt: skip
            for act in (lambda: deliver(email), email.check):
                with pytest.raises(Unauthorized, match="signing in: 535 5.7.8") as caught:
                    act()
                shown = "".join(traceback.format_exception(caught.value))
                assert PASSWORD not in shown

    def test_a_server_that_wants_no_sign_in_cannot_be_signed_in_to(self) -> None:
        with Mailbox(auth_exclude_mechanism=["LOGIN", "PLAIN"]) as mailbox:
            email = connector(mailbox.port, username="relay", password=PASSWORD)

            with pytest.raises(Unauthorized, match="no way to sign in: needs CRAM-MD5 or LOGIN"):
                deliver(email)


def token(value: str, **more: Any) -> bytes:
    body = {"access_token": value, "token_type": "Bearer", "expires_in": 3600, **more}
    return answer(200, body=json.dumps(body).encode())


class TestTokens:
    """Signing in by OAuth client credentials."""

    def connector(self, mailbox: Mailbox, tokens: RawServer) -> Email:
        oauth = {
            "token_url": f"{tokens.url}/token",
            "client_id": "relay",
            "client_secret": PASSWORD,
        }
        return connector(mailbox.port, username="sms@example.com", oauth=oauth)

    def test_a_token_is_fetched_once(self) -> None:
        with (
            RawServer(token("first-token")) as tokens,
            Mailbox(login=("sms@example.com", "first-token")) as mailbox,
        ):
            email = self.connector(mailbox, tokens)
            for key in ("1", "2"):
                deliver(email, key=key)
            email.close()

            assert len(mailbox.messages) == 2
            [asked] = tokens.requests
        form = parse_qs(asked.partition(b"\r\n\r\n")[2].decode())
        assert form == {
            "grant_type": ["client_credentials"],
            "client_id": ["relay"],
            "client_secret": [PASSWORD],
            "scope": ["https://outlook.office365.com/.default"],
        }

    def test_a_token_that_is_at_its_end_is_replaced(self) -> None:
        with (
            RawServer(token("a-token", expires_in="0.001")) as tokens,
            Mailbox(login=("sms@example.com", "a-token")) as mailbox,
        ):
            email = self.connector(mailbox, tokens)
            for key in ("1", "2"):
                deliver(email, key=key)
            email.close()

            assert len(tokens.requests) == 2

    def test_a_token_that_was_revoked_is_replaced_at_once(self) -> None:
        given = iter(["revoked", "fresh"])
        with (
            RawServer(lambda connection: connection.say(token(next(given))) or True) as tokens,
            Mailbox(login=("sms@example.com", "fresh")) as mailbox,
        ):
            email = self.connector(mailbox, tokens)
            deliver(email)
            email.close()

            assert (len(tokens.requests), len(mailbox.messages)) == (2, 1)

    def test_a_mailbox_that_takes_no_token_pauses_the_destination(self) -> None:
        with RawServer(token("some-token")) as tokens, Mailbox(login=("a", "b")) as mailbox:
            email = self.connector(mailbox, tokens)
            with pytest.raises(Unauthorized, match="signing in: 535") as caught:
                deliver(email)
            email.close()

        assert "some-token" not in "".join(traceback.format_exception(caught.value))

    def test_no_token_no_message(self) -> None:
        answers: list[tuple[bytes, type[DeliveryError]]] = [
            (answer(401, body=b"invalid_client"), Unauthorized),
            (answer(400, body=b"invalid_scope"), Unauthorized),
            (answer(503), Transient),
            (answer(429, Retry_After="7"), Throttled),
            (answer(200, body=b"<html>"), Transient),
            (answer(200, body=b"[1]"), Transient),
            (token("a b\r\n"), Transient),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Transient),
            (b"", Transient),
        ]
        for said, kind in answers:

            def end(connection: Connection, said: bytes = said) -> None:
                connection.say(said)

            with RawServer(end) as tokens, Mailbox() as mailbox:
                for act in (deliver, Email.check):
                    # A new one, because the server has closed the other's connection.
                    with closing(self.connector(mailbox, tokens)) as email:
                        with pytest.raises(DeliveryError) as caught:
                            act(email)
                        assert type(caught.value) is kind, said

                assert mailbox.taken == []

    def test_a_refused_token_names_what_to_mend(self) -> None:
        said = {"error": "invalid_client", "error_description": "AADSTS7000222: expired"}
        refusal = answer(401, body=json.dumps(said).encode())
        with RawServer(refusal) as tokens, Mailbox() as mailbox:
            email = self.connector(mailbox, tokens)
            with pytest.raises(Unauthorized, match="client_secret has expired"):
                deliver(email)
            email.close()
