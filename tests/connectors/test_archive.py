"""The archive: no row lost, none twice, and days that become Parquet files."""

from __future__ import annotations

import fcntl
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.parquet as pq
import pytest
import rights
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from connectors import plain
from connectors.archive.connector import Archive, ArchiveOptions
from connectors.archive.folder import Folder
from connectors.base import DeliveryError, Event, Receipt, Refused, Transient, Unauthorized
from connectors.http import Http
from connectors.testing import sample_event
from relay.cli import cli

#: What some programs obey, though JSON need not escape it: DEL, C1, ends of lines, directions.
OBEYED = "".join(map(chr, (*range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F)))
OBEYED += "".join(map(chr, (*range(0x2028, 0x202F), *range(0x2066, 0x206A))))
#: The beginning of a process that writes into the archive of its first argument.
WRITER = """\
import sys
from connectors.archive.connector import Archive, ArchiveOptions
from connectors.base import Transient
from connectors.http import Http
from connectors.testing import sample_event
kept = Archive(ArchiveOptions(url=sys.argv[1]), http=Http())
def deliver(key, **changes):
    kept.deliver(sample_event(**changes), key=key, thread=None, repeat=True, deadline=60)
"""
DAY = date(2025, 12, 4)
FOLDER = "2025/12/04"
LATER = date(2025, 12, 5)


def archive(url: object, **given: Any) -> Archive:
    return Archive(ArchiveOptions.model_validate({"url": str(url), **given}), http=Http())


def deliver(
    archive: Archive,
    key: str = "k1",
    event: Event | None = None,
    *,
    repeat: bool = False,
    deadline: float = 5,
) -> Receipt:
    return archive.deliver(
        event or sample_event(), key=key, thread=None, repeat=repeat, deadline=deadline
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "kept" / "archive"


@pytest.fixture
def part(root: Path) -> Path:
    return root / FOLDER / "part-0001.jsonl"


@pytest.fixture(params=["folder", "memory", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    """An archive of each kind, empty."""
    memory = fsspec.filesystem("memory")
    url = {
        "folder": str(tmp_path / "archive"),
        "memory": f"memory://{tmp_path.name}",
        "file": f"file://{tmp_path}/archive",
    }[request.param]
    made = archive(url)
    yield made
    made.close()
    memory.store.clear()


def keys(place: Archive, day: date = DAY) -> list[str]:
    return sorted(
        json.loads(line)["key"]
        for _, content in place._place.lines(day)
        for line in content.splitlines()
    )


def rolled(place: Archive, day: date = DAY) -> list[str]:
    content = place._place.rolled(day)
    return sorted(pq.read_table(_file(content))["key"].to_pylist()) if content else []


def _file(content: bytes) -> Any:
    return io.BytesIO(content)


class TestRows:
    def test_a_row_is_the_event_with_its_key_first(self, root: Path, part: Path) -> None:
        event = sample_event(body="two\nlines \u2028 \x85", url="https://relay.example.com/e/1")

        receipt = deliver(archive(root), event=event)

        line, end = part.read_bytes().split(b"\n")
        row = json.loads(line)
        assert (end, receipt.reference) == (b"", f"{FOLDER}/part-0001.jsonl")
        assert next(iter(row)) == "key"
        assert row == {"key": "k1", **plain.values(event)}

    @given(st.text(st.sampled_from(OBEYED) | st.characters(codec="utf-8")))
    def test_a_row_is_one_line_and_harmless_to_every_program(self, body: str) -> None:
        row = plain.encode({"key": "k1", **plain.values(sample_event(body=body + OBEYED))})

        text = row.decode()
        assert text.splitlines() == [text]
        assert not set(text) & set(OBEYED)
        assert json.loads(text)["body"] == body + OBEYED

    def test_the_day_is_that_of_the_receipt_in_utc(self, root: Path) -> None:
        there = timezone(timedelta(hours=10))
        event = sample_event(received_at=datetime(2025, 12, 4, 9, 59, tzinfo=there))

        assert deliver(archive(root), event=event).reference.startswith("2025/12/03/")

    def test_rows_are_appended_in_order(self, place: Archive) -> None:
        for number in range(5):
            deliver(place, f"k{number}")

        assert keys(place) == [f"k{number}" for number in range(5)]

    def test_a_repetition_is_written_once(self, place: Archive) -> None:
        references = {deliver(place, repeat=repeat).reference for repeat in (False, True, True)}

        assert (len(references), keys(place)) == (1, ["k1"])

    def test_a_repetition_that_never_came_is_written(self, place: Archive) -> None:
        deliver(place, "k0")
        deliver(place, "k1", repeat=True)

        assert keys(place) == ["k0", "k1"]

    def test_no_text_passes_for_the_row_of_another_key(self, root: Path) -> None:
        kept = archive(root)
        deliver(kept, "k1", sample_event(body='\n{"key":"k2"', metadata={"key": "k2"}))

        deliver(kept, "k2", repeat=True)

        assert keys(kept) == ["k1", "k2"]

    def test_a_full_part_is_followed_by_another(self, root: Path) -> None:
        folder = Folder(root, full=100)
        for number in range(3):
            folder.add(DAY, f"k{number}", b"x" * 60, repeat=False, is_rolled=bool, deadline=5)

        sizes = [path.stat().st_size for path in sorted(root.rglob("*.jsonl"))]
        assert sizes == [122, 61]

    def test_nobody_else_may_read_it(self, root: Path, part: Path) -> None:
        deliver(archive(root))

        modes = [path.stat().st_mode & 0o777 for path in (root, part.parent, part)]
        assert modes == [0o700, 0o700, 0o600]


class TestCrashes:
    @pytest.mark.parametrize("torn", [b'{"key":"k2","body":"cut o', b"{", b"\0" * 40])
    def test_a_line_that_was_cut_off_is_removed(self, root: Path, part: Path, torn: bytes) -> None:
        kept = archive(root)
        deliver(kept)
        with part.open("ab") as file:
            file.write(torn)

        deliver(kept, "k2", repeat=True)

        assert keys(kept) == ["k1", "k2"]
        assert part.read_bytes().count(b"\n") == 2

    def test_a_part_that_is_nothing_but_a_torn_line(self, root: Path, part: Path) -> None:
        part.parent.mkdir(parents=True)
        part.write_bytes(b'{"key":"k1"')
        kept = archive(root)

        deliver(kept, repeat=True)

        assert keys(kept) == ["k1"]

    def test_an_empty_part(self, root: Path, part: Path) -> None:
        part.parent.mkdir(parents=True)
        part.touch()
        kept = archive(root)

        deliver(kept, repeat=True)

        assert keys(kept) == ["k1"]

    def test_a_full_disk_leaves_whole_lines(self, root: Path, part: Path) -> None:
        script = WRITER + (
            "import resource, signal\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "deliver('k1')\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
            "try: deliver('k2', body='x' * 5000)\n"
            "except Transient as error: print(error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, str(root)],
            capture_output=True,
            text=True,
            check=False,
            cwd=Path(__file__).parents[2],
            # Coverage would want to write a file of its own.
            env={name: value for name, value in os.environ.items() if "COV" not in name},
        )

        assert (done.stderr, "File too large" in done.stdout) == ("", True)
        assert keys(archive(root)) == ["k1"]
        assert part.read_bytes().endswith(b"}\n")

    @pytest.mark.slow
    def test_rows_and_names_are_synced_before_it_is_said(self, root: Path) -> None:
        script = "import sys; sys.path[:0] = ['tests', 'tests/connectors']\n"
        script += "from test_archive import *\nkept = archive(sys.argv[1])\n"
        script += "import os; synced = []; real = os.fsync\n"
        script += "def noting(fd): synced.append(os.readlink(f'/proc/self/fd/{fd}')); real(fd)\n"
        script += "os.fsync = noting\n"
        script += "for key in ('k1', 'k2'): deliver(kept, key); synced.append('-')\n"
        script += "print('\\n'.join(synced))"
        done = subprocess.run(
            [sys.executable, "-c", script, str(root)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )

        day = root / FOLDER
        first = [day / "part-0001.jsonl", day, day.parent, day.parent.parent, root, root.parent]
        assert done.stdout.split() == [
            *map(str, first), "-", str(day / "part-0001.jsonl"), "-",
        ]  # fmt: skip


class TestTogether:
    def test_threads_and_instances_take_turns(self, root: Path) -> None:
        instances = [archive(root) for _ in range(4)]
        threads = [
            threading.Thread(
                target=deliver, args=(instances[n % 4], f"k{n % 25}"), kwargs={"repeat": True}
            )
            for n in range(100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert keys(instances[0]) == sorted(f"k{n}" for n in range(25))

    @pytest.mark.slow
    def test_processes_take_turns(self, root: Path) -> None:
        script = WRITER + (
            "print('ready', flush=True); sys.stdin.readline()\n"
            "for n in range(40): deliver(f'k{n}')\n"
        )
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).parents[2],
            )
            for _ in range(3)
        ]
        for process in processes:
            assert process.stdout and process.stdout.readline() == "ready\n"
        for process in processes:
            process.communicate("go\n", timeout=60)

        assert [process.returncode for process in processes] == [0, 0, 0]
        assert keys(archive(root)) == sorted(f"k{n}" for n in range(40))

    def test_a_lock_that_is_never_given_back_ends_at_the_deadline(self, root: Path) -> None:
        kept = archive(root)
        deliver(kept)
        with (root / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)

            with pytest.raises(Transient, match="another writer has held the lock for too long"):
                deliver(kept, "k2", deadline=0.1)

        deliver(kept, "k2")
        assert keys(kept) == ["k1", "k2"]


class TestTrouble:
    def test_a_file_where_a_folder_should_be(self, root: Path) -> None:
        root.parent.mkdir()
        root.write_text("no folder")

        for act in (lambda: deliver(archive(root)), archive(root).check):
            with pytest.raises((Unauthorized, Transient), match="kept/archive"):
                act()

    def test_no_permission_pauses_the_destination(self, root: Path) -> None:
        root.mkdir(parents=True)
        root.chmod(0o500)

        with pytest.raises(Unauthorized), rights.without_override():
            deliver(archive(root))

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere, says access()")
    def test_check_tells_that_there_is_no_permission(self, root: Path) -> None:
        root.mkdir(parents=True)
        root.chmod(0o500)

        with pytest.raises(Unauthorized, match="no folder that we may write to"):
            archive(root).check()

    def test_check_changes_nothing(self, place: Archive, tmp_path: Path) -> None:
        assert place.check()
        assert list(tmp_path.iterdir()) == []

    def test_what_a_store_raises(self) -> None:
        rows: list[tuple[OSError, type[DeliveryError]]] = [
            (PermissionError("no"), Unauthorized),
            (FileNotFoundError("bucket"), Unauthorized),
            (ConnectionError("reset"), Transient),
        ]
        for raised, kind in rows:
            kept = archive("memory://trouble")

            with pytest.raises(kind), kept._place.alone(0):
                raise raised
            kept.close()


def _at(day: date, hour: int = 12) -> datetime:
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)


class TestRoll:
    def test_a_closed_day_becomes_one_file(self, place: Archive) -> None:
        events = {f"k{n}": sample_event(body=f"text {n} ü\n", url=None) for n in range(3)}
        for key, event in events.items():
            deliver(place, key, event)

        said = list(place.roll(before=LATER))

        assert len(said) == 1 and said[0].startswith("2025-12-04: rows 3, from ")
        assert (keys(place), rolled(place)) == ([], ["k0", "k1", "k2"])
        content = place._place.rolled(DAY)
        assert content is not None
        [row, *_] = pq.read_table(_file(content)).to_pylist()
        assert row["received_at"] == events["k0"].received_at
        assert row["body"] == "text 0 ü\n"
        assert json.loads(row["metadata"]) == {"accountId": "12345"}

    def test_days_that_are_open_stay(self, place: Archive) -> None:
        deliver(place, "k1", sample_event(received_at=_at(DAY)))
        deliver(place, "k2", sample_event(received_at=_at(LATER)))

        assert len(list(place.roll(before=LATER))) == 1
        assert (keys(place, DAY), keys(place, LATER)) == ([], ["k2"])
        assert list(place.roll(before=LATER)) == []

    def test_a_repetition_finds_its_row_in_the_parquet_file(self, place: Archive) -> None:
        deliver(place)
        list(place.roll(before=LATER))

        receipt = deliver(place, repeat=True)

        assert receipt.reference == f"{FOLDER}/events.parquet"
        assert (keys(place), rolled(place)) == ([], ["k1"])

    def test_rows_that_come_late_are_merged(self, place: Archive) -> None:
        deliver(place, "k1")
        list(place.roll(before=LATER))
        deliver(place, "k2", repeat=True)

        list(place.roll(before=LATER))

        assert (keys(place), rolled(place)) == ([], ["k1", "k2"])

    def test_rolling_that_was_interrupted_is_taken_up(self, place: Archive) -> None:
        deliver(place, "k1")
        lines = place._place.lines(DAY)
        list(place.roll(before=LATER))
        # As if it had ended before the lines were removed.
        deliver(place, "k1", repeat=False)
        assert lines and keys(place) == rolled(place) == ["k1"]

        list(place.roll(before=LATER))

        assert (keys(place), rolled(place)) == ([], ["k1"])

    def test_a_row_survives_being_rolled_again_and_again(self, place: Archive) -> None:
        event = sample_event(metadata={"a": [1, {"b": None}]}, payload={"c": "ü"}, body=None)
        deliver(place, "k1", event)
        for number in range(2, 4):
            list(place.roll(before=LATER))
            deliver(place, f"k{number}", event)
        list(place.roll(before=LATER))

        content = place._place.rolled(DAY)
        assert content is not None
        rows = pq.read_table(_file(content)).to_pylist()
        assert len(rows) == 3
        assert len({json.dumps({**r, "key": ""}, default=str) for r in rows}) == 1

    @pytest.mark.parametrize("broken", [b"no JSON\n", b'{"id": "no key"}\n', b"[]\n", b"\0\0\n"])
    def test_a_line_that_is_none_of_ours_stops_the_day(
        self, root: Path, part: Path, broken: bytes
    ) -> None:
        kept = archive(root)
        deliver(kept)
        with part.open("ab") as file:
            file.write(broken)
        before = part.read_bytes()

        with pytest.raises(Refused, match=r"2025-12-04 part-0001.jsonl, line 2: no row of ours"):
            list(kept.roll(before=LATER))

        assert part.read_bytes() == before
        assert not (part.parent / "events.parquet").exists()

    def test_what_a_later_version_adds_is_kept(self, root: Path, part: Path) -> None:
        kept = archive(root)
        deliver(kept)
        row = json.loads(part.read_bytes()) | {"key": "k2", "colour": ["red"]}
        with part.open("ab") as file:
            file.write(plain.encode(row) + b"\n")
        list(kept.roll(before=LATER))
        deliver(kept, "k3")
        list(kept.roll(before=LATER))

        table = pq.read_table(part.parent / "events.parquet").to_pylist()
        assert {each["key"]: each["more"] for each in table} == {
            "k1": None, "k2": '{"colour": ["red"]}', "k3": None,
        }  # fmt: skip

    def test_what_is_beside_the_days_is_left_alone(self, place: Archive, root: Path) -> None:
        for odd in ("notes/part-0001.jsonl", "2025/12/04/notes.txt", "2025/13/99/part-1.jsonl"):
            path = root / odd
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("mine")
        kept = archive(root)
        deliver(kept)

        list(kept.roll(before=LATER))

        assert (root / "notes/part-0001.jsonl").exists()
        assert (root / "2025/12/04/notes.txt").exists()


CONFIG = """\
endpoints: [{path: /open, allow_unsigned: true}]
destinations:
  old: {connector: archive, url: data/old}
  new: {connector: archive, url: data/new}
  flow: {connector: webhook, url: "https://example.com/"}
"""


class TestCommand:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Callable[..., Any]:
        path = tmp_path / "config.yaml"
        path.write_text(CONFIG)
        return lambda *more: CliRunner().invoke(
            cli, ["archive", "roll", "--config", str(path), *more]
        )

    def test_it_rolls_every_archive(self, run: Callable[..., Any], tmp_path: Path) -> None:
        deliver(archive(tmp_path / "data/old"))

        done = run()

        assert done.exit_code == 0
        said = done.output.splitlines()
        assert said[0] == "✓ old: 2025-12-04: rows 1, from 1 files, as Parquet"
        assert said[1].startswith("✓ new: nothing to roll before 20")

    def test_it_keeps_days_that_may_still_be_written_to(
        self, run: Callable[..., Any], tmp_path: Path
    ) -> None:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        deliver(archive(tmp_path / "data/old"), event=sample_event(received_at=yesterday))

        assert "old: nothing to roll" in run("--destination", "old").output
        assert "old: 20" in run("--destination", "old", "--keep", "1").output

    def test_what_cannot_be_rolled_is_said(self, run: Callable[..., Any]) -> None:
        rows: list[str] = ["flow", "nobody"]
        for name in rows:
            done = run("--destination", name)

            assert done.exit_code == 1
            assert f'the config has no destination "{name}" that can be rolled' in done.output

    def test_a_day_that_cannot_be_rolled_fails(
        self, run: Callable[..., Any], tmp_path: Path
    ) -> None:
        day = tmp_path / "data/old" / FOLDER
        day.mkdir(parents=True)
        (day / "part-0001.jsonl").write_text("nonsense\n")

        done = run()

        assert done.exit_code == 1
        assert "✗ old: refused: 2025-12-04 part-0001.jsonl, line 1" in done.output
        assert "✓ new" in done.output


class TestOptions:
    def test_a_wrong_option_is_found(self) -> None:
        rows: list[tuple[dict[str, Any], str]] = [
            ({"url": ""}, "url"),
            ({"url": "nothing://x"}, "nothing: no file system that fsspec knows"),
            ({"url": "s3://user:pass@bucket/x"}, "must not contain a user name"),
            ({"url": "archive", "storage": {"key": "x"}}, "they belong to a URL"),
            ({"url": "memory://x", "storage": {"key": 1.5}}, "storage"),
        ]
        for wrong, fault in rows:
            with pytest.raises(ValidationError) as caught:
                ArchiveOptions.model_validate(wrong)

            assert fault in str(caught.value)

    def test_a_missing_driver_is_said_with_its_mend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "s3fs", None)
        with pytest.raises(ValidationError, match="s3: Install s3fs"):
            ArchiveOptions(url="s3://bucket/sms")

        monkeypatch.setitem(sys.modules, "fsspec", None)
        with pytest.raises(ValidationError, match=r'needs fsspec: pip install "gofax-relay\[arch'):
            ArchiveOptions(url="memory://x")

    def test_a_missing_pyarrow_is_said_with_its_mend(
        self, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = archive(root)
        deliver(kept)
        monkeypatch.setitem(sys.modules, "pyarrow", None)

        with pytest.raises(Unauthorized, match=r'pip install "gofax-relay\[archive\]"'):
            list(kept.roll(before=LATER))
        assert keys(kept) == ["k1"]

    def test_texts_of_the_storage_are_hidden_and_used(self) -> None:
        hidden = "hush" * 3
        given = {"storage": {"token": hidden, "deep": {"key": hidden}, "secure": True}}
        options = ArchiveOptions.model_validate({"url": "memory://x", **given})

        for shown in (repr(options), str(options), options.model_dump_json()):
            assert hidden not in shown
        kept = Archive(options, http=Http())
        assert kept._place._fs.storage_options["deep"] == {"key": hidden}  # type: ignore[attr-defined]
        kept.close()
