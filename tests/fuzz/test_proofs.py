"""Hostile proofs in small; `make fuzz` is the same in large."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from fuzz.proof_seeds import build_request, build_seeds
from fuzz.proofs import (
    ACCEPTED,
    BROKEN,
    FORGED,
    REFUSED,
    ProofCase,
    make_proof_case,
    run_proofs,
    try_proof_case,
)
from tests.randomness import make_seed, scale

CASES = scale(2000)


@pytest.mark.seeded
def test_every_request_is_proven_or_unproven_and_none_is_forged() -> None:
    results = [
        try_proof_case(make_proof_case(make_seed("proofs"), number)) for number in range(CASES)
    ]
    assert [result for result in results if result.outcome in (FORGED, BROKEN)] == []
    # Both are worth a test only if both happen often.
    counts = Counter(result.outcome for result in results)
    assert counts[ACCEPTED] > CASES / 10
    assert counts[REFUSED] > CASES / 3


def test_the_same_number_is_the_same_change_and_another_another() -> None:
    first = [make_proof_case("a", number).request for number in range(50)]
    assert first == [make_proof_case("a", number).request for number in range(50)]
    assert first != [make_proof_case("b", number).request for number in range(50)]


def test_a_request_that_is_taken_although_it_was_changed_is_found() -> None:
    seed = next(seed for seed in build_seeds() if seed.scheme == "bearer")
    lax = replace(seed, covered=("body",))
    changed = replace(seed.request, body=b"other")
    assert try_proof_case(ProofCase(1, lax, changed)).outcome == FORGED
    assert try_proof_case(ProofCase(1, seed, changed)).outcome == ACCEPTED


def test_an_exception_that_is_no_refusal_is_found() -> None:
    seed = next(seed for seed in build_seeds() if seed.scheme == "hub")
    # What no host hands over: a header that is no text.
    headers: dict[str, Any] = {"x-hub-signature": 1}
    broken = replace(build_request({}), headers=headers)
    assert try_proof_case(ProofCase(1, seed, broken)).outcome == BROKEN


def test_a_run_counts_what_became_of_the_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_proofs("1", 300, 1) == 0
    assert "proofs: cases=300 " in capsys.readouterr().out
