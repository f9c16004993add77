"""The schemes `bearer` and `token-header`."""

from __future__ import annotations

import pytest

from fuzz.proof_seeds import TOKEN, build_request
from tests.senders.proofs.proving import check, prove, refuse

BEARER = {"secrets": ["A"]}
HEADER = {"secrets": ["A"], "header": "verification-token"}


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_the_word_bearer_may_be_written_in_any_case(value: str) -> None:
    prove("bearer", BEARER, [TOKEN], build_request({"Authorization": value}))


@pytest.mark.parametrize(
    "value",
    [
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer{TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN} x",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
    ],
)
def test_another_token_is_refused(value: str) -> None:
    why = refuse("bearer", BEARER, [TOKEN], build_request({"Authorization": value}))
    assert TOKEN not in why


def test_a_token_in_a_header_is_the_whole_header() -> None:
    prove("token-header", HEADER, [TOKEN], build_request({"Verification-Token": f" {TOKEN} "}))
    for value in (f"Bearer {TOKEN}", TOKEN[1:], f"{TOKEN},{TOKEN}"):
        refuse("token-header", HEADER, [TOKEN], build_request({"verification-token": value}))


@pytest.mark.parametrize("scheme", ["bearer", "token-header"])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("short-token", "has fewer than 16 characters"),
        ("", "is not set"),
        ("two words of a token", "visible ASCII"),
        ("t\u00f6ken-of-the-sender", "visible ASCII"),
    ],
)
def test_a_token_is_long_and_visible(scheme: str, value: str, why: str) -> None:
    table = BEARER if scheme == "bearer" else HEADER
    (problem,) = check(scheme, table, [value])
    assert why in problem
    headers = {"Authorization": f"Bearer {value}", "verification-token": value}
    refuse(scheme, table, [value], build_request(headers))
