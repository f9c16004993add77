"""Senders as a person reads them: a table of `senders.toml`, rights in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from integration.core import decimal_json
from integration.core.model import Rights
from integration.senders.proofs.proof import Proof
from integration.senders.recognize import Candidate

_NO_SECRET = ("jwt", "entra", "function-key", "folder")


def name_secret_key(scheme: str) -> str | None:
    """Return the key of a scheme's table that names settings with secrets; None: it has none."""
    if scheme in _NO_SECRET:
        return None
    return "gateway_secrets" if scheme == "certificate" else "secrets"


def list_secret_names(proof: Proof) -> tuple[str, ...]:
    """Return the names of the settings that a proof needs."""
    return (*proof.secrets, *getattr(proof, "gateway_secrets", ()))


def build_tables(
    candidate: Candidate, secrets: tuple[str, ...], rights: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Return the tables of a candidate by their names: proof, rights and policy."""
    proof: dict[str, Any] = {"scheme": candidate.scheme, **candidate.keys}
    key = name_secret_key(candidate.scheme)
    if key and not candidate.keys.get("platform"):
        proof[key] = list(secrets)
    tables = {"proof": proof, "rights": dict(rights), "policy": dict(candidate.policy)}
    return {name: table for name, table in tables.items() if table}


def render_tables(name: str, tables: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a sender's tables, as they go into senders.toml."""
    for number, (table, keys) in enumerate(tables.items()):
        if number:
            yield ""
        yield f"[{name}.{table}]"
        yield from (f"{key} = {_render(value)}" for key, value in keys.items())


def _render(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {_render(item)}" for key, item in value.items())
        return f"{{{pairs}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_render, value))}]"
    # JSON's texts, numbers and booleans are TOML's, too, but for one character:
    # https://toml.io/en/v1.0.0#string
    return decimal_json.encode(value).decode().replace("\x7f", "\\u007f")


def describe_rights(rights: Rights) -> str:
    """Return what a sender may do, in words."""
    types = ", ".join(rights.types) if rights.types else "every type"
    parts = [f"{', '.join(rights.methods) or 'no write'} of {types}"]
    parts.append("reads in bundles" if rights.reads else "no reads")
    if rights.conditional_deletes:
        parts.append("deletes by a condition")
    if rights.identifier_systems:
        parts.append(f"identifiers of {', '.join(rights.identifier_systems)}")
    if rights.id_prefixes:
        parts.append(f"ids that begin with {' or '.join(rights.id_prefixes)}")
    return "; ".join(parts)
