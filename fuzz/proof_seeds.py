"""Requests that are proven, one or more for each scheme, with synthetic keys and bodies.

Each says what its proof covers, so that a change of it must be refused. The tests use them, too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

import jwt
import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from http_message_signatures import HTTPMessageSigner, MappingKeyResolver, algorithms
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from integration.senders.proofs.proof import Proof, Secrets, SignedRequest
from integration.senders.proofs.registry import SCHEMES

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = "1767225600"
URL = "https://relay.example/api/fhir"
BODY = b'{"resourceType":"Patient","id":"p-1","active":true}'
SECRET = "made-up-secret-0123456789abcdef"
OLD_SECRET = "made-up-secret-of-an-earlier-year"
TOKEN = "made-up-token-0123456789"
WHSEC = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
OLD_WHSEC = "whsec_" + base64.b64encode(b"fedcba9876543210" * 2).decode()
ED25519 = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(b"made-up ed25519 seed").digest())
ED25519_PUBLIC = base64.b64encode(ED25519.public_key().public_bytes_raw()).decode()
ISSUER = "https://issuer.example"
TENANT = "11111111-2222-3333-4444-555555555555"
CALLER = "99999999-8888-7777-6666-555555555555"
APP = "12345678-1234-1234-1234-123456789abc"

EVERYTHING = ("method", "url", "body")


@dataclass(frozen=True, kw_only=True)
class Seed:
    """A request that is proven. `covered`: `body`, `method`, `url`, and names of headers."""

    name: str
    scheme: str
    table: Mapping[str, Any]
    secrets: Secrets
    request: SignedRequest
    covered: tuple[str, ...] = ()

    def read_table(self) -> Proof:
        """The table as the scheme's value, read as `senders.toml` is."""
        return msgspec.convert(dict(self.table), SCHEMES[self.scheme].keys)


def build_request(
    headers: Mapping[str, str], body: bytes = BODY, method: str = "POST", url: str = URL
) -> SignedRequest:
    """A request, with header names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return SignedRequest(method=method, url=url, headers=lower, body=body)


def sign_hex(text: bytes, secret: str = SECRET, algorithm: str = "sha256") -> str:
    """The HMAC of a text in hex."""
    return hmac.digest(secret.encode(), text, algorithm).hex()


def sign_ed25519(text: bytes) -> str:
    """The signature of a text in base64."""
    return base64.b64encode(ED25519.sign(text)).decode()


def sign_webhook(message_id: str, timestamp: str, body: bytes, secret: str = WHSEC) -> str:
    """A `v1` signature of Standard Webhooks."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    text = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, text, "sha256")).decode()


@cache
def build_rsa_key() -> rsa.RSAPrivateKey:
    """An RSA key of this run."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def build_ec_key(number: int = 7) -> ec.EllipticCurvePrivateKey:
    """The P-384 key of a number."""
    return ec.derive_private_key(number**99, ec.SECP384R1())


@cache
def build_jwks() -> Mapping[str, Any]:
    """The public keys of the issuer: `rsa-1` and `ec-1`."""
    return {
        "rsa-1": RSAAlgorithm.to_jwk(build_rsa_key().public_key(), as_dict=True),
        "ec-1": ECAlgorithm.to_jwk(build_ec_key().public_key(), as_dict=True),
    }


def build_claims(**others: Any) -> dict[str, Any]:
    """The claims of a token that is taken."""
    moment = int(SECONDS)
    return {
        "iss": ISSUER,
        "sub": "client-1",
        "aud": "https://relay.example",
        "iat": moment,
        "exp": moment + 300,
        "jti": "j-1",
        **others,
    }


def sign_token(claims: Mapping[str, Any], algorithm: str = "ES384", kid: str | None = None) -> str:
    """A token of the issuer."""
    key: Any = build_ec_key() if algorithm.startswith("ES") else build_rsa_key()
    kid = kid or ("ec-1" if algorithm.startswith("ES") else "rsa-1")
    return jwt.encode(dict(claims), key, algorithm=algorithm, headers={"kid": kid})


def sign_message(
    request: SignedRequest,
    *,
    algorithm: Any = algorithms.HMAC_SHA256,
    key: Any = SECRET.encode(),
    covered: tuple[str, ...] = ("@method", "@target-uri", "content-digest", "content-type"),
    created: datetime = NOW,
    expires: datetime | None = None,
    tag: str | None = None,
) -> SignedRequest:
    """The request with the headers of RFC 9421 and 9530."""

    message = SimpleNamespace(method=request.method, url=request.url, headers=dict(request.headers))
    resolver = MappingKeyResolver(public_keys={}, private_keys={"relay-test": key})
    HTTPMessageSigner(signature_algorithm=algorithm, key_resolver=resolver).sign(
        message,
        key_id="relay-test",
        created=created,
        expires=expires,
        tag=tag,
        label="sig1",
        covered_component_ids=covered,
        body=request.body if "content-digest" in covered else None,
    )
    return build_request(message.headers, request.body, request.method, request.url)


@cache
def build_certificate(
    name: str = "sender", start: datetime = NOW - timedelta(days=30), days: int = 90
) -> x509.Certificate:
    """A certificate that signs itself."""
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Clinic"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )
    builder = x509.CertificateBuilder(subject, subject, ED25519.public_key(), 4711)
    builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=days))
    return builder.sign(ED25519, None)


def encode_certificate(certificate: x509.Certificate) -> str:
    """Its DER in base64."""
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def take_thumbprint(certificate: x509.Certificate) -> str:
    """SHA-256 of its DER, in hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def build_principal(*claims: tuple[str, str]) -> str:
    """The header of App Service authentication."""
    listed = [{"typ": typ, "val": val} for typ, val in claims]
    text = msgspec.json.encode({"auth_typ": "aad", "claims": listed, "role_typ": "roles"})
    return base64.b64encode(text).decode()


def _build_hashes() -> list[Seed]:
    key = Secrets(values=(SECRET,))
    path, digest = "/api/fhir", hashlib.sha256(BODY).hexdigest()
    healthie = f"post {path} a=1 {digest} application/json {len(BODY)}".encode()
    in_id = f"m-1:{SECONDS}000:".encode() + base64.b64encode(BODY)
    encoded = base64.urlsafe_b64encode(hmac.digest(SECRET.encode(), in_id, "sha512")).decode()
    base: dict[str, Any] = {"secrets": ["A"]}
    return [
        Seed(
            name="hub",
            scheme="hub",
            table=base,
            secrets=key,
            request=build_request({"X-Hub-Signature": f"sha256={sign_hex(BODY)}"}),
            covered=("body",),
        ),
        Seed(
            name="hmac of the body",
            scheme="hmac",
            table={**base, "header": "X-Signature"},
            secrets=key,
            request=build_request({"X-Signature": sign_hex(BODY)}),
            covered=("body",),
        ),
        Seed(
            name="hmac in fields",
            scheme="hmac",
            table={
                **base,
                "header": "X-Signature",
                "signature_field": "v1",
                "timestamp_field": "t",
                "signed": "{timestamp}.{body}",
            },
            secrets=key,
            request=build_request(
                {"X-Signature": f"t={SECONDS},v1={sign_hex(SECONDS.encode() + b'.' + BODY)}"}
            ),
            covered=("body",),
        ),
        Seed(
            name="hmac of the request",
            scheme="hmac",
            table={
                **base,
                "header": "Signature",
                "signature_field": "*",
                "signed": "{method:lower} {path} {query} {content-digest} "
                "application/json {length}",
            },
            secrets=key,
            request=build_request(
                {"Signature": f"name={sign_hex(healthie)}"}, url=f"https://relay.example{path}?a=1"
            ),
            covered=("method:lower", "url:path", "body"),
        ),
        Seed(
            name="hmac with id and time",
            scheme="hmac",
            table={
                **base,
                "header": "X-Signature",
                "prefix": "v1=",
                "algorithm": "sha512",
                "encoding": "base64url",
                "signed": "{id}:{timestamp}:{body:base64}",
                "id_header": "X-Id",
                "timestamp_header": "X-Time",
                "timestamp_unit": "milliseconds",
            },
            secrets=key,
            request=build_request(
                {"X-Signature": f"v1={encoded}", "X-Id": "m-1", "X-Time": f"{SECONDS}000"}
            ),
            covered=("body", "x-id", "x-time"),
        ),
        Seed(
            name="ed25519",
            scheme="ed25519",
            table={**base, "header": "El8-Ed25519-Signature"},
            secrets=Secrets(values=(ED25519_PUBLIC,)),
            request=build_request({"El8-Ed25519-Signature": sign_ed25519(BODY)}),
            covered=("body",),
        ),
    ]


def _build_webhooks() -> list[Seed]:
    text = f"msg_1.{SECONDS}.".encode() + BODY
    signatures = {
        "webhook": (WHSEC, f"v1,{'A' * 43}= {sign_webhook('msg_1', SECONDS, BODY)}"),
        "svix": ("whpk_" + ED25519_PUBLIC, f"v1a,{sign_ed25519(text)}"),
    }
    return [
        Seed(
            name=f"standard webhooks as {prefix}",
            scheme="standard-webhooks",
            table={"secrets": ["A"]},
            secrets=Secrets(values=(secret,)),
            request=build_request(
                {
                    f"{prefix}-id": "msg_1",
                    f"{prefix}-timestamp": SECONDS,
                    f"{prefix}-signature": signature,
                }
            ),
            covered=("body", f"{prefix}-id", f"{prefix}-timestamp"),
        )
        for prefix, (secret, signature) in signatures.items()
    ]


def _build_tokens() -> list[Seed]:
    secrets = Secrets(values=(TOKEN,))
    table = {
        "issuer": ISSUER,
        "jwks_url": f"{ISSUER}/keys",
        "audiences": ["https://relay.example"],
    }
    claims = {"email": "push@example.org", "email_verified": True}
    return [
        Seed(
            name="bearer",
            scheme="bearer",
            table={"secrets": ["A"]},
            secrets=secrets,
            request=build_request({"Authorization": f"Bearer {TOKEN}"}),
        ),
        Seed(
            name="token in a header",
            scheme="token-header",
            table={"secrets": ["A"], "header": "verification-token"},
            secrets=secrets,
            request=build_request({"verification-token": TOKEN}),
            covered=("verification-token",),
        ),
        *(
            Seed(
                name=f"jwt {algorithm}",
                scheme="jwt",
                table={**table, "claims": claims, "jti": jti},
                secrets=Secrets(jwks=build_jwks()),
                request=build_request(
                    {"Authorization": "Bearer " + sign_token(build_claims(**claims), algorithm)}
                ),
            )
            for algorithm, jti in (("ES384", "once"), ("RS256", "reused"))
        ),
        Seed(
            name="entra",
            scheme="entra",
            table={"tenant": TENANT, "objects": [CALLER], "roles": ["Sender"]},
            secrets=Secrets(easy_auth=True),
            request=build_request(
                {
                    "X-MS-CLIENT-PRINCIPAL": build_principal(
                        ("tid", TENANT), ("oid", CALLER), ("appid", APP), ("roles", "Sender")
                    )
                }
            ),
        ),
    ]


def _build_signatures() -> list[Seed]:
    plain = build_request({"Content-Type": "application/fhir+json"})
    p256 = ec.derive_private_key(7**50, ec.SECP256R1())

    def write_pem(key: Any) -> str:
        pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem.decode().strip()

    keys: list[tuple[Any, Any, str, str]] = [
        (algorithms.HMAC_SHA256, SECRET.encode(), "text", SECRET),
        (algorithms.ED25519, ED25519, "base64", ED25519_PUBLIC),
        (algorithms.RSA_PSS_SHA512, build_rsa_key(), "pem", write_pem(build_rsa_key())),
        (algorithms.ECDSA_P256_SHA256, p256, "pem", write_pem(p256)),
    ]
    return [
        Seed(
            name=f"message signature {algorithm.algorithm_id}",
            scheme="http-message-signatures",
            table={
                "secrets": ["A"],
                "algorithm": algorithm.algorithm_id,
                "key_format": key_format,
            },
            secrets=Secrets(values=(value,)),
            request=sign_message(plain, algorithm=algorithm, key=key),
            covered=(*EVERYTHING, "content-type", "content-digest"),
        )
        for algorithm, key, key_format, value in keys
    ]


def _build_certificates() -> list[Seed]:
    certificate = build_certificate()
    der = encode_certificate(certificate)
    pem = certificate.public_bytes(Encoding.PEM).decode()
    quoted = pem.replace("\n", "%0A").replace(" ", "%20").replace("+", "%2B").replace("=", "%3D")
    forwarded = f'Hash={take_thumbprint(certificate)};Cert="{quoted}";Chain="{quoted}"'
    gateway = {"gateway_header": "X-Gateway", "gateway_secrets": ["G"]}
    secrets = Secrets(gateway=(TOKEN,))
    thumbprints = {"thumbprints": [take_thumbprint(certificate)]}
    subjects = {"subjects": ["CN=sender,O=Clinic"]}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("X-ARR-ClientCert", der, thumbprints),
        ("X-Forwarded-Client-Cert", forwarded, thumbprints),
        ("Client-Cert", f":{der}:", subjects),
    ]
    return [
        Seed(
            name=f"certificate in {header}",
            scheme="certificate",
            table={"header": header, **names, **gateway},
            secrets=secrets,
            request=build_request({header: value, "X-Gateway": TOKEN}),
            covered=("x-gateway",),
        )
        for header, value, names in kinds
    ]


_BUILDERS: tuple[Callable[[], list[Seed]], ...] = (
    _build_hashes,
    _build_webhooks,
    _build_tokens,
    _build_signatures,
    _build_certificates,
)


@cache
def build_seeds() -> tuple[Seed, ...]:
    """All of them. Each scheme but `function-key`, which proves nothing itself, has one."""
    return tuple(seed for build in _BUILDERS for seed in build())
