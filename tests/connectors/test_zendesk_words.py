"""Texts, subjects and fields of tickets."""

from __future__ import annotations

import pytest
from zendesk_account import Account, deliver

from connectors import Refused
from connectors.plain import NO_BODY
from connectors.testing import sample_event
from connectors.zendesk.connector import Zendesk


def test_options_reach_the_ticket(account: Account) -> None:
    given = {"group_id": 360, "assignee_id": 361, "priority": "high", "status": "open"}
    given |= {"brand_id": 362, "ticket_form_id": 363}
    zendesk = account.connector(tags=["text"], public=False, **given)

    receipt = deliver(zendesk)
    deliver(zendesk, thread=receipt.thread)

    (ticket,) = account.stand_in.tickets()
    assert {name: ticket[name] for name in given} == given
    assert ticket["tags"] == ["text"]
    assert [each["public"] for each in account.comments(receipt.thread)] == [False, False]
    zendesk.close()


def test_what_no_option_names_is_left_to_zendesk(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk)

    (call,) = account.made("POST", "/tickets")
    assert set(call.body["ticket"]) == {
        "comment",
        "external_id",
        "metadata",
        "requester_id",
        "subject",
        "tags",
    }


def test_subject_and_comment_are_templates(account: Account) -> None:
    zendesk = account.connector(
        subject="SMS to {{ ours }}\n from {{ customer }}",
        comment="{{ text | upper }}\n-- {{ metadata.accountId }}",
    )

    receipt = deliver(zendesk, sample_event(body="hello"))

    (ticket,) = account.stand_in.tickets()
    (comment,) = account.comments(receipt.thread)
    assert ticket["subject"] == "SMS to +61700000000 from +61400000000"
    assert comment["body"].startswith("HELLO\n-- 12345\n\n(ref gofax-")
    zendesk.close()


def test_templates_that_leave_nothing_make_a_ticket_all_the_same(account: Account) -> None:
    zendesk = account.connector(subject="{{ metadata.nothing | default }}", comment=" ")

    receipt = deliver(zendesk)

    (ticket,) = account.stand_in.tickets()
    assert ticket["subject"] == "SMS reply from +61400000000"
    assert account.comments(receipt.thread)[0]["body"].startswith("(ref gofax-")
    zendesk.close()


def test_template_that_does_not_fit_an_event_is_refused_and_named(account: Account) -> None:
    broken = "{{ metadata.order.number }}"
    options = {"subject": broken, "comment": broken, "custom_fields.7": {7: broken}}

    for field, value in options.items():
        zendesk = account.connector(**{field.removesuffix(".7"): value})
        with pytest.raises(Refused, match=rf"^{field}: .*evt_0193a0000000sample"):
            deliver(zendesk)
        zendesk.close()

    assert account.calls == []


def test_custom_fields_are_values_or_templates(account: Account) -> None:
    fields = {1: "{{ customer }}", 2: "0400", 3: True, 4: 7, 5: 1.5, 6: ["red", "green"]}
    zendesk = account.connector(custom_fields=fields)

    receipt = deliver(zendesk)
    deliver(zendesk, thread=receipt.thread)

    (ticket,) = account.stand_in.tickets()
    values = {each["id"]: each["value"] for each in ticket["custom_fields"]}
    assert values == fields | {1: "+61400000000"}
    (update,) = account.made("PUT")
    assert "custom_fields" not in update.body["ticket"]
    zendesk.close()


def test_placeholders_that_a_customer_writes_are_plain_text(
    account: Account, zendesk: Zendesk
) -> None:
    said = "{{ticket.comments}} {% raw %} {{{{ {{dc.secret}}"

    receipt = deliver(zendesk, sample_event(body=said, type=said))

    (ticket,) = account.stand_in.tickets()
    (comment,) = account.comments(receipt.thread)
    for text in (comment["body"], ticket["subject"]):
        assert "{{" not in text
        assert "{%" not in text
    assert said in comment["body"].replace("\u2060", "")


def test_braces_that_are_no_placeholders_stay_as_they_are(account: Account) -> None:
    zendesk = account.connector(
        comment="{{ '{{ticket.id}}' }}{% if 1 == 1 %}{ {{ text }}{% endif %}"
    )

    deliver(zendesk, sample_event(body="{x"))

    assert "{ {x" in account.texts()[0]
    zendesk.close()


def test_status_event_without_our_number_gets_a_ticket(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk, sample_event(type="SMS_STATUS", ours=None, sender=None, body="Delivered"))

    (ticket,) = account.stand_in.tickets()
    assert ticket["external_id"] == "sms-61400000000-unknown"
    assert ticket["subject"] == "SMS status for +61400000000"


def test_text_arrives_as_it_was_written(account: Account, zendesk: Zendesk) -> None:
    said = [
        "👍🏽 déjà vu",
        "<script>alert(1)</script> & <b>",
        "two\nlines",
        "{x} {} {ticket.id} *x*",
    ]
    thread = None

    for body in said:
        thread = deliver(zendesk, sample_event(body=body), thread=thread).thread

    comments = account.comments(thread)
    assert all(f"\n\n{body}\n\n" in c["body"] for body, c in zip(said, comments, strict=True))
    assert "<script>" not in "".join(comment["html_body"] for comment in comments)


def test_what_is_no_text_is_replaced(account: Account, zendesk: Zendesk) -> None:
    deliver(zendesk, sample_event(body="a\0b c\ud800d"))

    (text,) = account.texts()
    assert "a\ufffdb c?d" in text


def test_text_that_is_too_long_is_cut_and_says_so(account: Account, zendesk: Zendesk) -> None:
    for said in ("x" * 200_000, "💬" * 50_000):
        deliver(zendesk, sample_event(body=said))

    for text in account.texts():
        assert len(text.encode()) < 65_000
        assert "cut: too long for Zendesk" in text


def test_missing_text_is_named(account: Account, zendesk: Zendesk) -> None:
    for body in (None, ""):
        deliver(zendesk, sample_event(body=body))

    assert all(NO_BODY in text for text in account.texts())
