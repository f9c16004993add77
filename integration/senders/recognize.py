"""Which schemes a request looks like, and the table of `senders.toml` that each would need. Pure.

Nothing is proven here: a candidate is verified like any other sender. A candidate names headers,
encodings and ids of issuers; it holds no token, signature or value of the body.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from integration.core import decimal_json
from integration.senders.proofs.certificate import read_certificate
from integration.senders.proofs.proof import SignedRequest, Unproven
from integration.senders.proofs.reading import decode_base64
from integration.senders.shapes import (
    Shape,
    find_id_header,
    find_signatures,
    find_time_header,
    find_token_headers,
    get_unit,
    read_token_part,
)
from integration.senders.vendors import (
    ATHENAHEALTH,
    GOOGLE,
    HEALTHIE,
    NEXHEALTH,
    Vendor,
    find_vendor_by_header,
)

_HUB = re.compile(r"(sha1|sha256|sha384|sha512)=[0-9a-fA-F]+")
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_TENANT = re.compile(
    rf"https://(?:login\.microsoftonline|sts\.windows)\.(?:com|net)/({_GUID.pattern})/.*"
)
_GOOGLE_ISSUER = "https://accounts.google.com"
_CERTIFICATES = ("X-ARR-ClientCert", "X-Forwarded-Client-Cert", "Client-Cert")
_COMPONENT = re.compile(r'"([@!#-~]{1,64})"')
_NAMES = re.compile(r"[\x21-\x7e]{1,300}")

# What a template may be, where a time is sent: vendors differ.
_TIMED = ("{timestamp}.{body}", "{timestamp}{body}", "{timestamp}.{body:base64}")
_DEFAULT_COMPONENTS = ("@method", "@target-uri", "content-digest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A scheme that a request looks like. `keys`: of the proof's table; `varying`: the headers that
    differ from message to message; `is_guess`: named only if it is proven; `is_known`: whether
    `jwks_url` is where this issuer is known to publish its keys."""

    scheme: str
    why: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    varying: tuple[str, ...] = ()
    name: str = ""
    title: str = ""
    policy: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_guess: bool = False
    is_known: bool = True


def recognize(request: SignedRequest) -> list[Candidate]:
    """Return the schemes that a request looks like, the likeliest first."""
    body = _read_body(request)
    vendor = find_vendor_by_header(request) or _find_vendor_by_body(request, body)
    found = [*_list_stated(request, vendor), *_find_all(request, vendor)]
    candidates: list[Candidate] = []
    for candidate in found:
        if all(_normalize(candidate) != _normalize(other) for other in candidates):
            candidates.append(_add_vendor(candidate, vendor, body))
    return candidates


def _normalize(candidate: Candidate) -> tuple[str, Mapping[str, Any]]:
    """Return what tells candidates apart: names of headers have no case."""
    keys = {
        key: value.lower() if key.endswith("header") and isinstance(value, str) else value
        for key, value in candidate.keys.items()
    }
    return candidate.scheme, keys


def _read_body(request: SignedRequest) -> Any:
    try:
        return decimal_json.decode(request.body)
    except decimal_json.Malformed:
        return None


def _find_vendor_by_body(request: SignedRequest, body: Any) -> Vendor | None:
    """Return the vendor that is known by what its headers and its body hold together."""
    headers = request.headers
    if re.fullmatch(r"[^=,: ]+=[0-9a-f]{64}", headers.get("signature", "")):
        return HEALTHIE
    if {"signature", "timestamp"} <= headers.keys():
        return NEXHEALTH
    if not isinstance(body, dict):
        return None
    message = body.get("message")
    if isinstance(message, dict) and "data" in message and "messageId" in message:
        return GOOGLE
    if _is_notification(body) and "x-hub-signature" in headers:
        return ATHENAHEALTH
    return None


def _is_notification(body: Mapping[str, Any]) -> bool:
    entries = body.get("entry")
    first = entries[0] if isinstance(entries, list) and entries else None
    resource = first.get("resource") if isinstance(first, dict) else None
    return isinstance(resource, dict) and resource.get("resourceType") == "SubscriptionStatus"


def _add_vendor(candidate: Candidate, vendor: Vendor | None, body: Any) -> Candidate:
    if vendor is None:
        return candidate
    policy = dict(vendor.policy)
    if vendor.name == "elation" and isinstance(body, dict):
        # https://docs.elationhealth.com/reference/webhooks: event_uuid replaces event_id.
        key = next((name for name in ("event_uuid", "event_id") if name in body), None)
        policy |= {"idempotency_pointers": [f"/{key}"]} if key else {}
    return replace(
        candidate,
        name=vendor.name,
        title=vendor.title,
        policy=policy,
        notes=(*vendor.notes, *candidate.notes),
    )


def _list_stated(request: SignedRequest, vendor: Vendor | None) -> Iterator[Candidate]:
    """Yield what the vendor's pages say."""
    for scheme, keys in vendor.proofs if vendor else ():
        stated = [keys[name] for name in ("header", "timestamp_header") if name in keys]
        headers = tuple(stated) or tuple(
            name for name in request.headers if name.startswith(("svix-", "webhook-"))
        )
        is_token = scheme == "token-header"
        yield Candidate(
            scheme=scheme,
            why="its headers are those of this vendor: docs/senders.md",
            keys=keys,
            varying=() if is_token else headers,
        )


def _find_all(request: SignedRequest, vendor: Vendor | None) -> Iterator[Candidate]:
    yield from _find_standard_webhooks(request)
    yield from _find_message_signature(request)
    yield from _find_hub(request)
    yield from _find_signed(request)
    yield from _find_bearer(request)
    for name in find_token_headers(request.headers):
        why = f"the header {name} could hold a token that both sides know"
        yield Candidate(scheme="token-header", why=why, keys={"header": name})
    yield from _find_platform(request)
    if "x-functions-key" in request.headers:
        why = "the header x-functions-key is one of the Functions host: it serves at /api/fhir"
        yield Candidate(scheme="function-key", why=why)


def _find_standard_webhooks(request: SignedRequest) -> Iterator[Candidate]:
    for prefix in ("webhook", "svix"):
        if f"{prefix}-signature" in request.headers:
            yield Candidate(
                scheme="standard-webhooks",
                why=f"the headers {prefix}-id, {prefix}-timestamp and {prefix}-signature",
                varying=tuple(f"{prefix}-{part}" for part in ("id", "timestamp", "signature")),
            )
            return


def _find_message_signature(request: SignedRequest) -> Iterator[Candidate]:
    given = request.headers.get("signature-input", "")
    if not re.search(r"=:[^:]+:", request.headers.get("signature", "")) or not given:
        return
    covered, _, parameters = given.partition(")")
    components = [name for name in _COMPONENT.findall(covered) if name == name.lower()]
    stated = re.search(r';alg="([a-z0-9_-]+)"', parameters)
    keys: dict[str, Any] = {"algorithm": stated[1] if stated else "hmac-sha256"}
    if not {*_DEFAULT_COMPONENTS} <= {*components}:
        keys["components"] = components
    notes = () if stated else ("the signature does not name its algorithm: ask the vendor",)
    formats = {
        "hmac-sha256": ("text", "base64", "hex"),
        "ed25519": ("base64", "pem", "hex"),
    }.get(keys["algorithm"], ("pem",))
    for number, key_format in enumerate(formats):
        yield Candidate(
            scheme="http-message-signatures",
            why="the headers Signature-Input and Signature are those of RFC 9421",
            keys={**keys, "key_format": key_format},
            varying=("signature-input", "signature", "content-digest"),
            notes=notes,
            is_guess=number > 0,
        )


def _find_hub(request: SignedRequest) -> Iterator[Candidate]:
    for name in ("x-hub-signature", "x-hub-signature-256"):
        found = _HUB.fullmatch(request.headers.get(name, "").strip())
        if found is None:
            continue
        keys: dict[str, Any] = {} if name == "x-hub-signature" else {"header": name}
        method = found[1]
        if method not in ("sha1", "sha256"):
            keys["algorithms"] = [method]
        notes = ("sha1 is never taken: have the vendor sign by sha256",) * (method == "sha1")
        yield Candidate(
            scheme="hub",
            why=f"the header {name} is {method}=hex, as WebSub has it",
            keys=keys,
            varying=(name,),
            notes=notes,
        )


def _find_signed(request: SignedRequest) -> Iterator[Candidate]:
    headers = request.headers
    if "signature-input" in headers and re.search(r"=:[^:]+:", headers.get("signature", "")):
        return
    time, message_id = find_time_header(headers), find_id_header(headers)
    for shape in find_signatures(headers):
        for number, keys in enumerate(_list_templates(request, shape, time, message_id)):
            what = "an Ed25519 signature" if shape.scheme == "ed25519" else "an HMAC"
            varying = [shape.header, *(keys.get(key) for key in ("timestamp_header", "id_header"))]
            yield Candidate(
                scheme=shape.scheme,
                why=f"the header {shape.header} holds {shape.bits} bits, as {what} has",
                keys={"header": shape.header, **shape.keys, **keys},
                varying=tuple(name for name in varying if name),
                notes=_describe_doubt(shape, time),
                is_guess=number > 0,
            )


def _describe_doubt(shape: Shape, time: str | None) -> tuple[str, ...]:
    if shape.timestamp_field or time:
        return ("what is signed besides the body is a guess until the proof holds",)
    return ()


def _list_templates(
    request: SignedRequest, shape: Shape, time: str | None, message_id: str | None
) -> Iterator[dict[str, Any]]:
    """Yield what could be signed, and how the settings could hold the key, the likeliest first."""
    formats: tuple[str | None, ...] = (None, "hex", "base64")
    if shape.scheme == "ed25519":
        formats = (None, "hex")
    for key_format in formats:
        written = {"key_format": key_format} if key_format else {}
        timed: dict[str, Any] = {}
        if shape.timestamp_field and shape.unit:
            timed = {"timestamp_field": shape.timestamp_field, **_state_unit(shape.unit)}
        elif time:
            unit = get_unit(request.headers[time].strip())
            timed = {"timestamp_header": time, **_state_unit(unit)}
        if timed and message_id:
            signed = {"signed": "{id}.{timestamp}.{body}", "id_header": message_id}
            yield {**written, **timed, **signed}
        for template in _TIMED if timed else ():
            yield {**written, **timed, "signed": template}
        yield written


def _state_unit(unit: str) -> dict[str, str]:
    return {"timestamp_unit": unit} if unit != "seconds" else {}


def _find_bearer(request: SignedRequest) -> Iterator[Candidate]:
    word, _, token = request.headers.get("authorization", "").strip().partition(" ")
    if word.lower() != "bearer" or not token:
        return
    header, claims = (read_token_part(token.strip(), number) for number in (0, 1))
    if "alg" in header and isinstance(claims.get("iss"), str):
        yield from _describe_token(claims)
        return
    yield Candidate(
        scheme="bearer", why="the header Authorization holds a Bearer token, which is no JWT"
    )


def _describe_token(claims: Mapping[str, Any]) -> Iterator[Candidate]:
    issuer, audience = claims["iss"], claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not _is_name(issuer) or not isinstance(audiences, list) or not all(map(_is_name, audiences)):
        return
    tenant = _TENANT.fullmatch(issuer)
    jwks_url, is_known = f"{issuer.rstrip('/')}/.well-known/jwks.json", False
    wanted: dict[str, Any] = {}
    if issuer == _GOOGLE_ISSUER:
        jwks_url, is_known = "https://www.googleapis.com/oauth2/v3/certs", True
        wanted = {name: claims.get(name) for name in ("email", "email_verified")}
    elif tenant:
        version = "/v2.0" if issuer.endswith("/v2.0") else ""
        jwks_url = f"https://login.microsoftonline.com/{tenant[1]}/discovery{version}/keys"
        is_known = True
        wanted = {name: claims[name] for name in ("azp", "appid") if name in claims}
    elif _is_name(claims.get("sub")):
        wanted = {"sub": claims["sub"]}
    keys: dict[str, Any] = {
        "issuer": issuer,
        "jwks_url": jwks_url,
        "audiences": audiences[:1],
        "claims": {
            name: value
            for name, value in wanted.items()
            if isinstance(value, bool) or _is_name(value)
        },
        # A client's own assertion is used once; an access token until it ends.
        "jti": "once" if issuer == claims.get("sub") else "reused",
    }
    if not tenant and issuer != _GOOGLE_ISSUER and not str(issuer).startswith("https://"):
        keys["jwks_url"] = "https://where.the.issuer/publishes/its/keys"
    if _lasts_long(claims):
        keys["max_age"] = 86_400
    notes = () if is_known else ("jwks_url is a guess: ask the issuer where it publishes its keys",)
    yield Candidate(
        scheme="jwt",
        why="the header Authorization holds a JSON Web Token of the issuer that the table names",
        keys={name: value for name, value in keys.items() if value},
        varying=("authorization",),
        notes=notes,
        is_known=is_known,
    )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAMES.fullmatch(value) is not None


def _lasts_long(claims: Mapping[str, Any]) -> bool:
    begins, ends = claims.get("iat"), claims.get("exp")
    return isinstance(begins, int) and isinstance(ends, int) and ends - begins > 3600


def _find_platform(request: SignedRequest) -> Iterator[Candidate]:
    for header in _CERTIFICATES:
        if header.lower() in request.headers:
            yield from _describe_certificate(header, request)
    if "x-ms-client-principal" in request.headers:
        yield from _describe_principal(request.headers["x-ms-client-principal"])


def _describe_certificate(header: str, request: SignedRequest) -> Iterator[Candidate]:
    try:
        thumbprint = hashlib.sha256(read_certificate(header, request)).hexdigest()
    except Unproven:
        return
    gateway = next((name for name in request.headers if "gateway" in name), None)
    keys: dict[str, Any] = {"header": header, "thumbprints": [thumbprint]}
    if header == "X-ARR-ClientCert" and gateway is None:
        keys["platform"] = True
        note = "platform = true is right only where App Service itself asks for certificates"
    else:
        keys["gateway_header"] = gateway or "X-Gateway"
        note = "gateway_header: a header in which your gateway proves itself by a token"
    yield Candidate(
        scheme="certificate",
        why=f"the header {header} holds a certificate",
        keys=keys,
        notes=(note,),
    )


def _describe_principal(value: str) -> Iterator[Candidate]:
    try:
        principal = decimal_json.decode(decode_base64(value.strip()) or b"")
    except decimal_json.Malformed:
        return
    claims = principal.get("claims") if isinstance(principal, dict) else None
    found = {
        str(claim.get("typ")).rpartition("/")[2]: claim.get("val")
        for claim in (claims if isinstance(claims, list) else ())
        if isinstance(claim, dict)
    }
    tenant = found.get("tid") or found.get("tenantid")
    caller = found.get("oid") or found.get("objectidentifier")
    if not all(isinstance(id_, str) and _GUID.fullmatch(id_) for id_ in (tenant, caller)):
        return
    yield Candidate(
        scheme="entra",
        why="the header X-MS-CLIENT-PRINCIPAL is set by App Service authentication",
        keys={"tenant": tenant, "objects": [caller]},
        notes=("it proves something only where the app has WEBSITE_AUTH_ENABLED",),
    )
