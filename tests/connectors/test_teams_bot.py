"""The bot in Teams: threads, tokens, and what it makes of the service's answers."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from rawserver import Connection, RawServer, answer
from teams_channel import CHANNEL, CLIENT, SECRET, TENANT, Channel, bot_options, deliver, opened

from connectors import Http
from connectors.base import (
    Ambiguous,
    DeliveryError,
    Receipt,
    Refused,
    Throttled,
    Transient,
    Unauthorized,
)
from connectors.teams.connector import Teams


@pytest.fixture
def channel() -> Iterator[Channel]:
    with opened() as channel:
        yield channel


@pytest.fixture
def bot(channel: Channel) -> Iterator[Teams]:
    connector = channel.connector()
    yield connector
    connector.close()


def code(name: str) -> str:
    return json.dumps({"error": {"code": name, "message": "words of the service"}})


class TestThreads:
    def test_a_conversation_starts_with_a_post_in_the_channel(
        self, channel: Channel, bot: Teams
    ) -> None:
        receipt = deliver(bot, body="Hello there")

        (thread,) = channel.threads()
        assert "Hello there" in thread[0]
        assert receipt.thread == f"{CHANNEL};messageid={receipt.reference}"

    def test_what_follows_is_answered_in_its_thread(self, channel: Channel, bot: Teams) -> None:
        first = deliver(bot, body="one")
        second = deliver(bot, body="two", thread=first.thread)
        third = deliver(bot, body="three", thread=second.thread)

        (thread,) = channel.threads()
        assert [words.split("\n")[1] for words in thread] == ["one", "two", "three"]
        assert third.thread == second.thread == first.thread
        assert len({first.reference, second.reference, third.reference}) == 3

    def test_conversations_do_not_mix(self, channel: Channel, bot: Teams) -> None:
        ours = [deliver(bot, body=f"first of {n}").thread for n in range(2)]
        for number, thread in enumerate(ours):
            deliver(bot, body=f"second of {number}", thread=thread)

        assert [[w.split("\n")[1] for w in t] for t in channel.threads()] == [
            ["first of 0", "second of 0"],
            ["first of 1", "second of 1"],
        ]

    def test_answers_leave_out_what_the_thread_says(self, channel: Channel, bot: Teams) -> None:
        first = deliver(bot)
        deliver(bot, thread=first.thread)

        ((opening, following),) = channel.threads()
        assert "From: +61400000000\nTo: +61700000000\nTime:" in opening
        assert "From:" not in following
        assert "To:" not in following
        assert "Time: 2025-12-04" in following

    def test_a_deleted_thread_is_started_anew(self, channel: Channel, bot: Teams) -> None:
        first = deliver(bot, body="one")
        channel.stand_in.delete_thread(first.reference)

        second = deliver(bot, body="two", thread=first.thread)

        ((words,),) = channel.threads()
        assert "two" in words
        assert "From: " in words
        assert second.thread not in (None, first.thread)

    @pytest.mark.parametrize(
        "thread", ["19:elsewhere@thread.tacv2;messageid=1700000000000", "77", CHANNEL]
    )
    def test_a_thread_of_another_channel_is_left_alone(
        self, channel: Channel, bot: Teams, thread: str
    ) -> None:
        receipt = deliver(bot, thread=thread)

        assert str(receipt.thread).startswith(f"{CHANNEL};messageid=")
        assert channel.paths()[1:] == ["POST /v3/conversations"]

    def test_ids_stand_escaped_in_addresses(self, channel: Channel, bot: Teams) -> None:
        first = deliver(bot)
        deliver(bot, thread=first.thread)

        escaped = f"19%3Afrontdesk%40thread.tacv2%3Bmessageid%3D{first.reference}"
        assert channel.paths()[-1] == f"POST /v3/conversations/{escaped}/activities"

    def test_a_repeat_says_so(self, channel: Channel, bot: Teams) -> None:
        deliver(bot, repeat=True)

        assert "may be a repeat" in channel.texts()[0]

    def test_notifications_say_who_wrote(self) -> None:
        started = answer(201, body=b'{"activityId": "1700000000000"}')
        with RawServer(signing_in(started)) as server:
            deliver(raw_bot(server), customer="+61400000007")

        posted = json.loads(server.requests[1].partition(b"\r\n\r\n")[2])
        assert posted["activity"]["summary"] == "SMS reply from +61400000007"
        assert posted["channelData"]["channel"] == {"id": CHANNEL}
        assert (posted["isGroup"], posted["tenantId"]) == (True, TENANT)

    def test_long_texts_fit(self, channel: Channel, bot: Teams) -> None:
        first = deliver(bot, body="語" * 60_000)
        deliver(bot, body="語" * 60_000, thread=first.thread)

        assert all("60,000 characters in all" in words for words in channel.texts())

    def test_many_at_once_share_one_token(self, channel: Channel, bot: Teams) -> None:
        channel.stand_in.limited = False

        with ThreadPoolExecutor(20) as pool:
            receipts = list(pool.map(lambda n: deliver(bot, body=f"n{n}"), range(40)))

        assert len({receipt.thread for receipt in receipts}) == 40
        assert len(channel.threads()) == 40
        assert channel.stand_in.service.granted == 1


class TestTokens:
    def test_are_asked_for_as_entra_wants(self) -> None:
        started = answer(201, body=b'{"activityId": "1700000000000"}')
        with RawServer(signing_in(started)) as server:
            deliver(raw_bot(server))

        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(f"POST /{TENANT}/oauth2/v2.0/token HTTP/1.1\r\n".encode())
        assert (
            body
            == (
                f"grant_type=client_credentials&client_id={CLIENT}&client_secret={SECRET}"
                "&scope=https%3A%2F%2Fapi.botframework.com%2F.default"
            ).encode()
        )
        assert b"authorization: bearer granted" in server.requests[1].lower()

    def test_that_ended_early_are_renewed(self, channel: Channel, bot: Teams) -> None:
        first = deliver(bot)
        channel.stand_in.service.expire_tokens()

        deliver(bot, thread=first.thread)

        assert [len(thread) for thread in channel.threads()] == [2]
        assert channel.stand_in.service.granted == 2

    def test_many_at_once_share_one_renewal(self, channel: Channel, bot: Teams) -> None:
        channel.stand_in.limited = False
        deliver(bot)
        channel.stand_in.service.expire_tokens()

        with ThreadPoolExecutor(10) as pool:
            list(pool.map(lambda n: deliver(bot, body=f"n{n}"), range(10)))

        assert len(channel.threads()) == 11
        assert channel.stand_in.service.granted == 2

    def test_are_renewed_before_they_end(self) -> None:
        started = answer(201, body=b'{"activityId": "1700000000000"}')
        with RawServer(signing_in(started, life=0.001)) as server:
            connector = raw_bot(server)
            deliver(connector)
            deliver(connector)

        assert sum(b"/oauth2/" in each for each in server.requests) == 2

    def test_that_are_refused_twice_pause_the_destination(self) -> None:
        with RawServer(signing_in(answer(401))) as server, pytest.raises(Unauthorized) as raised:
            deliver(raw_bot(server))

        assert raised.value.status == 401
        assert len(server.requests) == 4

    # What the token endpoint answers, what the relay learns.
    def test_each_refusal_has_its_meaning(self) -> None:
        rows: list[tuple[int, Any, type[DeliveryError], str]] = [
            (
                401,
                {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid …"},
                Unauthorized,
                "client_secret is wrong",
            ),
            (
                401,
                {"error": "invalid_client", "error_description": "AADSTS7000222: expired …"},
                Unauthorized,
                "has expired",
            ),
            (
                400,
                {"error": "unauthorized_client", "error_description": "AADSTS700016: …"},
                Unauthorized,
                "unknown in this tenant",
            ),
            (
                400,
                {"error": "invalid_request", "error_description": "AADSTS90002: …"},
                Unauthorized,
                "tenant_id names no tenant",
            ),
            (404, {}, Unauthorized, "no access token"),
            (302, {}, Unauthorized, "redirect"),
            (429, {}, Throttled, "429"),
            (500, {}, Transient, "500"),
            (503, {}, Transient, "503"),
            (200, {}, Transient, "holds none"),
            (200, {"access_token": 7}, Transient, "holds none"),
            (200, {"access_token": "a\nb"}, Transient, "holds none"),
        ]
        for status, body, kind, said in rows:
            answered = answer(status, body=json.dumps(body).encode())
            with RawServer(answered) as server, pytest.raises(kind, match=said):
                deliver(raw_bot(server))

            assert len(server.requests) == 1

    def test_a_silent_endpoint_is_no_doubt(self) -> None:
        with RawServer(Connection.hang) as server, pytest.raises(Transient):
            deliver(raw_bot(server), deadline=0.3)

    def test_who_waits_for_another_ends_at_the_deadline(self) -> None:
        asked = threading.Event()

        def stall(connection: Connection) -> None:
            asked.set()
            connection.hang()

        with RawServer(stall) as server, ThreadPoolExecutor(1) as pool:
            connector = raw_bot(server)
            first = pool.submit(deliver, connector, deadline=1.0)
            assert asked.wait(10)
            with pytest.raises(Transient, match="another delivery"):
                deliver(connector, deadline=0.2)
            assert isinstance(first.exception(20), Transient)


class TestAnswers:
    # What the service says to a new thread, what the relay learns.
    def test_each_status_has_its_meaning(self, channel: Channel, bot: Teams) -> None:
        rows: list[tuple[int, str, type[DeliveryError]]] = [
            (400, "BadArgument", Refused),
            (400, "BadSyntax", Unauthorized),
            (403, "BotNotInConversationRoster", Unauthorized),
            (403, "BotDisabledByAdmin", Unauthorized),
            (403, "InvalidBotApiHost", Unauthorized),
            (403, "", Unauthorized),
            (404, "ConversationNotFound", Unauthorized),
            (410, "", Unauthorized),
            (408, "", Transient),
            (412, "PreconditionFailed", Transient),
            (413, "MessageSizeTooBig", Refused),
            (422, "", Refused),
            (429, "Throttled", Throttled),
            (500, "ServiceError", Ambiguous),
            (502, "ServiceError", Ambiguous),
            (503, "", Transient),
            (504, "", Ambiguous),
            (302, "", Unauthorized),
        ]
        for status, named, kind in rows:
            channel.fault(status=status, body=code(named), path="/v3/conversations")

            with pytest.raises(DeliveryError) as raised:
                deliver(bot)

            assert type(raised.value) is kind
            assert raised.value.status == status
            assert named in str(raised.value)
            assert "words of the service" not in str(raised.value)
            assert channel.texts() == []

    def test_in_a_thread_they_mean_the_same(self, channel: Channel, bot: Teams) -> None:
        first = deliver(bot)
        for status in (400, 403, 412, 413, 429, 500, 502, 503):
            kinds = []
            for thread in (None, first.thread):
                channel.fault(status=status, path="/v3/conversations")
                with pytest.raises(DeliveryError) as raised:
                    deliver(bot, thread=thread)
                kinds.append(type(raised.value))

            assert kinds[0] is kinds[1], status

        assert len(channel.texts()) == 1

    def test_a_remedy_is_named(self, channel: Channel, bot: Teams) -> None:
        channel.stand_in.service.is_member = False

        with pytest.raises(Unauthorized, match="install its app"):
            deliver(bot)

    def test_a_channel_that_is_gone_pauses_the_destination(self, channel: Channel) -> None:
        bot = channel.connector(channel="19:deleted@thread.tacv2")

        with pytest.raises(Unauthorized, match="the channel is gone"):
            deliver(bot, thread="19:deleted@thread.tacv2;messageid=1700000000000")
        bot.close()

        assert len(channel.paths()) == 3

    def test_throttling_tells_the_wait(self, channel: Channel, bot: Teams) -> None:
        outcomes: list[Throttled | str] = []
        for number in range(9):
            try:
                outcomes.append(deliver(bot, body=str(number)).reference)
            except Throttled as error:
                outcomes.append(error)

        refused = [each for each in outcomes if isinstance(each, Throttled)]
        assert refused
        assert all(
            each.retry_after and each.retry_after >= timedelta(seconds=1) for each in refused
        )
        assert len(channel.texts()) == 9 - len(refused)

    def test_a_2xx_without_an_id_has_posted(self) -> None:
        thread = f"{CHANNEL};messageid=1700000000000"
        for body in (b"", b"[]", b"<html>", b"{}", b'{"activityId": "x/y"}', b'{"id": 7}'):
            with RawServer(signing_in(answer(201, body=body))) as server:
                bot = raw_bot(server)
                started, answered = deliver(bot), deliver(bot, thread=thread)

            assert started == Receipt(reference="posted (201), id unknown")
            assert answered == Receipt(reference="posted (201), id unknown", thread=thread)

    def test_no_body_turns_a_failure_into_a_success(self) -> None:
        made = json.dumps({"id": f"{CHANNEL};messageid=1700000000000"}).encode()
        for status, kind in ((400, Refused), (500, Ambiguous), (999, Ambiguous)):
            answered = signing_in(answer(status, body=made))
            with RawServer(answered) as server, pytest.raises(DeliveryError) as raised:
                deliver(raw_bot(server))

            assert type(raised.value) is kind

    def test_the_root_is_found_in_the_id_too(self) -> None:
        made = json.dumps({"id": f"{CHANNEL};messageid=1700000000000"}).encode()
        with RawServer(signing_in(answer(201, body=made))) as server:
            receipt = deliver(raw_bot(server))

        assert receipt.reference == "1700000000000"

    def test_an_act_whose_answer_is_lost_is_a_doubt(self, channel: Channel, bot: Teams) -> None:
        deliver(bot)
        channel.fault(act=True, wait=1.0, path="/v3/conversations")

        with pytest.raises(Ambiguous):
            deliver(bot, body="perhaps", deadline=0.3)

        assert any("perhaps" in words for words in channel.texts())


class TestCheck:
    def test_finds_the_bot_in_the_team_and_posts_nothing(
        self, channel: Channel, bot: Teams
    ) -> None:
        assert "the bot is in the team" in bot.check()
        assert channel.texts() == []

    def test_says_what_to_mend(self, channel: Channel) -> None:
        rows: list[tuple[Any, str]] = [
            ({"client_secret": "revoked"}, "client_secret is wrong"),
            ({"channel": "19:removed@thread.tacv2"}, "install its app"),
            ({"channel": "19:deleted@thread.tacv2"}, "the channel is gone"),
        ]
        for options, said in rows:
            bot = channel.connector(**options)

            with pytest.raises(Unauthorized, match=said):
                bot.check()
            bot.close()

    def test_tells_trouble_from_refusal(self, channel: Channel, bot: Teams) -> None:
        rows: list[tuple[int, type[DeliveryError]]] = [
            (400, Unauthorized),
            (500, Transient),
            (503, Transient),
        ]
        for status, kind in rows:
            channel.fault(status=status, path="pagedmembers")

            with pytest.raises(kind):
                bot.check()


class TestSecrets:
    def test_are_never_shown(self, channel: Channel, caplog: pytest.LogCaptureFixture) -> None:
        shown = []
        with caplog.at_level(logging.DEBUG):
            for faulty in (None, 400, 401, 403, 500):
                bot = channel.connector()
                shown += [repr(bot), repr(bot.options), bot.options.model_dump_json()]
                if faulty:
                    channel.fault(status=faulty, times=2, path="/v3/")
                try:
                    deliver(bot)
                except DeliveryError as error:
                    shown += ["".join(traceback.format_exception(error))]
                bot.close()

        tokens = [headers.get("Authorization", "").split(" ")[-1] for _, headers in channel.calls]
        words = caplog.text + "".join(shown)
        assert SECRET not in words
        assert not [token for token in tokens if token and token in words]

    def test_go_nowhere_on_plain_http_without_permission(self, channel: Channel) -> None:
        bot = Teams(Teams.Options(**bot_options(channel.url)), http=Http())

        with pytest.raises(Unauthorized, match="outbound.allow"):
            deliver(bot)
        bot.close()

        assert channel.calls == []

    def test_do_not_follow_a_redirect(self) -> None:
        with RawServer(answer(200)) as elsewhere:
            moved = answer(307, Location=f"{elsewhere.url}/v3/conversations")
            with RawServer(signing_in(moved)) as server, pytest.raises(Unauthorized):
                deliver(raw_bot(server))

        assert elsewhere.requests == []


def signing_in(answered: bytes, *, life: float = 3599) -> Any:
    """Make what grants a token to anybody, and answers all else with *answered*."""
    token = json.dumps({"access_token": "granted", "expires_in": life}).encode()

    def respond(connection: Connection) -> bool:
        is_grant = b"/oauth2/v2.0/token" in connection.request.split(b"\r\n", 1)[0]
        connection.say(answer(200, body=token) if is_grant else answered)
        return True

    return respond


def raw_bot(server: RawServer) -> Teams:
    return Teams(Teams.Options(**bot_options(server.url)), http=Http(allow=["127.0.0.0/8"]))
