"""What nodes saw beside events, for all nodes to know; kept among the marks of the store."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa

from relay.rules.problems import Certificate, OldSecret
from relay.rules.signature import SigningKey
from relay.store import schema
from relay.store.database import Database
from relay.store.secret import known_secret

#: How often the certificate is looked at, how often while something is wrong with it, and after
#: what time a look that did not end is lost.
LOOK, LOOK_IF_WRONG, LOST = timedelta(hours=1), timedelta(minutes=5), timedelta(minutes=2)

#: For how long a certificate counts as served that was not noted again.
SERVED = timedelta(hours=1)

_CERTIFICATE, _SECRET, _SERVED = "certificate", "secret used ", "certificate served "
_marks = schema.marks


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """The last look at the certificate."""

    url: str
    began_at: datetime
    #: When it ended; None while it goes on.
    ended_at: datetime | None = None
    #: When the certificate ends, and why it is not trusted.
    ends_at: datetime | None = None
    fault: str = ""

    def is_over(self, now: datetime) -> bool:
        """Return whether it is time for the next look."""
        if self.ended_at is None:
            return now - self.began_at > LOST
        return now - self.ended_at >= (LOOK_IF_WRONG if self.fault else LOOK)

    def dumped(self) -> bytes:
        times = {
            name: getattr(self, name) and getattr(self, name).isoformat()
            for name in ("began_at", "ended_at", "ends_at")
        }
        return json.dumps({"url": self.url, "fault": self.fault, **times}).encode()

    @classmethod
    def loaded(cls, value: bytes) -> _Look:
        read = json.loads(value)
        times = {
            name: read[name] and datetime.fromisoformat(read[name])
            for name in ("began_at", "ended_at", "ends_at")
        }
        return cls(url=read["url"], fault=read["fault"], **times)


class Seen:
    """Notes what this node sees, by the clock that the nodes share."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime] | None = None) -> None:
        self._database = database
        self._clock = clock or database.clock

    def begin_look(self, url: str) -> bool:
        """Return whether it is for this node to look at the certificate of *url* now."""
        now = self._clock()
        with self._database.reading() as db:
            if not _is_due(_look(db), url, now):
                return False
        with self._database.writing_unsynced() as db:
            if not self._database.try_exclusive(db, _CERTIFICATE):
                return False
            last = _look(db)
            if not _is_due(last, url, now):
                return False
            # What was known is believed until this look has ended.
            known = last if last is not None and last.url == url else _Look(url=url, began_at=now)
            self._put(db, _CERTIFICATE, replace(known, began_at=now, ended_at=None).dumped())
        return True

    def end_look(self, url: str, *, ends_at: datetime | None, fault: str) -> None:
        """Note what a look at *url* found; neither: it did not get so far."""
        with self._database.writing_unsynced() as db:
            last = _look(db)
            if last is None or last.url != url:
                return
            if ends_at is None and not fault:
                ends_at, fault = last.ends_at, last.fault
            ended = replace(last, ended_at=self._clock(), ends_at=ends_at, fault=fault)
            self._put(db, _CERTIFICATE, ended.dumped())

    def note_served(self, name: str, *, ends_at: datetime) -> None:
        """Note that a receiver shows the certificate *name*."""
        now = self._clock()
        value = json.dumps([now.isoformat(), ends_at.isoformat()]).encode()
        with self._database.writing_unsynced() as db:
            for each, noted_at, _ in _served(db):
                if now - noted_at > SERVED:
                    db.execute(sa.delete(_marks).where(_marks.c.name == _SERVED + each))
            self._put(db, _SERVED + name, value)

    def note_secrets(self, used: Collection[tuple[str, bytes]]) -> None:
        """Note that these secrets of these endpoints are in use."""
        now = self._clock()
        with self._database.writing_unsynced() as db:
            secret = known_secret(db)
            for endpoint, key in used if secret else ():
                self._put(db, _name(secret, endpoint, key), now.isoformat().encode())

    def _put(self, db: sa.Connection, name: str, value: bytes) -> None:
        row = {"name": name, "value": value}
        insert = self._database.insert(_marks).values(row)
        changed = {"value": insert.excluded.value}
        db.execute(insert.on_conflict_do_update(index_elements=[_marks.c.name], set_=changed))


def certificate(db: sa.Connection, url: str) -> Certificate | None:
    """Return what is known of the certificate of *url*."""
    look = _look(db)
    if look is None or look.url != url:
        return None
    return Certificate(url=url, ends_at=look.ends_at, fault=look.fault)


def served(db: sa.Connection, *, now: datetime) -> Sequence[Certificate]:
    """Return the certificates that receivers show."""
    return [
        Certificate(url=name, ends_at=ends_at)
        for name, noted_at, ends_at in sorted(_served(db))
        if now - noted_at <= SERVED
    ]


def old_secrets(
    db: sa.Connection, keys: Mapping[str, Sequence[SigningKey]]
) -> dict[str, list[OldSecret]]:
    """Return by endpoint those of its *keys* that are old or have an end, the last used last."""
    secret = known_secret(db)
    places = {
        _name(secret, endpoint, key.key): (endpoint, position, len(each), key.ends_at)
        for endpoint, each in keys.items()
        for position, key in enumerate(each, 1)
        if position > 1 or key.ends_at
    }
    if not (secret and places):
        return {}
    rows = db.execute(sa.select(_marks).where(_marks.c.name.in_(places))).all()
    found: dict[str, list[OldSecret]] = {}
    for name, value in sorted(rows, key=lambda row: bytes(row.value)):
        endpoint, position, number, ends_at = places[name]
        used_at = datetime.fromisoformat(bytes(value).decode())
        used = OldSecret(position=position, of=number, used_at=used_at, ends_at=ends_at)
        found.setdefault(endpoint, []).append(used)
    return found


def _is_due(last: _Look | None, url: str, now: datetime) -> bool:
    return last is None or last.url != url or last.is_over(now)


def _look(db: sa.Connection) -> _Look | None:
    value = db.scalar(sa.select(_marks.c.value).where(_marks.c.name == _CERTIFICATE))
    return None if value is None else _Look.loaded(bytes(value))


def _served(db: sa.Connection) -> Sequence[tuple[str, datetime, datetime]]:
    """Return each name with the time of its note, and its end."""
    # A name has no more characters than there are, so that the index of names serves.
    named = sa.between(_marks.c.name, _SERVED, _SERVED + "\U0010ffff")
    rows = db.execute(sa.select(_marks).where(named)).all()
    read = [(row.name.removeprefix(_SERVED), json.loads(row.value)) for row in rows]
    return [
        (name, datetime.fromisoformat(noted_at), datetime.fromisoformat(ends_at))
        for name, (noted_at, ends_at) in read
    ]


def _name(secret: bytes, endpoint: str, key: bytes) -> str:
    """Name the mark of a secret by a keyed digest, from which nobody can guess it."""
    named = len(endpoint).to_bytes(4, "big") + endpoint.encode() + key
    return _SECRET + hmac.digest(secret, named, "sha256").hex()[:32]
