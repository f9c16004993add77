"""The schemes `entra` and `certificate`: what the platform or a gateway says of the caller."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from fuzz.proof_seeds import (
    APP,
    CALLER,
    NOW,
    TENANT,
    TOKEN,
    build_certificate,
    build_principal,
    build_request,
    encode_certificate,
    take_thumbprint,
)
from integration.senders.proofs.proof import Proven, Secrets, Unproven
from tests.senders.proofs.proving import check, prove, read_table, refuse

OLDER = "http://schemas.microsoft.com/identity/claims"
ROLE = "http://schemas.microsoft.com/ws/2008/06/identity/claims/role"
ON = Secrets(easy_auth=True)
OBJECTS = {"tenant": TENANT, "objects": [CALLER]}
TOLD = (("tid", TENANT), ("oid", CALLER), ("appid", APP))


def build_entra(*claims: tuple[str, str]) -> Any:
    """A request that the platform has authenticated."""
    return build_request({"X-MS-CLIENT-PRINCIPAL": build_principal(*claims)})


def test_the_header_proves_nothing_where_authentication_is_off() -> None:
    """The platform takes away what callers put there only where it is on."""
    prove("entra", OBJECTS, ON, build_entra(*TOLD))
    assert "off" in refuse("entra", OBJECTS, Secrets(), build_entra(*TOLD))
    assert check("entra", OBJECTS, ON) == []
    assert "switch it on" in check("entra", OBJECTS, Secrets())[0]


@pytest.mark.parametrize(
    ("table", "claims", "principal"),
    [
        ({"objects": [CALLER]}, TOLD, CALLER),
        ({"objects": [CALLER.upper()]}, TOLD, CALLER),
        ({"objects": [APP, CALLER]}, TOLD, CALLER),
        ({"objects": [CALLER]}, (("tid", TENANT), ("oid", CALLER.upper())), CALLER),
        (
            {"objects": [CALLER]},
            ((f"{OLDER}/tenantid", TENANT), (f"{OLDER}/objectidentifier", CALLER)),
            CALLER,
        ),
        ({"apps": [APP]}, TOLD, CALLER),
        ({"apps": [APP]}, (("tid", TENANT), ("azp", APP)), APP),
        ({"roles": ["Sender"]}, (*TOLD, ("roles", "Reader"), ("roles", "Sender")), CALLER),
        ({"roles": ["Sender"]}, (*TOLD, (ROLE, "Sender")), CALLER),
        ({"objects": [CALLER], "roles": ["Sender"]}, (*TOLD, ("roles", "Sender")), CALLER),
    ],
)
def test_a_caller_that_the_table_names_is_proven(
    table: dict[str, Any], claims: tuple[tuple[str, str], ...], principal: str
) -> None:
    found = prove("entra", {"tenant": TENANT, **table}, ON, build_entra(*claims))
    assert found == Proven(principal=principal)


@pytest.mark.parametrize(
    ("table", "claims", "why"),
    [
        ({"objects": [CALLER]}, (("oid", CALLER),), "tenant"),
        ({"objects": [CALLER]}, (("tid", APP), ("oid", CALLER)), "tenant"),
        ({"objects": [CALLER]}, (("tid", TENANT), ("tid", APP), ("oid", CALLER)), "tenant"),
        ({"objects": [CALLER]}, (("tid", TENANT), ("oid", APP)), "none of those"),
        ({"objects": [CALLER]}, (("tid", TENANT),), "none of those"),
        ({"objects": [CALLER]}, (*TOLD, ("oid", APP)), "none of those"),
        ({"objects": [CALLER]}, (("tid", TENANT), ("sub", CALLER)), "none of those"),
        ({"objects": [APP]}, TOLD, "none of those"),
        ({"apps": [CALLER]}, TOLD, "none of those"),
        ({"objects": [CALLER], "roles": ["Sender"]}, TOLD, "roles"),
        ({"objects": [APP], "roles": ["S"]}, (*TOLD, ("roles", "S")), "none of those"),
        ({"roles": ["Sender"]}, (*TOLD, ("roles", "sender")), "roles"),
        ({"roles": ["Sender"]}, (("tid", TENANT), ("roles", "Sender")), "neither"),
    ],
)
def test_any_other_caller_is_refused(
    table: dict[str, Any], claims: tuple[tuple[str, str], ...], why: str
) -> None:
    assert why in refuse("entra", {"tenant": TENANT, **table}, ON, build_entra(*claims))


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"null", b"[" * 5000, b'{"auth_typ":"aad","claims":[{"typ":"tid"}]}',
     b'{"auth_typ":"aad","claims":{}}', b'{"auth_typ":"aad","claims":[{"typ":"tid","val":"\xff"}]}'],
)  # fmt: skip
def test_what_app_service_does_not_send_is_refused(text: bytes) -> None:
    value = base64.b64encode(text).decode()
    refuse("entra", OBJECTS, ON, build_request({"X-MS-CLIENT-PRINCIPAL": value}))


def test_another_provider_than_entra_is_refused() -> None:
    claims = [{"typ": typ, "val": val} for typ, val in TOLD]
    text = msgspec.json.encode({"auth_typ": "google", "claims": claims})
    request = build_request({"X-MS-CLIENT-PRINCIPAL": base64.b64encode(text).decode()})
    assert "provider" in refuse("entra", OBJECTS, ON, request)


@pytest.mark.parametrize(
    "table",
    [{"tenant": TENANT}, {"objects": [CALLER]}, {"tenant": "common", "objects": [CALLER]},
     {"tenant": TENANT, "objects": ["name"]}, {"tenant": TENANT, "roles": [""]}],
)  # fmt: skip
def test_a_table_that_names_nobody_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_table("entra", table)


CERTIFICATE = build_certificate()
DER = encode_certificate(CERTIFICATE)
PEM = CERTIFICATE.public_bytes(Encoding.PEM).decode()
THUMBPRINT = take_thumbprint(CERTIFICATE)
GATEWAY = {"gateway_header": "X-Gateway", "gateway_secrets": ["GATEWAY"]}
TRUSTED = Secrets(gateway=(TOKEN,))
BY_THUMBPRINT: dict[str, Any] = {"thumbprints": [THUMBPRINT], **GATEWAY}
BY_SUBJECT: dict[str, Any] = {"subjects": ["CN=sender,O=Clinic"], **GATEWAY}
PLATFORM: dict[str, Any] = {"thumbprints": [THUMBPRINT], "platform": True}


def build_forwarded(value: str, header: str = "X-ARR-ClientCert") -> Any:
    """A request that the gateway has passed on."""
    return build_request({header: value, "X-Gateway": TOKEN})


@pytest.mark.parametrize(
    "value", [DER, PEM.replace("\n", ""), PEM.replace("\n", " "), PEM.replace("\n", "%0A")]
)
def test_a_certificate_may_be_der_or_pem(value: str) -> None:
    found = prove("certificate", BY_THUMBPRINT, TRUSTED, build_forwarded(value))
    assert found == Proven(principal=THUMBPRINT)


def test_a_subject_is_compared_exactly() -> None:
    found = prove("certificate", BY_SUBJECT, TRUSTED, build_forwarded(DER))
    assert found == Proven(principal="CN=sender,O=Clinic")
    for subject in ("CN=sender", "CN=sender, O=Clinic", "cn=sender,o=clinic", "O=Clinic,CN=sender"):
        table = {**BY_SUBJECT, "subjects": [subject]}
        refuse("certificate", table, TRUSTED, build_forwarded(DER))
    both = {**BY_SUBJECT, "thumbprints": ["0" * 64]}
    prove("certificate", both, TRUSTED, build_forwarded(DER))


def test_another_certificate_is_refused() -> None:
    other = encode_certificate(build_certificate("other"))
    for table in (BY_THUMBPRINT, BY_SUBJECT):
        assert "not one of those" in refuse("certificate", table, TRUSTED, build_forwarded(other))


def test_who_does_not_come_from_the_gateway_is_refused() -> None:
    direct = build_request({"X-ARR-ClientCert": DER})
    assert "X-Gateway is missing" in refuse("certificate", BY_THUMBPRINT, TRUSTED, direct)
    forged = build_request({"X-ARR-ClientCert": DER, "X-Gateway": "another-token-0123456789"})
    assert "not come from the gateway" in refuse("certificate", BY_THUMBPRINT, TRUSTED, forged)
    refuse("certificate", BY_THUMBPRINT, Secrets(), build_forwarded(DER))


def test_the_gateways_token_may_be_changed_without_a_gap() -> None:
    table = {**BY_THUMBPRINT, "gateway_secrets": ["NEW", "OLD"]}
    for values in (("another-token-0123456789", TOKEN), (TOKEN, "another-token-0123456789")):
        prove("certificate", table, Secrets(gateway=values), build_forwarded(DER))
    assert check("certificate", table, Secrets(gateway=(TOKEN, "short"))) == [
        "the setting OLD has fewer than 16 characters"
    ]


def test_app_service_itself_tells_a_thumbprint() -> None:
    request = build_request({"X-ARR-ClientCert": DER})
    assert prove("certificate", PLATFORM, Secrets(), request).principal == THUMBPRINT
    assert check("certificate", PLATFORM, Secrets()) == []


@pytest.mark.parametrize("days", [-31, 61])
def test_a_certificate_is_taken_only_while_it_is_valid(days: int) -> None:
    for table in (BY_THUMBPRINT, BY_SUBJECT):
        why = refuse(
            "certificate", table, TRUSTED, build_forwarded(DER), NOW + timedelta(days=days)
        )
        assert "valid yet" in why or "expired" in why


QUOTED = PEM.replace("\n", "%0A").replace("=", "%3D").replace("+", "%2B").replace("/", "%2F")


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [
        (f'Hash={THUMBPRINT};Cert="{QUOTED}"', True),
        (f'By=spiffe://a;Hash={THUMBPRINT};Subject="CN=x,O=y";Cert="{QUOTED}";Chain="x"', True),
        (f'Cert="{QUOTED}"', True),
        (f"cert={QUOTED}", True),
        (f'Hash={"0" * 64};Cert="{QUOTED}"', False),
        (f"Hash={THUMBPRINT}", False),
        (f'Cert="{QUOTED}",Cert="{QUOTED}"', False),
        (f'Hash={THUMBPRINT},Cert="{QUOTED}"', False),
        (f'Cert="{QUOTED}";Cert="{QUOTED}"', False),
        (f'Cert="{QUOTED}', False),
        (f'Cert="{QUOTED}" x', False),
        (f'Chain="{QUOTED}"', False),
        (f'Cert="{DER}"', False),
        ("Cert", False),
        (";", False),
    ],
)
def test_envoys_header_is_read_of_one_hop(value: str, is_taken: bool) -> None:
    table = {**BY_THUMBPRINT, "header": "X-Forwarded-Client-Cert"}
    request = build_forwarded(value, "X-Forwarded-Client-Cert")
    if is_taken:
        assert prove("certificate", table, TRUSTED, request).principal == THUMBPRINT
    else:
        refuse("certificate", table, TRUSTED, request)


@pytest.mark.parametrize(
    ("value", "is_taken"),
    [(f":{DER}:", True), (DER, False), (f":{DER}", False), (f":{DER[:-4]}:", False),
     ("::", False), (":", False), (f":{DER}:, :{DER}:", False), (f":{PEM[:20]}:", False)],
)  # fmt: skip
def test_the_header_of_rfc_9440_is_a_byte_sequence(value: str, is_taken: bool) -> None:
    table = {**BY_SUBJECT, "header": "Client-Cert"}
    request = build_forwarded(value, "Client-Cert")
    if is_taken:
        prove("certificate", table, TRUSTED, request)
    else:
        refuse("certificate", table, TRUSTED, request)


def test_bytes_that_are_no_certificate_are_refused() -> None:
    der = bytearray(base64.b64decode(DER))
    for value in (b"\x30\x03\x02\x01\x00", bytes(der[:200]), bytes(der) + b"\x00", b"\x30" * 4000):
        text = base64.b64encode(value).decode()
        refuse("certificate", BY_SUBJECT, TRUSTED, build_forwarded(text))
    # Whatever byte is turned: another thumbprint, and perhaps another subject or no certificate.
    for place in range(0, len(der), 3):
        turned = bytes([*der[:place], der[place] ^ 0x55, *der[place + 1 :]])
        request = build_forwarded(base64.b64encode(turned).decode())
        refuse("certificate", BY_THUMBPRINT, TRUSTED, request)
        try:
            found = prove("certificate", BY_SUBJECT, TRUSTED, request)
        except Unproven:
            continue
        assert found == Proven(principal="CN=sender,O=Clinic")


def test_a_header_with_a_long_chain_is_read_up_to_a_bound() -> None:
    table = {**BY_THUMBPRINT, "header": "X-Forwarded-Client-Cert"}
    for length, is_taken in ((20_000, True), (40_000, False)):
        value = f'Cert="{QUOTED}";Chain="{"x" * length}"'
        request = build_forwarded(value, "X-Forwarded-Client-Cert")
        if is_taken:
            prove("certificate", table, TRUSTED, request)
        else:
            assert "characters" in refuse("certificate", table, TRUSTED, request)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"gateway_header": None}, "gateway"),
        ({"gateway_secrets": []}, "gateway"),
        ({"gateway_secrets": ["A", "B", "C"]}, "gateway"),
        ({"thumbprints": []}, "name at least one"),
        ({"thumbprints": ["00" * 20]}, "thumbprints"),
        ({"platform": True}, "no gateway"),
        (
            {**PLATFORM, "gateway_header": None, "gateway_secrets": [], "subjects": ["CN=a"]},
            "issuer",
        ),
        (
            {
                "platform": True,
                "gateway_header": None,
                "gateway_secrets": [],
                "header": "Client-Cert",
            },
            "X-ARR-ClientCert",
        ),
    ],
)
def test_a_table_that_would_trust_anybodys_header_is_refused(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        read_table("certificate", {**BY_THUMBPRINT, **changes})


def test_a_header_by_another_name_is_not_looked_at() -> None:
    request = replace(build_forwarded(DER, "Client-Cert"))
    assert "missing" in refuse("certificate", BY_THUMBPRINT, TRUSTED, request)
