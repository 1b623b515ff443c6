"""System calls as strace writes them: which answers left before their event was on the disk?

Runs of strace with ``-f -yy`` name the file or socket behind each descriptor, and split a call
that another thread's interrupts into a line where it begins and one where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

#: What strace is asked to follow.
COMMAND = (
    "strace", "-f", "-yy", "-s", "9000",
    "-e", "trace=pwrite64,write,writev,sendto,sendmsg,fsync,fdatasync", "-o",
)  # fmt: skip
SYNCS = frozenset({"fdatasync", "fsync"})
SENDS = frozenset({"write", "writev", "sendto", "sendmsg"})

_BEGUN = re.compile(r"^(\d+) +(\w+)\(\d+<(.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
_SOCKET = re.compile(r"TCP(v6)?:\[[^\]]*\]")
_RESULT = re.compile(r"\) += (-?\d+)[^\"]*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One system call; its line numbers order it among all others."""

    thread: int
    name: str
    #: What it was called with, the descriptor's name first.
    said: str
    begun: int
    #: None if the trace ends before the call does.
    ended: int | None = None
    failed: bool = False


@dataclass(slots=True)
class Trace:
    """All calls of a run, in the order in which they began."""

    calls: Sequence[Call] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[str]) -> Trace:
        open_: dict[int, Call] = {}
        calls: list[Call] = []
        for number, line in enumerate(lines):
            begun, resumed = _BEGUN.match(line), _RESUMED.match(line)
            if begun:
                call = Call(thread=int(begun[1]), name=begun[2], said=begun[3], begun=number)
                if "<unfinished ...>" in line:
                    open_[call.thread] = call
                else:
                    calls.append(_ended(call, number, line))
            elif resumed and int(resumed[1]) in open_:
                call = open_.pop(int(resumed[1]))
                calls.append(_ended(call, number, line))
        calls += open_.values()
        return cls(sorted(calls, key=lambda call: call.begun))

    def answers(self, message: str) -> Iterator[Call]:
        """Yield the calls that began to send a 200 for *message*."""
        heads: dict[str, Call] = {}
        for call in self.calls:
            socket = _SOCKET.match(call.said)
            if call.name not in SENDS or socket is None:
                continue
            if "HTTP/1.1 200" in call.said:
                heads[socket[0]] = call
            if _quoted(message) in call.said and socket[0] in heads:
                yield heads.pop(socket[0])

    def is_synced(self, message: str, *, log: str, before: Call) -> bool:
        """Return whether the commit that holds *message* was on the disk *before* that call.

        A commit is a run of writes to the write-ahead log by one thread. It is on the disk when
        that thread has synced the log after the run, before it writes another one.
        """
        return any(
            sync.ended is not None and sync.ended < before.begun
            for sync in self._syncs(message, log=log)
        )

    def _syncs(self, message: str, *, log: str) -> Iterator[Call]:
        writing: dict[int, bool] = {}
        for call in self.calls:
            if log not in call.said or call.failed:
                continue
            if call.name == "pwrite64":
                holds = _quoted(message) in call.said
                writing[call.thread] = writing.get(call.thread, False) or holds
            elif call.name in SYNCS and writing.pop(call.thread, False):
                yield call


def _quoted(message: str) -> str:
    return f'\\"{message}\\"'


def _ended(call: Call, number: int, line: str) -> Call:
    result = _RESULT.search(line)
    return replace(call, ended=number, failed=result is None or int(result[1]) < 0)
