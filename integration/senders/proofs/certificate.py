"""The scheme `certificate`: who ended TLS tells the client's certificate in a header. Pure.

https://learn.microsoft.com/azure/app-service/app-service-web-configure-tls-mutual-auth (unchecked),
https://learn.microsoft.com/azure/container-apps/client-certificate-authorization,
https://www.rfc-editor.org/rfc/rfc9440.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import unquote

from msgspec import Meta

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.reading import (
    HeaderName,
    decode_base64,
    get_keys,
    match_any,
    parse_token,
    parse_values,
    read_header,
    refuse_secrets,
)

Thumbprint = Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{64}$")]
Subject = Annotated[str, Meta(min_length=1)]

# With a chain of certificates, too, of which only the first is read.
_MAX_HEADER = 32_768
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_PAIR = re.compile(r'([A-Za-z]{1,16})=("[^"\\]*"|[^",;\\]*)')


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateHeader(Proof):
    """The certificate of mutual TLS, as the one who ended TLS passes it on. Whoever reaches the app
    directly can forge the header, so that a gateway must prove itself by a token of its own, unless
    App Service itself asks for certificates."""

    header: Literal["X-ARR-ClientCert", "X-Forwarded-Client-Cert", "Client-Cert"] = (
        "X-ARR-ClientCert"
    )
    """X-ARR-ClientCert (App Service and many gateways: base64 of DER, or PEM),
    X-Forwarded-Client-Cert (Envoy, Container Apps: `Hash=...;Cert="..."`), or Client-Cert
    (RFC 9440)."""

    thumbprints: tuple[Thumbprint, ...] = ()
    """SHA-256 of the certificates that are taken, in hex."""

    subjects: tuple[Subject, ...] = ()
    """Subjects of certificates that are taken, exactly as RFC 4514 writes them, such as
    `CN=sender,O=Clinic`. The gateway must have checked who issued the certificate."""

    gateway_header: HeaderName | None = None
    """The header with the token of the gateway, which must take away what callers put there."""

    gateway_secrets: tuple[str, ...] = ()
    """Names of app settings with the token of the gateway, 16 characters or more."""

    platform: bool = False
    """Whether App Service itself asks for certificates (mode Required, no excluded paths), and
    nothing stands before it. It checks no issuer, so that only `thumbprints` tell senders apart."""

    def __post_init__(self) -> None:
        refuse_secrets(self)
        if not self.thumbprints and not self.subjects:
            raise ValueError("thumbprints, subjects: name at least one")
        has_gateway = self.gateway_header is not None and 1 <= len(self.gateway_secrets) <= 2
        if self.platform:
            if self.subjects:
                raise ValueError("subjects: App Service checks no issuer, so name thumbprints")
            if self.header != "X-ARR-ClientCert":
                raise ValueError("header: App Service itself sends X-ARR-ClientCert")
            if self.gateway_header or self.gateway_secrets:
                raise ValueError("platform: with it there is no gateway")
        elif not has_gateway:
            raise ValueError("gateway_header, gateway_secrets: name both, or set platform")


def verify(
    proof: CertificateHeader, secrets: Secrets, request: SignedRequest, now: datetime
) -> Proven:
    """Return the thumbprint in lower case, or the subject if that is what is known of it.

    Raises Unproven.
    """
    if not proof.platform:
        _check_gateway(proof, secrets, request)
    der = read_certificate(proof.header, request)
    digest = hashlib.sha256(der)
    is_known = match_any((bytes.fromhex(text) for text in proof.thumbprints), [digest.digest()])
    if not is_known and not proof.subjects:
        raise Unproven("the certificate is not one of those of this sender")
    subject = _check_certificate(proof, der, is_known, now)
    return Proven(principal=digest.hexdigest() if is_known else subject)


def check_secrets(proof: CertificateHeader, secrets: Secrets) -> list[str]:
    """Return what is wrong with the settings that hold the gateway's token."""
    if proof.platform:
        return []
    return parse_values(proof.gateway_secrets, secrets.gateway, parse_token)[1]


def _check_gateway(proof: CertificateHeader, secrets: Secrets, request: SignedRequest) -> None:
    tokens = get_keys(parse_values(proof.gateway_secrets, secrets.gateway, parse_token))
    given = read_header(request, proof.gateway_header or "")
    if not match_any(tokens, [given.encode()]):
        raise Unproven("the request does not come from the gateway")


def read_certificate(header: str, request: SignedRequest) -> bytes:
    """Return the certificate of a header as DER. Nothing of it is checked. Raises Unproven."""
    text = read_header(request, header, _MAX_HEADER)
    der: bytes | None
    if header == "Client-Cert":
        is_bytes = len(text) > 2 and text[0] == text[-1] == ":"
        der = decode_base64(text[1:-1]) if is_bytes else None
    elif header == "X-Forwarded-Client-Cert":
        der = _read_forwarded(text)
    else:
        der = _decode_pem(text) if text.startswith(("-", "%")) else decode_base64(text)
    if not der:
        raise Unproven(f"the header {header} does not hold a certificate as it should")
    return der


def _read_forwarded(text: str) -> bytes | None:
    """Return the certificate of the only hop; None also if its hash is another.

    https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
    """
    found: dict[str, str] = {}
    position = 0
    while position < len(text):
        pair = _PAIR.match(text, position)
        # A comma begins another hop: of several, nobody can say which is the sender.
        if pair is None or text[pair.end() : pair.end() + 1] not in ("", ";"):
            return None
        name, value = pair[1].lower(), pair[2].strip('"')
        if name in ("cert", "hash") and name in found:
            return None
        found[name] = value
        position = pair.end() + 1
    der = _decode_pem(found.get("cert", ""))
    if der is None or "hash" not in found:
        return der
    digest = found["hash"].lower()
    is_same = digest.isascii() and hmac.compare_digest(digest, hashlib.sha256(der).hexdigest())
    return der if is_same else None


def _decode_pem(text: str) -> bytes | None:
    """Return the DER of one PEM, whose line ends may be missing or URL-encoded."""
    found = _PEM.fullmatch(unquote(text))
    return decode_base64("".join(found[1].split())) if found else None


def _check_certificate(proof: CertificateHeader, der: bytes, is_known: bool, now: datetime) -> str:
    """Return the subject of a certificate that is valid now, and is one of the sender's."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.x509 import load_der_x509_certificate

    try:
        certificate = load_der_x509_certificate(der)
        starts, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        subject = certificate.subject.rfc4514_string()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unproven("the certificate cannot be read") from None
    if not is_known and subject not in proof.subjects:
        raise Unproven("the certificate is not one of those of this sender")
    if now < starts:
        raise Unproven("the certificate is not valid yet")
    if now > ends:
        raise Unproven("the certificate has expired")
    return subject
