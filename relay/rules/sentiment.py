"""How does a text sound? VADER, an optional package, judges it if the config asks for that."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Literal

Sentiment = Literal["positive", "neutral", "negative"]
Judge = Callable[[str], Sentiment]

#: Bytes of UTF-8 that are judged. VADER's time grows with the square of the number of words and
#: emoji: 30,000 emoji would keep the receiver busy for minutes.
JUDGED = 800
#: VADER's own thresholds for its compound score.
POSITIVE, NEGATIVE = 0.05, -0.05

MODULE = "vaderSentiment"


def missing() -> str | None:
    """Return what to install, or None if it is installed."""
    if importlib.util.find_spec(MODULE) is not None:
        return None
    return 'vader needs the package vaderSentiment: pip install "gofax-relay[sentiment]"'


def vader() -> Judge:
    """Load the lexicon and return a judge of texts, which any number of threads may call."""
    analyzer = importlib.import_module(f"{MODULE}.{MODULE}").SentimentIntensityAnalyzer()

    def judge(text: str) -> Sentiment:
        beginning = text.encode("utf-8", "replace")[:JUDGED].decode("utf-8", "ignore")
        score: float = analyzer.polarity_scores(beginning)["compound"]
        if score >= POSITIVE:
            return "positive"
        return "negative" if score <= NEGATIVE else "neutral"

    return judge
