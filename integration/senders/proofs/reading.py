"""Read what a request and a setting hold, strictly: there is one spelling for each value. Pure."""

from __future__ import annotations

import binascii
import hmac
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Annotated, TypeVar

from msgspec import Meta

from integration.senders.proofs.proof import Proof, Secrets, SignedRequest, Unproven

# Characters of one header. What is longer is refused before anything is done with it.
MAX_HEADER = 8192

# A key of 128 bits cannot be found by trying; vendors' own keys are longer.
MIN_SECRET = 16

MAX_TOLERANCE = 3600

HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
Tolerance = Annotated[int, Meta(ge=1, le=MAX_TOLERANCE)]

# Up to thirteen digits: seconds, and milliseconds until the year 2286.
_INTEGER = re.compile(r"[1-9][0-9]{0,12}")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")
_VISIBLE = re.compile(r"[\x21-\x7e]*")
_HEX = re.compile(r"(?:[0-9a-f]{2})*|(?:[0-9A-F]{2})*")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*={0,2}")

Key = TypeVar("Key")


def read_header(request: SignedRequest, name: str, longest: int = MAX_HEADER) -> str:
    """Return a header's text without white space at its ends. Raises Unproven if it is missing,
    empty, longer than that, or not printable ASCII."""
    value = request.headers.get(name.lower())
    if not value:
        raise Unproven(f"the header {name} is missing")
    if len(value) > longest:
        raise Unproven(f"the header {name} has more than {longest} characters")
    text = value.strip(" \t")
    if not text:
        raise Unproven(f"the header {name} is empty")
    if not _PRINTABLE.fullmatch(text):
        raise Unproven(f"the header {name} holds characters other than printable ASCII")
    return text


def read_bearer(request: SignedRequest) -> str:
    """Return the token of `Authorization: Bearer` (https://www.rfc-editor.org/rfc/rfc6750)."""
    scheme, _, token = read_header(request, "Authorization").partition(" ")
    token = token.lstrip(" ")
    if scheme.lower() != "bearer" or not is_visible(token):
        raise Unproven("the header Authorization holds no Bearer token")
    return token


def is_visible(text: str) -> bool:
    """Whether a text has characters, and all are visible ASCII: no space, no control character."""
    return bool(text) and _VISIBLE.fullmatch(text) is not None


def decode_base64(text: str) -> bytes | None:
    """Return the bytes of padded base64, None unless it is spelt as an encoder spells it."""
    try:
        value = binascii.a2b_base64(text, strict_mode=True)
    except ValueError:  # binascii.Error, and characters other than ASCII
        return None
    return value if binascii.b2a_base64(value, newline=False).decode() == text else None


def decode_base64url(text: str) -> bytes | None:
    """Return the bytes of base64url, with or without its padding."""
    if not _BASE64URL.fullmatch(text):
        return None
    bare = text.rstrip("=")
    padded = bare + "=" * (-len(bare) % 4)
    if text not in (bare, padded):
        return None
    return decode_base64(padded.replace("-", "+").replace("_", "/"))


def decode_hex(text: str) -> bytes | None:
    """Return the bytes of hexadecimal digits: all lower case, or all upper case."""
    return bytes.fromhex(text) if _HEX.fullmatch(text) else None


DECODERS: dict[str, Callable[[str], bytes | None]] = {
    "hex": decode_hex,
    "base64": decode_base64,
    "base64url": decode_base64url,
}


def read_timestamp(text: str, now: datetime, tolerance: int, *, in_milliseconds: bool) -> None:
    """Raise Unproven unless a text is a Unix time at most `tolerance` seconds from now."""
    if not _INTEGER.fullmatch(text):
        raise Unproven("the timestamp is not a whole number")
    seconds = int(text) / 1000 if in_milliseconds else int(text)
    if seconds < now.timestamp() - tolerance:
        raise Unproven("the timestamp is too old")
    if seconds > now.timestamp() + tolerance:
        raise Unproven("the timestamp is too far ahead")


def match_any(expected: Iterable[bytes], given: Sequence[bytes]) -> bool:
    """Whether a value is among those expected. Every pair is compared: how long it takes tells
    nothing of which one matches."""
    found = False
    for value in expected:
        for other in given:
            found |= hmac.compare_digest(value, other)
    return found


def parse_keys(
    proof: Proof, secrets: Secrets, parse: Callable[[str], Key | str]
) -> tuple[list[Key], list[str]]:
    """Return the keys that the settings of a table hold, and what is wrong with the others.

    `parse` returns a key, or as a str what is wrong with a value.
    """
    return parse_values(proof.secrets, secrets.values, parse)


def parse_values(
    names: Sequence[str], values: Sequence[str], parse: Callable[[str], Key | str]
) -> tuple[list[Key], list[str]]:
    """Do the same for values and the names of their settings."""
    keys: list[Key] = []
    problems: list[str] = []
    if not values:
        problems.append(f"{_name_all(names)} is not set")
    for number, value in enumerate(values):
        name = f"the setting {names[number]}" if len(names) == len(values) else _name_all(names)
        found = _parse_value(value, parse)
        if isinstance(found, str):
            problems.append(f"{name} {found}")
        else:
            keys.append(found)
    return keys, problems


def _parse_value(value: str, parse: Callable[[str], Key | str]) -> Key | str:
    if not value:
        return "is not set"
    if value != value.strip():
        return "has white space at its ends"
    return parse(value)


def _name_all(names: Sequence[str]) -> str:
    return (
        f"one of the settings {', '.join(names)}" if len(names) > 1 else f"the setting {names[0]}"
    )


def get_keys(found: tuple[list[Key], list[str]]) -> list[Key]:
    """Return the keys of what was parsed. Raises Unproven if there is none."""
    if not found[0]:
        raise Unproven("no setting of this sender holds a key: see its problem")
    return found[0]


def parse_secret_text(value: str) -> bytes | str:
    """Return the bytes of a secret that is text, or what is wrong with it."""
    try:
        secret = value.encode()
    except UnicodeEncodeError:
        return "holds characters that are no text"
    return secret if len(secret) >= MIN_SECRET else f"has fewer than {MIN_SECRET} bytes"


def parse_encoded_secret(value: str, encoding: str) -> bytes | str:
    """Return the bytes of a secret in hex or base64, or what is wrong with it."""
    secret = DECODERS[encoding](value)
    if secret is None:
        return f"does not hold {encoding}"
    return secret if len(secret) >= MIN_SECRET else f"has fewer than {MIN_SECRET} bytes"


def parse_token(value: str) -> bytes | str:
    """Return the bytes of a token as it stands in a header, or what is wrong with it."""
    if not is_visible(value):
        return "holds characters other than visible ASCII"
    return value.encode() if len(value) >= MIN_SECRET else f"has fewer than {MIN_SECRET} characters"


def require_secrets(proof: Proof) -> None:
    """Raise ValueError unless a table names one setting with a secret, or two."""
    if not 1 <= len(proof.secrets) <= 2 or not all(proof.secrets):
        raise ValueError("secrets: name one app setting with a secret, or two during a rotation")


def refuse_secrets(proof: Proof) -> None:
    """Raise ValueError if the table of a scheme without secrets names some."""
    if proof.secrets:
        raise ValueError("secrets: this scheme has none")
