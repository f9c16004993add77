"""Fetch the public keys of the issuers whose tokens senders prove themselves with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from urllib.parse import urlsplit

from integration.app.http_clients import ClientContext, open_upstream
from integration.app.settings import UpstreamSettings
from integration.core.errors import Unavailable
from integration.core.model import Request
from integration.intake.identify import AddKeys
from integration.senders.jwks import MAX_BYTES, Fetch, KeySet
from integration.senders.model import Sender
from integration.senders.proofs.json_web_token import JsonWebToken, read_key_id
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest

# Seconds: a sender waits for it, and keys that are at hand serve on.
_TIMEOUT = 5


def open_key_sets(senders: Iterable[Sender], context: ClientContext) -> AddKeys:
    """Return what adds the keys of its issuer to the secrets of a sender, if its scheme needs
    them. It raises Unavailable where an issuer has never given its keys."""
    urls = {item.proof.jwks_url for item in senders if isinstance(item.proof, JsonWebToken)}
    key_sets = {url: KeySet(url, _open_fetch(url, context)) for url in urls}

    async def add_keys(proof: Proof, secrets: Secrets, request: SignedRequest) -> Secrets:
        if not isinstance(proof, JsonWebToken):
            return secrets
        keys = await key_sets[proof.jwks_url].get(read_key_id(request))
        return replace(secrets, jwks=keys)

    return add_keys


def _open_fetch(url: str, context: ClientContext) -> Fetch:
    address = urlsplit(url)
    base = f"{address.scheme}://{address.netloc}"
    path = url.removeprefix(f"{base}/")
    service = UpstreamSettings(base, None, 1, _TIMEOUT)
    upstream = open_upstream(f"issuer {base}", service, context, MAX_BYTES)

    async def fetch(_: str) -> bytes:
        response = await upstream.send(Request("GET", path, headers={"accept": "application/json"}))
        if response.status != 200:
            raise Unavailable(upstream.name, f"answered {response.status}")
        return response.body

    return fetch
