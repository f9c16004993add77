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
