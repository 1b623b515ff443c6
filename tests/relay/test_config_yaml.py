"""YAML that cannot be read, or means something else than it seems to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from config_files import (
    ENDPOINT,
    Faults,
    Read,
    find_connector,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.config.document import ConfigError, written
from relay.config.load import load


class TestYaml:
    def test_what_is_no_mapping_says_so(self, faults: Faults) -> None:
        rows = ["", "\n", "# only a comment\n", "--- \n", "null", "- a\n", "text", "5"]

        for text in rows:
            [fault] = faults(text)
            assert fault.endswith(": this is not a mapping of keys; config.example.yaml shows one")

    def test_bad_yaml_is_told_with_its_line(self, faults: Faults) -> None:
        rows = [
            ("a: b: c\n", 2),
            ("a: [1, 2\nb: 3\n", 3),
            ("a:\n\t- b\n", 3),
            ("a: 'x\n", 3),
            ("a: @x\n", 2),
            ("a: *nobody\n", 2),
            ("a: !python/object:os.system x\n", 2),
            ("a: {<<: 5}\n", 2),
            ("a: 1\n---\nb: 2\n", 3),
            ("a: \x01\n", 2),
            ("%YAML 9\n", 2),
        ]

        for text, line in rows:
            [fault] = faults(ENDPOINT + text)
            assert fault.startswith(f"{line}: not YAML: "), text

    @pytest.mark.parametrize("text", ["a: &a [*a]", "a: &a {b: *a}"])
    def test_what_holds_itself_is_a_fault(self, faults: Faults, text: str) -> None:
        assert faults(ENDPOINT + text) == ["1: not YAML: nested too deeply"]

    def test_a_value_that_yaml_cannot_read_is_a_fault(self, faults: Faults) -> None:
        rows = ["2025-13-45", "!!int x", "!!float x", "!!bool x", "!!timestamp x"]

        for value in rows:
            assert faults(f"{ENDPOINT}retention: {value}\nsever: 1\n") == [
                "2: retention: this value cannot be read; put it in quotes",
                "3: sever: unknown key; did you mean server?",
            ]

    def test_an_absent_file_points_to_the_example(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            load(tmp_path / "absent.yaml", find_connector=find_connector)

        assert str(caught.value) == (
            f"{tmp_path}/absent.yaml:1: cannot be read: No such file or directory; "
            "config.example.yaml shows one"
        )

    def test_a_folder_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r":1: cannot be read: Is a directory$"):
            load(tmp_path, find_connector=find_connector)

    def test_bytes_that_are_no_text_cannot_be_read(self, file: Path) -> None:
        file.write_bytes(b"retention: \xff\n")

        with pytest.raises(ConfigError, match=r":1: cannot be read: not UTF-8 text$"):
            load(file, find_connector=find_connector)

    def test_anchors_and_merges_work(self, read: Read) -> None:
        config = read(
            ENDPOINT
            + """\
destinations:
  a: &a {connector: mail, token: x, rate: 1/1s, port: 26}
  b: &b {<<: *a, rate: 2/1s}
  c: *b
  d: {<<: [*b, *a], rate: 4/1s}
"""
        )

        rates = {name: str(each.rate) for name, each in config.destinations.items()}
        assert rates == {"a": "1/1s", "b": "2/1s", "c": "2/1s", "d": "4/1s"}
        assert {each.options.model_dump()["port"] for each in config.destinations.values()} == {26}

    def test_pairs_of_surrogates_are_joined_as_json_writes_them(self, file: Path) -> None:
        values = {
            "endpoints": [{"path": "/hook", "signing_secrets": ["\U0001f511"]}],
            "destinations": {"\U0001f4f1": {"connector": "plain"}},
            "routes": [{"name": "\U0001f4f1 all", "to": ["\U0001f4f1"]}],
        }
        file.write_text(json.dumps(values, indent=1))  # "\ud83d\udcf1"

        config = load(file, find_connector=find_connector, environ={})

        assert list(config.destinations) == ["\U0001f4f1"] == list(config.routes[0].to)
        assert config.routes[0].name == "\U0001f4f1 all"
        assert config.endpoints[0].signing_secrets[0].get_secret_value() == "\U0001f511"

    def test_a_fault_in_what_was_merged_has_the_line_of_its_origin(self, faults: Faults) -> None:
        text = """\
destinations:
  a: &a {connector: mail, token: x,
         port: 0}
  b: {<<: *a}
"""

        assert faults(ENDPOINT + text) == [
            "4: destinations.a.port: input should be greater than or equal to 1",
            "4: destinations.b.port: input should be greater than or equal to 1",
        ]

    def test_a_key_given_twice_beside_a_merge_is_a_fault(self, faults: Faults) -> None:
        text = "destinations:\n  a: &a {connector: plain}\n  b: {<<: *a, rate: 1/1s, rate: 2/1s}\n"

        assert faults(ENDPOINT + text) == ["4: destinations.b.rate: this key is given twice"]

    def test_a_bare_phone_number_is_what_it_looks_like(self, read: Read) -> None:
        rows = [
            ("+61700000000", "+61700000000"),  # an integer to YAML, without its plus
            ("61412345678", "+61412345678"),
            ("0412345670", "+61412345670"),  # an octal one, because it has no 8 or 9
            ("0412345678", "+61412345678"),
            ("'0412 345 678'", "+61412345678"),
        ]

        for scalar, wanted in rows:
            config = read(
                ENDPOINT
                + "destinations: {a: {connector: plain}}\n"
                + f"routes: [{{to: [a], when: {{from: {scalar}, account: [007, 0, 12]}}}}]\n"
            )
            assert config.routes[0].when.from_ == (wanted,)
            assert config.routes[0].when.account == ("007", "0", "12")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.text(alphabet="ab:-[]{}<&*!%|>'\"#@$,.?\n\t ~0+e", max_size=40))
def test_any_text_is_a_config_or_a_list_of_faults(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError):
        load(file, find_connector=find_connector, environ={})


def test_a_place_is_written_as_people_do() -> None:
    assert written(("routes", 2, "when", "any", 0, "from")) == "routes[2].when.any[0].from"
    assert written(()) == ""
