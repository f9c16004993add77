"""What vendors are known by, and what a sender's table needs for them. Pure.

docs/senders.md names the sources. What no vendor's page says is a note, and not guessed at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from integration.senders.proofs.proof import SignedRequest

_NOT_FHIR = (
    "what it sends is not FHIR, so nothing of it is written: refused_deliveries = hold keeps it "
    "for an operator"
)
_REPLAY = "no time is signed: what was captured can be sent again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """`headers`: one of them tells the vendor, in lower case. `proofs`: (scheme, keys of its
    table), the likeliest first; (): what its headers look like. `policy`: keys of that table."""

    name: str
    title: str
    headers: tuple[str, ...]
    proofs: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    policy: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


_HEALTHIE = "{method:lower} {path} {query} {content-digest} application/json {length}"
_HOLD = {"refused_deliveries": "hold"}

VENDORS = (
    Vendor(
        name="medplum",
        title="Medplum",
        headers=("x-medplum-subscription", "x-medplum-interaction", "x-medplum-deleted-resource"),
        policy={
            "dialect": "medplum",
            "idempotency_pointers": ["/resourceType", "/id", "/meta/versionId"],
        },
        notes=(
            "deletes: the header that names the resource is not signed, so that they need base, "
            "FETCH_FROM with it, and DELETE among the methods",
        ),
    ),
    Vendor(
        name="metriport",
        title="Metriport",
        headers=("x-metriport-signature",),
        proofs=(("hmac", {"header": "x-metriport-signature"}),),
        policy={"accepted_status": 200, "dialect": "metriport", **_HOLD},
        notes=("it waits 4 s, and never sends again by itself", _NOT_FHIR, _REPLAY),
    ),
    Vendor(
        name="elation",
        title="Elation",
        headers=("el8-ed25519-signature",),
        proofs=(("ed25519", {"header": "El8-Ed25519-Signature"}),),
        policy={"accepted_status": 200, **_HOLD},
        notes=("the setting holds signing_pub_key of the subscription", _NOT_FHIR, _REPLAY),
    ),
    Vendor(
        name="nexhealth",
        title="NexHealth",
        headers=("x-nexhealth-signature",),
        proofs=(("hmac", {"header": "X-NexHealth-Signature"}),),
        policy=_HOLD,
        notes=("receivers differ on what it signs: the proof decides", _NOT_FHIR, _REPLAY),
    ),
    Vendor(
        name="flexpa",
        title="Flexpa",
        headers=("x-flexpa-signature",),
        proofs=(
            (
                "hmac",
                {
                    "header": "X-Flexpa-Signature",
                    "signature_field": "v1",
                    "timestamp_field": "t",
                    "signed": "{timestamp}.{body}",
                },
            ),
        ),
        policy={"idempotency_pointers": ["/event_id"], **_HOLD},
        notes=(_NOT_FHIR,),
    ),
    Vendor(
        name="propexo",
        title="Propexo",
        headers=("propexo-signature",),
        notes=("how the signature is encoded is not documented", _REPLAY),
    ),
    Vendor(
        name="redox",
        title="Redox",
        headers=("verification-token",),
        proofs=(("token-header", {"header": "verification-token"}),),
        policy={
            "dialect": "redox",
            "accepted_status": 200,
            "refused_deliveries": "hold",
            "refused_entries": "hold",
        },
        notes=("an answer of 400 or more pauses its whole feed, so that refusals are held",),
    ),
    Vendor(
        name="health-gorilla",
        title="Health Gorilla",
        headers=("x-healthgorilla-event-type",),
    ),
    Vendor(
        name="event-grid",
        title="Azure Event Grid",
        headers=("aeg-event-type", "aeg-subscription-name", "webhook-request-origin"),
        policy={"dialect": "event-grid", "idempotency_pointers": ["/*/id"], **_HOLD},
        notes=(_NOT_FHIR,),
    ),
    Vendor(
        name="junction",
        title="Svix, which Junction and others send by",
        headers=("svix-signature",),
        proofs=(("standard-webhooks", {}),),
    ),
)

ATHENAHEALTH = Vendor(
    name="athenahealth",
    title="athenahealth",
    headers=(),
    policy={
        "event_numbers": "ignored",
        "idempotency_pointers": ["/entry/0/resource/notificationEvent/*/id"],
    },
    notes=(
        "its event numbers begin at 1 in each bundle, so that gaps are not looked for",
        "it names resources and brings none: set base, and FETCH_FROM with it",
        _REPLAY,
    ),
)

HEALTHIE = Vendor(
    name="healthie",
    title="Healthie",
    headers=(),
    proofs=(("hmac", {"header": "Signature", "signature_field": "*", "signed": _HEALTHIE}),),
    policy=_HOLD,
    notes=(
        "the path is signed as it is seen from outside: set PUBLIC_URL where a gateway stands "
        "before the app",
        _NOT_FHIR,
    ),
)

NEXHEALTH = Vendor(
    name="nexhealth",
    title="NexHealth",
    headers=(),
    proofs=(
        (
            "hmac",
            {
                "header": "signature",
                "timestamp_header": "timestamp",
                "signed": "{timestamp}.{body:base64}",
            },
        ),
    ),
    policy=_HOLD,
    notes=("receivers differ on what it signs: the proof decides", _NOT_FHIR),
)

GOOGLE = Vendor(
    name="google",
    title="Google Pub/Sub",
    headers=(),
    policy={"idempotency_pointers": ["/message/messageId"], **_HOLD},
    notes=("the resource stands in message.data in base64, which the relay does not open",),
)


def find_vendor_by_header(request: SignedRequest) -> Vendor | None:
    """Return the vendor of whom a request has a header."""
    return next(
        (vendor for vendor in VENDORS if any(name in request.headers for name in vendor.headers)),
        None,
    )
