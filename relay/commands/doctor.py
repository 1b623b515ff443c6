"""Is everything as it must be? Examines a live store and its surroundings; changes nothing."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path

import click

from relay import migrations
from relay.clock import wall
from relay.commands import public_url as way
from relay.commands.options import (
    FAILED,
    ConfigFile,
    existing,
    json_option,
    secretless_option,
)
from relay.commands.output import print_json
from relay.commands.running import newer
from relay.commands.tables import failure, print_lines, table_time
from relay.commands.times import shown_time
from relay.config.load import Need
from relay.config.model import Config
from relay.rules import problems
from relay.rules.delivery import State
from relay.rules.kinds import Kind
from relay.shapes.findings import CHECKS, SIGNS, Finding, Severity
from relay.shapes.words import count
from relay.store import Database, Queries, copy
from relay.store.checkup import BY_NODE, Checkup, Server, look_at
from relay.store.nodes import Nodes, NodeView
from relay.store.texts import Texts
from relay.telling.watch import facts_of

#: A lease that ran out this long ago should have been taken over.
LEASE_GRACE = timedelta(minutes=2)
#: A delivery that has been due for this long has no worker.
DUE_GRACE = timedelta(minutes=5)
#: The newest event may be this far ahead of the clock.
CLOCK_GRACE = timedelta(seconds=10)
#: The full-text index may be this far behind.
INDEX_GRACE = timedelta(minutes=1)
#: The write-ahead log exceeds this size only while a reader holds an old state open.
LARGEST_WAL = 256 << 20

#: Bytes of log that a standby may lag behind, or that a slot may retain.
LARGEST_SLOT = 1 << 30

#: Until a node's first beat, a start looks like a stop.
JUST_STARTED = "one that has just started is listed within seconds"

#: Exit code if something is degraded and nothing is broken.
DEGRADED = 3

#: Problems that the other checks do not find.
PROBLEMS = (
    Kind.NO_WORKER,
    Kind.BACKLOG,
    Kind.SIGNATURES,
    Kind.UNKNOWN_PATH,
    Kind.ALERTS,
    Kind.CERTIFICATE,
    Kind.OLD_SECRET,
    Kind.SILENCE,
)
#: Those of them that keep no delivery from its destination.
ADVICE = (Kind.UNKNOWN_PATH, Kind.ALERTS, Kind.OLD_SECRET)
#: The kinds that causes of pauses are; every other is a pause that somebody asked for.
_PAUSED_BY = {"unauthorized": Kind.UNAUTHORIZED, "failing": Kind.FAILING}


@click.command()
@secretless_option
@json_option
@click.option(
    "--public-url",
    is_flag=True,
    help="Post a probe to each endpoint at public_url: the way of an event, without effect.",
)
def doctor(config: Config, as_json: bool, public_url: bool) -> None:
    """Check the store and its surroundings.

    The exit code is 0 if all is well, 1 if something is broken: events are refused or may be
    lost, 3 if something is degraded: some events are not delivered, or do not come in. Advice
    changes no exit code.

    \b
    Examples: gofax-relay doctor
              gofax-relay doctor --public-url
              gofax-relay doctor --json
    """
    database = existing(config)
    checks = examine(config, database, now=database.clock())
    if public_url:
        checks = chain(checks, way.examine(_with_secrets(config), database))
    findings = []
    for finding in checks:
        findings.append(finding)
        if as_json:
            print_json(_json(finding))
        else:
            print_lines([_line(finding)])
    if not as_json:
        print_lines(["", _summary(findings)])
    sys.exit(exit_code(findings))


def _with_secrets(config: Config) -> Config:
    """Read the file of *config* again, with the secrets that sign a probe."""
    if config.public_url is None:
        raise failure(
            "the config has no public_url: write the address that GoFax posts to, "
            "such as public_url: https://sms.example.com"
        )
    assert config.origin is not None
    whole: Config = ConfigFile(Need.ENDPOINTS).convert(str(config.origin.path), None, None)
    return whole


def exit_code(findings: Sequence[Finding]) -> int:
    """Return the exit code of the worst finding."""
    severities = {finding.severity for finding in findings}
    if "broken" in severities:
        return FAILED
    return DEGRADED if "degraded" in severities else 0


def _summary(findings: Sequence[Finding]) -> str:
    """Count the findings by the signs that they were shown with."""
    number = Counter(finding.severity for finding in findings)
    said = [f"{SIGNS['good']} {number['good']} good"]
    if number["notice"]:
        said.append(f"{SIGNS['notice']} {count(number['notice'], 'notice', 'notices')}")
    if number["degraded"]:
        said.append(f"{SIGNS['degraded']} {number['degraded']} degraded: act soon")
    if number["broken"]:
        said.append(f"{SIGNS['broken']} {number['broken']} broken: act now")
    return ", ".join(said)


def _json(finding: Finding) -> dict[str, str]:
    return {
        "check": finding.check,
        "verdict": finding.severity,
        "said": finding.said,
        "docs": finding.docs,
    }


def _line(finding: Finding) -> str:
    more = "" if finding.severity == "good" else f" ({finding.docs})"
    return f"{SIGNS[finding.severity]} {finding.check}: {finding.said}{more}"


def examine(config: Config, database: Database, *, now: datetime) -> Iterator[Finding]:
    """Yield what each check finds."""
    checkup, queries = Checkup(database), Queries(database)
    yield _none(
        "events",
        checkup.undelivered_events(),
        "every event that a route matched has its deliveries",
        one="event matched a route and has no delivery: gofax-relay replay adds it",
        many="events matched a route and have no delivery: gofax-relay replay adds them",
    )
    yield _none(
        "leases",
        checkup.expired_leases(now - LEASE_GRACE),
        "no lease has run out without being taken over",
        one="lease ran out and nobody took over its work: is a worker running?",
        many="leases ran out and nobody took over their work: is a worker running?",
        severity="degraded",
    )
    yield _none(
        "conversations",
        checkup.stuck_conversations(),
        "no conversation is stuck",
        one="conversation waits behind nothing: please report this as a bug",
        many="conversations wait behind nothing: please report this as a bug",
        severity="degraded",
    )
    yield from _overdue(config, checkup, queries, now=now)
    yield from _stopped(config, queries)
    yield from _problems(config, database, now=now)
    views = Nodes(database).nodes()
    yield from _nodes(views)
    if said := newer(config, views):
        yield Finding(check="config", severity="notice", said=said)
    yield _schema(migrations.revision(database))
    if database.file is not None:
        yield from _files(config, database.file)
        if copy.is_being_copied(database):
            said = "migrate-store is copying this store, or was stopped: --abandon gives it up"
            yield Finding(check="copy", severity="notice", said=said)
    else:
        server = look_at(database)
        alive = sum(view.state == "alive" for view in views)
        yield from examine_server(server, nodes=alive, now=wall())
    yield _texts(database, now=now)
    yield _clock(checkup.newest_event(), now=now)
    yield _proxy(config)


def _none(
    check: str, number: int, good: str, *, one: str, many: str, severity: Severity = "broken"
) -> Finding:
    if number:
        return Finding(check=check, severity=severity, said=count(number, one, many))
    return Finding(check=check, severity="good", said=good)


def _overdue(
    config: Config, checkup: Checkup, queries: Queries, *, now: datetime
) -> Iterator[Finding]:
    pauses = queries.pauses()
    overdue = checkup.overdue(now - DUE_GRACE)
    for name, number in sorted(overdue.items()):
        late = count(number, f"delivery to {name} is overdue", f"deliveries to {name} are overdue")
        if pause := pauses.get(name):
            said = f"{_waiting(number)} while {name} is paused ({pause.cause})"
            yield Finding(check="work", severity="notice", said=said)
        elif name not in config.destinations:
            said = f"{_waiting(number)} for {name}, which the config no longer names"
            yield Finding(check="work", severity="notice", said=said)
        elif checkup.is_served(name, since=now - DUE_GRACE):
            said = f"{late}: it is slower than events arrive"
            yield Finding(check="work", severity="notice", said=said, kind=Kind.BACKLOG)
        else:
            said = f"{late}: is a worker running?"
            yield Finding(check="work", severity="degraded", said=said, kind=Kind.BACKLOG)
    if not overdue:
        yield Finding(check="work", severity="good", said="nothing is overdue")


def _waiting(number: int) -> str:
    return count(number, "delivery waits", "deliveries wait")


def _stopped(config: Config, queries: Queries) -> Iterator[Finding]:
    for name, pause in sorted(queries.pauses().items()):
        said = f"{name} is paused since {shown_time(pause.since)}: {pause.cause}"
        said = f"{said}: {pause.reason}"
        kind = _PAUSED_BY.get(pause.cause, Kind.PAUSED)
        yield Finding(check="destinations", severity="degraded", said=said, kind=kind)
    for name, counts in sorted(queries.backlog().items()):
        for state in (State.HELD, State.DEAD):
            if number := counts.get(state, 0):
                one, many = f"delivery to {name} is {state}", f"deliveries to {name} are {state}"
                said = f"{count(number, one, many)}: gofax-relay dead lists them"
                kind = Kind(state.value)
                yield Finding(check="destinations", severity="notice", said=said, kind=kind)


def _problems(config: Config, database: Database, *, now: datetime) -> Iterator[Finding]:
    facts = facts_of(config, database)
    for each in problems.findings(facts, now=now, silence=config.longest_silence):
        if each.kind in PROBLEMS:
            is_advice = each.kind in ADVICE or each.level == "warning"
            severity: Severity = "notice" if is_advice else "degraded"
            check, said = CHECKS[each.kind], each.said
            if each.kind is Kind.NO_WORKER:
                said += f"; {JUST_STARTED}"
            yield Finding(check=check, severity=severity, said=said, kind=each.kind)


def _texts(database: Database, *, now: datetime) -> Finding:
    # Advice, because no event is lost or late by it.
    lag = Texts(database).lag()
    if lag.newer is not None and lag.newer < now - INDEX_GRACE:
        said = f"texts since {shown_time(lag.newer)} are not indexed: is a worker running?"
        return Finding(check="texts", severity="notice", said=said)
    if lag.older is not None:
        said = f"a worker is indexing texts from before {shown_time(lag.older)}: --text finds more"
        return Finding(check="texts", severity="notice", said=f"{said} when it is done")
    return Finding(check="texts", severity="good", said="the texts of all events are indexed")


def _nodes(views: Sequence[NodeView]) -> Iterator[Finding]:
    for view in views:
        if view.node and view.state == "alive":
            for fault in view.node.faults.splitlines():
                said = f"{view.name}: {fault}: its log says why; restart it"
                yield Finding(check="loops", severity="degraded", said=said)
    holding = [view for view in views if view.state == "silent" and view.leases]
    for view in holding:
        said = (
            f"{view.name} was last heard of at {table_time(view.beat_at)} and holds"
            f" {count(view.leases, 'lease', 'leases')}: others take over when they run out"
        )
        yield Finding(check="nodes", severity="notice", said=said, kind=Kind.SILENT_NODE)
    alive = Counter(view.node.role for view in views if view.node and view.state == "alive")
    if not alive["web"]:
        said = "no receiver is running, so nothing comes in: start gofax-relay serve or web"
        yield Finding(check="nodes", severity="degraded", said=f"{said}; {JUST_STARTED}")
    if alive and not holding:
        said = " and ".join(
            count(alive[role], f"{role} node", f"{role} nodes") for role in sorted(alive)
        )
        yield Finding(check="nodes", severity="good", said=f"alive: {said}")


def _schema(revision: str | None) -> Finding:
    if revision in migrations.known():
        return Finding(check="schema", severity="good", said=f"the tables have schema {revision}")
    said = f"schema {revision} is a newer version's, which supports this one: upgrade this node"
    return Finding(check="schema", severity="notice", said=said)


def examine_server(server: Server, *, nodes: int, now: datetime) -> Iterator[Finding]:
    """Yield findings about a PostgreSQL server; *now* is by this machine's clock."""
    if not server.fsync:
        said = "the server runs with fsync=off: a power failure loses acknowledged events"
        yield Finding(check="disk", severity="broken", said=said)
    for name, kept in server.idle_slots.items():
        said = f"replication slot {name} has no reader and keeps {kept >> 20} MiB on the disk"
        severity: Severity = "broken" if kept > LARGEST_SLOT else "notice"
        yield Finding(check="disk", severity=severity, said=said)
    said = f"the database has {server.size >> 20} MiB; the server does not report free space"
    yield Finding(check="disk", severity="good", said=said)
    yield _connections(server, nodes=nodes)
    yield from _standbys(server)
    ahead = server.now - now
    said = f"this machine's clock differs from the server's by {abs(ahead).total_seconds():.1f} s"
    far = abs(ahead) > CLOCK_GRACE
    if far:
        said += ": times in its logs are wrong; set it by NTP"
    yield Finding(check="server clock", severity="notice" if far else "good", said=said)


def _connections(server: Server, *, nodes: int) -> Finding:
    said = (
        f"{server.connected} of {server.connections} connections are in use; {nodes} nodes open"
        f" up to {BY_NODE} each"
    )
    severity: Severity = "good"
    if server.connected >= server.connections:
        severity = "broken"
    elif nodes * BY_NODE > server.connections:
        severity = "notice"
    if severity != "good":
        said += ": raise the server's max_connections"
    return Finding(check="connections", severity=severity, said=said)


def _standbys(server: Server) -> Iterator[Finding]:
    if server.waits and not any(each.sync_state in ("sync", "quorum") for each in server.standbys):
        said = "commits wait for a standby, and none is in sync: nothing can be accepted"
        yield Finding(check="standbys", severity="broken", said=said)
    for each in server.standbys:
        said = f"{each.name} follows"
        if each.behind is not None:
            said += f", {each.behind >> 10} KiB behind"
        far = (each.behind or 0) > LARGEST_SLOT
        yield Finding(check="standbys", severity="notice" if far else "good", said=said)
    if not server.standbys:
        yield Finding(check="standbys", severity="good", said="no standby follows the server")


def _files(config: Config, path: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(path.parent).free
    said = f"{free >> 20} MiB of disk are free; disk_reserve is {config.disk_reserve >> 20} MiB"
    yield Finding(
        check="disk", severity="good" if free > config.disk_reserve else "broken", said=said
    )
    wal = path.with_name(path.name + "-wal")
    size = wal.stat().st_size if wal.exists() else 0
    said = f"the write-ahead log has {size >> 20} MiB"
    if size > LARGEST_WAL:
        said += ": some program holds an old state of the store open"
    yield Finding(check="wal", severity="good" if size <= LARGEST_WAL else "notice", said=said)
    if path.stat().st_mode & 0o077:
        said = f"{path.name} can be read by others: chmod 600 it"
        yield Finding(check="files", severity="notice", said=said)


def _proxy(config: Config) -> Finding:
    host = config.server.host
    if config.server.trusted_proxies or host == "localhost" or host.startswith(("127.", "::1")):
        return Finding(check="proxy", severity="good", said="strangers meet a proxy first")
    said = (
        f"{config.server.listen} is open to strangers without a proxy (trusted_proxies: 0): "
        "bodies that arrive slowly from many addresses can hold all threads; put a proxy that "
        "buffers them in front"
    )
    return Finding(check="proxy", severity="notice", said=said)


def _clock(newest: datetime | None, *, now: datetime) -> Finding:
    if newest is not None and newest - now > CLOCK_GRACE:
        said = f"the newest event lies {newest - now} in the future: the clock was set back"
        return Finding(check="clock", severity="broken", said=said)
    return Finding(check="clock", severity="good", said="the clock is not behind the newest event")
