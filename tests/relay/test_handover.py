"""Another version takes over only when something else is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.processes import handover


def test_another_version_is_something_else_and_the_same_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    # Nothing in it: what is installed is known by names alone, of which there may be hundreds.
    folder = tmp_path / "acme-1.0.dist-info"
    folder.mkdir()
    before = handover.installed()

    newer = folder.rename(tmp_path / "acme-1.1.dist-info")
    assert handover.installed() != before

    newer.rename(folder)
    assert handover.installed() == before
