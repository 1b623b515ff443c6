"""The email connector: its messages, their threads, and its options."""

from __future__ import annotations

import threading
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP as MAIL
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mails import OAUTH, PASSWORD, connector, deliver, options
from pydantic import ValidationError

from connectors.base import Refused
from connectors.email.connector import PORTS, Email
from connectors.http import Http
from connectors.plain import NO_BODY
from connectors.suites.mailbox import Mailbox
from connectors.testing import sample_event


def text_of(message: EmailMessage) -> str:
    content = message.get_content()
    assert isinstance(content, str)
    return content.replace("\r\n", "\n")


class TestMessage:
    def test_it_says_what_happened(self, mailbox: Mailbox) -> None:
        event = sample_event(url="https://relay.example.com/console/events/1", keyword="HELP")

        receipt = deliver(connector(mailbox.port, cc=["boss@example.com"]), event)

        [message] = mailbox.messages
        assert message["From"] == "SMS <sms@example.com>"
        assert (message["To"], message["Cc"]) == ("Desk <desk@example.com>", "boss@example.com")
        assert mailbox.recipients == [["desk@example.com", "boss@example.com"]]
        assert message["Subject"] == "SMS conversation with +61400000000"
        assert message["Message-ID"] == receipt.reference
        assert message["Date"].datetime == event.received_at
        assert message["Auto-Submitted"] == "auto-generated"
        assert message.get_content_type() == "text/plain"
        assert text_of(message).splitlines() == [
            "Thanks for your message",
            "",
            "SMS reply from +61400000000",
            "From: +61400000000",
            "To: +61700000000",
            "Time: 2025-12-04 00:24:07 UTC",
            "Keyword: HELP",
            "https://relay.example.com/console/events/1",
        ]

    def test_templates_are_the_operators(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, subject="[{{ type }}]\nurgent", body="{{ text | upper }}")

        deliver(email)

        [message] = mailbox.messages
        assert message["Subject"] == "[SMS_REPLY] urgent"
        assert text_of(message) == "THANKS FOR YOUR MESSAGE\n"

    def test_a_missing_text_says_why(self, mailbox: Mailbox) -> None:
        deliver(connector(mailbox.port), sample_event(body=None))

        assert NO_BODY in text_of(mailbox.messages[0])

    def test_a_repetition_is_the_same_message_to_the_last_byte(self, mailbox: Mailbox) -> None:
        first = deliver(connector(mailbox.port))
        second = deliver(connector(mailbox.port), repeat=True)

        assert first == second
        assert mailbox.taken[0] == mailbox.taken[1]
        assert len(mailbox.messages) == 1

    def test_another_key_is_another_message(self, mailbox: Mailbox) -> None:
        ids = {deliver(connector(mailbox.port), key=key).reference for key in ("a", "b")}

        assert len(ids) == len(mailbox.messages) == 2

    def test_no_customer_writes_a_header(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, subject="{{ metadata.x }} {{ text }}")
        for injected in (
            "a\r\nBcc: x@example.net", "a\nBcc: x@example.net", "a\rBcc: x\r\n\r\nbody",
            "a\x0bb\x0c", "a\u2028Bcc: x", "a\x85Bcc: x@example.net",
        ):  # fmt: skip
            event = sample_event(body=injected, customer=injected, metadata={"x": injected})

            deliver(email, event, key=repr(injected))

            message = mailbox.messages[-1]
            assert message["Bcc"] is None, repr(injected)
            assert "\n" not in message["Subject"]
            assert mailbox.recipients[-1] == ["desk@example.com"]

    def test_texts_arrive_as_they_are(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port, body="{{ body }}")
        bodies = [
            ".", "..\r\n.\r\n.", "a\r\n.\r\nQUIT\r\nMAIL FROM:<x@example.com>", ".a\n.b\n\n.",
            "x" * 5000, "👍🏽" * 700, "é" * 3000, "=20 =\n= =", "From me\nFrom: you",
        ]  # fmt: skip

        for body in bodies:
            deliver(email, sample_event(body=body), key=body)

        arrived = [text_of(message).removesuffix("\n") for message in mailbox.messages]
        assert arrived == [body.replace("\r\n", "\n").removesuffix("\n") for body in bodies]
        assert max(len(line) for each in mailbox.taken for line in each.split(b"\r\n")) <= 998
        assert all(each.isascii() for each in mailbox.taken)

    def test_a_long_subject_is_cut(self, mailbox: Mailbox) -> None:
        deliver(connector(mailbox.port, subject="{{ text }}"), sample_event(body="wörter " * 99))

        subject = str(mailbox.messages[0]["Subject"])
        assert len(subject) == 250 and subject.endswith("…")

    @pytest.mark.parametrize(
        ("field", "broken"), [("subject", "{{ 1 // 0 }}"), ("body", "{{ metadata.no }}")]
    )
    def test_a_template_that_does_not_work_is_refused(
        self, mailbox: Mailbox, field: str, broken: str
    ) -> None:
        with pytest.raises(Refused, match=f"^{field}: .*evt_0193a0000000sample"):
            deliver(connector(mailbox.port, **{field: broken}))

        assert mailbox.taken == []


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_makes_a_message_that_can_be_read(subject: str, body: str) -> None:
    email = connector(25, subject="{{ metadata.subject }}", body="{{ body }}")
    event = sample_event(body=body, metadata={"subject": subject})

    written = email._message(event, id="<1@example.com>", before=[]).as_bytes()

    read = message_from_bytes(written, policy=MAIL)
    assert set(read.keys()) == {
        "From", "To", "Subject", "Date", "Message-ID", "References", "Auto-Submitted",
        "Content-Type", "Content-Transfer-Encoding", "MIME-Version",
    }  # fmt: skip
    assert read["Message-ID"] == "<1@example.com>"
    # A lone CR or LF could end a line for one server and not for the next.
    assert written.isascii() and not set(b"\r\n") & set(written.replace(b"\r\n", b""))


class TestThreads:
    def conversation(self, mailbox: Mailbox, number: int = 3) -> list[EmailMessage]:
        email, thread = connector(mailbox.port), None
        for each in range(number):
            thread = deliver(email, key=str(each), thread=thread).thread
        return mailbox.messages

    def test_each_message_points_to_the_one_before_and_to_the_first(
        self, mailbox: Mailbox
    ) -> None:
        first, second, third = self.conversation(mailbox)

        root = first["References"]
        assert first["In-Reply-To"] is None
        assert second["In-Reply-To"] == first["Message-ID"]
        assert second["References"].split() == [root, first["Message-ID"]]
        assert third["In-Reply-To"] == second["Message-ID"]
        assert third["References"].split() == [root, first["Message-ID"], second["Message-ID"]]
        assert len({each["Subject"] for each in (first, second, third)}) == 1

    def test_a_thread_does_not_grow(self, mailbox: Mailbox) -> None:
        last = self.conversation(mailbox, 12)[-1]

        assert len(last["References"].split()) == 3

    def test_a_thread_that_is_none_of_ours_is_left_out(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port)
        for thread in ("", "nonsense", "<a b>", "<x\r\nBcc: y@z>", "<" * 999):
            deliver(email, key=thread, thread=thread)

        for message in mailbox.messages:
            assert (message["In-Reply-To"], message["Bcc"]) == (None, None)
            assert len(message["References"].split()) == 1

    def test_conversations_have_roots_of_their_own(self, mailbox: Mailbox) -> None:
        email = connector(mailbox.port)
        deliver(email, key="1")
        deliver(email, sample_event(customer="+61400000002"), key="2")

        one, other = mailbox.messages
        assert one["References"] != other["References"]


# Options that cannot work, and what their fault says.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"from": "no address"}, "from"),
    ({"from": "a@example.com, b@example.com"}, "from"),
    ({"from": "a@example.com\r\nBcc: x@example.com"}, "from"),
    ({"from": "Zoë <zoë@example.com>"}, "in ASCII"),
    ({"to": []}, "to"),
    ({"to": ["a@"]}, "write one address"),
    ({"to": ["<script>"]}, "write one address"),
    ({"to": ["a b@example.com"]}, "write one address"),
    ({"cc": ["x"]}, "cc"),
    ({"host": "smtp example"}, "host"),
    ({"host": "https://smtp.example.com"}, "host"),
    ({"port": 70000}, "port"),
    ({"security": "ssl"}, "security"),
    ({"username": "a"}, "belong together"),
    ({"password": "a"}, "belong together"),
    ({"oauth": OAUTH}, "belong together"),
    ({"username": "a", "password": "b", "oauth": OAUTH}, "not both"),
    ({"username": "a", "oauth": OAUTH | {"token_url": "x"}}, "token_url"),
    ({"username": "a", "password": "pässword"}, "printable ASCII only"),
    ({"username": "a", "password": "pass\nword"}, "printable ASCII only"),
    ({"ca": "no certificate"}, "no PEM certificates"),
    ({"ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}, "no PEM"),
    ({"subject": "{{ nothing_like_it }}"}, "subject"),
    ({"bdy": "x"}, "bdy"),
]


class TestOptions:
    def test_a_wrong_option_is_found(self) -> None:
        for wrong, fault in WRONG:
            with pytest.raises(ValidationError) as caught:
                options(**wrong)

            assert fault in str(caught.value), wrong
            assert "pässword" not in str(caught.value)

    def test_names_may_hold_anything(self, mailbox: Mailbox) -> None:
        deliver(connector(mailbox.port, **{"from": '"Zoë, SMS" <sms@example.com>'}))

        assert mailbox.messages[0]["From"].addresses[0].display_name == "Zoë, SMS"

    def test_the_port_is_the_usual_one(self) -> None:
        made = [Email(options(security=each, port=0), http=Http()) for each in PORTS]

        assert [each._server.port for each in made] == [587, 465, 25]

    def test_the_password_is_hidden(self) -> None:
        given = options(username="relay", password=PASSWORD)
        email = Email(given, http=Http())

        for shown in (repr(given), str(given), given.model_dump_json(), repr(email._server.login)):
            assert PASSWORD not in shown


def test_one_connector_serves_many_threads(mailbox: Mailbox) -> None:
    email = connector(mailbox.port)
    threads = [
        threading.Thread(target=deliver, args=(email,), kwargs={"key": str(number)})
        for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(mailbox.messages) == 20
