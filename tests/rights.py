"""Drops root's power to pass over file permissions, so that a test meets what users meet."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

#: The version of the structure in the kernel, and the rights to pass over permissions
#: (capabilities(7)).
_VERSION = 0x20080522
_OVERRIDE = 1 << 1 | 1 << 2


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Rights(ctypes.Structure):
    """Rights 0 to 31, and 32 to 63."""

    _fields_ = tuple(
        (f"{kind}_{part}", ctypes.c_uint32)
        for part in range(2)
        for kind in ("effective", "permitted", "inheritable")
    )


@contextmanager
def without_override() -> Iterator[None]:
    """Let permissions of files count for this thread, also if it is root's (Linux)."""
    if os.geteuid():
        yield
        return
    before, without = _held(), _held()
    without.effective_0 &= ~_OVERRIDE
    _hold(without)
    try:
        yield
    finally:
        _hold(before)


def _held() -> _Rights:
    found = _Rights()
    _call("capget", found)
    return found


def _hold(rights: _Rights) -> None:
    _call("capset", rights)


def _call(name: str, rights: _Rights) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    header = _Header(_VERSION, 0)
    if getattr(libc, name)(ctypes.byref(header), ctypes.byref(rights)):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
