"""When a request says that it was signed, for who asks why it is no longer proven. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from integration.senders.proofs.json_web_token import JsonWebToken
from integration.senders.proofs.message_signatures import MessageSignatures
from integration.senders.proofs.proof import Proof, SignedRequest
from integration.senders.proofs.signed_text import SignedText
from integration.senders.proofs.standard_webhooks import StandardWebhooks
from integration.senders.shapes import is_time, read_token_part

_START = datetime(1970, 1, 1, tzinfo=UTC)


def find_signed_time(proof: Proof, request: SignedRequest) -> datetime | None:
    """Return when a request says that it was signed; None: its proof holds no time. Nothing of it
    is proven."""
    text = _find_text(proof, request).strip()
    if not is_time(text):
        return None
    return _START + timedelta(seconds=int(text) / (1000 if len(text) == 13 else 1))


def _find_text(proof: Proof, request: SignedRequest) -> str:
    headers = request.headers
    match proof:
        case StandardWebhooks():
            return headers.get("webhook-timestamp") or headers.get("svix-timestamp", "")
        case SignedText() if proof.timestamp_header:
            return headers.get(proof.timestamp_header.lower(), "")
        case SignedText() if proof.timestamp_field:
            value = headers.get(proof.header.lower(), "")
            fields = (part.strip().partition("=") for part in value.split(","))
            return next((text for name, _, text in fields if name == proof.timestamp_field), "")
        case MessageSignatures():
            found = re.search(r";created=(\d+)", headers.get("signature-input", ""))
            return found[1] if found else ""
        case JsonWebToken():
            token = headers.get("authorization", "").strip().rpartition(" ")[2]
            claims = read_token_part(token, 1)
            if "iat" in claims:
                return str(claims["iat"])
            ends = claims.get("exp")
            return str(ends - 1) if isinstance(ends, int) else ""
    return ""
