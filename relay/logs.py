"""Log lines: JSON for machines, one fact each, to standard error."""

from __future__ import annotations

import logging
import sys

import structlog

#: Foreign loggers whose DEBUG and INFO lines hold bodies and addresses.
NOISY = ("urllib3", "hubspot", "zenpy", "alembic", "werkzeug")


def configure(*, level: int = logging.INFO) -> None:
    """Send our lines to standard error as JSON, and keep foreign loggers quiet."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


def mask(number: str | None) -> str | None:
    """Hide the middle of a phone number: ``+61400000000`` becomes ``+614…000``."""
    if number is None or len(number) < 8:
        return number and "…"
    return f"{number[:4]}…{number[-3:]}"
