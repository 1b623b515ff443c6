"""Addresses that proxies name: ports left out, and nothing believed that is no address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rules.addresses import address, caller, holder


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("198.51.100.7", "198.51.100.7"),
        (" 198.51.100.7:40000 ", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ('"[2001:DB8:0::1]:443"', "2001:db8::1"),
        ("::ffff:198.51.100.7", "198.51.100.7"),
        ("[::ffff:198.51.100.7]:443", "198.51.100.7"),
        ("fe80::1%any text", "fe80::1"),
        ("unknown", None),
        ("_hidden", None),
        ("", None),
        ("198.51.100.7 evil", None),
        ("198.51.100.700", None),
    ],
)
def test_an_address_is_read_without_its_port(text: str, found: str | None) -> None:
    assert address(text) == found


@given(st.text(max_size=60))
def test_what_is_believed_is_an_address_whatever_was_written(text: str) -> None:
    found = address(text)

    assert found is None or address(found) == found


@pytest.mark.parametrize(
    ("forwarded", "proxies", "found"),
    [
        ("198.51.100.7", 0, "10.0.0.1"),
        ("", 1, "10.0.0.1"),
        ("198.51.100.7", 1, "198.51.100.7"),
        ("192.0.2.9, 198.51.100.7", 1, "198.51.100.7"),
        ("192.0.2.9, 198.51.100.7, 10.0.0.2", 2, "198.51.100.7"),
        ("198.51.100.7", 2, "10.0.0.1"),
        # What the last proxy does not tell, its predecessors cannot know.
        ("192.0.2.9, unknown", 1, "10.0.0.1"),
        ("192.0.2.9, ", 1, "10.0.0.1"),
        ("192.0.2.9,,", 1, "10.0.0.1"),
        # A caller's quote does not swallow what the proxies append.
        ('192.0.2.9, ", 198.51.100.7, 10.0.0.2', 2, "198.51.100.7"),
        ('"192.0.2.9, 198.51.100.7', 1, "198.51.100.7"),
        ("\\, 198.51.100.7", 1, "198.51.100.7"),
    ],
)
def test_the_caller_is_whom_the_proxies_saw(forwarded: str, proxies: int, found: str) -> None:
    assert caller("10.0.0.1", forwarded, proxies=proxies) == found


@given(
    written=st.text(max_size=60),
    proxies=st.integers(1, 3),
)
def test_whatever_a_caller_writes_it_stays_itself(written: str, proxies: int) -> None:
    appended = ", ".join(["198.51.100.7", "10.0.0.2", "10.0.0.3"][:proxies])

    assert caller("10.0.0.1", f"{written}, {appended}", proxies=proxies) == "198.51.100.7"


@pytest.mark.parametrize(
    ("text", "held_by"),
    [
        ("198.51.100.7", "198.51.100.7"),
        ("198.51.100.7:40000", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8:0:0:ffff::9", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_the_addresses_of_an_ipv6_network_have_one_holder(text: str, held_by: str) -> None:
    assert holder(text) == held_by
