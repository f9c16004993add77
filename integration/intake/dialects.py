"""What vendors send besides FHIR: handshakes, and deletes in a form of their own. Pure.

A sender's policy names its dialect. What a vendor does not document is not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from integration.core import decimal_json
from integration.core.errors import Issue, Rejected
from integration.fhir.grammar import parse_literal
from integration.senders.proofs.proof import SignedRequest

# A challenge is smaller, and a delivery is larger: what is parsed before it is proven stays small.
_MAX_CHALLENGE = 4096

_REDOX_TOKEN = "verification-token"  # noqa: S105 -- the name of a header

# What a challenge may hold: it is repeated to whoever asks.
_PLAIN = re.compile(r"[\x20-\x7e]{1,200}")

_ORIGIN = re.compile(r"[A-Za-z0-9.\-]{1,253}")


@dataclass(frozen=True, slots=True)
class Handshake:
    """An answer that ends the request: nothing of it is kept."""

    body: str | Mapping[str, Any]  # plain text, or JSON
    headers: Mapping[str, str]


def move_token(dialect: str, request: SignedRequest) -> SignedRequest:
    """Return a request with its token in the header where the proof looks for it.

    Redox puts the token of a challenge into the query of a GET, and into the body of a POST:
    https://docs.redoxengine.com/basics/webhooks/create-and-verify-an-endpoint/
    """
    if dialect != "redox" or _REDOX_TOKEN in request.headers:
        return request
    token = _read_redox_challenge(request).get(_REDOX_TOKEN)
    if not isinstance(token, str):
        return request
    return replace(request, headers={**request.headers, _REDOX_TOKEN: token})


def answer_preflight(dialect: str, request: SignedRequest) -> Handshake | None:
    """Answer an OPTIONS request, by which a sender asks whether it may send. It proves nothing,
    and each delivery is still to be proven.

    https://github.com/cloudevents/spec/blob/v1.0.1/http-webhook.md#4-abuse-protection
    """
    origin = request.headers.get("webhook-request-origin", "")
    if dialect != "event-grid" or request.method != "OPTIONS" or not _ORIGIN.fullmatch(origin):
        return None
    headers = {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*", "Allow": "POST"}
    return Handshake("", headers)


def answer_handshake(dialect: str, request: SignedRequest) -> Handshake | None:
    """Answer the handshake of a dialect. None: the request is none."""
    match dialect:
        case "redox":
            return _answer_redox(request)
        case "metriport":
            return _answer_metriport(request)
        case "event-grid":
            return _answer_event_grid(request)
    return None


def find_deleted_resource(dialect: str, request: SignedRequest) -> tuple[str, str] | None:
    """Return type and id of the resource that Medplum says was deleted. None: it says no such
    thing. The header that names it is not signed.

    https://www.medplum.com/docs/subscriptions
    """
    if dialect != "medplum" or "x-medplum-deleted-resource" not in request.headers:
        return None
    named = parse_literal(request.headers["x-medplum-deleted-resource"].strip())
    if named is None or named.root or named.version:
        text = "X-Medplum-Deleted-Resource names no type and id of FHIR R4"
        raise Rejected(Issue("value", text))
    if decimal_json.decode_object(request.body) != {}:
        text = "a resource comes with X-Medplum-Deleted-Resource: that header is of an empty object"
        raise Rejected(Issue("invalid", text))
    type_, _, id_ = named.identity.partition("/")
    return type_, id_


def _read_redox_challenge(request: SignedRequest) -> Mapping[str, Any]:
    if request.method == "GET":
        return dict(parse_qsl(urlsplit(request.url).query))
    return _read_small(request)


def _answer_redox(request: SignedRequest) -> Handshake | None:
    challenge = _read_redox_challenge(request).get("challenge")
    return Handshake(_check_plain(challenge), {}) if challenge is not None else None


def _answer_metriport(request: SignedRequest) -> Handshake | None:
    """https://docs.metriport.com/medical-api/getting-started/webhooks"""
    ping = _read_small(request).get("ping")
    return Handshake({"pong": _check_plain(ping)}, {}) if ping is not None else None


def _answer_event_grid(request: SignedRequest) -> Handshake | None:
    """https://learn.microsoft.com/azure/event-grid/end-point-validation-event-grid-events-schema

    The address by which a person could confirm (`validationUrl`) is from outside, and never asked.
    """
    if request.headers.get("aeg-event-type", "").lower() != "subscriptionvalidation":
        return None
    value = _parse_small(request)
    event = value[0] if isinstance(value, list) and value else None
    data = event.get("data") if isinstance(event, dict) else None
    code = data.get("validationCode") if isinstance(data, dict) else None
    return Handshake({"validationResponse": _check_plain(code)}, {})


def _check_plain(value: object) -> str:
    if not isinstance(value, str) or not _PLAIN.fullmatch(value):
        raise Rejected(Issue("value", "the challenge must be plain text of up to 200 characters"))
    return value


def _read_small(request: SignedRequest) -> Mapping[str, Any]:
    value = _parse_small(request)
    return value if isinstance(value, dict) else {}


def _parse_small(request: SignedRequest) -> Any:
    if len(request.body) > _MAX_CHALLENGE:
        return None
    try:
        return decimal_json.decode(request.body)
    except decimal_json.Malformed:
        return None
