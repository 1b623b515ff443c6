"""A child of ours that does something apart."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.processes import apart


def test_it_works_while_we_go_on_and_has_ended_after_that(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "meeting")

    def meet() -> None:
        (tmp_path / "meeting").write_text(str(os.getpid()))

    with apart(meet):
        # Each side opens it only together with the other.
        pid = int((tmp_path / "meeting").read_text())

    assert pid != os.getpid()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_we_exit_as_it_did_if_it_failed() -> None:
    done = []

    def fail() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as end, apart(fail):
        done.append("ours")

    assert (done, end.value.code) == (["ours"], 3)


def test_an_error_of_ours_waits_for_its_end_and_goes_on(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), apart((tmp_path / "done").touch):
        raise ZeroDivisionError

    assert (tmp_path / "done").exists()
