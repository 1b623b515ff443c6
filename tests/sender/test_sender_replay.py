from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sender import SenderError
from sender.payload import parse_form, parse_json, renewed
from sender.replay import paced, read

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _fault(*paths: Path) -> str:
    with pytest.raises(SenderError) as caught:
        read(paths)
    return str(caught.value)


def test_a_file_is_kept_byte_for_byte(tmp_path: Path) -> None:
    body = b'\r\n{ "messageId":"x" ,\t"cost": 1.00, "a": "\\u00e4" }\n\n'

    payloads = read([_write(tmp_path / "a.json", body)])

    assert [(each.body, each.message_id) for each in payloads] == [(body, "x")]


def test_a_folder_is_read_sorted_and_paths_keep_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.json", "c.form", "a.jsonl"):
        content = b"ID=c" if name == "c.form" else f'{{"messageId": "{name[0]}"}}'.encode()
        _write(folder / name, content)
    first = _write(tmp_path / "z.json", b'{"messageId": "z"}')

    assert [each.message_id for each in read([first, folder, first])] == ["z", "a", "b", "c", "z"]


def test_other_and_hidden_files_of_a_folder_are_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "a.JSON", b"{}")
    _write(tmp_path / "._a.json", b"\x00\x05")
    _write(tmp_path / "README.md", b"about")
    (tmp_path / "old.json").mkdir()

    assert [each.source for each in read([tmp_path])] == [str(tmp_path / "a.JSON")]


def test_json_lines_are_payloads_without_their_line_ends(tmp_path: Path) -> None:
    lines = '{"messageId":"a"}\r\n\n {"messageId":"b\u2028"} \n{"messageId":3}'.encode()
    path = _write(tmp_path / "day.jsonl", lines)

    payloads = read([path])

    expected = [b'{"messageId":"a"}', ' {"messageId":"b\u2028"} '.encode(), b'{"messageId":3}']
    assert [each.body for each in payloads] == expected
    assert [each.source for each in payloads] == [f"{path}:1", f"{path}:3", f"{path}:4"]


def test_a_form_loses_the_line_end_that_an_editor_added(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.form", b"ID=1&Message=ok\r\n")

    assert [(each.kind, each.body) for each in read([path])] == [("form", b"ID=1&Message=ok")]


BAD_FILES = [
    ("a.json", b'{\n"a": "\xe4"}', "a.json:2: not UTF-8 (byte 0xe4)"),
    ("a.json", b'{\n"a": 1\n"b": 2}', "a.json:3: not JSON"),
    ("a.json", b"", "a.json:1: not JSON"),
    ("a.json", b'{"a": 1} {"b": 2}', "a.json:1: not JSON: extra data (column 10)"),
    ("a.json", b'[{"a": 1}]', "a.json:1: not a JSON object"),
    ("a.json", b"\xef\xbb\xbf{}", "a.json:1: starts with a byte order mark"),
    ("a.json", b'{"a":' * 100_000, "a.json:1: nested too deeply"),
    ("a.jsonl", b'{"a": 1}\n\n{"a": \xff}\n', "a.jsonl:3: not UTF-8"),
    ("a.jsonl", b'{"a": 1}\nnull\n', "a.jsonl:2: not a JSON object"),
    ("a.jsonl", b"\n\n", "a.jsonl: holds no payloads"),
    ("a.form", b"", "a.form:1: not form data"),
    ("a.form", b"ID=1\nID=2\n", "a.form:2: not form data"),
    ("a.form", "Message=größer".encode(), "a.form:1: not form data"),
    ("a.txt", b"{}", "a.txt: not a .json, .jsonl or .form file"),
]


def test_a_bad_file_is_named_with_its_line(tmp_path: Path) -> None:
    for name, content, fault in BAD_FILES:
        path = _write(tmp_path / name, content)

        assert _fault(path).startswith(f"{tmp_path}{os.sep}{fault}")


def test_every_bad_file_is_named_at_once(tmp_path: Path) -> None:
    bad = _write(tmp_path / "bad.json", b"{")
    good = _write(tmp_path / "good.json", b"{}")
    missing = tmp_path / "missing.json"

    faults = _fault(bad, good, missing).splitlines()

    assert [each.partition(": ")[0] for each in faults] == [str(missing.parent / "bad.json:1"),
                                                            str(missing)]  # fmt: skip
    assert faults[1].endswith("cannot be read: no such file or directory")


def test_an_empty_folder_is_a_fault(tmp_path: Path) -> None:
    assert _fault(tmp_path) == (
        f"{tmp_path}: holds no .json, .jsonl or .form files: name a folder that does"
    )


BODIES = [
    # Whitespace, escapes, number forms, key order.
    b'\t{"z": 1.00, "messageId" :\n"@", "a": "\\u00e4\\/", "b": 1e5}\r\n',
    # The same name elsewhere, and the same text.
    b'{"metadata":{"messageId":"x"},"messageBody":"\\"messageId\\": 1","messageId":"@"}',
    # Only the last of a repeated key counts.
    b'{"messageId":"first","messageId":"@"}',
    # A number that is too long for int().
    b'{"n":' + b"9" * 20_000 + b',"messageId":"@"}',
    # A key that is only spelled differently.
    b'{"message\\u0049d":"@"}',
    b'{"messageId":"@","a":"\\ud83d"}',
]


def test_renewing_changes_only_the_id() -> None:
    for body in BODIES:
        payload = renewed(parse_json(body.replace(b"@", b"old \xc3\xa4"), source="x"))

        assert payload.message_id not in (None, "old ä")
        assert payload.body == body.replace(b"@", str(payload.message_id).encode())


@given(before=st.dictionaries(st.text(), VALUES), after=st.dictionaries(st.text(), VALUES))
def test_renewing_changes_only_the_id_of_any_object(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    fields = before | {"messageId": "old"} | {k: v for k, v in after.items() if k != "messageId"}
    body = json.dumps(fields).encode()

    payload = renewed(parse_json(body, source="x"))

    assert json.loads(payload.body) == fields | {"messageId": payload.message_id}


def test_a_renewed_integer_stays_an_integer() -> None:
    payload = renewed(parse_json(b'{"messageId": 52336014, "a": 1}', source="x"))

    assert payload.body == b'{"messageId": %s, "a": 1}' % str(payload.message_id).encode()
    assert payload.message_id != "52336014"
    assert str(payload.message_id).isdigit()


def test_a_payload_without_a_usable_id_is_not_renewed() -> None:
    values = ("null", '""', "{}", "1.5", "true")
    for text in (*(f'{{"messageId": {each}}}' for each in values), '{"a": [{"messageId": "x"}]}'):
        payload = parse_json(text.encode(), source="x")

        assert payload.message_id is None
        assert renewed(payload) == payload


def test_a_renewed_form_changes_only_its_id() -> None:
    body = b"Recipient=61400000000&id=41340078&Success=True&Message=a+%26+b%3D&Subject="

    payload = renewed(parse_form(body, source="x"))

    assert payload.message_id != "41340078"
    assert payload.body == body.replace(b"41340078", str(payload.message_id).encode())
    assert dict(parse_qsl(payload.body.decode()))["id"] == payload.message_id


def test_two_renewals_of_one_payload_differ() -> None:
    payload = parse_json(b'{"messageId": "x"}', source="x")

    assert renewed(payload).message_id != renewed(payload).message_id


def test_a_rate_spreads_the_items() -> None:
    started = time.monotonic()

    moments = [time.monotonic() - started for _ in paced(range(6), per_second=50)]

    gaps = [after - before for before, after in zip(moments, moments[1:], strict=False)]
    assert moments[0] < 0.5
    assert min(gaps) >= 0.019
    assert len(moments) == 6


def test_a_slow_item_is_not_followed_by_a_burst() -> None:
    moments = []
    for number in paced(range(4), per_second=20):
        moments.append(time.monotonic())
        if number == 0:
            _work_for(0.2)

    gaps = [after - before for before, after in zip(moments[1:], moments[2:], strict=False)]
    assert min(gaps) >= 0.049


def _work_for(seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        pass
