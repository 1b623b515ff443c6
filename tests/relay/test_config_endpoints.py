"""Endpoints in the config: guards, paths, names, and how senders sign."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from config_files import (
    ENDPOINT,
    Faults,
    Read,
)

from relay.config.document import ConfigError
from relay.rules.scheme import Scheme

#: One endpoint, without its line and place.
ENDPOINT_FAULTS = [
    ("{path: /a}", "endpoints[0]: needs signing_secrets or basic_auth (or allow_unsigned: true: "
                   "anybody may post)"),
    ("{path: /a, signing_secrets: []}",
     "endpoints[0]: needs signing_secrets or basic_auth (or allow_unsigned: true: "
     "anybody may post)"),
    ("{path: /a, allow_unsigned: false}",
     "endpoints[0]: needs signing_secrets or basic_auth (or allow_unsigned: true: "
     "anybody may post)"),
    ("{signing_secrets: [x]}", "endpoints[0].path: this key is needed"),
    ("{path: a, signing_secrets: [x]}",
     "endpoints[0].path: string should match pattern '^/[A-Za-z0-9/_.~-]*$'"),
    ('{path: "/a\\n", signing_secrets: [x]}',
     "endpoints[0].path: string should match pattern '^/[A-Za-z0-9/_.~-]*$'"),
    ("{path: [a], signing_secrets: [x]}", "endpoints[0].path: input should be a valid string"),
    ("{path: /a, signing_secrets: x}",
     "endpoints[0].signing_secrets: write a list, such as [a, b]"),
    ("{path: /a, signing_secrets: ['']}",
     "endpoints[0].signing_secrets[0]: empty: anybody could sign; use at least 32 random "
     "characters"),
    ("{path: /a, signing_secrets: [x, ' ']}",
     "endpoints[0].signing_secrets[1]: empty: anybody could sign; use at least 32 random "
     "characters"),
    ("{path: /a, basic_auth: {username: x}}",
     "endpoints[0].basic_auth.password: this key is needed"),
    ("{path: /a, basic_auth: {username: x, password: ''}}",
     "endpoints[0].basic_auth.password: empty: anybody could sign; use at least 32 random "
     "characters"),
    ("{path: /a, signing_secrets: [x], format: xml}",
     "endpoints[0].format: input should be 'json' or 'form'"),
    ("{path: /a, signing_secrets: [x], signature: {encoding: rot13}}",
     "endpoints[0].signature.encoding: input should be 'auto', 'hex' or 'base64'"),
    ("{path: /a, signing_secrets: [x], dedupe_by: []}",
     "endpoints[0].dedupe_by: needs at least one"),
    ("{path: /a, signing_secrets: [x], dedupe_by: [eventType]}",
     "endpoints[0].dedupe_by: must contain messageId: without it, different events look alike"),
    ("{path: /a, signing_secrets: [x], on_duplicate: panic}",
     "endpoints[0].on_duplicate: input should be 'revive' or 'ignore'"),
    ("{path: /a, signing_secret: [x], allow_unsigned: true}",
     "endpoints[0].signing_secret: unknown key; did you mean signing_secrets?"),
    ("5", "endpoints[0]: write a mapping of keys"),
]  # fmt: skip


def test_an_endpoint_is_complete_and_guarded(faults: Faults) -> None:
    for endpoint, words in ENDPOINT_FAULTS:
        assert faults(f"retention: 90d\nendpoints:\n  - {endpoint}\n") == [f"3: {words}"]


def test_one_guard_is_enough(read: Read) -> None:
    rows = [
        "signing_secrets: [x]",
        "basic_auth: {username: x, password: y}",
        "allow_unsigned: true",
    ]

    for guard in rows:
        assert len(read(f"endpoints: [{{path: /a, {guard}}}]").endpoints) == 1


def test_the_relays_own_paths_are_taken(faults: Faults) -> None:
    rows = ["/api", "/api/v1/x", "/console", "/console/sign-in", "/livez", "/readyz", "/metrics"]

    for path in rows:
        assert faults(f"endpoints: [{{path: {path}, allow_unsigned: true}}]") == [
            "1: endpoints[0].path: the relay uses this path itself "
            "(/api, /console, /livez, /metrics, /readyz)"
        ]


def test_any_other_path_is_free(read: Read) -> None:
    rows = ["/", "/apis", "/consoles/x", "/hook/livez", "/a.b/~c_d-e"]

    for path in rows:
        config = read(f"endpoints: [{{path: {path}, allow_unsigned: true}}]")
        assert config.endpoints[0].path == path


def test_there_must_be_an_endpoint(faults: Faults) -> None:
    rows = ["{}", "server: {}", "endpoints:", "endpoints: []"]

    for text in rows:
        [fault] = faults(text)
        assert fault.startswith("1: endpoints: ")


class TestTwins:
    def test_two_endpoints_with_one_path_are_a_fault(self, faults: Faults) -> None:
        text = """\
            endpoints:
              - {path: /a, allow_unsigned: true}
              - {path: /b, allow_unsigned: true}
              - path: /a
                allow_unsigned: true
            """

        assert faults(text) == ['4: endpoints[2].path: two endpoints have the path "/a"']

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("path: /a, name: same", "path: /b, name: same"),
            ("path: /a", "path: /b, name: /a"),  # a path is the name if there is none
            ("path: /a, name: /b", "path: /b"),
        ],
    )
    def test_two_endpoints_with_one_name_are_a_fault(
        self, faults: Faults, one: str, other: str
    ) -> None:
        guard = "allow_unsigned: true"

        [fault] = faults(f"endpoints:\n- {{{one}, {guard}}}\n- {{{other}, {guard}}}\n")

        assert re.fullmatch(r'3: endpoints\[1\]\.name: two endpoints have the name "\S+"', fault)

    def test_faulty_endpoints_are_not_taken_for_twins(self, faults: Faults) -> None:
        assert faults("endpoints: [{allow_unsigned: true}, {allow_unsigned: true}]") == [
            "1: endpoints[0].path: this key is needed",
            "1: endpoints[1].path: this key is needed",
        ]

    def test_a_key_given_twice_is_a_fault(self, faults: Faults) -> None:
        rows = ["retention: 2d", '"retention": 2d', "retention: 1d"]

        for again in rows:
            assert faults(f"{ENDPOINT}retention: 1d\n{again}\n") == [
                "3: retention: this key is given twice"
            ]

    def test_a_key_given_twice_inside_is_a_fault(self, faults: Faults) -> None:
        text = "server:\n  listen: a:1\n  threads: 4\n  listen: b:2\n"

        assert faults(ENDPOINT + text) == ["5: server.listen: this key is given twice"]


class TestSignatures:
    def scheme(self, read: Read, said: str, *, secrets: str = "[one]", more: str = "") -> Scheme:
        text = f"endpoints: [{{path: /hook, signing_secrets: {secrets}, signature: {said}{more}}}]"
        return read(text).endpoints[0].signature.scheme

    def test_a_field_alone_takes_the_place_of_the_header(self, read: Read) -> None:
        both = "{header: X-Sign, field: mac, signs: body-without-field}"

        alone = self.scheme(read, "{field: mac, signs: body-without-field}")

        assert (alone.header, alone.field) == (None, "mac")
        assert self.scheme(read, both) == replace(alone, header="X-Sign")

    def test_secrets_are_read_in_their_encoding(self, read: Read) -> None:
        text = "endpoints: [{path: /a, signing_secrets: [%s], signature: {secret_encoding: %s}}]"

        assert read(text % ("00ff", "hex")).endpoints[0].signing_keys[0].key == b"\x00\xff"
        assert read(text % ("aGk", "base64")).endpoints[0].signing_keys[0].key == b"hi"

    @pytest.mark.parametrize(
        ("said", "more", "fault"),
        [
            ("{signs: timestamp.body}", "", "needs timestamp_header"),
            ("{field: mac}", "", "cannot be of the whole body"),
            ("{secret_encoding: hex}", "", "signing_secrets: secret 1 is not hex"),
            (
                "{signs: sorted-json}",
                ", format: form",
                "sorted-json is of JSON, and format is form",
            ),
        ],
    )
    def test_what_cannot_be_is_a_fault(self, read: Read, said: str, more: str, fault: str) -> None:
        with pytest.raises(ConfigError, match=fault):
            self.scheme(read, said, more=more)

    def test_a_route_of_an_endpoint_that_is_not_there_is_a_fault(self, read: Read) -> None:
        text = "routes: [{to: [a], when: {not: {endpoint: [main, /hook]}}}]"

        with pytest.raises(ConfigError, match=r'no endpoint named "main" \(have: /hook\)'):
            read(f"{ENDPOINT}\n{text}")
