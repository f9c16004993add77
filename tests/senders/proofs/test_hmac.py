"""The schemes `hmac`, `ed25519` and `hub`: what is signed, and how it is written."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fuzz.proof_seeds import (
    BODY,
    ED25519,
    ED25519_PUBLIC,
    NOW,
    OLD_SECRET,
    SECONDS,
    SECRET,
    URL,
    build_request,
    sign_ed25519,
    sign_hex,
)
from tests.senders.proofs.proving import check, prove, read_table, refuse, set_header

BASE: dict[str, Any] = {"secrets": ["A"], "header": "X-Signature"}
TIMED = {**BASE, "signed": "{timestamp}.{body}", "timestamp_header": "X-Time"}


def build_timed(timestamp: str) -> Any:
    """A request with a timestamp that is signed as it stands."""
    signature = sign_hex(timestamp.encode() + b"." + BODY)
    return build_request({"X-Signature": signature, "X-Time": timestamp})


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64", "base64url"])
def test_a_signature_may_be_of_each_algorithm_and_encoding(algorithm: str, encoding: str) -> None:
    digest = hmac.digest(SECRET.encode(), BODY, algorithm)
    text = {
        "hex": digest.hex(),
        "base64": base64.b64encode(digest).decode(),
        "base64url": base64.urlsafe_b64encode(digest).decode(),
    }[encoding]
    table = {**BASE, "algorithm": algorithm, "encoding": encoding}
    prove("hmac", table, [SECRET], build_request({"X-Signature": text}))
    refuse("hmac", table, [SECRET], build_request({"X-Signature": text[:-4]}))


@pytest.mark.parametrize(
    ("key_format", "value"),
    [("hex", SECRET.encode().hex()), ("base64", base64.b64encode(SECRET.encode()).decode())],
)
def test_a_key_may_be_written_in_hex_or_base64(key_format: str, value: str) -> None:
    request = build_request({"X-Signature": sign_hex(BODY)})
    prove("hmac", {**BASE, "key_format": key_format}, [value], request)
    refuse("hmac", BASE, [value], request)
    assert check("hmac", {**BASE, "key_format": key_format}, ["#" * 32]) == [
        f"the setting A does not hold {key_format}"
    ]


def test_hex_may_be_upper_case_but_not_mixed() -> None:
    signature = sign_hex(BODY)
    prove("hmac", BASE, [SECRET], build_request({"X-Signature": signature.upper()}))
    mixed = signature[:32].upper() + signature[32:]
    refuse("hmac", BASE, [SECRET], build_request({"X-Signature": mixed}))


@pytest.mark.parametrize("padding", ["", "="])
def test_base64url_may_leave_its_padding_away(padding: str) -> None:
    digest = hmac.digest(SECRET.encode(), BODY, "sha256")
    text = base64.urlsafe_b64encode(digest).decode().rstrip("=") + padding
    table = {**BASE, "encoding": "base64url"}
    prove("hmac", table, [SECRET], build_request({"X-Signature": text}))
    refuse("hmac", table, [SECRET], build_request({"X-Signature": text + "=="}))


def test_base64_is_taken_only_as_an_encoder_writes_it() -> None:
    """The last character before the padding has bits that decoders pass over."""
    text = base64.b64encode(hmac.digest(SECRET.encode(), BODY, "sha256")).decode()
    table = {**BASE, "encoding": "base64"}
    prove("hmac", table, [SECRET], build_request({"X-Signature": text}))
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = text[:-2] + alphabet[alphabet.index(text[-2]) ^ 1] + "="
    assert base64.b64decode(twin) == base64.b64decode(text)
    for changed in (twin, text[:9] + "\n" + text[9:], text + "!", text.rstrip("="), text + "===="):
        refuse("hmac", table, [SECRET], build_request({"X-Signature": changed}))


def test_a_prefix_must_be_there() -> None:
    table = {**BASE, "prefix": "sha256="}
    prove("hmac", table, [SECRET], build_request({"X-Signature": f"sha256={sign_hex(BODY)}"}))
    refuse("hmac", table, [SECRET], build_request({"X-Signature": sign_hex(BODY)}))


@pytest.mark.parametrize(
    ("offset", "is_taken"), [(0, True), (-300, True), (300, True), (-301, False), (301, False)]
)
def test_a_timestamp_may_differ_by_the_tolerance(offset: int, is_taken: bool) -> None:
    request = build_timed(str(int(SECONDS) + offset))
    if is_taken:
        prove("hmac", TIMED, [SECRET], request)
    else:
        assert "timestamp" in refuse("hmac", TIMED, [SECRET], request)
    later = NOW + timedelta(seconds=301 + offset)
    assert "too old" in refuse("hmac", TIMED, [SECRET], request, later)
    wide = {**TIMED, "tolerance": 700}
    prove("hmac", wide, [SECRET], request, later)


@pytest.mark.parametrize(
    "text",
    ["", "0", f"+{SECONDS}", f"{SECONDS}.0", f"0{SECONDS}", f"-{SECONDS}", "9" * 14, "9" * 5000,
     "1_767_225_600", "1e9", "\u0661" * 10, f"{SECONDS} {SECONDS}", "nan"],
)  # fmt: skip
def test_a_timestamp_is_a_whole_number_of_ascii_digits(text: str) -> None:
    signature = sign_hex(text.encode() + b"." + BODY)
    refuse("hmac", TIMED, [SECRET], build_request({"X-Signature": signature, "X-Time": text}))


def test_a_timestamp_may_count_milliseconds() -> None:
    table = {**TIMED, "timestamp_unit": "milliseconds"}
    prove("hmac", table, [SECRET], build_timed(f"{SECONDS}123"))
    refuse("hmac", table, [SECRET], build_timed(SECONDS))
    refuse("hmac", TIMED, [SECRET], build_timed(f"{SECONDS}123"))


FIELDS = {
    **BASE,
    "signature_field": "v1",
    "timestamp_field": "t",
    "signed": "{timestamp}.{body}",
}


@pytest.mark.parametrize(
    ("pattern", "is_taken"),
    [
        ("t={t},v1={s}", True),
        ("v1={s},t={t}", True),
        ("t={t}, v1={s}", True),
        ("t={t},v0=other,v1={s}", True),
        ("t={t},v1={o},v1={s}", True),
        ("t={t},v1={o}", False),
        ("t={t},v2={s}", False),
        ("t={t},t={t},v1={s}", False),
        ("v1={s}", False),
        ("t={t}", False),
        ("t={t},v1={s},", False),
        ("t={t};v1={s}", False),
        ("t={t},v1={s},junk", False),
        ("t={t},v1={s}" + ",v1={s}" * 20, False),
    ],
)
def test_signature_and_timestamp_may_be_fields_of_one_header(pattern: str, is_taken: bool) -> None:
    text = SECONDS.encode() + b"." + BODY
    value = pattern.format(t=SECONDS, s=sign_hex(text), o=sign_hex(text, OLD_SECRET))
    request = build_request({"X-Signature": value})
    if is_taken:
        prove("hmac", FIELDS, [SECRET], request)
    else:
        refuse("hmac", FIELDS, [SECRET], request)


SIGNED = [
    ("{method} {url} {body}", b"POST https://relay.example/api/fhir?a=1 " + BODY),
    ("{method:lower}{path}?{query}\n{body}", b"post/api/fhir?a=1\n" + BODY),
    ("v0:{length}:{body}", f"v0:{len(BODY)}:".encode() + BODY),
    ("{content-type};{body:base64}", b"application/json;" + base64.b64encode(BODY)),
    ("{content-digest}", hashlib.sha256(BODY).hexdigest().encode()),
    ("{content-digest}", base64.b64encode(hashlib.sha256(BODY).digest())),
    ("{content-digest}", base64.b64encode(hashlib.sha256(BODY).digest()).rstrip(b"=")),
]


@pytest.mark.parametrize(("template", "text"), SIGNED)
def test_a_template_says_what_is_signed(template: str, text: bytes) -> None:
    request = build_request(
        {"X-Signature": sign_hex(text), "Content-Type": "application/json"}, url=f"{URL}?a=1"
    )
    prove("hmac", {**BASE, "signed": template}, [SECRET], request)
    prove(
        "ed25519",
        {**BASE, "signed": template},
        [ED25519_PUBLIC],
        set_header(request, "X-Signature", sign_ed25519(text)),
    )


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("https://relay.example", "/"),
        ("https://relay.example?a", "/"),
        ("https://relay.example/a%20b/", "/a%20b/"),
        ("https://relay.example//a", "//a"),
    ],
)
def test_a_path_is_taken_as_it_was_sent(url: str, path: str) -> None:
    signature = sign_hex(path.encode() + b" " + BODY)
    table = {**BASE, "signed": "{path} {body}"}
    prove("hmac", table, [SECRET], build_request({"X-Signature": signature}, url=url))


ID = {**BASE, "signed": "{id}.{body}", "id_header": "X-Id"}


def test_the_id_is_what_repeats_share_only_where_it_is_signed() -> None:
    request = build_request({"X-Signature": sign_hex(b"m-1." + BODY), "X-Id": "m-1"})
    assert prove("hmac", ID, [SECRET], request).message_id == "m-1"
    body_only = build_request({"X-Signature": sign_hex(BODY), "X-Id": "m-1"})
    assert prove("hmac", BASE, [SECRET], body_only).message_id is None


@pytest.mark.parametrize("text", ["a.b", "a b", "i" * 257, "\u00e9", "a\x00"])
def test_an_id_is_visible_ascii_without_what_parts_it_from_the_rest(text: str) -> None:
    signature = sign_hex(text.encode() + b"." + BODY)
    refuse("hmac", ID, [SECRET], build_request({"X-Signature": signature, "X-Id": text}))


def test_characters_cannot_be_moved_from_the_body_to_the_id() -> None:
    """`a.b.c` is signed once: with the id a and the body b.c, never with the id a.b."""
    signature = sign_hex(b"a.b.c")
    good = build_request({"X-Signature": signature, "X-Id": "a"}, b"b.c")
    assert prove("hmac", ID, [SECRET], good).message_id == "a"
    refuse("hmac", ID, [SECRET], build_request({"X-Signature": signature, "X-Id": "a.b"}, b"c"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"signed": ""}, "must hold"),
        ({"signed": "{path}"}, "must hold"),
        ({"signed": "{length}"}, "must hold"),
        ({"signed": "{body}{other}"}, "not known"),
        ({"signed": "{body}{}"}, "names nothing"),
        ({"signed": "{body"}, "brace"),
        ({"signed": "{body}}"}, "brace"),
        ({"signed": "{body}{body}"}, "twice"),
        ({"signed": "\u00e9{body}"}, "ASCII"),
        ({"signed": "{id}{body}", "id_header": "X-Id"}, "must stand between"),
        ({"signed": "{body}{id}", "id_header": "X-Id"}, "must stand between"),
        ({"signed": "{id}.{body}"}, "id_header"),
        ({"id_header": "X-Id"}, "id_header"),
        ({"signed": "{timestamp}.{body}"}, "timestamp_header"),
        ({"timestamp_header": "X-Time"}, "timestamp_header"),
        ({**FIELDS, "timestamp_header": "X-Time"}, "timestamp_header"),
        ({"signed": "{timestamp}.{body}", "timestamp_field": "t"}, "signature_field"),
        ({**FIELDS, "timestamp_field": "v1"}, "another field"),
        ({**FIELDS, "timestamp_field": "*"}, "another field"),
        ({"tolerance": 0}, "tolerance"),
        ({"tolerance": 3601}, "tolerance"),
        ({"header": "X Signature"}, "header"),
        ({"header": ""}, "header"),
        ({"algorithm": "sha1"}, "algorithm"),
        ({"algorithm": "md5"}, "algorithm"),
        ({"encoding": "ascii85"}, "encoding"),
        ({"timestamp_unit": "minutes"}, "timestamp_unit"),
    ],
)
def test_a_table_whose_keys_do_not_fit_each_other_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        read_table("hmac", {**BASE, **changes})


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "is not set"),
        ("too-short", "fewer than 16 bytes"),
        (f"{SECRET}\n", "white space"),
        ("\ud800" * 20, "no text"),
    ],
)
def test_what_is_wrong_with_a_key_is_told_by_the_name_of_its_setting(value: str, why: str) -> None:
    (problem,) = check("hmac", BASE, [value])
    assert problem.startswith("the setting A ")
    assert why in problem
    refuse("hmac", BASE, [value], build_request({"X-Signature": sign_hex(BODY)}))


def test_a_key_that_is_too_short_is_not_used() -> None:
    request = build_request({"X-Signature": sign_hex(BODY, "too-short")})
    assert "no setting" in refuse("hmac", BASE, ["too-short"], request)


def test_of_two_settings_the_one_that_is_wrong_is_named() -> None:
    table = {**BASE, "secrets": ["NEW", "OLD"]}
    assert check("hmac", table, [SECRET, "short"]) == ["the setting OLD has fewer than 16 bytes"]
    assert check("hmac", table, ["short"]) == [
        "one of the settings NEW, OLD has fewer than 16 bytes"
    ]
    assert check("hmac", table, []) == ["one of the settings NEW, OLD is not set"]


def test_an_ed25519_key_has_32_bytes() -> None:
    raw = ED25519.public_key().public_bytes_raw()
    request = build_request({"X-Signature": ED25519.sign(BODY).hex()})
    table = {**BASE, "encoding": "hex", "key_format": "hex"}
    prove("ed25519", table, [raw.hex()], request)
    for value in (raw[:31].hex(), raw.hex() + "00", ED25519_PUBLIC):
        assert len(check("ed25519", table, [value])) == 1
        refuse("ed25519", table, [value], request)


@pytest.mark.parametrize(
    "y",
    [0, 1, 2**255 - 20, 2**255 - 19, 2**255 - 18, 2**255, 2**255 + 1,
     2707385501144840649318225287225658788936804267575313519463743609750303402022,
     55188659117513257062467267217118295137698188065244968500265048394206261417927],
)  # fmt: skip
def test_a_key_of_a_small_order_is_refused_since_anybody_can_sign_for_it(y: int) -> None:
    """The signature of the neutral element and zero fits any text under some of these."""
    value = base64.b64encode(y.to_bytes(32, "little")).decode()
    signature = base64.b64encode(bytes([1]) + bytes(63)).decode()
    request = build_request({"X-Signature": signature})
    refuse("ed25519", BASE, [value], request)
    assert "anybody" in check("ed25519", BASE, [value])[0]


def test_without_that_rule_a_placeholder_would_let_everybody_in() -> None:
    public = Ed25519PublicKey.from_public_bytes(bytes([1]) + bytes(31))
    public.verify(bytes([1]) + bytes(63), BODY)


HUB: dict[str, Any] = {"secrets": ["A"]}


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_header_says_the_method_and_the_table_which_are_taken(algorithm: str) -> None:
    value = f"{algorithm}={sign_hex(BODY, SECRET, algorithm)}"
    request = build_request({"X-Hub-Signature": value})
    prove("hub", {**HUB, "algorithms": [algorithm]}, [SECRET], request)
    prove("hub", {**HUB, "algorithms": ["sha256", "sha384", "sha512"]}, [SECRET], request)
    if algorithm != "sha256":
        assert "method" in refuse("hub", HUB, [SECRET], request)


def test_sha1_is_never_taken() -> None:
    digest = hmac.digest(SECRET.encode(), BODY, "sha1").hex()
    request = build_request({"X-Hub-Signature": f"sha1={digest}"})
    assert "method" in refuse("hub", HUB, [SECRET], request)
    with pytest.raises(msgspec.ValidationError):
        read_table("hub", {**HUB, "algorithms": ["sha1"]})
    with pytest.raises(msgspec.ValidationError):
        read_table("hub", {**HUB, "algorithms": []})


def test_a_hash_of_one_method_under_the_name_of_another_is_refused() -> None:
    value = f"sha512={sign_hex(BODY)}"
    table = {**HUB, "algorithms": ["sha256", "sha512"]}
    refuse("hub", table, [SECRET], build_request({"X-Hub-Signature": value}))
