"""All schemes by the names that `senders.toml` gives them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest

# Raises Unproven.
Verify = Callable[[Any, Secrets, SignedRequest, datetime], Proven]


@dataclass(frozen=True, slots=True)
class Scheme:
    """`keys`: what its table in `senders.toml` holds. `verify` gets that table as a value."""

    keys: type[Proof]
    verify: Verify


SCHEMES: Mapping[str, Scheme] = {}

# The Functions host checks the key, at an address of its own.
FUNCTION_KEY = "function-key"


def get_scheme(proof: Proof) -> str:
    """Return the name of the scheme whose table a proof is."""
    return next(name for name, scheme in SCHEMES.items() if type(proof) is scheme.keys)
