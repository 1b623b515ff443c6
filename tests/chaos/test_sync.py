"""The kernel's own record: each 200 leaves after the sync of the commit that holds its event."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from stage import PATIENCE, Relay, message
from syscalls import COMMAND, Trace

pytestmark = pytest.mark.slow

Missing = Callable[[str, str], None]

MESSAGES = 40
#: A trace as strace writes it, shortened: one commit, its sync, and the answer in two pieces.
WAL = "7</var/relay.db-wal>"
SOCKET = "9<TCP:[127.0.0.1:80->127.0.0.1:5000]>"
WRITE = f'11 pwrite64({WAL}, "\\r{{\\"messageId\\": \\"m1\\"}}", 4096, 32) = 4096'
SYNC = f"11 fdatasync({WAL}) = 0"
HEAD = f'12 writev({SOCKET}, [{{iov_base="HTTP/1.1 200 OK\\r\\n", iov_len=17}}], 1) = 17'
BODY = f'12 writev({SOCKET}, [{{iov_base="{{\\"messageId\\":\\"m1\\"}}", iov_len=18}}], 1) = 18'


def _unsynced(trace: Trace, messages: list[str], *, log: str) -> list[str]:
    """Return the messages of which an answer left too early, or no answer was seen."""
    found = []
    for name in messages:
        answers = list(trace.answers(name))
        if not answers or not all(
            trace.is_synced(name, log=log, before=answer) for answer in answers
        ):
            found.append(name)
    return found


@pytest.mark.parametrize(
    ("lines", "early"),
    [
        ([WRITE, SYNC, HEAD, BODY], []),
        ([WRITE, HEAD, SYNC, BODY], ["m1"]),  # the status line alone is too much
        ([WRITE, HEAD, BODY], ["m1"]),
        ([SYNC, WRITE, HEAD, BODY], ["m1"]),  # an earlier commit's
        ([WRITE, SYNC.replace("11", "13", 1), HEAD, BODY], ["m1"]),  # another thread's
        ([WRITE, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), HEAD, BODY], ["m1"]),
        ([WRITE, SYNC.replace("-wal", ""), HEAD, BODY], ["m1"]),  # not the log
        ([WRITE, SYNC], ["m1"]),  # no answer: nothing was seen
        (
            [
                WRITE,
                f"11 fdatasync({WAL} <unfinished ...>",
                "11 <... fdatasync resumed>) = 0",
                HEAD,
                BODY,
            ],
            [],
        ),
        (
            [
                WRITE,
                f"11 fdatasync({WAL} <unfinished ...>",
                HEAD,
                "11 <... fdatasync resumed>) = 0",
                BODY,
            ],
            ["m1"],
        ),
    ],
)  # fmt: skip
def test_a_trace_tells_which_answers_left_too_early(lines: list[str], early: list[str]) -> None:
    assert _unsynced(Trace.read(lines), ["m1"], log="relay.db-wal>") == early


@pytest.fixture
def strace(missing: Missing) -> None:
    """What must be there for processes to be traced."""
    if shutil.which("strace") is None:
        missing("strace", "not installed")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False).returncode:
        missing("strace", "processes may not be traced here")


def _traced(relay: Relay, **options: object) -> tuple[Trace, list[str]]:
    """Post from many senders at once to a receiver under strace."""
    to = relay.folder / "trace"
    traced = relay.start("web", before=[*COMMAND, str(to)], **options)
    names = [f"m{number}" for number in range(MESSAGES)]
    with ThreadPoolExecutor(8) as senders:
        answers = list(senders.map(relay.post, map(message, names)))
    assert {answer.status_code for answer in answers} == {200}
    traced.descendants()[0].terminate()
    traced.wait(PATIENCE)
    with to.open(errors="replace") as lines:
        return Trace.read(lines), names


@pytest.mark.usefixtures("strace")
def test_each_answer_leaves_after_the_sync_of_its_commit(relay: Relay) -> None:
    trace, names = _traced(relay)

    assert _unsynced(trace, names, log=f"{relay.store.name}-wal>") == []


@pytest.mark.usefixtures("strace")
def test_the_check_finds_a_store_that_syncs_less(relay: Relay) -> None:
    careless = Path(__file__).with_name("careless.py")

    trace, names = _traced(relay, program=[str(careless)])

    early = _unsynced(trace, names, log=f"{relay.store.name}-wal>")
    assert len(early) > len(names) / 2
