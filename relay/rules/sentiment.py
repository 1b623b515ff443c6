"""How does a text sound? Judged by VADER, an optional package, when the config asks for it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Literal

Sentiment = Literal["positive", "neutral", "negative"]
Judge = Callable[[str], Sentiment]

#: How much of a text is judged, in bytes of UTF-8. VADER's time grows with the square of the
#: number of words and emoji: 30,000 emoji would keep the receiver busy for minutes.
JUDGED = 800
#: VADER's own bounds for its compound score.
POSITIVE, NEGATIVE = 0.05, -0.05

MODULE = "vaderSentiment"


def missing() -> str | None:
    """Say what to install, or None if it is there."""
    if importlib.util.find_spec(MODULE) is not None:
        return None
    return 'vader needs the package vaderSentiment: pip install "gofax-relay[sentiment]"'


def vader() -> Judge:
    """Load the lexicon and return what judges texts; it may be used from many threads."""
    analyzer = importlib.import_module(f"{MODULE}.{MODULE}").SentimentIntensityAnalyzer()

    def judge(text: str) -> Sentiment:
        beginning = text.encode("utf-8", "replace")[:JUDGED].decode("utf-8", "ignore")
        score: float = analyzer.polarity_scores(beginning)["compound"]
        if score >= POSITIVE:
            return "positive"
        return "negative" if score <= NEGATIVE else "neutral"

    return judge
