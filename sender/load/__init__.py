"""Load: many signed events at a fixed rate, and what became of each of them.

Needs the extra ``load``.
"""
