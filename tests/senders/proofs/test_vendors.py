"""Each vendor's request as it sends it, with synthetic keys and data, and the table that takes it.

Signatures were computed apart from this code, but for tokens, which differ each time. What the
vendors' pages leave open is said in the comments.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fuzz.proof_seeds import NOW, TOKEN, URL, build_request
from tests.senders.proofs.proving import prove, refuse, set_header
from tests.senders.proofs.vendors import ELATION, VENDORS, Vendor

each_vendor = pytest.mark.parametrize("vendor", VENDORS.values(), ids=VENDORS)


@each_vendor
def test_a_vendors_request_is_proven(vendor: Vendor) -> None:
    secrets = vendor.build_secrets(vendor.secret)
    found = prove(vendor.scheme, vendor.build_table(), secrets, vendor.build())
    assert (found.message_id, found.principal) == (vendor.message_id, vendor.principal)


@each_vendor
def test_a_changed_byte_of_the_body_is_refused_where_it_is_signed(vendor: Vendor) -> None:
    request = vendor.build()
    changed = replace(request, body=request.body[:-1] + b" ")
    secrets = vendor.build_secrets(vendor.secret)
    if vendor.covers_body:
        refuse(vendor.scheme, vendor.build_table(), secrets, changed)
    else:
        prove(vendor.scheme, vendor.build_table(), secrets, changed)


@each_vendor
def test_a_changed_byte_of_the_proof_is_refused(vendor: Vendor) -> None:
    request = vendor.build()
    table, secrets = vendor.build_table(), vendor.build_secrets(vendor.secret)
    header = {
        "bearer": "authorization",
        "jwt": "authorization",
        "certificate": "x-gateway",
        "http-message-signatures": "signature",
        "hub": "x-hub-signature",
        "standard-webhooks": next(
            (name for name in request.headers if name.endswith("-signature")), ""
        ),
    }.get(vendor.scheme) or str(table["header"]).lower()
    value = request.headers[header]
    # The middle of a signature: its first characters may be a prefix, its last ones padding.
    place = len(value) - 12
    changed = value[:place] + ("0" if value[place] != "0" else "1") + value[place + 1 :]
    refuse(vendor.scheme, table, secrets, set_header(request, header, changed))


@each_vendor
def test_another_key_is_refused(vendor: Vendor) -> None:
    secrets = vendor.build_secrets(vendor.wrong_key)
    refuse(vendor.scheme, vendor.build_table(), secrets, vendor.build())


@each_vendor
def test_a_request_of_long_ago_is_refused_where_a_time_is_signed(vendor: Vendor) -> None:
    secrets, later = vendor.build_secrets(vendor.secret), NOW + timedelta(days=365)
    if vendor.has_time:
        refuse(vendor.scheme, vendor.build_table(), secrets, vendor.build(), later)
        before = NOW - timedelta(days=365)
        refuse(vendor.scheme, vendor.build_table(), secrets, vendor.build(), before)
    else:
        prove(vendor.scheme, vendor.build_table(), secrets, vendor.build(), later)


def test_redox_may_send_its_token_in_either_header_of_one_table() -> None:
    """Two senders at one address are not needed: the table names the one that the vendor is told."""
    request = build_request({"verification-token": TOKEN, "Authorization": f"Bearer {TOKEN}"})
    prove("token-header", {"secrets": ["A"], "header": "verification-token"}, [TOKEN], request)
    prove("bearer", {"secrets": ["A"]}, [TOKEN], request)


def test_elations_body_is_taken_as_it_was_written() -> None:
    vendor = VENDORS["Elation"]
    secrets = vendor.build_secrets(vendor.secret)
    written_again = replace(vendor.build(), body=ELATION.replace(b": ", b":"))
    refuse(vendor.scheme, vendor.build_table(), secrets, written_again)


def test_healthies_signature_covers_the_address() -> None:
    vendor = VENDORS["Healthie in hex"]
    secrets = vendor.build_secrets(vendor.secret)
    for changed in (f"{URL}?dry-run=true", f"{URL}/x"):
        request = replace(vendor.build(), url=changed)
        refuse(vendor.scheme, vendor.build_table(), secrets, request)
