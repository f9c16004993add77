"""Verify one message by RFC 9421 with `http-message-signatures`, at a time that is given. Pure.

Apart from `message_signatures`, since a cold start does without the library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from http_message_signatures import (
    HTTPMessageSignaturesException,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    InvalidSignature,
)
from http_message_signatures.algorithms import (
    ECDSA_P256_SHA256,
    ED25519,
    HMAC_SHA256,
    RSA_PSS_SHA512,
    HTTPSignatureAlgorithm,
)

_ALGORITHMS: Mapping[str, type[HTTPSignatureAlgorithm]] = {
    algorithm.algorithm_id: algorithm
    for algorithm in (ECDSA_P256_SHA256, ED25519, HMAC_SHA256, RSA_PSS_SHA512)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What must hold. `max_age` and `leeway` are in seconds."""

    algorithm: str
    required: tuple[str, ...]
    tag: str | None
    key_id: str | None
    max_age: int
    leeway: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request in the shape that the library reads."""

    method: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Found:
    """`text`: the id of the key if it is proven, else why it is not."""

    is_proven: bool
    text: str


class _OneKey(HTTPSignatureKeyResolver):
    """The one key that a table fixes, whatever the signature calls it unless an id is asked for."""

    def __init__(self, key: Any, key_id: str | None) -> None:
        self._key, self._key_id = key, key_id

    def resolve_public_key(self, key_id: str) -> Any:
        return self._key if self._key_id in (None, key_id) else None


class _Verifier(HTTPMessageVerifier):
    """A verifier whose clock is handed in: the library reads its own in this one method."""

    def __init__(self, check: Check, key: Any, now: datetime) -> None:
        super().__init__(
            signature_algorithm=_ALGORITHMS[check.algorithm],
            key_resolver=_OneKey(key, check.key_id),
        )
        self._check, self._now = check, now.timestamp()

    def validate_created_and_expires(
        self, sig_input: Any, max_age: timedelta | None = None
    ) -> None:
        created, expires = sig_input.params.get("created"), sig_input.params.get("expires")
        if type(created) is not int:
            raise InvalidSignature("the signature has no time `created`")
        if created > self._now + self._check.leeway:
            raise InvalidSignature("the signature's time `created` lies ahead")
        if created < self._now - self._check.max_age - self._check.leeway:
            raise InvalidSignature("the signature is too old")
        if "expires" in sig_input.params:
            if type(expires) is not int:
                raise InvalidSignature("the signature's time `expires` is no whole number")
            if expires < self._now - self._check.leeway:
                raise InvalidSignature("the signature has expired")


# What the library's own errors say is not repeated: they quote what they were given.
_OWN_REASONS = (
    "the signature has no time `created`",
    "the signature's time `created` lies ahead",
    "the signature is too old",
    "the signature's time `expires` is no whole number",
    "the signature has expired",
)


def verify_message(check: Check, message: Message, body: bytes, key: Any, now: datetime) -> Found:
    """Return whether a message is signed with this key as the check wants it."""
    try:
        results = _Verifier(check, key, now).verify(
            message,
            max_age=None,
            expect_tag=check.tag,
            require_components=check.required,
            body=body,
        )
    except HTTPMessageSignaturesException as error:
        text = str(error)
        if text in _OWN_REASONS:
            return Found(False, text)
        return Found(
            False,
            "the signature does not fit the request, or does not cover all that it must",
        )
    if not results:
        return Found(False, "there is no signature")
    return Found(True, str(results[0].parameters["keyid"]))
