from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sender import Answer, Event, SenderError, deliver, sign
from sender.trust import PUBLIC
from sender.wire import Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def _posted(url: str) -> Answer:
    return deliver(url, Event())


def _over_the_wire(url: str) -> Answer:
    with Wire(url, timeout=10, trust=PUBLIC) as wire:
        wire.open({"Content-Length": "2"})
        wire.send([b"{}"])
        return wire.answer()


def test_a_receiver_that_knows_only_hmac_verifies_an_event(receiver: Any, secret: str) -> None:
    answer = deliver(receiver.url, Event(body="naïve 👋🏽"), secret=secret)

    assert answer.status == 200
    assert answer.is_success
    assert [each.verified for each in receiver.received] == [True]


def test_bytes_arrive_as_they_are(receiver: Any, secret: str) -> None:
    body = b'\n{ "messageId" : "x",\t"a": 1.00 }\r\n\xff\x00'

    deliver(receiver.url, body, secret=secret)

    assert receiver.bodies == [body]
    assert receiver.received[0].verified


def test_an_event_is_posted_as_json_to_the_path_of_the_url(receiver: Any, secret: str) -> None:
    deliver(f"{receiver.url}?tenant=7", Event(), secret=secret)

    assert receiver.received[0].path == "/webhooks/gofax?tenant=7"
    assert receiver.received[0].headers["content-type"] == "application/json"
    assert receiver.received[0].headers["connection"] == "close"


def test_without_secret_there_is_no_signature(receiver: Any) -> None:
    answer = deliver(receiver.url, Event())

    assert answer.status == 401
    assert "x-gofax-signature" not in receiver.received[0].headers


def test_the_wrong_secret_is_answered_401(receiver: Any) -> None:
    answer = deliver(receiver.url, Event(), secret="another")

    assert (answer.status, answer.is_success) == (401, False)


def test_given_headers_replace_ours_in_any_case(receiver: Any, secret: str) -> None:
    foreign = sign(b"other bytes", secret)

    deliver(receiver.url, Event(), secret=secret, headers={"x-gofax-SIGNATURE": foreign})

    assert receiver.received[0].headers["x-gofax-signature"] == foreign
    assert not receiver.received[0].verified


def test_the_answer_says_text_headers_and_duration(receiver: Any, secret: str) -> None:
    receiver.answer, receiver.headers = "größer".encode(), {"X-Node": "a"}

    answer = deliver(receiver.url, Event(), secret=secret)

    assert answer.text == "größer"
    assert answer.headers["x-node"] == "a"
    assert timedelta() < answer.duration < timedelta(seconds=10)


def test_an_answer_that_is_no_utf_8_is_still_text(receiver: Any, secret: str) -> None:
    receiver.answer = b"caf\xe9"

    assert deliver(receiver.url, Event(), secret=secret).text == "caf\N{REPLACEMENT CHARACTER}"


def test_a_huge_answer_is_cut(receiver: Any, secret: str) -> None:
    receiver.answer = b"x" * 1_000_000

    assert len(deliver(receiver.url, Event(), secret=secret).text) == 65536


def test_a_compressed_answer_is_unpacked_and_cut(receiver: Any, secret: str) -> None:
    receiver.answer = gzip.compress(b"x" * 50_000_000)
    receiver.headers = {"Content-Encoding": "gzip"}

    assert len(deliver(receiver.url, Event(), secret=secret).text) == 65536


def test_a_redirect_is_returned_and_not_followed(receiver: Any, secret: str) -> None:
    receiver.status, receiver.headers = 307, {"Location": "/elsewhere"}

    answer = deliver(receiver.url, Event(), secret=secret)

    assert (answer.status, answer.headers["location"]) == (307, "/elsewhere")
    assert len(receiver.received) == 1


def test_a_503_with_retry_after_is_not_tried_again(receiver: Any, secret: str) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "0"}

    assert deliver(receiver.url, Event(), secret=secret).status == 503
    assert len(receiver.received) == 1


def test_proxies_and_netrc_are_ignored(
    receiver: Any, secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent_url: str
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    for name, value in (("NETRC", str(netrc)), ("http_proxy", silent_url), ("no_proxy", "")):
        monkeypatch.setenv(name, value)

    deliver(receiver.url, Event(), secret=secret)

    assert "authorization" not in receiver.received[0].headers


def test_a_refused_connection_says_how_to_mend_it(unreachable_url: str) -> None:
    with pytest.raises(SenderError, match="connection refused: is the receiver running"):
        deliver(unreachable_url, Event())


def test_an_unknown_host_says_how_to_mend_it() -> None:
    with pytest.raises(SenderError, match="host name not found: check the URL"):
        deliver("http://nowhere.invalid/", Event())


def test_a_hanging_server_ends_at_the_deadline(silent_url: str) -> None:
    started = time.monotonic()

    with pytest.raises(SenderError, match="no complete answer within 1 s"):
        deliver(silent_url, Event(), timeout=1)

    assert 1 <= time.monotonic() - started < 3


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 500, id="headers"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + b"x" * 500, id="body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 100,
            id="chunks",
        ),
    ],
)
def test_a_dribbling_server_ends_at_the_deadline(
    raw_server: Callable[..., str], sent: bytes
) -> None:
    url = raw_server(sent, a_byte_each=0.05)
    started = time.monotonic()

    with pytest.raises(SenderError, match=r"no complete answer within 0\.5 s"):
        deliver(url, Event(), timeout=0.5)

    assert 0.5 <= time.monotonic() - started < 3


def test_a_receiver_that_reads_nothing_ends_at_the_deadline(silent_url: str) -> None:
    with pytest.raises(SenderError, match=r"no complete answer within 0\.5 s"):
        deliver(silent_url, b"x" * 50_000_000, timeout=0.5)


@pytest.mark.parametrize("through", [_posted, _over_the_wire], ids=["deliver", "wire"])
def test_interim_answers_are_read_past(
    raw_server: Callable[..., str], through: Callable[[str], Answer]
) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"

    answer = through(raw_server(interim + hints + hints + OK))

    assert (answer.status, answer.text) == (200, "ok")
    assert "Link" not in answer.headers


def test_interim_answers_without_end_end_at_the_deadline(raw_server: Callable[..., str]) -> None:
    url = raw_server(b"HTTP/1.1 102 Processing\r\n\r\n" * 99, a_byte_each=0.01)

    with pytest.raises(SenderError, match="no complete answer within 1 s"):
        deliver(url, Event(), timeout=1)


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nx"])
def test_a_connection_that_is_cut_is_an_error(raw_server: Callable[..., str], sent: bytes) -> None:
    with pytest.raises(SenderError, match="closed before the answer was complete"):
        deliver(raw_server(sent), Event())


def test_an_answer_that_is_no_http_is_an_error(raw_server: Callable[..., str]) -> None:
    with pytest.raises(SenderError, match="no proper HTTP answer"):
        deliver(raw_server(b"SSH-2.0-OpenSSH_9.9\r\n"), Event())


def test_https_to_a_plain_port_is_an_error(raw_server: Callable[..., str]) -> None:
    url = raw_server(OK).replace("http:", "https:")

    with pytest.raises(SenderError, match="does the receiver speak https"):
        deliver(url, Event())


NO_URLS = [
    "",
    "127.0.0.1:8080/webhooks/gofax",
    "ftp://127.0.0.1/",
    "http://",
    "http://[::1",
    "http://127.0.0.1:99999/",
    "http://127.0.0.1:port/",
]


def test_what_is_no_url_is_an_error_with_an_example() -> None:
    for url in NO_URLS:
        with pytest.raises(SenderError, match="give one like http://127"):
            deliver(url, Event())


def test_a_host_name_that_cannot_be_is_an_error() -> None:
    for host in ("a" * 64, "a..b", "*", "ä" * 64, "a b"):
        with pytest.raises(SenderError):
            deliver(f"http://{host}/", Event())


def test_a_password_in_the_url_is_in_no_message(unreachable_url: str) -> None:
    url = unreachable_url.replace("//", "//user:" + "hidden@")

    with pytest.raises(SenderError) as caught:
        deliver(url, Event())

    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("value", ["a\r\nb: c", "ä\u20ac"])
def test_a_header_that_cannot_be_sent_is_an_error(receiver: Any, value: str) -> None:
    with pytest.raises(SenderError):
        deliver(receiver.url, Event(), headers={"X-Test": value})
