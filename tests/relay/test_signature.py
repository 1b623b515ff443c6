"""Published vectors, every spelling that is taken, and what hostile headers come to."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.rules.signature import Encoding, Verification, digests, fingerprint, stray_signs, verify

SLACK_BODY = (
    "token=xyzz0WbapA4v" "BCDEFasx0q6G" "&team_id=T1DC2JH3J&team_domain=testteamnow"
    "&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner"
    "&command=%2Fwebhook-collect&text="
    "&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554"
    "%2F96rGlfmibIGlgcZRskXaIFfN"
    "&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)  # fmt: skip
STANDARD_KEY = base64.b64decode("MfKQ9r8GKYqrTwjU" + "PD8ILPZIo2LaLaSw")
STANDARD_SIGNED = b'msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}'
STANDARD_GOOD = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
STANDARD_OTHER = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc="

#: Key, signed bytes and header as they were published; only HMAC-SHA256.
PUBLISHED = [
    pytest.param(
        b"It's a Secret to Everybody",
        b"Hello, World!",
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        id="1 GitHub",
    ),
    pytest.param(
        b"It's a Secret to Everybody",
        b"Hello, World!",
        "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        id="1 GitHub, bare",
    ),
    pytest.param(
        b"channel_secret",
        b"bodybodybodybody",
        "/gg9a+LvFevTH1sd7XCQycD7tsWclCsInj7MhBHxN7k=",
        id="2 LINE",
    ),
    pytest.param(
        b"asdf1234",
        b'https://example.com/webhook{"hello":"world"}',
        "2kRE5qRU2tR+tBGlDwMEw2avJ7QM4ikPYD/PJ3bd9Og=",
        id="3 Square",
    ),
    pytest.param(
        b"8f742231b10e8888abcd99yyyzzz85a5",
        f"v0:1531420618:{SLACK_BODY}".encode(),
        "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        id="4 Slack",
    ),
    pytest.param(STANDARD_KEY, STANDARD_SIGNED, STANDARD_GOOD, id="5 Standard Webhooks"),
    pytest.param(
        base64.b64decode("plJ3nmyCDGBK" + "InavdOK15jsl"),
        b'msg_loFOjxBNrRLzqYUf.1731705121.{"event_type":"ping","data":{"success":true}}',
        "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        id="6 Svix",
    ),
    pytest.param(
        b"\x0b" * 20,
        b"Hi There",
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
        id="8 RFC 4231, case 1",
    ),
    pytest.param(
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        id="9 RFC 4231, case 2",
    ),
]

SECRET, BODY = b"a secret for tests", b'{"messageId": "abc123"}'
DIGEST = hmac.new(SECRET, BODY, hashlib.sha256).digest()
HEX = DIGEST.hex()
BASE64 = base64.b64encode(DIGEST).decode()
OTHER = hashlib.sha256(b"something else").digest()


def urlsafe(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()


@pytest.mark.parametrize(("key", "signed", "header"), PUBLISHED)
def test_a_published_vector_is_good_for_its_key_and_body_alone(
    key: bytes, signed: bytes, header: str
) -> None:
    good = Verification(good=True, reason="matches secret 1", secret=0)
    bad = Verification(good=False, reason="does not match the secret")

    assert verify(signed, header, [key]) == good
    assert verify(signed + b" ", header, [key]) == bad
    assert verify(signed, header, [key + b"x"]) == bad


def test_the_published_negative_of_standard_webhooks_is_bad() -> None:
    almost = STANDARD_GOOD.removesuffix("OJ1OE=") + "OJ1OA="

    assert not verify(STANDARD_SIGNED, almost, [STANDARD_KEY]).good


def test_of_the_several_published_values_one_is_enough() -> None:
    header = f"{STANDARD_OTHER} {STANDARD_GOOD}"

    assert verify(STANDARD_SIGNED, header, [STANDARD_KEY]).good


def test_a_sha1_signature_is_not_taken() -> None:
    # Vector 7, Twilio: a good HMAC, but of 20 bytes.
    signed = (
        "https://mycompany.com/myapp.php?foo=1&bar=2"
        "CallSidCA1234567890ABCDE" "Caller+14158675309" "Digits1234" "From+14158675309"
        "To+18005551212"
    )  # fmt: skip

    found = verify(signed.encode(), "RSOYDt4T1cUTdK1PDd93/VVr8B8=", [b"12345"])

    assert found.reason == "not a SHA-256 value in hex or base64 (28 characters)"


def test_a_usual_spelling_is_good() -> None:
    rows = [
        HEX,  # as the sender of this project writes it
        HEX.upper(),  # case of hex says nothing
        HEX[:32] + HEX[32:].upper(),  # not even when mixed
        BASE64,  # 44 characters
        BASE64.rstrip("="),  # 43 characters
        urlsafe(DIGEST),  # URL-safe alphabet
        urlsafe(DIGEST).rstrip("="),  # and without padding
        f"sha256={HEX}",  # GitHub
        f"sha256={BASE64}",  # its prefix before base64
        f"v0={HEX}",  # Slack
        f"v1={HEX}",  # Stripe
        f"v1,{BASE64}",  # Standard Webhooks: the prefix holds a comma
        f"v1,{HEX}",  # and before hex
        f"t=1614265330,v1={HEX}",  # Stripe's list with its time
        f"{OTHER.hex()} {HEX}",  # separated by a space
        f"{OTHER.hex()},{HEX}",  # by a comma
        f"{OTHER.hex()},  {HEX}",  # by both
        f"{OTHER.hex()}\t{HEX}",  # by a tab, which HTTP allows
        f"{HEX} {OTHER.hex()}",  # the right one first
        f"rubbish {HEX}",  # what is no signature is passed over
        f" {HEX} ",  # spaces around
    ]

    assert [header for header in rows if not verify(BODY, header, [SECRET]).good] == []


def test_an_odd_spelling_is_no_signature_at_all() -> None:
    rows = [
        HEX + "\n",  # `$` in a pattern would let this pass
        BASE64 + "\n",
        HEX + "\r\n",
        HEX + "\0",
        HEX[:-1],  # 63 digits
        HEX + "0",  # 65 digits
        HEX + HEX,  # twice the value
        HEX[:32] + " " + HEX[32:],  # bytes.fromhex skips spaces
        HEX[:32] + "\n" + HEX[32:],
        "0x" + HEX,
        HEX[:-1] + "g",
        HEX.replace(HEX[0], "０", 1),  # a digit, but a full-width one
        BASE64.rstrip("=")[:-1],  # 42 characters
        BASE64 + "=",  # 45 characters, too much padding
        BASE64.rstrip("=") + "==",
        BASE64[:10] + "!" + BASE64[10:],  # base64.b64decode skips foreign characters
        BASE64[:10] + "\n" + BASE64[10:],
        "=" + BASE64,
        "é" + BASE64[1:],
        f"sha256:{HEX}",  # unknown prefixes
        f"sha512={HEX}",
        f"v2={HEX}",
        f"sha256=v1={HEX}",  # one prefix is enough
        f"sha256={HEX}=",  # hex has no padding
        f"sha256 ={HEX}",
        f'"{HEX}"',
        f"{HEX};{OTHER.hex()}",  # no separator of ours
        "HMAC_SHA256",  # the placeholder of the help page
        "=",
        ",",
        " ",
    ]

    for header in rows:
        assert list(digests(header, encoding="auto")) == []
        assert verify(BODY, header, [SECRET]) == Verification(
            good=False, reason=f"not a SHA-256 value in hex or base64 ({len(header)} characters)"
        )


@pytest.mark.parametrize("header", [None, ""])
def test_a_missing_signature_is_told_apart_from_a_wrong_one(header: str | None) -> None:
    assert verify(BODY, header, [SECRET]) == Verification(good=False, reason="no signature")


def test_a_fixed_encoding_takes_no_other() -> None:
    rows = [
        ("auto", HEX, True),
        ("auto", BASE64, True),
        ("hex", HEX, True),
        ("hex", f"sha256={HEX}", True),
        ("hex", BASE64, False),
        ("base64", BASE64, True),
        ("base64", f"v1,{BASE64}", True),
        ("base64", HEX, False),
    ]

    for encoding, header, good in rows:
        assert verify(BODY, header, [SECRET], encoding=encoding).good is good, (encoding, header)


@pytest.mark.parametrize(("encoding", "header"), [("hex", BASE64), ("base64", HEX)])
def test_the_reason_names_the_encoding_that_was_wanted(encoding: Encoding, header: str) -> None:
    found = verify(BODY, header, [SECRET], encoding=encoding)

    assert found.reason == f"not a SHA-256 value in {encoding} ({len(header)} characters)"


def test_64_hex_digits_are_never_read_as_base64() -> None:
    assert list(digests(HEX, encoding="auto")) == [DIGEST]
    assert list(digests(HEX, encoding="base64")) == []


def test_every_value_of_a_list_is_read_in_order() -> None:
    assert list(digests(f"{HEX} v1,{urlsafe(OTHER)}", encoding="auto")) == [DIGEST, OTHER]


@pytest.mark.parametrize("position", range(3))
def test_any_secret_of_a_rotation_may_have_signed(position: int) -> None:
    secrets = [b"first", b"second", b"third"]
    header = hmac.new(secrets[position], BODY, hashlib.sha256).hexdigest()

    assert verify(BODY, header, secrets) == Verification(
        good=True, reason=f"matches secret {position + 1}", secret=position
    )


def test_a_list_signed_with_a_new_and_an_old_secret_reports_the_newest() -> None:
    old = hmac.new(b"old", BODY, hashlib.sha256).hexdigest()
    new = hmac.new(b"new", BODY, hashlib.sha256).hexdigest()

    assert verify(BODY, f"{old} {new}", [b"new", b"old"]).secret == 0


def test_the_reason_says_what_stands_around_a_secret() -> None:
    good = hmac.new(b"se cret", BODY, hashlib.sha256).hexdigest()
    rows = [
        (b"se cret\n", "trailing newline"),
        (b"se cret\r\n", "trailing newline"),
        (b"se cret ", "trailing blank"),
        (b"\tse cret", "leading blank"),
        (b'"se cret"', "quotes"),
        ("\u201cse cret\u201d".encode(), "quotes"),
        (b"\xef\xbb\xbfse cret", "byte order mark"),
        (
            b"\xef\xbb\xbf 'se cret' \n",
            "byte order mark and trailing newline and trailing blank and leading blank and quotes",
        ),
    ]
    for secret, stray in rows:
        found = verify(BODY, good, [b"other", secret])

        said = f"matches none of 2 secrets; secret 2 would match without the {stray}"
        assert found == Verification(good=False, reason=said)


def test_a_secret_that_was_meant_so_is_not_talked_about() -> None:
    for secret in (b"se cret\n", b'"', b'""', b"\n", b"\xff\n"):
        meant = hmac.new(secret, BODY, hashlib.sha256).hexdigest()

        assert verify(BODY, OTHER.hex(), [secret]).reason == "does not match the secret"
        assert verify(BODY, meant, [secret]).good


def test_a_removed_secret_is_bad() -> None:
    header = hmac.new(b"old", BODY, hashlib.sha256).hexdigest()

    assert verify(BODY, header, [b"new", b"newer"]) == Verification(
        good=False, reason="matches none of 2 secrets"
    )


def test_without_secrets_nothing_is_good() -> None:
    assert not verify(BODY, HEX, []).good


def test_an_empty_body_can_be_signed() -> None:
    assert verify(b"", hmac.new(SECRET, b"", hashlib.sha256).hexdigest(), [SECRET]).good


def test_bytes_that_are_no_text_can_be_signed() -> None:
    body = bytes(range(256))

    assert verify(body, hmac.new(SECRET, body, hashlib.sha256).hexdigest(), [SECRET]).good


@pytest.mark.parametrize(("length", "good"), [(2048, True), (2049, False)])
def test_a_header_is_read_up_to_its_cap(length: int, good: bool) -> None:
    header = HEX.ljust(length)

    assert verify(BODY, header, [SECRET]).good is good


def test_what_is_bad_matches_no_secret() -> None:
    for header in (None, "rubbish", OTHER.hex()):
        assert verify(BODY, header, [SECRET]).secret is None


def test_a_verification_never_repeats_header_body_or_secret() -> None:
    for header in (HEX, OTHER.hex(), "not-a-signature", None):
        shown = repr(verify(BODY, header, [SECRET]))

        assert SECRET.decode() not in shown
        assert BODY.decode() not in shown
        assert header is None or header not in shown


@given(st.text())
@example("\ud800" * 64)
@example("٣" * 64)
@example("é" * 43)
@example("=" * 44)
def test_no_header_raises_or_passes(header: str) -> None:
    assert not verify(BODY, header, [SECRET]).good


@given(st.text(alphabet="0123456789abcdefABCDEFghXYZ+/-_=v,1 \tsha256\n", max_size=200))
def test_whatever_is_read_is_32_bytes(header: str) -> None:
    assert {len(each) for each in digests(header, encoding="auto")} <= {32}


@given(st.binary(), st.binary(min_size=1), st.booleans())
def test_what_is_signed_is_good_and_what_is_changed_is_bad(
    body: bytes, secret: bytes, in_hex: bool
) -> None:
    digest = hmac.new(secret, body, hashlib.sha256).digest()
    header = digest.hex() if in_hex else base64.b64encode(digest).decode()

    assert verify(body, header, [secret]).good
    assert not verify(body + b"\0", header, [secret]).good


@given(st.integers(0, 255))
def test_one_flipped_bit_is_bad(bit: int) -> None:
    flipped = (int.from_bytes(DIGEST, "big") ^ (1 << bit)).to_bytes(32, "big")

    assert not verify(BODY, flipped.hex(), [SECRET]).good
    assert not verify(BODY, base64.b64encode(flipped).decode(), [SECRET]).good


@pytest.mark.parametrize("secret", ["plain", "X", "Xa\u0301X", "'half", "a b"])
def test_a_secret_without_stray_signs_has_none(secret: str) -> None:
    assert list(stray_signs(secret)) == []


def test_stray_signs_are_taken_off_one_after_the_other() -> None:
    assert list(stray_signs('\ufeff"kX"\n')) == [
        ('"kX"\n', "byte order mark"),
        ('"kX"', "byte order mark and trailing newline"),
        ("kX", "byte order mark and trailing newline and quotes"),
    ]


def test_a_fingerprint_is_the_beginning_of_a_usual_digest() -> None:
    # As `printf %s abc | sha256sum` says it.
    assert fingerprint("abc") == "ba7816bf"
