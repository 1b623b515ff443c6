"""The problems of a store, and the alerts about them: one node sends each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import partial

import sqlalchemy as sa

from relay.rules import problems as rules
from relay.rules.kinds import Change, Kind, Level
from relay.rules.problems import Finding, Problem, Step
from relay.store import schema
from relay.store.actions import Act, note
from relay.store.database import Database
from relay.store.ids import new_id

#: A claim of alerts runs out after this time: longer than sending may take.
LEASE = timedelta(minutes=1)
#: Waits after a try that failed; the last one repeats until the alert is given up.
RETRIES = tuple(timedelta(seconds=each) for each in (10, 30, 60, 300))
GIVEN_UP_AFTER = timedelta(days=1)
#: Alerts to one channel that are sent together, in their order.
TOGETHER = 5
#: Resolved problems that one round removes.
REMOVED = 100

_problems, _alerts = schema.problems, schema.alerts
_p, _a = _problems.c, _alerts.c


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """A message about a problem, claimed to be sent now."""

    seq: int
    channel: str
    change: Change
    kind: Kind
    #: What the problem is about, such as a destination.
    subject: str
    level: Level
    said: str
    at: datetime
    tries: int
    #: Whether it may have been sent before.
    repeat: bool


class Problems:
    """Reads and writes problems and their alerts, by the clock that the nodes share."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._clock = clock or database.clock

    def judge(
        self, found: Sequence[Finding], *, channels: Callable[[Problem, Change], Sequence[str]]
    ) -> Sequence[Step]:
        """Write what *found* makes of the problems, and an alert for each of *channels*.

        Return what changed, which is nothing while another node judges.
        """
        with self._database.reading() as db:
            steps = self._steps(db, found)
        if not steps:
            return []
        with self._database.writing() as db:
            if not self._database.try_exclusive(db, "problems"):
                return []
            # Another node may have judged since.
            steps = self._steps(db, found)
            for step in steps:
                self._write(db, step)
                if step.told:
                    self._add_alerts(db, step.problem, step.told, channels)
        return steps

    def unresolved(self) -> Sequence[Problem]:
        """Return the problems that are open now, oldest first."""
        with self._database.reading() as db:
            return [each for each in _unresolved(db) if each.opened_at is not None]

    def resolved(self, *, limit: int) -> Sequence[Problem]:
        """Return the newest *limit* resolved problems, oldest first."""
        newest = sa.select(_problems).where(_p.resolved_at.is_not(None))
        with self._database.reading() as db:
            rows = db.execute(newest.order_by(_p.seq.desc()).limit(limit)).mappings().all()
        return [_load(row) for row in reversed(rows)]

    def acknowledge(self, problems: Sequence[Problem], act: Act) -> Sequence[Problem]:
        """Note that a person knows of *problems*: they are not told again; return the new ones."""
        unknown = _p.id.in_([each.id for each in problems]), _p.acknowledged_at.is_(None)
        with self._database.writing() as db:
            ids = set(db.scalars(sa.select(_p.id).where(*unknown).with_for_update()))
            noted = sa.update(_problems).where(_p.id.in_(ids))
            db.execute(noted.values(acknowledged_at=act.at, acknowledged_by=act.who))
            new = [each for each in problems if each.id in ids]
            note(db, act, "acknowledge", [{"detail": each.said} for each in new])
        return new

    def claim(self, channel: str, *, node: str) -> Sequence[Alert]:
        """Take the oldest unsent alerts of a channel, if they are due and no node has them.

        One whose claim ran out may have been sent by a node that died.
        """
        line = sa.select(_alerts, _p.kind, _p.subject).join(_problems, _p.id == _a.problem_id)
        line = line.where(schema.UNSENT, _a.channel == channel).order_by(_a.seq).limit(TOGETHER)
        with self._database.reading() as db:
            if not db.execute(line).first():
                return []
        with self._database.writing() as db:
            if not self._database.try_exclusive(db, f"alerts {channel}"):
                return []
            now = self._clock()
            rows = db.execute(line).mappings().all()
            if not rows or rows[0]["due_at"] > now:
                return []
            if any(row["lease_until"] is not None and row["lease_until"] > now for row in rows):
                return []
            claimed = {"node": node, "lease_until": now + LEASE}
            db.execute(
                sa.update(_alerts)
                .where(_a.seq.in_([row["seq"] for row in rows]))
                .values(**claimed, repeat=sa.or_(_a.repeat, _a.lease_until.is_not(None)))
            )
        return [_alert(row) for row in rows]

    def record(self, alerts: Sequence[Alert], results: Mapping[int, str | None]) -> None:
        """Write what became of claimed *alerts*: by number, None if sent, or why not.

        One without a result may have been sent; those after the first that failed were not tried.
        """
        now = self._clock()
        sent = [each for each in alerts if each.seq in results and results[each.seq] is None]
        others = [each for each in alerts if each not in sent]
        free = {"node": None, "lease_until": None}
        with self._database.writing() as db:
            for alert in sent:
                values = {"tries": alert.tries, "due_at": None, "sent_at": now, "error": None}
                db.execute(sa.update(_alerts).where(_a.seq == alert.seq).values(**values, **free))
            for number, alert in enumerate(others):
                # Those after the first that failed were not tried.
                failed = _failed(alert, results.get(alert.seq), now=now) if number == 0 else {}
                db.execute(sa.update(_alerts).where(_a.seq == alert.seq).values(**failed, **free))

    def forget(self, *, before: datetime) -> None:
        """Remove problems that were resolved *before*, with their alerts."""
        old = sa.select(_p.id).where(_p.resolved_at < before).order_by(_p.seq).limit(REMOVED)
        with self._database.reading() as db:
            ids = db.scalars(old).all()
        if ids:
            with self._database.writing() as db:
                db.execute(sa.delete(_alerts).where(_a.problem_id.in_(ids)))
                db.execute(sa.delete(_problems).where(_p.id.in_(ids)))

    def _steps(self, db: sa.Connection, found: Sequence[Finding]) -> Sequence[Step]:
        return rules.steps(
            _unresolved(db), found, now=self._clock(), new_id=partial(new_id, "prb")
        )

    def _write(self, db: sa.Connection, step: Step) -> None:
        row = asdict(step.problem)
        if step.dropped:
            db.execute(sa.delete(_problems).where(_p.id == row["id"]))
            return
        insert = self._database.insert(_problems).values(row)
        changed = {name: insert.excluded[name] for name in row if name != "id"}
        db.execute(insert.on_conflict_do_update(index_elements=[_p.id], set_=changed))

    def _add_alerts(
        self,
        db: sa.Connection,
        problem: Problem,
        change: Change,
        channels: Callable[[Problem, Change], Sequence[str]],
    ) -> None:
        now = self._clock()
        rows = [
            {
                "problem_id": problem.id,
                "channel": channel,
                "change": change,
                "level": problem.level,
                "said": problem.said,
                "at": now,
                "tries": 0,
                "repeat": False,
                "due_at": now,
            }
            for channel in channels(problem, change)
        ]
        if rows:
            db.execute(sa.insert(_alerts), rows)


def _unresolved(db: sa.Connection) -> Sequence[Problem]:
    rows = db.execute(sa.select(_problems).where(schema.UNRESOLVED).order_by(_p.seq)).mappings()
    return [_load(row) for row in rows]


def _load(row: sa.RowMapping) -> Problem:
    values = {name: value for name, value in row.items() if name != "seq"}
    return Problem(**{**values, "kind": Kind(row["kind"])})


def _alert(row: sa.RowMapping) -> Alert:
    return Alert(
        seq=row["seq"],
        channel=row["channel"],
        change=row["change"],
        kind=Kind(row["kind"]),
        subject=row["subject"],
        level=row["level"],
        said=row["said"],
        at=row["at"],
        tries=row["tries"] + 1,
        repeat=row["repeat"] or row["lease_until"] is not None,
    )


def _failed(alert: Alert, error: str | None, *, now: datetime) -> dict[str, object]:
    due_at = now + RETRIES[min(alert.tries, len(RETRIES)) - 1]
    return {
        "tries": alert.tries,
        "error": error or "no answer in time",
        "repeat": alert.repeat or error is None,
        "due_at": due_at if due_at - alert.at < GIVEN_UP_AFTER else None,
    }
