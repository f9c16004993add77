"""The scheme `function-key`."""

from __future__ import annotations

from fuzz.proof_seeds import build_request
from tests.senders.proofs.proving import check, prove


def test_what_the_host_lets_in_is_proven() -> None:
    found = prove("function-key", {}, (), build_request({}))
    assert (found.principal, found.message_id, found.once) == (None, None, None)
    assert check("function-key", {}, ()) == []
