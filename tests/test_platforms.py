"""What runs where: on a system without POSIX, the sender, the connectors and the rules do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

#: Makes an interpreter look like that of a system without POSIX, and imports what is named.
WITHOUT_POSIX = """
import importlib, os, signal, sys

ABSENT = {"fcntl", "grp", "posix_ipc", "pty", "pwd", "readline", "resource", "syslog", "termios"}
for name in ("fork", "forkpty", "getuid", "geteuid", "getgid", "killpg", "register_at_fork",
             "sched_setscheduler", "SCHED_BATCH", "setsid", "statvfs", "getpgid"):
    if hasattr(os, name):
        delattr(os, name)
for name in ("SIGHUP", "SIGKILL", "SIGUSR1", "SIGCHLD", "pthread_sigmask"):
    if hasattr(signal, name):
        delattr(signal, name)

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in ABSENT:
    sys.modules.pop(name, None)
failed = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except (ImportError, AttributeError) as error:
        failed.append(f"{name}: {error}")
print(*failed, sep="\\n")
"""

#: Need POSIX, as README says: the archive locks its files.
POSIX_ONLY = {"connectors.archive", "connectors.suites.archive"} | {
    f"connectors.archive.{each}" for each in ("connector", "folder", "objects", "parquet", "roll")
}


def modules(*folders: str) -> list[str]:
    """Return the modules below *folders*, in the words of ``import``."""
    return [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.stem != "__main__"
    ]


def without_posix(names: list[str]) -> list[str]:
    """Return those of *names* that cannot be imported, and why."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_POSIX, *names],
        capture_output=True, text=True, check=False, timeout=120, cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": ""} if sys.platform != "win32" else None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


def test_sender_connectors_and_rules_need_no_posix() -> None:
    found = modules("sender", "connectors", "relay/rules")
    names = [each for each in found if each not in POSIX_ONLY]

    assert without_posix(names) == []


def test_nothing_is_excepted_that_needs_no_exception() -> None:
    failing = {each.partition(":")[0] for each in without_posix(sorted(POSIX_ONLY))}

    assert failing == POSIX_ONLY


def test_the_absence_is_a_real_one() -> None:
    failed = without_posix(["fcntl", "relay.store.write_lock"])

    assert failed[0] == "fcntl: No module named 'fcntl'"
    assert [each.partition(":")[0] for each in failed] == ["fcntl", "relay.store.write_lock"]


def test_the_readme_says_what_runs_where() -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())

    assert "**macOS**" in text and "**Windows**" in text
