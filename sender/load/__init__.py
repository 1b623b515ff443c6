"""Load: many signed events at a fixed rate, each of them accounted for.

Needs the extra ``load``.
"""
