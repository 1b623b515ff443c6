"""Addresses that proxies name: ports left out, and nothing believed that is no address."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.rules.addresses import address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("198.51.100.7", "198.51.100.7"),
        (" 198.51.100.7:40000 ", "198.51.100.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ('"[2001:DB8:0::1]:443"', "2001:db8::1"),
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
