"""What a scheme proves beside who sends, and with which settings. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from integration.senders.model import Sender
from integration.senders.proofs.certificate import CertificateHeader
from integration.senders.proofs.hub import Hub
from integration.senders.proofs.message_signatures import MessageSignatures
from integration.senders.proofs.proof import Proof, Secrets
from integration.senders.proofs.registry import SCHEMES
from integration.senders.proofs.signed_text import SignedText
from integration.senders.proofs.standard_webhooks import StandardWebhooks

# The Functions host checks the key, at an address of its own.
FUNCTION_KEY = "function-key"

# Storage decides who writes into the folder: no request proves it.
FOLDER = "folder"

_PATHS = frozenset({"@target-uri", "@request-target", "@path"})
_QUERIES = frozenset({"@target-uri", "@request-target", "@query"})

# What a setting holds while the platform could not read the vault that it refers to:
# https://learn.microsoft.com/azure/app-service/app-service-key-vault-references
_UNRESOLVED = "@Microsoft.KeyVault("


@dataclass(frozen=True, slots=True)
class SenderSecrets:
    """The secrets of all senders by name, and what an operator must set for some of them."""

    secrets: Mapping[str, Secrets] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


def get_scheme(proof: Proof) -> str:
    """Return the name of the scheme whose table a proof is."""
    return next(name for name, scheme in SCHEMES.items() if type(proof) is scheme.keys)


def covers_address(proof: Proof, *, has_query: bool) -> bool:
    """Whether what is proven holds for this address and method alone. `has_query`: the address has
    a query, which says what a conditional write is of.

    A signature of the body is the same wherever the body is sent: with it, one captured request
    without a body would delete anything. A token proves who calls, whatever is called.
    """
    match proof:
        case Hub() | StandardWebhooks():
            return False
        case SignedText():
            covers_query = "{query}" in proof.signed or not has_query
            covers = "{url}" in proof.signed or ("{path}" in proof.signed and covers_query)
            return covers and "{method" in proof.signed
        case MessageSignatures():
            wanted = (_PATHS, _QUERIES) if has_query else (_PATHS,)
            return "@method" in proof.components and not any(
                names.isdisjoint(proof.components) for names in wanted
            )
    return True


def collect_secrets(
    senders: Iterable[Sender], read_setting: Callable[[str], str | None], *, easy_auth: bool
) -> SenderSecrets:
    """Read the settings that the proofs name. What is wrong with those of one sender is told with
    the names of settings, and stops that sender alone."""
    secrets, problems = dict[str, Secrets](), dict[str, str]()
    for sender in senders:
        proof = sender.proof
        gateway = proof.gateway_secrets if isinstance(proof, CertificateHeader) else ()
        found = Secrets(
            values=tuple(read_setting(name) or "" for name in proof.secrets),
            gateway=tuple(read_setting(name) or "" for name in gateway),
            easy_auth=easy_auth,
        )
        names = (*proof.secrets, *gateway)
        wrong = list(_find_unresolved(names, read_setting))
        wrong += SCHEMES[get_scheme(proof)].check_secrets(proof, found)
        # During a rotation one of two is enough: `check` tells of the other.
        if len(wrong) >= max(len(names), 1):
            problems[sender.name] = f"sender {sender.name}: {'; '.join(wrong)}"
        secrets[sender.name] = found
    return SenderSecrets(secrets, problems)


def _find_unresolved(
    names: Iterable[str], read_setting: Callable[[str], str | None]
) -> Iterator[str]:
    for name in names:
        if (read_setting(name) or "").startswith(_UNRESOLVED):
            yield f"the setting {name} refers to a key vault that could not be read"


def describe_settings(proof: Proof, secrets: Secrets) -> dict[str, str]:
    """Return of each setting that a proof names whether it is set. No value leaves here."""
    names = (*proof.secrets, *getattr(proof, "gateway_secrets", ()))
    values = dict(zip(names, (*secrets.values, *secrets.gateway), strict=False))
    return {name: _describe_value(values.get(name, "")) for name in names}


def _describe_value(value: str) -> str:
    if value.startswith(_UNRESOLVED):
        return "refers to a key vault that could not be read"
    return "is set" if value else "is not set"
