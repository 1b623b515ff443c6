"""Addresses: which of them are connected to, and who learns of the secrets in them."""

from __future__ import annotations

import ipaddress
import logging
import traceback
from collections.abc import Iterable

import pytest
import requests
from http_calls import SECRET, caught
from hypothesis import given
from hypothesis import strategies as st
from rawserver import Connection, RawServer, answer

from connectors.base import DeliveryError, Transient, Unauthorized
from connectors.http import Http, Session
from connectors.wire import Addresses


def close(connection: Connection) -> None:
    pass


# Address, reachable over TLS when nothing is allowed.
ADDRESSES = [
    ("93.184.215.14", True),
    ("8.8.8.8", True),
    ("2606:4700::1111", True),
    ("127.0.0.1", False),
    ("127.255.255.254", False),
    ("0.0.0.0", False),
    ("10.1.2.3", False),
    ("172.16.0.1", False),
    ("172.31.255.255", False),
    ("192.168.1.1", False),
    ("100.64.0.1", False),  # carrier-grade NAT
    ("169.254.169.254", False),  # metadata of cloud machines
    ("192.0.2.1", False),  # documentation
    ("198.18.0.1", False),  # benchmarks
    ("224.0.0.1", False),  # multicast
    ("239.255.255.250", False),
    ("240.0.0.1", False),
    ("255.255.255.255", False),
    ("::1", False),
    ("::", False),
    ("fe80::1", False),  # link-local
    ("fd00:ec2::254", False),  # metadata, unique local
    ("fec0::1", False),  # site-local
    ("ff02::1", False),  # multicast
    ("ff0e::1", False),  # multicast, global scope
    ("2001:db8::1", False),  # documentation
    ("::ffff:127.0.0.1", False),  # IPv4-mapped
    ("::ffff:169.254.169.254", False),
    ("::ffff:8.8.8.8", True),
    ("::127.0.0.1", False),  # IPv4-compatible
    ("64:ff9b::7f00:1", False),  # NAT64 of 127.0.0.1
    ("64:ff9b::a9fe:a9fe", False),  # NAT64 of 169.254.169.254
    ("64:ff9b::808:808", True),  # NAT64 of 8.8.8.8
    ("64:ff9b:1::7f00:1", False),  # NAT64 with a local prefix
    ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
    ("2002:a9fe:a9fe::1", False),  # 6to4 of 169.254.169.254
    ("2001:0:4136:e378:8000:63bf:80ff:fffe", False),  # Teredo of 127.0.0.1
]


def permitted(allowed: Addresses, addresses: Iterable[str], *, tls: bool) -> list[str]:
    return [each for each in addresses if allowed.permits(ipaddress.ip_address(each), tls=tls)]


class TestPrivateAddresses:
    def test_are_permitted_only_if_public_and_over_tls(self) -> None:
        addresses = [address for address, _ in ADDRESSES]

        assert permitted(Addresses(), addresses, tls=True) == [
            a for a, public in ADDRESSES if public
        ]
        assert permitted(Addresses(), addresses, tls=False) == []

    def test_an_allowed_network_is_reachable_in_every_form(self) -> None:
        forms = ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "2002:a01:203::"]

        assert permitted(Addresses(["10.0.0.0/8"]), [*forms, "11.1.2.3"], tls=False) == forms

    @given(st.ip_addresses(network="127.0.0.0/8") | st.ip_addresses(network="169.254.0.0/16"))
    def test_no_form_of_a_local_address_passes(self, address: ipaddress.IPv4Address) -> None:
        number = int(address)
        forms = [
            ipaddress.IPv6Address(number),
            ipaddress.IPv6Address((0xFFFF << 32) | number),
            ipaddress.IPv6Address((0x64FF9B << 96) | number),
            ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
        ]

        assert not any(Addresses().permits(form, tls=True) for form in [address, *forms])

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_are_not_connected_to(self, scheme: str) -> None:
        hosts = ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"]
        with RawServer(answer(200)) as server, Http().session() as session:
            errors = [
                caught(session, f"{scheme}://{host}:{server.port}/?{SECRET}") for host in hosts
            ]

        assert {type(error) for error in errors} == {Unauthorized}
        assert all("outbound.allow" in str(error) for error in errors)
        assert SECRET not in str(errors)
        assert server.connections == 0

    def test_an_allowed_address_is_reached_by_name(self, session: Session) -> None:
        with RawServer(answer(200)) as server:
            assert session.get(f"http://localhost:{server.port}/").status_code == 200

    def test_what_is_no_network_is_refused_at_once(self) -> None:
        with pytest.raises(ValueError, match="nonsense"):
            Http(allow=["nonsense"])


class TestSecretsInAddresses:
    @pytest.fixture(params=["refused", "lost", "blocked", "control", "long label"])
    def error(
        self, request: pytest.FixtureRequest, session: Session, closed_port: int
    ) -> DeliveryError:
        tail = f"/{SECRET}?sig={SECRET}"
        if request.param == "lost":
            with RawServer(close) as server:
                return caught(session, server.url + tail)
        if request.param == "control":
            prepared = session.prepare_request(requests.Request("POST", "http://127.0.0.1"))
            prepared.url = f"http://127.0.0.1:{closed_port}{tail} and a space"
            with pytest.raises(DeliveryError) as raised:
                session.send(prepared)
            return raised.value
        hosts = {
            "refused": f"http://127.0.0.1:{closed_port}",
            "blocked": "http://10.0.0.1",
            "long label": f"https://{'x' * 70}.example",
        }
        return caught(session, hosts[request.param] + tail)

    def test_are_in_no_message_and_no_traceback(self, error: DeliveryError) -> None:
        assert SECRET not in str(error) + repr(error)
        assert SECRET not in "".join(traceback.format_exception(error))

    def test_are_not_quoted_when_the_address_is_unusable(self, session: Session) -> None:
        for url in ("nonsense", "ftp://host", "http://", "http://["):
            error = caught(session, f"{url}/{SECRET}")

            assert type(error) is Unauthorized, url
            assert SECRET not in "".join(traceback.format_exception(error))

    def test_are_not_quoted_when_no_name_is_like_that(self, session: Session) -> None:
        error = caught(session, f"http://ho st/{SECRET}")

        # Before 2.8, urllib3 asks for such a name, and hears that there is none.
        assert type(error) in (Unauthorized, Transient)
        assert SECRET not in "".join(traceback.format_exception(error))

    def test_are_not_logged(self, session: Session, caplog: pytest.LogCaptureFixture) -> None:
        with (
            caplog.at_level(logging.DEBUG, logger="urllib3.connectionpool"),
            RawServer(answer(200)) as server,
        ):
            session.post(f"{server.url}/{SECRET}?sig={SECRET}")

        assert caplog.records
        assert SECRET not in caplog.text

    def test_go_out_as_they_were_prepared(self, session: Session) -> None:
        target = "/a%2fb%7Ec/../d?sp=%2Ftriggers%2fmanual&sig=%41-_~"
        prepared = session.prepare_request(requests.Request("POST", "http://127.0.0.1/"))

        with RawServer(answer(200)) as server:
            prepared.url = server.url + target
            session.send(prepared)

        assert server.requests[0].startswith(f"POST {target} HTTP/1.1\r\n".encode())

    def test_a_cause_is_none_of_what_the_caller_handled(
        self, session: Session, closed_port: int
    ) -> None:
        try:
            raise KeyError("something else")
        except KeyError:
            error = caught(session, f"http://127.0.0.1:{closed_port}/")

        assert "connection refused" in str(error)
