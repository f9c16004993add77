"""What the pages say of a sender: its tables of senders.toml in words, and no secret. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from integration.senders.model import Sender
from integration.senders.proofs.proof import Proof, Secrets
from integration.senders.schemes import FOLDER, FUNCTION_KEY, describe_settings, get_scheme

# What stands of a proof in a list of its own: the names of settings, and whether they are set.
_SETTINGS = ("secrets", "gateway_secrets")

# What a key without a value means.
_AS_SETTING = "as the setting says"
_UNSET = {
    "write_order": _AS_SETTING,
    "messages": _AS_SETTING,
    "documents": _AS_SETTING,
    "dangling": _AS_SETTING,
    "base": "none: what its notifications only name is not fetched",
    "types": "every type, but for those that change what the FHIR server does",
    "identifier_systems": "every system",
    "id_prefixes": "anything",
    "requests_per_minute": "any number",
    "bytes_per_minute": "any number",
    "idempotency_pointers": "none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderTables:
    """A listed sender. `settings`: whether each that its proof names is set. The others: the keys
    of its tables with their values in words. `address`: where it posts to."""

    scheme: str
    settings: dict[str, str]
    proof: list[tuple[str, str]]
    rights: list[tuple[str, str]]
    quota: list[tuple[str, str]]
    policy: list[tuple[str, str]]
    address: str

    @property
    def has_all_settings(self) -> bool:
        """Whether each setting is set: during a rotation one of two may be missing."""
        return all(state == "is set" for state in self.settings.values())


def describe_sender(sender: Sender, secrets: Secrets, root: str) -> SenderTables:
    """Describe a listed sender. `root`: what stands before /api."""
    return SenderTables(
        scheme=get_scheme(sender.proof),
        settings=describe_settings(sender.proof, secrets),
        proof=list(_list_proof(sender.proof)),
        rights=list(_list_keys(sender.rights)),
        quota=list(_list_keys(sender.quota)),
        policy=list(_list_keys(sender.policy)),
        address=build_address(sender, root),
    )


def build_address(sender: Sender, root: str) -> str:
    """Return where a sender posts to, or what takes the place of an address."""
    match get_scheme(sender.proof):
        case scheme if scheme == FOLDER:
            return f"the folder {sender.name}/ of the inbox"
        case scheme if scheme == FUNCTION_KEY:
            return f"{root}/api/fhir"
    return f"{root}/api/senders/{sender.name}/fhir"


def _list_proof(proof: Proof) -> Iterator[tuple[str, str]]:
    """Yield the keys that have a value."""
    for name, value in _iterate(proof):
        if name not in _SETTINGS and value not in (None, (), ""):
            yield name, _describe(name, value)


def _list_keys(table: Any) -> Iterator[tuple[str, str]]:
    for name, value in _iterate(table):
        yield name, _describe(name, value)


def _iterate(table: Any) -> Iterator[tuple[str, Any]]:
    for field in fields(table):
        yield field.name, getattr(table, field.name)


def _describe(name: str, value: Any) -> str:
    if value in (None, ()):
        return _UNSET.get(name, "none")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} = {item}" for key, item in value.items())
    return str(value)
