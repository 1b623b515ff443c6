"""What ``/metrics`` says, to whom, and that docs, alert rules and dashboard know it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import yaml
from fakes import accept, arrival, failed, finish, take, take_one
from flask import Flask
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families

from relay.admin_app import metrics
from relay.config.model import Admin, Config
from relay.rules.delivery import OutcomeKind
from relay.store import Database, Inbox, Queries, Queue, StoreUnavailable, figures, schema
from relay.store.figures import Figures
from relay.telling.counts import Counts
from relay.telling.exposition import Exposition, Seldom
from relay.telling.metrics import ASKED, COUNTED, Metrics

ON_BOTH = True
ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "gofax-relay.json"
TOKEN = "a-token-for-the-metrics"

CONFIG = Config.model_validate(
    {
        "endpoints": [{"path": "/in", "allow_unsigned": True}],
        "destinations": {
            "crm": {"connector": "webhook", "concurrency": 4, "options": Admin()},
        },
    }
)


def values(text: bytes, name: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a metric by the values of its labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name == name
    }


def everything() -> bytes:
    """Return an answer in which every family has a sample."""
    counts = Counts()
    metrics = Metrics(counts.page())
    metrics.answered("/in", 200, "accepted", 0.004)
    for kind in ("accept", "record"):
        metrics.committed(kind)(3, 0.002)  # type: ignore[arg-type]
    of_destination = metrics.of_destination("crm")
    with of_destination.attempting():
        of_destination.attempted("delivered", "delivered")
    metrics.paused("crm", "failing")
    said = Figures(
        backlog={"crm": 2},
        oldest_seconds={"crm": 61.5},
        stopped={("crm", "dead"): 1},
        paused=frozenset({"gone"}),
        events={"accepted": 5},
        size=4096,
    )
    return Exposition(CONFIG, counts, lambda: said).text()


class TestTheStore:
    def test_it_says_what_there_is(
        self, database: Database, inbox: Inbox, queue: Queue, queries: Queries
    ) -> None:
        accept(inbox, "m1", "m2", "m3", to=("crm", "desk"))
        inbox.accept(arrival("m1", body="not what m1 said"))
        finish(queue, take_one(queue), failed(OutcomeKind.REFUSED))
        (claim,) = take(queue, destination="desk", limit=1)
        finish(queue, claim, failed(OutcomeKind.UNAUTHORIZED))

        said = figures.read(database)

        ended = {"delivered", "dead", "held"}
        counted = {
            name: sum(n for state, n in states.items() if state not in ended)
            for name, states in queries.backlog().items()
        }
        assert said.backlog == counted == {"crm": 2, "desk": 3}
        assert said.stopped == {("crm", "dead"): 1}
        assert said.events == {"accepted": 3, "conflict": 1}
        assert said.paused == {"desk"} == set(queries.pauses())
        assert said.size > 8192

    def test_the_oldest_is_the_one_that_was_accepted_first(
        self, database: Database, inbox: Inbox
    ) -> None:
        accept(inbox, "m1", "m2")
        table = schema.deliveries
        old = database.clock() - timedelta(days=300)
        with database.writing() as db:
            first = sa.select(sa.func.min(table.c.seq)).scalar_subquery()
            db.execute(sa.update(table).where(table.c.seq == first).values(created_at=old))

        assert figures.read(database).oldest_seconds["crm"] == pytest.approx(300 * 86_400, abs=60)


class TestTheAnswer:
    def test_a_destination_without_work_is_there_with_zeros(self) -> None:
        nothing = Figures(
            backlog={}, oldest_seconds={}, stopped={}, paused=frozenset(), events={}, size=0
        )

        text = Exposition(CONFIG, Counts(), lambda: nothing).text()

        for name in ("backlog", "oldest_seconds", "paused"):
            assert values(text, f"gofax_relay_store_{name}") == {("crm",): 0}

    def test_one_that_left_the_config_is_there_while_it_has_deliveries(self) -> None:
        assert values(everything(), "gofax_relay_store_paused") == {("crm",): 0, ("gone",): 1}

    def test_a_histogram_adds_up(self) -> None:
        text = everything()

        buckets = values(text, "gofax_relay_commit_size_bucket")
        of_accepts = {bound: n for (*_, kind, bound), n in _by(buckets, "accept").items()}
        assert of_accepts["2.0"] == 0
        assert of_accepts["4.0"] == of_accepts["+Inf"] == 1
        assert values(text, "gofax_relay_commit_size_sum")["accept",] == 3

    def test_while_the_store_is_away_the_counts_are_there(self) -> None:
        def away() -> Figures:
            raise StoreUnavailable("gone")

        counts = Counts()
        Metrics(counts.page()).answered("/in", 503, "refused")

        text = Exposition(CONFIG, counts, away).text()

        assert values(text, "gofax_relay_store_up") == {(): 0}
        assert values(text, "gofax_relay_requests_total") == {("/in", "refused", "503"): 1}
        assert b"gofax_relay_store_backlog" not in text

    def test_a_store_that_answers_slowly_is_asked_seldom(self) -> None:
        now, asked = 0.0, []

        def read() -> Any:
            nonlocal now
            now += 2.0
            asked.append(now)
            return len(asked)

        seldom = Seldom(read, clock=lambda: now)

        assert [seldom(), seldom()] == [1, 1]
        now += 39
        assert seldom() == 1
        now += 2
        assert seldom() == 2

    def test_after_a_failure_the_store_is_asked_at_once(self) -> None:
        answers: Iterator[Any] = iter([StoreUnavailable("away"), 1])

        def read() -> Any:
            if isinstance(answer := next(answers), Exception):
                raise answer
            return answer

        seldom = Seldom(read)

        with suppress(StoreUnavailable):
            seldom()
        assert seldom() == 1


def _by(samples: dict[tuple[str, ...], float], label: str) -> dict[tuple[str, ...], float]:
    return {tuple(sorted(key, key=label.__eq__, reverse=True)): n
            for key, n in samples.items() if label in key}  # fmt: skip


def _client(admin: Admin, scrape: Callable[[], bytes]) -> FlaskClient:
    app = Flask("test")
    app.register_blueprint(metrics(admin, scrape))
    return app.test_client()


class TestTheToken:
    @pytest.fixture
    def get(self) -> Callable[..., int]:
        admin = Admin.model_validate({"listen": "0.0.0.0:8081", "metrics_token": TOKEN})
        client = _client(admin, lambda: b"")

        def get(**headers: str) -> int:
            return client.get("/metrics", headers=headers).status_code

        return get

    def test_it_opens(self, get: Callable[..., int]) -> None:
        assert get(Authorization=f"Bearer {TOKEN}") == 200

    @pytest.mark.parametrize(
        "given", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", TOKEN, f"Basic {TOKEN}",
                  "Bearer \xfc"]
    )  # fmt: skip
    def test_nothing_else_does(self, get: Callable[..., int], given: str) -> None:
        assert get(Authorization=given) == 401

    def test_without_one_the_answer_says_what_is_wanted(self) -> None:
        admin = Admin.model_validate({"metrics_token": TOKEN})
        client = _client(admin, lambda: b"")

        answer = client.get("/metrics")

        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].lower().startswith("bearer")

    def test_on_loopback_none_is_needed(self) -> None:
        client = _client(Admin(), everything)

        answer = client.get("/metrics")

        assert answer.status_code == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert b"gofax_relay_store_up 1.0" in answer.data


def real_names() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return kind and labels of what is really answered."""
    found = {}
    for family in text_string_to_metric_families(everything().decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = family.type, tuple(sorted(labels))
    return found


class TestWhoKnowsTheNames:
    def test_the_docs(self) -> None:
        page = (ROOT / "docs" / "watching.md").read_text()
        rows = re.findall(r"^\| `(gofax_relay_\w+)` \((\w+)\) \| (.*?) \|", page, re.MULTILINE)
        documented = {
            name: (kind, tuple(sorted(re.findall(r"`(\w+)`", labels))))
            for name, kind, labels in rows
        }

        assert documented == real_names()
        assert [each for each in OutcomeKind if f"`{each.value}`" not in page] == []

    def test_every_family_is_answered(self) -> None:
        assert {family.name for family in (*COUNTED, *ASKED)} == set(real_names())

    def test_the_alert_rules_and_the_dashboard(self) -> None:
        expressions = [
            rule["expr"]
            for group in yaml.safe_load(RULES.read_text())["groups"]
            for rule in group["rules"]
        ]
        dashboard = json.loads(DASHBOARD.read_text())
        expressions += [
            target["expr"] for panel in dashboard["panels"] for target in panel["targets"]
        ]
        real = set(real_names())
        histograms = [name for name, (kind, _) in real_names().items() if kind == "histogram"]
        samples = real - set(histograms)
        samples |= {f"{name}_{part}" for name in histograms for part in ("bucket", "sum", "count")}

        used = {name for each in expressions for name in re.findall(r"gofax_relay_\w+", each)}

        assert used - samples == set()
        # All are looked at: what nobody looks at need not be counted.
        assert {re.sub("_(bucket|sum|count)$", "", name) for name in used} == real

    def test_what_the_store_says_is_never_added_over_nodes(self) -> None:
        text = RULES.read_text() + DASHBOARD.read_text()

        assert re.findall(r"sum(?: by \(\w+\))? \(gofax_relay_store_\w+", text) == []
        assert set(re.findall(r"(\w+)(?: by \([^)]*\))? ?\(gofax_relay_store_", text)) == {"max"}


@pytest.fixture
def promtool(missing: Callable[[str, str], None]) -> Callable[..., str]:
    if shutil.which("promtool") is None:
        missing("promtool", "no such command")

    def run(*arguments: str, given: bytes = b"") -> str:
        done = subprocess.run(
            ["promtool", *arguments], input=given, capture_output=True, check=False, timeout=60
        )
        said = (done.stdout + done.stderr).decode()
        assert done.returncode == 0, said
        return said

    return run


class TestPromtool:
    def test_it_finds_nothing_wrong_with_the_answer(self, promtool: Callable[..., str]) -> None:
        assert promtool("check", "metrics", given=everything()) == ""

    def test_it_finds_nothing_wrong_with_the_rules(self, promtool: Callable[..., str]) -> None:
        assert "8 rules found" in promtool("check", "rules", str(RULES))

    def test_it_can_read_what_the_dashboard_asks(
        self, promtool: Callable[..., str], tmp_path: Path
    ) -> None:
        asked = [
            target["expr"].replace("$__rate_interval", "5m")
            for panel in json.loads(DASHBOARD.read_text())["panels"]
            for target in panel["targets"]
        ]
        rules = [{"record": f"panel:{n}", "expr": each} for n, each in enumerate(asked)]
        path = tmp_path / "rules.yaml"
        path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

        assert f"{len(asked)} rules found" in promtool("check", "rules", str(path))

    def test_the_alerts_ring_when_they_should(
        self, promtool: Callable[..., str], tmp_path: Path
    ) -> None:
        path = tmp_path / "test.yaml"
        path.write_text(yaml.safe_dump(_alert_tests()))

        promtool("test", "rules", str(path))


def _alert_tests() -> dict[str, Any]:
    """Return a story for each alert: series by the minute, and what rings after 30 minutes."""
    up = {"gofax_relay_build_info": "1x60", "gofax_relay_store_up": "1x60"}
    requests = 'gofax_relay_requests_total{endpoint="/in",status="%s"}'
    stories: list[tuple[dict[str, str], str, dict[str, str]]] = [
        ({}, "GofaxRelayNotScraped", {}),
        ({**up, "gofax_relay_store_up": "0x60"}, "GofaxRelayStoreAway", {}),
        ({**up, requests % "503": "0+1x60"}, "GofaxRelayCannotStore", {}),
        ({**up, 'gofax_relay_store_paused{destination="crm",instance="a"}': "1x60",
          'gofax_relay_store_paused{destination="crm",instance="b"}': "1x60"},
         "GofaxRelayDestinationPaused", {"destination": "crm"}),
        ({**up, 'gofax_relay_store_oldest_seconds{destination="crm"}': "0+60x60"},
         "GofaxRelayBacklogOld", {"destination": "crm"}),
        ({**up, 'gofax_relay_deliveries_total{destination="crm",state="dead"}': "0+1x60"},
         "GofaxRelayDeliveriesStopped", {"destination": "crm"}),
        ({**up, requests % "401": "0+10x60", requests % "200": "0+1x60"},
         "GofaxRelaySignaturesRefused", {"endpoint": "/in"}),
        ({**up, 'gofax_relay_threads_used{role="web",destination=""}': "15x60",
          'gofax_relay_threads{role="web",destination=""}': "16x60"},
         "GofaxRelayThreadsShort", {"role": "web"}),
    ]  # fmt: skip
    names = [name for _, name, _ in stories]
    assert set(names) == set(re.findall(r"alert: (\w+)", RULES.read_text()))
    rings = {name: labels for _, name, labels in stories}
    return {
        "rule_files": [str(RULES)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": series, "values": numbers} for series, numbers in given.items()
                ],
                # Each story rings its own bell and no other.
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{name}",alertstate="firing"}})',
                        "eval_time": "30m",
                        "exp_samples": [{"labels": "{}", "value": 1}] if name == own else [],
                    }
                    for name in rings
                ],
            }
            for given, own, _ in stories
        ],
    }
