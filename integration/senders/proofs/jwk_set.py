"""The public keys of an issuer, as it publishes them. Pure.

https://www.rfc-editor.org/rfc/rfc7517: of all keys only those of RSA and elliptic curves that
verify signatures are taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

# Key members that make a key private or symmetric: a set that holds them is not to be trusted.
_PRIVATE = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
_PUBLIC = {"RSA": ("n", "e"), "EC": ("crv", "x", "y")}

MAX_KEYS = 100
MAX_ID = 256


class NoKeySet(ValueError):
    """What an issuer answered is no set of keys."""


def parse_key_set(body: bytes) -> dict[str, Mapping[str, str]]:
    """Return the keys by their ids: `kty`, the members of its public key, and `alg` if it is told.

    Keys without an id and keys of other kinds are left out. Raises NoKeySet.
    """
    try:
        found = msgspec.json.decode(body, type=dict[str, Any]).get("keys")
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise NoKeySet("the answer is not a JSON object") from error
    if not isinstance(found, list) or len(found) > MAX_KEYS:
        raise NoKeySet(f"the answer has no list `keys` of up to {MAX_KEYS}")
    keys: dict[str, Mapping[str, str]] = {}
    for entry in found:
        key = _read_key(entry)
        # Of several keys with one id nobody can say which is meant.
        if key and (kid := str(entry["kid"])) not in keys:
            keys[kid] = key
    return keys


def _read_key(entry: Any) -> Mapping[str, str] | None:
    """Return what of a key is needed to verify, None if it is not meant for that."""
    if not isinstance(entry, dict) or any(member in entry for member in _PRIVATE):
        return None
    kid, kty = entry.get("kid"), entry.get("kty")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_ID or not isinstance(kty, str):
        return None
    if kty not in _PUBLIC or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    names = ("kty", *_PUBLIC[kty], *(["alg"] if "alg" in entry else []))
    key = {name: entry.get(name) for name in names}
    if any(not isinstance(value, str) for value in key.values()):
        return None
    return {name: str(value) for name, value in key.items()}
