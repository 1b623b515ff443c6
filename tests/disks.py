"""Small file systems of our own, so that a disk can be full or broken without harm."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class NoMounts(Exception):
    """File systems cannot be mounted here."""


@contextmanager
def in_memory(at: Path, *, size: str) -> Iterator[Path]:
    """Mount an empty file system of *size*. Raises NoMounts."""
    with _mounted(["-t", "tmpfs", "-o", f"size={size}", "tmpfs"], at):
        yield at


@contextmanager
def on_image(image: Path, at: Path) -> Iterator[Path]:
    """Mount the file system in *image*; it becomes read-only when it finds itself broken."""
    with _mounted(["-o", "loop,errors=remount-ro", str(image)], at):
        yield at


def make_image(image: Path, *, megabytes: int) -> None:
    """Make a file with an empty ext4 in it. Raises NoMounts."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    _run(["mkfs.ext4", "-q", str(image)])


def break_down(at: Path) -> None:
    """Let the ext4 at *at* find an error, as a bad disk would make it. Raises NoMounts."""
    source = _run(["findmnt", "-n", "-o", "SOURCE", str(at)]).strip()
    try:
        Path("/sys/fs/ext4", Path(source).name, "trigger_fs_error").write_text("a test")
    except OSError as error:
        raise NoMounts(f"ext4 cannot be broken here: {error.strerror}") from error


def is_released(image: Path) -> bool:
    """Return whether nobody uses the file system in *image* any more."""
    return not _run(["losetup", "--associated", str(image)]).strip()


class Ballast:
    """A file that takes all that is left of a disk."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def fill(self, *, leaving: int = 0) -> None:
        """Take all but the last *leaving* bytes."""
        with self._path.open("ab") as file:
            if leaving:
                file.write(bytes(shutil.disk_usage(self._path.parent).free - leaving))
                return
        file_number = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        try:
            _until_full(lambda: os.write(file_number, bytes(4096)))
        finally:
            os.close(file_number)

    def clear(self) -> None:
        self._path.unlink()


def _until_full(write: Callable[[], object]) -> None:
    while True:
        try:
            write()
        except OSError:
            return


@contextmanager
def _mounted(options: Sequence[str], at: Path) -> Iterator[None]:
    if os.geteuid() != 0:
        raise NoMounts("only root may mount file systems")
    at.mkdir()
    _run(["mount", *options, str(at)])
    try:
        yield
    finally:
        # Lazily: whoever still has a file open does not keep the test from ending.
        subprocess.run(["umount", "--lazy", str(at)], check=False)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", "") or error
        raise NoMounts(f"{command[0]}: {said}".strip()) from error
    return done.stdout
