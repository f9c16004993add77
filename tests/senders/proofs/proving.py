"""Verify requests as the app does: from a table as it stands in a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest

from fuzz.proof_seeds import NOW, Seed
from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest, Unproven
from integration.senders.proofs.registry import SCHEMES


def read_table(scheme: str, table: Mapping[str, Any]) -> Proof:
    """The keys of a table. Raises msgspec.ValidationError."""
    return msgspec.convert(dict(table), SCHEMES[scheme].keys)


def prove(
    scheme: str,
    table: Mapping[str, Any],
    secrets: Secrets | Sequence[str],
    request: SignedRequest,
    now: datetime = NOW,
) -> Proven:
    """What the proof says of a request. Raises Unproven."""
    found = secrets if isinstance(secrets, Secrets) else Secrets(values=tuple(secrets))
    return SCHEMES[scheme].verify(read_table(scheme, table), found, request, now)


def refuse(
    scheme: str,
    table: Mapping[str, Any],
    secrets: Secrets | Sequence[str],
    request: SignedRequest,
    now: datetime = NOW,
) -> str:
    """Why a request is not proven."""
    with pytest.raises(Unproven) as caught:
        prove(scheme, table, secrets, request, now)
    return str(caught.value)


def prove_seed(seed: Seed, request: SignedRequest | None = None, now: datetime = NOW) -> Proven:
    """The same for a seed, or for another request in its place."""
    return prove(seed.scheme, seed.table, seed.secrets, request or seed.request, now)


def refuse_seed(seed: Seed, request: SignedRequest | None = None, now: datetime = NOW) -> str:
    """Why the request of a seed, or another in its place, is not proven."""
    return refuse(seed.scheme, seed.table, seed.secrets, request or seed.request, now)


def set_header(request: SignedRequest, name: str, value: str | None) -> SignedRequest:
    """The request with another value of a header, or without it."""
    headers = {key: text for key, text in request.headers.items() if key != name.lower()}
    return replace(request, headers=headers if value is None else {**headers, name.lower(): value})


def check(scheme: str, table: Mapping[str, Any], secrets: Secrets | Sequence[str]) -> list[str]:
    """What is wrong with the settings of a table."""
    found = secrets if isinstance(secrets, Secrets) else Secrets(values=tuple(secrets))
    return SCHEMES[scheme].check_secrets(read_table(scheme, table), found)
