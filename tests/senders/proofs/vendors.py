"""Each vendor's request as it sends it, with synthetic keys and data, and the table that takes it.

Signatures were computed apart from this code, but for tokens, which differ each time. What the
vendors' pages leave open is said in the comments.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fuzz.proof_seeds import (
    BODY,
    ED25519_PUBLIC,
    ISSUER,
    OLD_SECRET,
    SECONDS,
    SECRET,
    TOKEN,
    URL,
    WHSEC,
    build_certificate,
    build_claims,
    build_jwks,
    build_request,
    sign_token,
    take_thumbprint,
)
from integration.senders.proofs.proof import Secrets, SignedRequest

PING = b'{"ping":"r-7","meta":{"messageId":"m-1","when":"2026-01-01T00:00:00.000Z","type":"ping"}}'

ELATION = (
    b'{"data": {"id": 41, "first_name": "Ada"}, "action": "saved", "event_id": 7, '
    b'"application_id": "app.1", "resource": "patients"}'
)

HEALTHIE = (
    b'{"resource_id":"41","resource_id_type":"Appointment","event_type":"appointment.updated"}'
)

BODY_HEX = "12e77a62f31538340c449717f205b765423f99481ad11a5b26f9d30c3a2c7058"

HEALTHIE_TABLE = {
    "header": "Signature",
    "signature_field": "*",
    "signed": "{method:lower} {path} {query} {content-digest} application/json {length}",
}

GOOGLE_CLAIMS = {"email": "push@project.iam.gserviceaccount.com", "email_verified": True}

GOOGLE_TABLE = {
    "issuer": "https://accounts.google.com",
    "jwks_url": "https://www.googleapis.com/oauth2/v3/certs",
    "audiences": [URL],
    "claims": GOOGLE_CLAIMS,
    "jti": "reused",
}

ENTRA_TABLE = {
    "issuer": "https://login.microsoftonline.com/t/v2.0",
    "jwks_url": "https://login.microsoftonline.com/t/discovery/v2.0/keys",
    "audiences": ["api://relay"],
    "claims": {"azp": "event-grid"},
    "jti": "reused",
    "max_age": 86_400,
}

SMART_TABLE = {"issuer": ISSUER, "jwks_url": f"{ISSUER}/keys", "audiences": [URL]}


@dataclass(frozen=True, kw_only=True)
class Vendor:
    """`covers_body`: whether the vendor signs it. `moment`: the header with a time it signs."""

    scheme: str
    table: Mapping[str, Any]
    secret: str = SECRET
    headers: Mapping[str, str]
    body: bytes = BODY
    method: str = "POST"
    url: str = URL
    covers_body: bool = True
    has_time: bool = False
    message_id: str | None = None
    principal: str | None = None
    wrong_key: str = OLD_SECRET

    def build(self) -> SignedRequest:
        """Its request."""
        return build_request(self.headers, self.body, self.method, self.url)

    def build_table(self) -> dict[str, Any]:
        """Its table."""
        keyless = self.scheme in ("jwt", "certificate")
        return dict(self.table) if keyless else {"secrets": ["VENDOR"], **self.table}

    def build_secrets(self, key: str) -> Secrets:
        """The values of its settings."""
        if self.scheme == "jwt":
            keys = build_jwks()
            # Another key under the same id: the vendor's has been changed.
            return Secrets(jwks=keys if key == self.secret else {"rsa-1": keys["ec-1"]})
        if self.scheme == "certificate":
            return Secrets(gateway=(key,))
        return Secrets(values=(key,))


def build_healthie(signature: str) -> Vendor:
    """Healthie's headers look like RFC 9421 and are not."""
    headers = {
        "Content-Digest": "sha-256=any",
        "Signature-Input": 'sig=("@method" "@path" "@query" "content-digest")',
        "Signature": f"sig={signature}",
        "Content-Type": "application/json",
    }
    return Vendor(scheme="hmac", table=HEALTHIE_TABLE, headers=headers, body=HEALTHIE)


def build_token_vendor(**others: Any) -> Vendor:
    """A vendor that knows only the headers of a subscription's channel."""
    found: dict[str, Any] = {
        "scheme": "bearer",
        "table": {},
        "secret": TOKEN,
        "headers": {"Authorization": f"Bearer {TOKEN}"},
        "covers_body": False,
        "wrong_key": "another-token-0123456789",
        **others,
    }
    return Vendor(**found)


def build_jwt_vendor(table: Mapping[str, Any], claims: Mapping[str, Any], algorithm: str) -> Vendor:
    """A vendor that brings a token of an issuer."""
    token = sign_token(build_claims(**claims), algorithm, "rsa-1" if algorithm == "RS256" else None)
    return Vendor(
        scheme="jwt",
        table=table,
        headers={"Authorization": f"Bearer {token}"},
        covers_body=False,
        has_time=True,
        principal="client-1",
    )


def build_container_apps() -> Vendor:
    """Envoy's header, before an app that only its gateway reaches."""
    certificate = build_certificate()
    from cryptography.hazmat.primitives.serialization import Encoding

    pem = certificate.public_bytes(Encoding.PEM).decode().replace("\n", "%0A").replace("=", "%3D")
    thumbprint = take_thumbprint(certificate)
    return Vendor(
        scheme="certificate",
        table={
            "header": "X-Forwarded-Client-Cert",
            "thumbprints": [thumbprint],
            "gateway_header": "X-Gateway",
            "gateway_secrets": ["GATEWAY"],
        },
        secret=TOKEN,
        headers={
            "X-Forwarded-Client-Cert": f'Hash={thumbprint};Cert="{pem}";Chain="{pem}"',
            "X-Gateway": TOKEN,
        },
        covers_body=False,
        has_time=True,
        principal=thumbprint,
        wrong_key="another-token-0123456789",
    )


VENDORS = {
    "athenahealth": Vendor(
        scheme="hub", table={}, headers={"X-Hub-Signature": f"sha256={BODY_HEX}"}
    ),
    "Medplum": Vendor(
        scheme="hmac",
        table={"header": "X-Signature"},
        headers={"X-Signature": BODY_HEX, "X-Medplum-Interaction": "create"},
    ),
    # Every delete has this signature: the header with its name is not signed.
    "Medplum's delete": Vendor(
        scheme="hmac",
        table={"header": "X-Signature"},
        headers={
            "X-Signature": "ae441b1e11c680576a7ab02c5954c0033524af594cb5ce39088984a5025cdcbf",
            "X-Medplum-Deleted-Resource": "Patient/p-1",
        },
        body=b"{}",
    ),
    "Metriport": Vendor(
        scheme="hmac",
        table={"header": "x-metriport-signature"},
        headers={
            "x-metriport-signature": (
                "87dbb8fe082f3af22b0489f5de0cfb124b2073b9ac27446a1f9c55a36cc0f88e"
            )
        },
        body=PING,
    ),
    "Redox": build_token_vendor(
        scheme="token-header",
        table={"header": "verification-token"},
        headers={"verification-token": TOKEN},
    ),
    "Redox, an older page": build_token_vendor(),
    # How the digest is written is not said.
    "Healthie in base64": build_healthie(
        "00c790d694ed41defa6a2c3612d68ed4ea9dc7c685b79f4a19c5c77f5dcb2877"
    ),
    "Healthie without padding": build_healthie(
        "b645fcd59300d4771b7b0043c29fbac3e0176d4ea3a0e795a4341f6912e6ddd1"
    ),
    "Healthie in hex": build_healthie(
        "e2b1f19365cadf27d7ca34484c7a05cfde920ca8c5859160a67a884358ef8a3e"
    ),
    "Elation": Vendor(
        scheme="ed25519",
        table={"header": "El8-Ed25519-Signature"},
        secret=ED25519_PUBLIC,
        headers={
            "El8-Ed25519-Signature": (
                "Qv4ApYOZATpwz9cVlxLY6Ekq3Ug0pJjyw14W6WD5enRM9rnVCLWyHQal7SU4A2JjWtBPtGNGcpGUBA3U36"
                "+MDQ=="
            )
        },
        body=ELATION,
        wrong_key=base64.b64encode(bytes(range(32))).decode(),
    ),
    # Receivers differ on which of the two it sends.
    "NexHealth with a timestamp": Vendor(
        scheme="hmac",
        table={
            "header": "signature",
            "timestamp_header": "timestamp",
            "signed": "{timestamp}.{body:base64}",
        },
        headers={
            "signature": "4909dcece2ff384a4f0d87257b23f2cbeab41096c8ff368ab88e95f07ce10c5d",
            "timestamp": SECONDS,
        },
        has_time=True,
    ),
    "NexHealth without one": Vendor(
        scheme="hmac",
        table={"header": "X-NexHealth-Signature"},
        headers={"X-NexHealth-Signature": BODY_HEX},
    ),
    "Flexpa": Vendor(
        scheme="hmac",
        table={
            "header": "X-Flexpa-Signature",
            "signature_field": "v1",
            "timestamp_field": "t",
            "signed": "{timestamp}.{body}",
        },
        headers={
            "X-Flexpa-Signature": (
                "t=1767225600,v1=e530ab6f32880d8d1c41e5842e1a84ad0ccbd1a022ea502e9520578591234ef0"
            )
        },
        has_time=True,
    ),
    # The encoding is not said: hex in one, base64 in the other.
    "Propexo in hex": Vendor(
        scheme="hmac",
        table={"header": "propexo-signature"},
        headers={"propexo-signature": BODY_HEX},
    ),
    "Propexo in base64": Vendor(
        scheme="hmac",
        table={"header": "propexo-signature", "encoding": "base64"},
        headers={"propexo-signature": "Eud6YvMVODQMRJcX8gW3ZUI/mUga0RpbJvnTDDoscFg="},
    ),
    "Junction, by Svix": Vendor(
        scheme="standard-webhooks",
        table={},
        secret=WHSEC,
        headers={
            "svix-id": "msg_relay_0001",
            "svix-timestamp": SECONDS,
            "svix-signature": "v1,yucQZ2N2Zgkmzoo2dCdxPEw7nKP8alOfROc0Mdm1oi8=",
        },
        has_time=True,
        message_id="msg_relay_0001",
        wrong_key="whsec_" + "A" * 43 + "=",
    ),
    "Standard Webhooks": Vendor(
        scheme="standard-webhooks",
        table={},
        secret=WHSEC,
        headers={
            "webhook-id": "msg_relay_0001",
            "webhook-timestamp": SECONDS,
            "webhook-signature": (
                "v1,qGYjSTbRcmhIEsDI+PDjf53ck4nt750e93SZeFblEx4= "
                "v1,yucQZ2N2Zgkmzoo2dCdxPEw7nKP8alOfROc0Mdm1oi8="
            ),
        },
        has_time=True,
        message_id="msg_relay_0001",
        wrong_key="whsec_" + "A" * 43 + "=",
    ),
    "Standard Webhooks with Ed25519": Vendor(
        scheme="standard-webhooks",
        table={},
        secret=f"whpk_{ED25519_PUBLIC}",
        headers={
            "webhook-id": "msg_relay_0001",
            "webhook-timestamp": SECONDS,
            "webhook-signature": (
                "v1a,Qv15nkxi91MUOkTdOwzmsaavntZdFKHQeFvX2bNtvqQUuItfJkDqjcYo2RDcGiCgbgOLvCWkHoym6"
                "Sae1QRkAg=="
            ),
        },
        has_time=True,
        message_id="msg_relay_0001",
        wrong_key="whsec_" + "A" * 43 + "=",
    ),
    "Health Gorilla": build_token_vendor(
        body=b'{"resourceType":"Encounter","id":"e-1","status":"finished"}'
    ),
    "HAPI": build_token_vendor(method="PUT", url=f"{URL}/Observation/o-1"),
    "Firely": build_token_vendor(method="PUT", url=f"{URL}/Observation/o-1"),
    "Aidbox": build_token_vendor(
        scheme="token-header", table={"header": "X-Token"}, headers={"X-Token": TOKEN}
    ),
    "Google Pub/Sub": build_jwt_vendor(
        GOOGLE_TABLE,
        {"iss": "https://accounts.google.com", "aud": URL, "exp": 1767229200, **GOOGLE_CLAIMS},
        "RS256",
    ),
    "Event Grid with Entra": build_jwt_vendor(
        ENTRA_TABLE,
        {"iss": ENTRA_TABLE["issuer"], "aud": "api://relay", "azp": "event-grid"},
        "RS256",
    ),
    "SMART Backend Services": build_jwt_vendor(SMART_TABLE, {"aud": URL}, "ES384"),
    "RFC 9421": Vendor(
        scheme="http-message-signatures",
        table={"algorithm": "hmac-sha256", "key_format": "text"},
        headers={
            "Content-Type": "application/fhir+json",
            "Content-Digest": "sha-256=:ShTxgIPwQLeRapWwZveGrXK4atkU0RDvCzmgxVzEkTg=:",
            "Signature-Input": 'sig1=("@method" "@target-uri" "content-digest" "content-type");'
            'created=1767225600;keyid="relay-test";alg="hmac-sha256"',
            "Signature": "sig1=:03Va3a3yIKOn/r//E6UMhEW8+tQ1KqPLGZe13vun3kA=:",
        },
        has_time=True,
        principal="relay-test",
    ),
    "Container Apps with a certificate": build_container_apps(),
}
