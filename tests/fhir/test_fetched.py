"""Which addresses may be asked, and how answers are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from integration.fhir.entries import Entry
from integration.fhir.fetched import (
    FetchedResponse,
    confirm_deleted,
    decode,
    encode,
    split_address,
)
from tests.randomness import limit_examples

BASE = "https://home.example/fhir"
BASES = ["https://other.example:8443", BASE]


@pytest.mark.parametrize(
    ("address", "path"),
    [
        (f"{BASE}/Patient/1", "Patient/1"),
        (f"{BASE}/Patient/a-b.c", "Patient/a-b.c"),
        (f"{BASE}/Patient?ct=W3sidG9rZW4%3D&_count=10", "Patient?ct=W3sidG9rZW4%3D&_count=10"),
        (f"{BASE}?_getpages=6f1b&_getpagesoffset=20", "?_getpages=6f1b&_getpagesoffset=20"),
        (f"{BASE}/Patient?url=https://evil.example/../x", "Patient?url=https://evil.example/../x"),
    ],
)
def test_what_is_below_a_base_is_asked_there(address: str, path: str) -> None:
    assert split_address(address, BASES) == (BASE, path)


HOSTILE = [
    "",
    "None",
    "Patient/1",
    "/fhir/Patient/1",
    "//home.example/fhir/Patient/1",
    BASE,
    "https://evil.example/fhir/Patient/1",
    "http://home.example/fhir/Patient/1",
    "HTTPS://home.example/fhir/Patient/1",
    "https://HOME.example/fhir/Patient/1",
    "https://home.example:443/fhir/Patient/1",
    "https://home.example:8443/fhir/Patient/1",
    "https://home.example/fhirx/Patient/1",
    "https://home.example/Patient/1",
    "https://home.example.evil.example/fhir/Patient/1",
    "https://home.example@evil.example/fhir/Patient/1",
    "https://home.example/fhir@evil.example/Patient/1",
    "https://user:secret@home.example/fhir/Patient/1",
    "https://evil.example/https://home.example/fhir/Patient/1",
    "https://evil.example\\@home.example/fhir/Patient/1",
    f"{BASE}/../Patient/1",
    f"{BASE}/..",
    f"{BASE}/./Patient/1",
    f"{BASE}/Patient/..",
    f"{BASE}/Patient/../../admin",
    f"{BASE}/%2e%2e/admin",
    f"{BASE}/..%2fadmin",
    f"{BASE}/..;/admin",
    f"{BASE}/..\\admin",
    f"{BASE}//evil.example/Patient/1",
    f"{BASE}/$export",
    f"{BASE}/Patient/1/$everything?_count=10",
    f"{BASE}/Patient/1#top",
    f"{BASE}/Patient?a=b#c",
    f"{BASE}/Patient/1 ",
    f"{BASE}/Patient/1\n",
    f"{BASE}/Patient?a=b\r\nhost: evil.example",
    f"{BASE}/Patient/\u0661",
    f"{BASE}/Patient?name=\u00e4",
    f"{BASE}/Patient?{'a' * 8192}",
    f" {BASE}/Patient/1",
    "https://other.example:84430/Patient/1",
    "https://other.example/Patient/1",
]


@pytest.mark.parametrize("address", HOSTILE)
def test_every_other_address_is_never_asked(address: str) -> None:
    assert split_address(address, BASES) is None


def test_without_a_base_nothing_is_asked() -> None:
    assert split_address(f"{BASE}/Patient/1", []) is None


@limit_examples(100)
@given(st.text(alphabet="./%2eE\\?#@:aP1 ", max_size=20))
def test_whatever_follows_a_base_stays_below_it(rest: str) -> None:
    """As a client resolves it, whose view is the one that counts."""
    import httpx

    found = split_address(f"{BASE}/{rest}", [BASE])
    if found is not None:
        url = httpx.URL(f"{BASE}/{found[1]}")
        assert (url.scheme, url.host, url.port, url.userinfo) == (
            "https",
            "home.example",
            None,
            b"",
        )
        assert url.path.startswith("/fhir/")


@pytest.mark.parametrize(
    "answer", [FetchedResponse(200, b"{} 1"), FetchedResponse(0), FetchedResponse(404, b"")]
)
def test_an_answer_survives_being_kept(answer: FetchedResponse) -> None:
    assert decode(encode(answer)) == answer


@pytest.mark.parametrize("status", [0, 200, 302, 401, 403, 404, 500])
def test_only_a_server_that_says_it_has_deleted_a_resource_confirms_a_delete(status: int) -> None:
    """404 is the answer for what was never there: any resource of another sender."""
    claimed = Entry(position=0, where="Patient", method="DELETE", type="Patient", id="south-1")
    assert confirm_deleted(claimed, FetchedResponse(410)) == claimed
    kept = confirm_deleted(claimed, FetchedResponse(status, b'{"resourceType": "Patient"}'))
    assert kept.refusal is not None
