"""Secrets of the config: from variables and files, missing, and never in a message."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import NoReturn

import pytest
from config_files import (
    ENDPOINT,
    HIDDEN,
    Faults,
    Read,
)

from relay.config import installed
from relay.config.document import ConfigError, secret_from
from relay.config.load import Need, load_document


class TestFiles:
    TEXT = "endpoints: [{path: /a, signing_secrets: ['file:%s']}]"

    @pytest.mark.parametrize(
        ("contents", "secret"),
        [
            ("hush", "hush"),
            ("hush\n", "hush"),
            ("hush\r\n", "hush"),
            (" hush \n\n", " hush "),
            ("two\nlines\n", "two\nlines"),
            ("${X}", "${X}"),  # a file means what it says
        ],
    )
    def test_the_contents_of_a_file_are_filled_in(
        self, read: Read, file: Path, contents: str, secret: str
    ) -> None:
        (file.parent / "secret").write_bytes(contents.encode())

        for name in ("secret", " secret", str(file.parent / "secret")):
            [endpoint] = read(self.TEXT % name).endpoints
            assert endpoint.signing_secrets[0].get_secret_value() == secret

    def test_its_name_may_hold_a_variable(self, read: Read, file: Path) -> None:
        (file.parent / "secret").write_text("hush")

        [endpoint] = read(self.TEXT % "${DIR}/secret", DIR=str(file.parent)).endpoints

        assert endpoint.signing_secrets[0].get_secret_value() == "hush"

    def test_a_variable_that_is_not_set_is_its_only_fault(self, faults: Faults) -> None:
        [fault] = faults(self.TEXT % "${DIR}/secret")

        assert fault.endswith(": environment variable DIR is not set")

    def test_a_url_is_no_reference(self, faults: Faults) -> None:
        assert faults(ENDPOINT + "store: 'file:///etc/passwd'") == [
            "2: store: write sqlite:///relay.db (beside this file), sqlite:////path "
            "or postgresql://user@host/db"
        ]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("absent", "No such file or directory"), (".", "Is a directory"),
         ("latin", "not UTF-8 text")],
    )  # fmt: skip
    def test_a_file_that_cannot_be_read_is_a_fault(
        self, faults: Faults, file: Path, name: str, reason: str
    ) -> None:
        (file.parent / "latin").write_bytes(b"\xff")

        [fault] = faults(self.TEXT % name)

        path = file.parent / name
        place = "1: endpoints[0].signing_secrets[0]"
        assert fault == f"{place}: file {path} cannot be read: {reason}"

    def test_an_empty_file_is_no_secret(self, faults: Faults, file: Path) -> None:
        (file.parent / "secret").write_text("\n")

        [fault] = faults(self.TEXT % "secret")

        assert "signing_secrets[0]: empty: anybody could sign" in fault


class TestCredentials:
    TEXT = "endpoints: [{path: /a, signing_secrets: ['credential:%s']}]"

    def test_the_contents_of_a_credential_are_filled_in(self, read: Read, tmp_path: Path) -> None:
        folder = tmp_path / "credentials"
        folder.mkdir()
        (folder / "gofax-secret").write_text("hush\n")

        for name in ("gofax-secret", " gofax-secret", "${NAME}"):
            config = read(self.TEXT % name, CREDENTIALS_DIRECTORY=str(folder), NAME="gofax-secret")
            [endpoint] = config.endpoints
            assert endpoint.signing_secrets[0].get_secret_value() == "hush"

    @pytest.mark.parametrize(
        ("name", "environ", "said"),
        [
            (
                "gofax",
                {},
                "credential gofax is not here: systemd sets CREDENTIALS_DIRECTORY for a unit with "
                "LoadCredential=gofax:PATH",
            ),
            (
                "gofax",
                {"CREDENTIALS_DIRECTORY": "/absent"},
                "credential /absent/gofax cannot be read: No such file or directory; a unit "
                "of systemd needs LoadCredential=gofax, and then a restart, not a reload",
            ),
            *(
                (
                    name,
                    {"CREDENTIALS_DIRECTORY": "/etc"},
                    "write credential:NAME, with the name that the unit gives it",
                )
                for name in ("../etc/hostname", "/etc/hostname", "..", "")
            ),
        ],
    )
    def test_one_that_is_not_there_is_a_fault(
        self, faults: Faults, name: str, environ: dict[str, str], said: str
    ) -> None:
        [fault] = faults(self.TEXT % name, **environ)

        assert fault == f"1: endpoints[0].signing_secrets[0]: {said}"

    def test_a_command_that_needs_no_secret_needs_no_credential(self, file: Path) -> None:
        file.write_text(self.TEXT % "gofax")

        _, document = load_document(
            file, find_connector=installed.find, environ={}, need=Need.NO_SECRETS
        )

        assert len(document.left_out) == 1

    def test_diagnose_takes_one_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "gofax").write_text("hush\n")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

        assert secret_from("credential:gofax") == "hush"
        with pytest.raises(ValueError, match="credential .*absent cannot be read"):
            secret_from("credential:absent")


class TestMissingSecrets:
    TEXT = dedent("""\
        endpoints: [{path: /a, signing_secrets: ["${SECRET}", "file:absent"]}]
        destinations:
          crm: {connector: hubspot, access_token: "${TOKEN}", concurrency: 3, connection: one}
          other: {connector: hubspot, access_token: "token", connection: one}
        routes: [{to: [crm, other]}]
        """)

    def test_a_command_that_needs_none_gets_the_rest(self, file: Path) -> None:
        file.write_text(self.TEXT)

        config, document = load_document(
            file, find_connector=installed.find, environ={"TOKEN": ""}, need=Need.NO_SECRETS
        )

        assert (config.destinations["crm"].concurrency, len(document.left_out)) == (3, 3)
        assert config.endpoints[0].name == "/a"

    def test_a_command_that_works_on_the_store_asks_no_connector(self, file: Path) -> None:
        file.write_text(self.TEXT.replace("concurrency: 3", "colour: blue") + "retention: 5d\n")

        def find(name: str) -> NoReturn:
            raise AssertionError(f"{name} was looked for")

        config, _ = load_document(file, find_connector=find, environ={}, need=Need.STORE)

        assert {name: each.connector for name, each in config.destinations.items()} == {
            "crm": "hubspot",
            "other": "hubspot",
        }
        assert config.kept.default == timedelta(days=5)

    def test_nobody_knows_what_stands_for_an_endpoints_secret(self, file: Path) -> None:
        file.write_text(self.TEXT)

        made = set()
        for _ in range(2):
            config, _ = load_document(
                file, find_connector=installed.find, environ={}, need=Need.NO_SECRETS
            )
            made |= {each.get_secret_value() for each in config.endpoints[0].signing_secrets}

        assert len(made) == 4
        assert min(map(len, made)) > 40

    @pytest.mark.parametrize(("need", "number"), [(Need.ALL, 3), (Need.ENDPOINTS, 2)])
    def test_a_command_that_receives_or_delivers_names_what_it_needs(
        self, file: Path, need: Need, number: int
    ) -> None:
        file.write_text(self.TEXT)

        with pytest.raises(ConfigError) as raised:
            load_document(file, find_connector=installed.find, environ={}, need=need)

        assert len(raised.value.faults) == number
        assert "environment variable SECRET is not set" in str(raised.value)

    @pytest.mark.parametrize("need", Need)
    def test_other_faults_stay(self, file: Path, need: Need) -> None:
        file.write_text('store: "${STORE}"\n' + self.TEXT + "retention: never\n")

        with pytest.raises(ConfigError, match=r"STORE is not set[^$]*retention: "):
            load_document(file, find_connector=installed.find, environ={}, need=need)


#: Files with a secret in the wrong place, or near to a fault.
LEAKS = [
    "endpoints: [{path: /a, signing_secrets: HIDDEN}]",
    "endpoints: [{path: /a, signing_secrets: [[HIDDEN]]}]",
    "endpoints: [{path: /a, signing_secrets: {x: HIDDEN}}]",
    "endpoints: [{path: /a, signing_secrets: [HIDDEN], format: HIDDEN}]",
    "endpoints: [{path: /a, signing_secrets: [{secret: HIDDEN, not_after: HIDDEN}]}]",
    "endpoints: [{path: /a, signing_secrets: [{secret: [HIDDEN], until: HIDDEN}]}]",
    "endpoints: [{path: HIDDEN, signing_secrets: [HIDDEN], rate: HIDDEN}]",
    "endpoints: [{path: /a, basic_auth: HIDDEN}]",
    "endpoints: [{path: /a, basic_auth: {username: HIDDEN, pasword: HIDDEN}}]",
    "endpoints: [{path: /a, signing_secrets: [*HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: [!HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: [!HIDDEN!x y]}]",
    "endpoints: [{path: /a, signing_secrets: [&HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: [&HIDDEN a, &HIDDEN b, *x]}]",
    "endpoints: [{path: /a, signing_secrets: [%HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: ['HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: ['HIDDEN' HIDDEN]}]",
    "endpoints: [{path: /a, signing_secrets: ['${HIDDEN']}]",
    "endpoints: [{path: /a, signing_secrets: ['${X}${HIDDEN-X}']}]",
    "HIDDEN",
    "[HIDDEN]",
    "destinations: {a: {connector: mail, token: [HIDDEN]}}",
    "destinations: {a: {connector: mail, token: {b: HIDDEN}}}",
    "destinations: {a: {connector: mail, token: HIDDEN, port: HIDDEN, color: HIDDEN}}",
    "destinations: {a: {connector: mail, token: HIDDEN, mode: b}}",
    "destinations: {a: {connector: mail, tokn: HIDDEN}}",
    "destinations: {a: HIDDEN}",
    "destinations: HIDDEN",
    "store: HIDDEN",
    "store: postgresql://user:HIDDEN@host",
    "store: postgresql://user@host/db?password=HIDDEN",
    "engine: {celery: {broker: HIDDEN}}",
    "engine: {celery: {broker: 'amqp://user:HIDDEN@'}}",
    "engine: {celery: {broker: 'amqp://user:HIDDEN@host'}}",
    "engine: {celery: {broker: 'redis://:HIDDEN@host:HIDDEN/0'}}",
    "server: {listen: 'HIDDEN:HIDDEN', max_body: HIDDEN}",
    "retention: !!int HIDDEN",
]


def test_no_message_repeats_a_secret(faults: Faults) -> None:
    for text in LEAKS:
        for fault in faults(text.replace("HIDDEN", HIDDEN), X="1"):
            assert HIDDEN not in fault, text
