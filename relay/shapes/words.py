"""Numbers with their nouns."""

from __future__ import annotations


def count(number: int, one: str, many: str) -> str:
    """Write a number with its noun: ``1 delivery``, ``2 deliveries``."""
    return f"{number:,} {one if number == 1 else many}"
