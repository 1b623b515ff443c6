"""Verification: each accepted event is there once, as a witness sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sender.load.measured import ACCEPTED, REFUSED, UNSENT, Recorder
from sender.witness import Sighting, Witness, settled

#: Ids that a line names.
NAMED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """The events of a load, as a witness sees them."""

    witness: str
    #: How many events it has.
    found: int
    #: Answered 2xx, and not there.
    lost: Sequence[str]
    #: There more than once.
    doubled: Sequence[str]
    #: There, though refused or never sent.
    unasked: Sequence[str]

    @property
    def is_right(self) -> bool:
        """Whether everything accepted is there once, and nothing else."""
        return not (self.lost or self.doubled or self.unasked)

    def said(self) -> str:
        """Say it in one line."""
        parts = [f"{self.found} there"]
        for what, ids in (
            ("lost", self.lost),
            ("doubled", self.doubled),
            ("unasked", self.unasked),
        ):
            named = f" ({', '.join(ids[:NAMED])}{', …' if len(ids) > NAMED else ''})"
            parts.append(f"{len(ids)} {what}{named if ids else ''}")
        return ", ".join(parts)


def verify(recorder: Recorder, witness: Witness, *, patience: float) -> Verified:
    """Ask *witness* for every event of the load, within *patience* seconds.

    Raises :class:`SenderError` if it gives no answer.
    """
    ids = recorder.plan.ids()
    accepted = [each for each, fate in zip(ids, recorder.fates, strict=True) if fate == ACCEPTED]
    seen = settled(
        witness,
        ids,
        wanted=accepted,
        # A store holds an event before it is answered, so one look is enough.
        patience=0.0 if witness.is_prompt else patience,
        look_timeout=patience,
    )
    return judge(ids, recorder.fates, seen, witness=witness.name)


def judge(
    ids: Sequence[str], fates: Sequence[int], seen: dict[str, Sighting], *, witness: str
) -> Verified:
    """Compare the answers with what is there."""
    counts = [seen[each].count for each in ids]
    known = list(zip(ids, fates, counts, strict=True))
    return Verified(
        witness=witness,
        found=sum(count > 0 for count in counts),
        lost=[each for each, fate, count in known if fate == ACCEPTED and not count],
        doubled=[each for each, _, count in known if count > 1],
        unasked=[each for each, fate, count in known if count and fate in (UNSENT, REFUSED)],
    )
