"""What check points out although the config can be used."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import cli
from relay.config import installed
from relay.config.load import load_document
from relay.config.warnings import warnings

Warned = Callable[..., list[str]]

ENDPOINT = "endpoints: [{path: /hook, signing_secrets: ['${SECRET}']}]\n"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
ROUTE = "destinations: {a: {connector: teams, url: 'https://example.com'}}\nroutes:\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "config.yaml"
    file.touch(mode=0o640)
    return file


@pytest.fixture
def warned(file: Path) -> Warned:
    """Load a text, and return the warnings about it."""

    def warned(text: str, secret: str = "x" * 32) -> list[str]:
        file.write_text(text, encoding="utf-8")
        environ = {"SECRET": secret}
        config, document = load_document(file, find_connector=installed.find, environ=environ)
        return [f"{each.line}: {each}" for each in warnings(config, document, now=NOW)]

    return warned


def test_conditions_that_are_probably_mistaken(warned: Warned) -> None:
    rows = [
        ("event: sms_replyy",
         'event: no event type "sms_replyy" is known; did you mean SMS_REPLY?'),
        ("event: [SMS_REPLY, FAX]", 'event[1]: no event type "FAX" is known'),
        ("direction: replly", 'direction: no direction "replly" is known; did you mean reply?'),
        ("from: Acme", 'from: "Acme" is not a phone number: only a sender of that name matches'),
        ("to: '0412 345'",
         'to: "0412 345" is not a phone number: only a sender of that name matches'),
        ("body: 'order [0-9]+'",
         'body: misses "ORDER": (?i) before it ignores case, (?-i) says that it is meant'),
        ("body: ['(?i)x', 'STOP it']",
         'body[1]: misses "stop": (?i) before it ignores case, (?-i) says that it is meant'),
        ("not: {any: [{event: SMS}]}",
         'not.any[0].event: no event type "SMS" is known'),
    ]  # fmt: skip
    for when, words in rows:
        text = f"{ENDPOINT}{ROUTE}  - to: [a]\n    when: {{{when}}}\n"

        assert warned(text) == [f"5: routes[0].when.{words}"]


def test_conditions_that_are_right(warned: Warned) -> None:
    for when in (
        "event: [sms_reply, SMS_RECEIVED, SMS_STATUS], direction: [Reply, inbound, outbound]",
        "from: 0412 345 678, to: ['+61 7 3123 4567', 0011 61 412 345 678]",
        "body: ['(?i)order', '(?-i)Order', '[A-Z]{2}', '(order|ORDER|Order)']",
        "body: ['\\p{Lu}\\bx', '日本']",
    ):
        assert warned(f"{ENDPOINT}{ROUTE}  - to: [a]\n    when: {{{when}}}\n") == []


def test_a_route_that_is_never_asked(warned: Warned) -> None:
    routes = "  - {to: [a], name: first, stop: true}\n  - {to: [a]}\n"

    assert warned(ENDPOINT + ROUTE + routes) == [
        "5: routes[1]: never asked: first takes every event, and stops"
    ]
    assert (
        warned(ENDPOINT + ROUTE + routes.replace("first", "first, when: {has_body: true}")) == []
    )


def test_signs_around_a_secret(warned: Warned, file: Path) -> None:
    assert warned(ENDPOINT, secret="'abc' ") == [
        "1: endpoints[0].signing_secrets[0]: this secret includes the trailing blank and quotes "
        "around it: remove what is not meant"
    ]

    (file.parent / "secret").write_text("\ufeffabc\n")
    (file.parent / "secret").chmod(0o640)
    [warning] = warned(ENDPOINT.replace("${SECRET}", "file:secret"))
    assert "includes the byte order mark around it" in warning


@pytest.mark.parametrize(
    ("not_after", "said"),
    [
        ("2026-11-23", ["not accepted since 2026-11-23 (UTC) is over: remove it"]),
        ("2026-11-24", ["accepted until 2026-11-24 (UTC) only: does GoFax use another?"]),
        ("2026-11-30", ["accepted until 2026-11-30 (UTC) only: does GoFax use another?"]),
        ("2026-12-01", []),
    ],
)
def test_a_secret_that_ends(warned: Warned, not_after: str, said: list[str]) -> None:
    text = ENDPOINT.replace(
        "'${SECRET}'", f"'${{SECRET}}', {{secret: abc, not_after: {not_after}}}"
    )

    place = "1: endpoints[0].signing_secrets[1]: "
    assert warned(text) == [place + each for each in said]


def test_an_address_that_gofax_cannot_call(warned: Warned) -> None:
    assert warned(f"{ENDPOINT}public_url: http://sms.example.com\n") == [
        "2: public_url: GoFax calls https addresses only: put TLS in front, and write https"
    ]


@pytest.mark.parametrize(
    ("rest", "warns"),
    [
        ("", True),
        ("server: {listen: 0.0.0.0:8080}\npublic_url: https://sms.example.com\n", True),
        ("server: {listen: 0.0.0.0:8080}\n", False),
        ("server: {trusted_proxies: 1}\npublic_url: https://sms.example.com\n", False),
        ("tls: {cert: a.pem, key: b.pem}\npublic_url: https://sms.example.com\n", False),
    ],
)
def test_networks_where_everybody_has_the_address_of_the_proxy(
    warned: Warned, rest: str, warns: bool
) -> None:
    endpoint = "endpoints: [{path: /a, allow_unsigned: true, allow_from: [192.0.2.0/24]}]\n"

    assert warned(endpoint + rest) == warns * [
        "1: endpoints[0].allow_from: every caller has the proxy's address here: "
        "set server.trusted_proxies"
    ]


def test_files_that_everybody_can_read(warned: Warned, file: Path) -> None:
    secret = file.parent / "secret"
    secret.write_text("abc")
    secret.chmod(0o644)
    referring, own = (
        ENDPOINT.replace("${SECRET}", "file:secret"),
        ENDPOINT.replace("${SECRET}", "x"),
    )

    assert warned(referring) == [
        f"1: endpoints[0].signing_secrets[0]: every user of this machine can read {secret}: "
        "chmod 640 it"
    ]
    assert warned(own) == []
    file.chmod(0o644)
    assert warned(ENDPOINT) == []
    mine = "endpoints[0].signing_secrets[0]"
    for text, named in (
        (own, mine),
        (f"{ENDPOINT}store: postgresql://relay:abc@db/relay\n", "store"),
        (
            f"{own}store: postgresql://relay:abc@db/relay\n",
            f"{mine} and 1 more",
        ),
    ):
        assert warned(text) == [
            f"1: every user of this machine can read {file}, which holds secrets ({named}): "
            "chmod 640 it, or write ${NAME} or file: for them"
        ]


def test_check_shows_them_and_is_content(file: Path) -> None:
    file.write_text(f"{ENDPOINT}{ROUTE}  - to: [a]\n    when: {{event: SMS}}\n")

    done = CliRunner(env={"SECRET": "x"}).invoke(cli, ["check", "--config", str(file)])

    assert done.exit_code == 0
    assert f"warning: {file}:5: routes[0].when.event: no event type" in done.output
