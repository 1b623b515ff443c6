"""The card of an event: what it says, how it holds against strangers, and that it fits."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import microsoft_teams.cards as models
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from teams_channel import deliver, opened

from connectors.base import Event, Refused
from connectors.plain import NO_BODY
from connectors.teams import cards
from connectors.teams.cards import CardOptions
from connectors.testing import sample_event

#: Models of everything that a card of ours may hold.
MODELS = {
    "AdaptiveCard": models.AdaptiveCard,
    "RichTextBlock": models.RichTextBlock,
    "TextRun": models.TextRun,
    "FactSet": models.FactSet,
    "Action.OpenUrl": models.OpenUrlAction,
    "TextBlock": models.TextBlock,
    "mention": models.Mention,
}


def card(event: Event | None = None, *, repeat: bool = False, **options: Any) -> dict[str, Any]:
    return cards.message(
        event or sample_event(), options=CardOptions(**options), shape="card", repeat=repeat
    )


def words(shown: dict[str, Any]) -> str:
    """The text of the SMS as it stands in a card."""
    return str(shown["body"][1]["inlines"][0]["text"])


def facts(shown: dict[str, Any]) -> dict[str, str]:
    return {fact["title"]: fact["value"] for fact in shown["body"][2]["facts"]}


def small_print(shown: dict[str, Any]) -> str:
    return str(shown["body"][3]["inlines"][0]["text"])


def validated(element: dict[str, Any]) -> None:
    """Hold *element* and all in it against Microsoft's models; an unknown field is a fault."""
    model = MODELS[element["type"]]
    known = {field.alias or name for name, field in model.model_fields.items()}
    known |= {_camel(name) for name in model.model_fields} | {"$schema"}
    assert set(element) <= known, set(element) - known
    model.model_validate(element)
    for key in ("body", "inlines", "actions"):
        for inner in element.get(key, []):
            validated(inner)
    for mention in element.get("msteams", {}).get("entities", []):
        validated(mention)
        assert set(mention["mentioned"]) == {"id", "name"}
    for fact in element.get("facts", []):
        assert set(fact) == {"title", "value"}
        models.Fact.model_validate(fact)


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


class TestTheCard:
    def test_is_what_microsofts_models_accept(self) -> None:
        validated(card(sample_event(url="https://relay.example/console/events/e1"), repeat=True))

    def test_is_of_version_1_4_in_an_envelope(self) -> None:
        message = cards.message(sample_event(), options=CardOptions())

        (attachment,) = message["attachments"]
        assert message["type"] == "message"
        assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
        assert attachment["content"] == card()
        assert card()["version"] == "1.4"

    def test_starts_with_who_wrote(self) -> None:
        title = card()["body"][0]["inlines"][0]

        assert title["text"] == "SMS reply from +61400000000"
        assert title["weight"] == "Bolder"

    def test_shows_parties_and_time(self) -> None:
        assert facts(card()) == {
            "From": "+61400000000",
            "To": "+61700000000",
            "Time": "2025-12-04 00:24:07 UTC",
        }

    def test_shows_the_time_in_utc(self) -> None:
        local = datetime(2026, 1, 1, 10, tzinfo=timezone(timedelta(hours=10)))

        assert facts(card(sample_event(occurred_at=local)))["Time"] == "2026-01-01 00:00:00 UTC"

    def test_falls_back_to_the_time_of_arrival(self) -> None:
        event = sample_event(occurred_at=None, received_at=datetime(2026, 1, 2, tzinfo=UTC))

        assert facts(card(event))["Time"] == "2026-01-02 00:00:00 UTC"

    def test_leaves_out_a_party_that_is_unknown(self) -> None:
        assert "From" not in facts(card(sample_event(sender=None)))

    def test_names_the_message_in_small_print(self) -> None:
        run = card()["body"][3]["inlines"][0]

        assert run["text"] == "Message abc123"
        assert run["isSubtle"] is True

    def test_names_the_event_if_the_message_has_no_id(self) -> None:
        assert small_print(card(sample_event(message_id=None))).startswith("Event evt_")

    def test_is_no_repeat_by_itself(self) -> None:
        assert "repeat" not in small_print(card(repeat=False))
        assert "may be a repeat" in small_print(card(repeat=True))

    def test_links_to_the_console_if_there_is_one(self) -> None:
        url = "https://relay.example/console/events/e1"

        (action,) = card(sample_event(url=url))["actions"]

        assert (action["type"], action["url"]) == ("Action.OpenUrl", url)
        assert "actions" not in card()

    def test_keeps_the_text_as_it_was_written(self) -> None:
        rows: list[str] = [
            "line one\nline two\n\nline four",
            "thumbs up \U0001f44d\U0001f3fd and family \U0001f468\u200d\U0001f469\u200d\U0001f467",
            "\u4f60\u597d \u03b3\u03b5\u03b9\u03ac",
            "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35",
            "cafe\u0301, Vie\u0302\u0323t, a\u0302\u0300\u0301\u0323",
            "**not bold** _not italic_ # not a heading\n- not a list",
            "[no link](https://example.com) https://example.com/?a=1&b=2",
            '<b>"quoted"</b> & \\ back',
            "a < b at 5 > 3 @someone {curly} {{double}}",
            "  spaces  around\t",
        ]
        for text in rows:
            assert words(card(sample_event(body=text))) == text

    def test_says_why_there_is_no_text(self) -> None:
        rows: list[str | None] = [None, ""]
        for body in rows:
            assert words(card(sample_event(body=body))) == NO_BODY

    def test_cleans_what_cannot_be_sent(self) -> None:
        event = sample_event(body="nul\x00 bell\x07 lone\ud83d end\r\nline\rline")

        assert words(card(event)) == "nul bell lone? end\nline\nline"

    def test_cleans_each_character_alone_as_among_others(self) -> None:
        for character in map(chr, range(128)):
            alone, among_others = (
                words(card(sample_event(body=f"a{character}{end}"))) for end in ("b", "é")
            )

            assert alone.removesuffix("b") == among_others.removesuffix("é")

    def test_the_text_mentions_nobody(self) -> None:
        rows: list[str] = [
            "<at>Boss</at>",
            "<AT>Boss</AT>",
            "< at>Boss</ at>",
            '<at id="1">Boss</at>',
        ]
        for text in rows:
            shown = words(card(sample_event(body=text)))

            assert "<at" not in shown.lower().replace(" ", "")
            assert "</at" not in shown.lower().replace(" ", "")
            assert shown.replace(cards.WORD_JOINER, "") == text

    def test_the_text_calls_no_function(self) -> None:
        rows: list[str] = ["{{DATE(2026-01-01T00:00:00Z)}}", "{{TIME(x)}}"]
        for function in rows:
            shown = words(card(sample_event(body=function)))

            assert "{{" not in shown
            assert shown.replace(cards.WORD_JOINER, "") == function

    def test_facts_hold_no_markdown(self) -> None:
        rows: list[tuple[str, str]] = [
            ("+61400000000", "+61400000000"),
            ("GoFax", "GoFax"),
            ("[x](https://e.example)", r"\[x\]\(https\:\/\/e\.example\)"),
            ("**5**", r"\*\*5\*\*"),
            ("1. list", r"1\. list"),
            ("line\nbreak", "line break"),
        ]
        for number, shown in rows:
            assert facts(card(sample_event(sender=number)))["From"] == shown

    @given(st.text(), st.text(min_size=1), st.text(min_size=1))
    def test_holds_against_any_text(self, body: str, number: str, message_id: str) -> None:
        event = sample_event(
            body=body, customer=number, sender=number, message_id=message_id, conversation="c"
        )

        shown = card(event)

        validated(shown)
        assert "<at" not in json.dumps(shown).lower()
        assert cards.size(shown) <= cards.LIMIT


def sent(event: Event) -> dict[str, Any]:
    """The whole of what a flow is given."""
    return cards.message(event, options=CardOptions())


class TestLongTexts:
    def test_are_shortened_honestly(self) -> None:
        shown = words(card(sample_event(body="x" * 100_000)))

        assert shown.startswith("x" * 15_000)
        assert shown.endswith("… shortened, 100,000 characters in all")

    def test_fill_the_message_and_no_more(self) -> None:
        size = cards.size(sent(sample_event(body="x" * 100_000)))

        assert cards.LIMIT - 8 < size <= cards.LIMIT

    def test_are_measured_as_a_text_within_a_text(self) -> None:
        rows: list[str] = ["x", '"', "\\", "\n", "é", "語", "\U0001f600"]
        for character in rows:
            with opened() as channel:
                flow = channel.connector(url=channel.url)
                deliver(flow, body=character * 60_000)
                flow.close()

                assert "60,000 characters in all" in channel.texts()[0]
                assert not channel.stand_in.flows.failed

    def test_never_exceed_the_limit(self) -> None:
        for character in ("x", '"', "\x85", "é", "語", "\U0001f600"):
            for length in range(500, 12_000, 500):
                assert cards.size(sent(sample_event(body=character * length))) <= cards.LIMIT

    def test_that_just_fit_are_whole(self) -> None:
        empty = cards.size(sent(sample_event(body="x"))) - 1
        body = "x" * (cards.LIMIT - empty)

        for text, shortened in ((body, False), (body + "x", True)):
            content = sent(sample_event(body=text))["attachments"][0]["content"]
            assert ("shortened" in words(content)) is shortened

    def test_of_one_sms_are_whole_in_any_script(self) -> None:
        for character in ("x", '"', "é", "語"):
            body = character * 1_530  # ten parts of a long SMS
            assert words(card(sample_event(body=body))) == body

    def test_huge_numbers_and_ids_leave_room_for_the_text(self) -> None:
        event = sample_event(
            customer="9" * 20_000,
            sender="*" * 20_000,
            recipient="_" * 20_000,
            message_id="m" * 20_000,
            body="still here",
        )

        assert words(card(event)) == "still here"
        assert len(cards.encode(card(event))) < 5_000

    def test_facts_that_leave_no_room_are_refused(self) -> None:
        with pytest.raises(Refused, match=r"^facts: event evt_0193a0000000sample: too much"):
            card(facts={"Much": "x" * 20_000, "More": "y" * 9_000})


class TestStrangersWriting:
    def test_text_from_the_right_has_its_own_direction(self) -> None:
        arabic, hebrew = "\u0645\u0631\u062d\u0628\u0627!", "\u05e9\u05dc\u05d5\u05dd?"

        shown = words(card(sample_event(body=f"{arabic}\nhello\n{hebrew}")))

        isolated = [f"\u2068{each}\u2069" for each in (arabic, hebrew)]
        assert shown.split("\n") == [isolated[0], "hello", isolated[1]]

    def test_an_override_ends_with_its_line(self) -> None:
        shown = words(card(sample_event(body="paid \u202e001\nnext")))

        assert shown == "\u2068paid \u202e001\u2069\nnext"

    def test_numbers_turn_nothing_around(self) -> None:
        assert facts(card(sample_event(sender="+61\u202e400")))["From"] == "+61400"

    def test_accents_do_not_paint_over_other_lines(self) -> None:
        shown = words(card(sample_event(body="Z" + "\u0350\u035b" * 40 + " e\u0301")))

        assert shown == "Z\u0350\u035b\u0350\u035b e\u0301"


class TestTemplates:
    def test_say_what_the_operator_wants(self) -> None:
        shown = card(
            title="{{ customer }} → {{ ours }}",
            text="> {{ text }}",
            facts={"Zone": '{{ time | date("%H:%M", "Australia/Sydney") }}', "Mine": "**VIP**"},
        )

        assert shown["body"][0]["inlines"][0]["text"] == "+61400000000 → +61700000000"
        assert words(shown) == "> Thanks for your message"
        assert facts(shown) == {"Zone": "11:24", "Mine": "**VIP**"}

    def test_show_the_sentiment_if_there_is_one(self) -> None:
        assert facts(card(sample_event(sentiment="negative")))["Sentiment"] == "negative"
        assert "Sentiment" not in facts(card())

    def test_may_show_no_facts_at_all(self) -> None:
        shown = card(facts={"Sentiment": "{{ sentiment }}"})

        assert [each["type"] for each in shown["body"]] == ["RichTextBlock"] * 3
        validated(shown)

    def test_what_strangers_write_stays_text_in_them(self) -> None:
        event = sample_event(body="{{ 7 * 7 }} [x](https://e.example) <at>Boss</at>")

        shown = facts(card(event, facts={"Said": "{{ body }}"}))

        assert "49" not in shown["Said"]
        assert "](" not in shown["Said"]
        assert "<at" not in shown["Said"]

    def test_faults_are_refused_by_name(self) -> None:
        rows: list[str] = ["title", "text"]
        for field in rows:
            with pytest.raises(Refused, match=rf"^{field}: .*evt_0193a0000000sample"):
                card(**{field: "{{ metadata.missing }}"})

    def test_faults_of_a_fact_name_it(self) -> None:
        with pytest.raises(Refused, match=r"^facts\.Plan: .*evt_0193a0000000sample"):
            card(facts={"Plan": "{{ metadata.plan }}"})

    def test_that_cannot_work_are_found_with_the_config(self) -> None:
        rows: list[str] = ["title", "text"]
        for field in rows:
            with pytest.raises(ValidationError, match="nothing is named custommer"):
                CardOptions.model_validate({field: "{{ custommer }}"})


class TestMentions:
    ANN: dict[str, str] = {"id": "ann@example.com", "name": "Ann Example"}

    def test_call_the_person_in_charge(self) -> None:
        shown = card(mentions=[self.ANN])

        assert {"type": "TextBlock", "text": "<at>Ann Example</at>", "wrap": True} in shown["body"]
        assert shown["msteams"]["entities"] == [
            {"type": "mention", "text": "<at>Ann Example</at>", "mentioned": self.ANN}
        ]
        validated(shown)

    def test_are_none_by_themselves(self) -> None:
        assert "msteams" not in card()

    def test_of_strangers_are_none_beside_them(self) -> None:
        shown = card(sample_event(body="<at>Ann Example</at>"), mentions=[self.ANN])

        assert json.dumps(shown).lower().count("<at>") == 2  # its block and its entity
        assert "<at>" not in words(shown)

    def test_need_a_plain_name(self) -> None:
        rows: list[str] = ["", "<at>", "a\nb", "x" * 101]
        for name in rows:
            with pytest.raises(ValidationError):
                CardOptions.model_validate({"mentions": [{"id": "a@example.com", "name": name}]})

    def test_are_twenty_at_most(self) -> None:
        people = [{"id": f"p{n}@example.com", "name": f"P {n}"} for n in range(21)]

        assert len(card(mentions=people[:20])["msteams"]["entities"]) == 20
        with pytest.raises(ValidationError, match="at most 20"):
            CardOptions.model_validate({"mentions": people})

    def test_need_different_names(self) -> None:
        with pytest.raises(ValidationError, match="same name"):
            CardOptions.model_validate({"mentions": [self.ANN, self.ANN | {"id": "other"}]})
