"""What a destination in Teams may say, and how its faults are told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from teams_channel import CHANNEL, SECRET, bot_options

from connectors.teams.connector import Teams
from connectors.teams.options import LOGIN_URL, SERVICE_URL, TeamsOptions

FLOW = "https://env.example.com/flow"


def bot(**changes: Any) -> TeamsOptions:
    given = bot_options("https://example.com/teams") | changes
    return TeamsOptions.model_validate({k: v for k, v in given.items() if v is not None})


def test_a_workflow_needs_its_address() -> None:
    with pytest.raises(ValidationError, match="mode workflow needs url"):
        TeamsOptions.model_validate({})


def test_a_bot_needs_everything() -> None:
    rows: list[str] = ["tenant_id", "client_id", "client_secret", "channel"]
    for key in rows:
        with pytest.raises(ValidationError, match=f"mode bot needs {key}"):
            bot(**{key: None})


def test_keys_of_the_other_mode_are_faults() -> None:
    with pytest.raises(ValidationError, match="channel belongs to mode bot"):
        TeamsOptions.model_validate({"url": FLOW, "channel": CHANNEL})
    with pytest.raises(ValidationError, match="url belongs to mode workflow"):
        bot(url=FLOW)


def test_a_bare_card_has_no_room_for_the_conversation() -> None:
    with pytest.raises(ValidationError, match="needs shape envelope"):
        TeamsOptions.model_validate({"url": FLOW, "shape": "card", "send_conversation": True})


def test_the_rate_is_what_microsoft_takes_of_the_sender() -> None:
    flow = TeamsOptions.model_validate({"url": FLOW})
    user = TeamsOptions.model_validate({"url": FLOW, "posts_as": "user"})

    assert [Teams.rate_for(each) for each in (flow, user, bot())] == ["25/5m", "300/5m", "60/30s"]
    assert Teams.default_burst == 5


def test_a_bot_talks_to_microsoft_by_default() -> None:
    options = bot(service_url=None, login_url=None)

    assert (options.service_url, options.login_url) == (SERVICE_URL, LOGIN_URL)


def test_addresses_may_end_in_a_slash() -> None:
    rows: list[str] = ["https://example.com/teams/", "https://example.com/teams"]
    for url in rows:
        assert bot(service_url=url, login_url=url).service_url == "https://example.com/teams"


def test_unusable_addresses_are_faults() -> None:
    url_rows: list[str] = [
        "",
        "example.com",
        "ftp://example.com",
        "https://u@example.com",
        "https://e.example/?a=1",
        "https://e.example/#a",
        "https://e.example/a b",
    ]
    key_rows: list[str] = ["service_url", "login_url"]
    for url in url_rows:
        for key in key_rows:
            with pytest.raises(ValidationError) as raised:
                bot(**{key: url})

            assert raised.value.errors()[0]["loc"] == (key,)


def test_a_channel_may_be_given_by_its_link() -> None:
    rows: list[str] = [
        CHANNEL,
        "https://teams.microsoft.com/l/channel/19%3Afrontdesk%40thread.tacv2/Front%20desk?groupId=1",
        "https://teams.cloud.microsoft/l/channel/19%3afrontdesk%40thread.tacv2/x?tenantId=2",
    ]
    for channel in rows:
        assert bot(channel=channel).channel == CHANNEL


def test_what_names_no_channel_is_a_fault() -> None:
    rows: list[str] = [
        "",
        "Front desk",
        "19:",
        "19:a@thread.tacv2;messageid=1",
        "19:a b@thread.tacv2",
        "19:a",
        "https://example.com/channel",
        "https://example.com/?at=19:30",
    ]
    for channel in rows:
        with pytest.raises(ValidationError) as raised:
            bot(channel=channel)

        assert raised.value.errors()[0]["loc"] == ("channel",)


def test_ids_are_ids() -> None:
    key_rows: list[str] = ["tenant_id", "client_id"]
    value_rows: list[str] = ["", "acme", "../x", "3f3d1cea-0000-4000-8000-00000000000"]
    for key in key_rows:
        for value in value_rows:
            with pytest.raises(ValidationError) as raised:
                bot(**{key: value})

            assert raised.value.errors()[0]["loc"] == (key,)


def test_secrets_are_hidden() -> None:
    options = bot()

    assert SECRET not in repr(options) + str(options) + options.model_dump_json()
