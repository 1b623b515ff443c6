"""What the plots and tables of docs/performance.md show of each question, from the reports."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: The report of each benchmark, by its name in run_all.BENCHES.
Runs = Mapping[str, Any]
#: Columns of what a load measured.
LOADED = ("", "requests/s", "CPU of one", "p50", "p99")


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """A line of a plot."""

    label: str
    value: float
    #: Behind the bar.
    shown: str
    is_ours: bool = True
    #: Of the value, what is drawn in another colour at the end.
    part: float = 0.0
    #: Where a mark shows the goal.
    goal: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Bars on one scale, which begins at 0, and the table that stands beside them."""

    title: str
    bars: Sequence[Bar]
    #: Heads of columns, and rows; by default what the bars say.
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()

    def table(self) -> str:
        head = self.head or ("", self.title)
        rows = self.rows or [(bar.label, bar.shown) for bar in self.bars]
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goals(rows: Sequence[Mapping[str, Any]]) -> Plot:
    """Show each figure as a share of its goal: what reaches the mark is good enough."""
    bars = [
        Bar(
            label=f"{row['topic']}: {row['what']}",
            value=_share(row),
            shown=f"{row['measured']} ({row['goal']})",
            is_ours=bool(row["reached"]),
            goal=1.0,
        )
        for row in rows
        if row["value"] is not None
    ]
    return Plot(title="Measured, as a share of the goal (red); blue: reached", bars=bars)


def _share(row: Mapping[str, Any]) -> float:
    """Return how far a figure reaches its goal, and at the most 2: twice as well."""
    value, aim = float(row["value"]), float(row["aim"])
    return min(2.0, value / aim) if row["goal"].startswith("≥") else aim / max(value, aim / 2)


def accept(runs: Runs) -> Plot:
    found = [
        (f"{label}, {connections} connections", runs[f"accept {connections}"][name],
         name == "accept")
        for connections in (32, 64)
        for name, label in (("verify", "only verified"), ("accept", "accepted"))
    ]  # fmt: skip
    return _costs("CPU time of a request, SQLite", found)


def stores(runs: Runs) -> Plot:
    found = runs["accept, postgres"]
    return _costs(
        "CPU time of an accept; lighter: the server's",
        [("SQLite", found["sqlite"], True), ("PostgreSQL", found["accept"], True)],
    )


def webhook(runs: Runs) -> Plot:
    found = runs["accept, webhook"]
    return _speeds(
        "Requests a second on one core, 64 connections",
        [("webhook, no store", found["webhook"], False), ("gofax-relay", found["accept"], True)],
    )


def receivers(runs: Runs) -> Plot:
    found = [
        (f"{label}, {store}", runs[bench][name], name == "accept")
        for bench, store in (("two receivers", "SQLite"),
                             ("two receivers, postgres", "PostgreSQL"))
        for name, label in (("one", "one process"), ("accept", "two processes"))
    ]  # fmt: skip
    return _speeds("Accepts a second, all cores shared with the load", found)


#: A label, what a load measured, and whether that is what the question is about.
Found = Sequence[tuple[str, Mapping[str, float], bool]]


def _costs(title: str, found: Found) -> Plot:
    bars = [
        Bar(label=label, value=load["cpu_us_per_request"], part=load["server_us"],
            shown=f"{load['cpu_us_per_request']:.0f} µs", is_ours=is_ours)
        for label, load, is_ours in found
    ]  # fmt: skip
    return Plot(title=title, bars=bars, head=LOADED, rows=_loaded(found))


def _speeds(title: str, found: Found) -> Plot:
    bars = [
        Bar(label=label, value=load["requests_per_second"],
            shown=f"{load['requests_per_second']:,.0f}/s", is_ours=is_ours)
        for label, load, is_ours in found
    ]  # fmt: skip
    return Plot(title=title, bars=bars, head=LOADED, rows=_loaded(found))


def _loaded(found: Found) -> Sequence[Sequence[str]]:
    return [
        (
            label,
            f"{load['requests_per_second']:,.0f}",
            f"{load['cpu_us_per_request']:.0f} µs"
            + (f", {load['server_us']:.0f} of them the server's" if load["server_us"] else ""),
            f"{load['p50_ms']:.1f} ms",
            f"{load['p99_ms']:.1f} ms",
        )
        for label, load, _ in found
    ]


def deliver(runs: Runs) -> Plot:
    bars, rows = [], []
    for connector, label in (("webhook", "webhook"), ("teams", "Teams")):
        found = runs["deliver"][f"{connector}, 0 ms"]
        for name, who in (("bare", "bare loop"), ("relay", "relay")):
            spent, speed = found[f"{name}_cpu_us"], found[f"{name}_per_second"]
            bars.append(Bar(label=f"{label}, {who}", value=spent, shown=f"{spent:,.0f} µs",
                            is_ours=name == "relay"))  # fmt: skip
            rows.append((f"{label}, {who}", f"{speed:,.0f}", f"{spent:,.0f} µs"))
        rows.append((f"**ratio, {label}**", f"{found['ratio']}", f"{found['cpu_ratio']}"))
    return Plot(title="CPU time of a delivery, the stand-in answering at once", bars=bars,
                head=("", "deliveries/s", "CPU of one"), rows=rows)  # fmt: skip


def vendors(runs: Runs) -> Plot:
    bars, rows = [], []
    for system, label in (("hubspot", "HubSpot"), ("zendesk", "Zendesk")):
        for which in ("first", "next"):
            found = runs["vendors"][f"{system}, {which}"]
            message = f"{label}, {which} message"
            for name, who in (("bare", "bare calls"), ("relay", "relay")):
                spent = found[f"{name}_cpu_us"]
                bars.append(Bar(label=f"{message}, {who}", value=spent, shown=f"{spent:,} µs",
                                is_ours=name == "relay"))  # fmt: skip
            rows.append((message, f"{found['bare_cpu_us']:,} µs", f"{found['relay_cpu_us']:,} µs",
                         f"{found['cpu_ratio']}"))  # fmt: skip
    return Plot(title="CPU time of a delivery", bars=bars, rows=rows,
                head=("", "the SDK's bare calls", "relay", "ratio"))  # fmt: skip


def receipt(runs: Runs) -> Plot:
    bars = [
        Bar(label=f"{rate} events/s, {name}", value=runs[f"receipt {rate}"][f"{name}_ms"],
            shown=f"{runs[f'receipt {rate}'][f'{name}_ms']:.1f} ms", goal=goal)
        for rate in (20, 50)
        for name, goal in (("p50", 15.0), ("p99", 60.0))
    ]  # fmt: skip
    return Plot(title="From the 200 to the stand-in's receipt", bars=bars)


def backlog(runs: Runs) -> Plot:
    found = runs["backlog"]
    names = {"alone": "while deliveries are paused", "draining": "while a backlog drains"}
    bars, rows = [], []
    for name, label in names.items():
        each = found[name]
        speed = each["accepts_per_second"]
        bars.append(Bar(label=label, value=speed, shown=f"{speed:,.0f}/s",
                        is_ours=name == "draining"))  # fmt: skip
        rows.append((label, f"{speed:,.0f}", f"{each['cpu_us_per_accept']:.0f} µs",
                     f"{each['p99_ms']:.0f} ms",
                     f"{each['deliveries_per_second']:,.0f}"))  # fmt: skip
    return Plot(title="Accepts a second, all cores shared", bars=bars, rows=rows,
                head=("", "accepts/s", "CPU of one", "p99", "deliveries/s"))  # fmt: skip


def memory(runs: Runs) -> Plot:
    found = runs["serve"]
    said = (("idle, without admin pages", "idle_pss_mib", 100.0),
            ("idle, with admin pages", "idle_pss_with_admin_mib", 150.0),
            ("after 2,000 events", "pss_before_mib", None),
            (f"half-way through {found['events']:,} events", "pss_half_way_mib", None),
            ("after them", "pss_after_mib", None))  # fmt: skip
    bars = [
        Bar(label=label, value=found[name], shown=f"{found[name]:.0f} MiB", goal=goal)
        for label, name, goal in said
    ]
    return Plot(title="PSS of all processes of serve", bars=bars)


def start(runs: Runs) -> Plot:
    found = runs["serve"]
    said = (("gofax-relay --version", "version", 0.15),
            ("gofax-relay events, small store", "events", 0.4),
            ("first 200 after serve", "first_200", 0.7))  # fmt: skip
    bars = [
        Bar(label=label, value=found[f"{name}_seconds"],
            shown=f"{found[f'{name}_seconds']:.2f} s", goal=goal)
        for label, name, goal in said
    ]  # fmt: skip
    return Plot(title="Seconds from the start", bars=bars)


def tables(runs: Runs) -> Plot:
    """Show how much dearer each step is in the large store."""
    ratios: dict[str, dict[str, float]] = {}
    for kind in ("sqlite", "postgres"):
        found = runs[f"tables, {kind}"]
        dearest = max(found["page_cpu_ratios"][kind].values())
        ratios[kind] = {**found["cpu_ratios"][kind], "the dearest page": dearest}
    bars = [
        Bar(label=f"{step}, {name}", value=ratio, shown=f"{ratio:.2f}", goal=1.15)
        for kind, name in (("sqlite", "SQLite"), ("postgres", "PostgreSQL"))
        for step, ratio in ratios[kind].items()
        if step.startswith(("accept", "claim", "record", "the"))
    ]
    rows = [
        (step, f"{ratio:.2f}", f"{ratios['postgres'][step]:.2f}")
        for step, ratio in ratios["sqlite"].items()
    ]
    return Plot(title="CPU time in the large store / in the small one", bars=bars,
                head=("CPU, large / small", "SQLite", "PostgreSQL"), rows=rows)  # fmt: skip


Flows = Mapping[str, Any]


def cost(flows: Flows) -> Plot:
    bars = [
        Bar(label=flow["name"], value=flow["cost"]["cpu_seconds"],
            shown=f"{flow['cost']['cpu_seconds']:,} s", is_ours=name == "relay")
        for name, flow in flows.items()
    ]  # fmt: skip
    rows = [
        (flow["name"], *(f"{flow['cost'][each]:,}" for each in ("cpu_seconds", "disk_mb",
                                                                "log_mb")))
        for flow in flows.values()
    ]  # fmt: skip
    return Plot(title="CPU time of a million events, all processes", bars=bars, rows=rows,
                head=("a million events", "CPU, s", "left on disk, MB", "log, MB"))  # fmt: skip


def lost(flows: Flows) -> Plot:
    killed = [
        (name == "relay", flow["name"], which, found)
        for name, flow in flows.items()
        for which, found in flow["kills"].items()
    ]
    bars = [
        Bar(label=name + ("; away" if "away" in which else ""), is_ours=is_ours,
            value=100 * found["lost"] / found["answered"],
            shown=f"{found['lost']} of {found['answered']}")
        for is_ours, name, which, found in killed
        if "Redis" not in which
    ]  # fmt: skip
    rows = [
        (name, which, *(str(found[each]) for each in ("answered", "lost", "late", "twice")))
        for _, name, which, found in killed
    ]
    return Plot(title="Lost of what was answered 200 (away: the destination was)", bars=bars,
                rows=rows, head=("", "killed", "answered 200", "lost", "late", "twice"),
                )  # fmt: skip


#: By the name of the picture: from the table's runs, and from the comparison with other flows.
FROM_RUNS: Mapping[str, Callable[[Runs], Plot]] = {
    "accept": accept,
    "webhook": webhook,
    "stores": stores,
    "receivers": receivers,
    "deliver": deliver,
    "vendors": vendors,
    "receipt": receipt,
    "backlog": backlog,
    "memory": memory,
    "start": start,
    "tables": tables,
}
FROM_FLOWS: Mapping[str, Callable[[Flows], Plot]] = {"cost": cost, "lost": lost}
