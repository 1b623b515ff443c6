"""The stand-in of Teams answers bots as Microsoft documents, and shows what they post."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient
from stand_ins import StandInApp
from teams_channel import CHANNEL, CLIENT, TENANT, Clock, message, post, records
from werkzeug.test import TestResponse

from connectors.sandbox import create_app
from connectors.sandbox.records import Records
from connectors.sandbox.teams import StandIn
from connectors.sandbox.teams_flows import TRIGGER
from connectors.sandbox.teams_limits import Limit, Meter
from connectors.teams import cards
from connectors.teams.cards import CardOptions
from connectors.testing import sample_event

SCOPE = "https://api.botframework.com/.default"


class Bot:
    """A bot that talks to the stand-in without a connector."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.records = Records()
        self.stand_in = StandIn(self.records, clock=self.clock)
        app = StandInApp("connectors.sandbox")
        app.register_blueprint(self.stand_in.blueprint(), url_prefix="/teams")
        self.client: FlaskClient = app.test_client()
        self.token = self.sign_in().get_json()["access_token"]

    def sign_in(self, **changes: str) -> TestResponse:
        asked = {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": "anything",
            "scope": SCOPE,
        }
        return self.client.post(f"/teams/{TENANT}/oauth2/v2.0/token", data=asked | changes)

    def post(self, path: str, posted: Any) -> TestResponse:
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.client.post(f"/teams/v3/conversations{path}", json=posted, headers=headers)

    def start(self, **changes: Any) -> TestResponse:
        asked = {
            "isGroup": True,
            "tenantId": TENANT,
            "channelData": {"channel": {"id": CHANNEL}},
            "activity": activity(),
        }
        return self.post("", {k: v for k, v in (asked | changes).items() if v is not None})

    def reply(self, thread: str, body: str = "more") -> TestResponse:
        return self.post(f"/{thread}/activities", activity(body=body))


def activity(**changes: Any) -> dict[str, Any]:
    event = sample_event(**changes)
    return cards.activity(event, options=CardOptions(), repeat=False, in_thread=False)


@pytest.fixture
def bot() -> Bot:
    return Bot()


class TestSigningIn:
    def test_grants_a_token_for_an_hour(self, bot: Bot) -> None:
        granted = bot.sign_in().get_json()

        assert (granted["token_type"], granted["expires_in"]) == ("Bearer", 3599)

    def test_is_refused(self, bot: Bot) -> None:
        rows: list[tuple[dict[str, str], int, str]] = [
            ({"client_secret": "revoked"}, 401, "invalid_client"),
            ({"client_secret": ""}, 401, "invalid_client"),
            ({"scope": "https://graph.microsoft.com/.default"}, 400, "invalid_request"),
            ({"grant_type": "password"}, 400, "invalid_request"),
        ]
        for changes, status, error in rows:
            answered = bot.sign_in(**changes)

            assert answered.status_code == status
            assert answered.get_json()["error"] == error
            assert "AADSTS" in answered.get_json()["error_description"]

    def test_lasts_an_hour(self, bot: Bot) -> None:
        bot.clock.now += 3598
        assert bot.start().status_code == 201
        bot.clock.now += 2
        assert bot.start().status_code == 401

    def test_is_needed(self, bot: Bot) -> None:
        rows: list[str] = ["", "Bearer nonsense", "Basic eDp5"]
        for header in rows:
            headers = {"Authorization": header} if header else {}

            answered = bot.client.post("/teams/v3/conversations", json={}, headers=headers)

            assert answered.status_code == 401


class TestPosting:
    def test_starts_a_thread(self, bot: Bot) -> None:
        answered = bot.start()

        made = answered.get_json()
        assert answered.status_code == 201
        assert made["id"] == f"{CHANNEL};messageid={made['activityId']}"
        assert [each["kind"] for each in bot.records.listing()] == ["card"]

    def test_answers_in_it(self, bot: Bot) -> None:
        thread = bot.start().get_json()["id"]

        answered = bot.reply(thread)

        assert answered.status_code == 201
        assert answered.get_json()["id"].isdigit()
        assert [each["kind"] for each in bot.records.listing()] == ["card", "reply"]
        assert len({each["conversation"] for each in bot.records.listing()}) == 1

    def test_wants_what_makes_a_thread(self, bot: Bot) -> None:
        rows: list[dict[str, Any]] = [
            {"isGroup": False},
            {"isGroup": None},
            {"tenantId": None},
            {"channelData": None},
            {"channelData": {"channel": {}}},
            {"activity": None},
        ]
        for changes in rows:
            answered = bot.start(**changes)

            assert answered.status_code == 400
            assert answered.get_json()["error"]["code"] == "BadSyntax"

    def test_wants_a_card(self, bot: Bot) -> None:
        thread = bot.start().get_json()["id"]

        for posted in ({}, {"type": "message"}, {"type": "typing"}):
            assert bot.start(activity=posted).status_code == 400
            assert bot.post(f"/{thread}/activities", posted).status_code == 400
        assert len(bot.records.listing()) == 1

    def test_goes_into_channels_of_the_bot_only(self, bot: Bot) -> None:
        rows: list[tuple[str, int, str]] = [
            ("19:removed@thread.tacv2", 403, "BotNotInConversationRoster"),
            ("19:deleted@thread.tacv2", 404, "ConversationNotFound"),
            ("General", 404, "ConversationNotFound"),
        ]
        for channel, status, code in rows:
            for answered in (
                bot.start(channelData={"channel": {"id": channel}}),
                bot.reply(f"{channel};messageid=1"),
            ):
                assert answered.status_code == status
                assert answered.get_json()["error"]["code"] == code

    def test_in_a_thread_that_is_gone_is_refused(self, bot: Bot) -> None:
        made = bot.start().get_json()
        bot.stand_in.delete_thread(made["activityId"])

        answered = bot.reply(made["id"])

        assert answered.status_code == 404
        assert answered.get_json()["error"]["code"] == "ActivityNotFoundInConversation"

    def test_too_much_is_refused(self, bot: Bot) -> None:
        large = activity() | {"summary": "x" * 29_000}

        answered = bot.start(activity=large)

        assert answered.status_code == 413
        assert answered.get_json()["error"]["code"] == "MessageSizeTooBig"

    def test_is_limited_per_channel(self, bot: Bot) -> None:
        elsewhere = {"channel": {"id": "19:elsewhere@thread.tacv2"}}

        statuses = [bot.start().status_code for _ in range(9)]
        refused = bot.start()

        assert statuses == [201] * 7 + [429] * 2
        assert refused.headers["Retry-After"] == "1"
        assert refused.get_json()["error"]["code"] == "Throttled"
        assert bot.start(channelData=elsewhere).status_code == 201
        bot.clock.now += 1
        assert bot.start().status_code == 201
        assert bot.start().status_code == 429  # the ninth in two seconds


class TestFlows:
    """A flow says 202 first and posts afterwards, as Microsoft's connector for Teams describes."""

    @pytest.fixture
    def clock(self) -> Clock:
        return Clock()

    @pytest.fixture
    def stand_in(self, clock: Clock) -> StandIn:
        return StandIn(Records(), clock=clock)

    @pytest.fixture
    def client(self, stand_in: StandIn) -> FlaskClient:
        return create_app(stand_in._records, teams=stand_in).test_client()

    def statuses(self, client: FlaskClient, path: str, count: int) -> list[int]:
        return [post(client, message(), f"/teams/{path}").status_code for _ in range(count)]

    def test_drops_cards_of_the_flow_bot_above_25_in_five_minutes(
        self, client: FlaskClient, stand_in: StandIn, clock: Clock
    ) -> None:
        # Two flows of one owner, who has one connection.
        answered = self.statuses(client, "one", 20) + self.statuses(client, "another", 10)
        clock.now += 299
        answered += self.statuses(client, "one", 1)
        clock.now += 1
        answered += self.statuses(client, "one", 1)

        assert answered == [202] * 32
        assert len(records(client)) == 26
        assert [each.status for each in stand_in.flows.failed] == [429] * 6
        assert "6 runs of flows failed" in client.get("/").get_data(as_text=True)

    def test_lets_a_user_post_300_in_five_minutes_and_100_in_one(
        self, client: FlaskClient, clock: Clock
    ) -> None:
        for _ in range(4):
            assert self.statuses(client, "user", 101) == [202] * 101
            clock.now += 60

        assert len(records(client)) == 300

    @pytest.mark.parametrize("path", ["posted", "threads"])
    def test_that_answers_afterwards_says_what_became_of_the_card(
        self, client: FlaskClient, path: str
    ) -> None:
        assert self.statuses(client, path, 26) == [200] * 25 + [429]
        assert post(client, message(), f"/teams/{path}").headers["Retry-After"] == "300"
        assert len(records(client)) == 25

    def test_is_unlimited_where_a_test_wants_that(self, client: FlaskClient) -> None:
        self.statuses(client, "unlimited", 120)

        assert len(records(client)) == 120

    def test_measures_the_card_as_a_text_and_drops_what_is_above_28_kb(
        self, client: FlaskClient, stand_in: StandIn
    ) -> None:
        quotes = {"type": "TextBlock", "text": '"' * 7_500}
        bare = {"type": "AdaptiveCard", "version": "1.4", "body": [quotes]}
        posted = json.dumps(bare).encode()

        assert len(posted) < 16_000
        assert post(client, posted, "/teams/bare").status_code == 202
        assert records(client) == []
        assert [each.status for each in stand_in.flows.failed] == [413]

    def test_drops_a_card_that_mentions_21_people(
        self, client: FlaskClient, stand_in: StandIn
    ) -> None:
        for count in (20, 21):
            bare = {
                "type": "AdaptiveCard",
                "version": "1.4",
                "body": [{"type": "TextBlock", "text": "x"}],
                "msteams": {"entities": [{"type": "mention"}] * count},
            }
            assert post(client, json.dumps(bare).encode(), "/teams/bare").status_code == 202

        assert len(records(client)) == len(stand_in.flows.failed) == 1

    def test_takes_4500_calls_of_a_trigger_in_five_minutes(
        self, client: FlaskClient, stand_in: StandIn
    ) -> None:
        for _ in range(4499):
            assert stand_in.flows._meter.take("trigger", TRIGGER) == 0

        assert [post(client, b"{}").status_code for _ in range(2)] == [400, 429]


class TestTheMeter:
    def test_says_how_long_to_wait(self) -> None:
        clock = Clock()
        meter = Meter(clock)
        limits = (Limit(calls=2, seconds=10), Limit(calls=3, seconds=60))

        waits = []
        for later in (0, 4, 0, 6, 0, 5, 46, 1):
            clock.now += later
            waits.append(meter.take("one", limits))

        assert waits == [0, 0, 6, 0, 50, 45, 0, 2]
        assert meter.take("other", limits) == 0


class TestThePage:
    def test_shows_answers_below_their_card(self) -> None:
        client = create_app().test_client()
        thread = None
        for _ in range(2):
            message = cards.message(
                sample_event(),
                options=CardOptions(),
                beside={"conversation": {"thread": thread}},
            )
            thread = client.post("/teams/threads", json=message).get_json()["thread"]

        page = client.get("/").get_data(as_text=True)

        assert page.count('<article class="thread">') == 1
        assert page.count('<section class="card">') == 1
        assert page.count('<section class="card reply">') == 1

    def test_shows_mentions_by_name(self) -> None:
        client = create_app().test_client()
        options = CardOptions.model_validate({"mentions": [{"id": "a@b.example", "name": "Ann"}]})
        client.post("/teams", json=cards.message(sample_event(), options=options))

        page = client.get("/").get_data(as_text=True)

        assert "@Ann" in page
        assert "&lt;at&gt;" not in page
