"""All schemes by the names that `senders.toml` gives them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from integration.senders.proofs import (
    bearer,
    certificate,
    ed25519,
    entra,
    folder,
    function_key,
    hmac_header,
    hub,
    json_web_token,
    message_signatures,
    standard_webhooks,
    token_header,
)
from integration.senders.proofs.proof import Proof, Proven, Secrets, SignedRequest

# Raises Unproven.
Verify = Callable[[Any, Secrets, SignedRequest, datetime], Proven]
CheckSecrets = Callable[[Any, Secrets], list[str]]


@dataclass(frozen=True, slots=True)
class Scheme:
    """`keys`: what its table in `senders.toml` holds; to build one raises ValueError where keys do
    not fit each other, which `msgspec.convert` tells as a ValidationError. `verify` gets that table
    as a value. `check_secrets` says what is wrong with the values of settings, without them."""

    keys: type[Proof]
    verify: Verify
    check_secrets: CheckSecrets


SCHEMES: Mapping[str, Scheme] = {
    "bearer": Scheme(bearer.Bearer, bearer.verify, bearer.check_secrets),
    "certificate": Scheme(
        certificate.CertificateHeader, certificate.verify, certificate.check_secrets
    ),
    "ed25519": Scheme(ed25519.Ed25519, ed25519.verify, ed25519.check_secrets),
    "entra": Scheme(entra.Entra, entra.verify, entra.check_secrets),
    "folder": Scheme(folder.Folder, folder.verify, folder.check_secrets),
    "function-key": Scheme(
        function_key.FunctionKey, function_key.verify, function_key.check_secrets
    ),
    "hmac": Scheme(hmac_header.HmacHeader, hmac_header.verify, hmac_header.check_secrets),
    "http-message-signatures": Scheme(
        message_signatures.MessageSignatures,
        message_signatures.verify,
        message_signatures.check_secrets,
    ),
    "hub": Scheme(hub.Hub, hub.verify, hub.check_secrets),
    "jwt": Scheme(json_web_token.JsonWebToken, json_web_token.verify, json_web_token.check_secrets),
    "standard-webhooks": Scheme(
        standard_webhooks.StandardWebhooks,
        standard_webhooks.verify,
        standard_webhooks.check_secrets,
    ),
    "token-header": Scheme(
        token_header.TokenHeader, token_header.verify, token_header.check_secrets
    ),
}
