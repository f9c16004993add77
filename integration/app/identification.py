"""Build what identifies senders: those of `senders.toml`, their secrets, and the public keys of the
issuers whose tokens they prove themselves with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from urllib.parse import urlsplit

from integration.app.http_clients import ClientContext, open_upstream
from integration.app.services import Services, make_token
from integration.app.settings import Settings, UpstreamSettings, read_setting
from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import Delivery, DeliveryRequest, Request
from integration.intake.accept import Intake, judge_anew
from integration.intake.identify import AddKeys, Identification
from integration.operations.deliveries import Judge, ReplayTerms
from integration.senders.jwks import MAX_BYTES, Fetch, KeySet
from integration.senders.model import Sender, make_unlisted_sender
from integration.senders.proofs.json_web_token import JsonWebToken, read_key_id
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest
from integration.senders.schemes import collect_secrets

# Seconds: a sender waits for it, and keys that are at hand serve on.
_TIMEOUT = 5


def build_identification(
    services: Services, senders: Mapping[str, Sender] | None
) -> Identification:
    """Build what identifies senders, and read their secrets. `senders`: None: there is no list of
    them. Raises Misconfigured with all that is wrong."""
    settings = services.settings
    listed = list((senders or {}).values())
    _check_bases(listed, settings.fetch_from)
    return Identification(
        senders=senders,
        secrets=collect_secrets(listed, read_setting, easy_auth=settings.senders.easy_auth),
        journal=services.stores.journal,
        now=services.now,
        add_keys=open_key_sets(
            (sender.proof for sender in listed), services.context, services.key_sets
        ),
        new_token=make_token,
        quotas=services.quotas,
        sender_header=settings.senders.sender_header,
        is_hosted=settings.senders.site_url is not None,
        max_bytes=settings.deliveries.max_delivery_bytes,
    )


def build_replay_terms(
    settings: Settings, intake: Intake, identification: Identification
) -> ReplayTerms:
    """Build the terms of a replay."""
    return ReplayTerms(
        judge=build_judge(intake, identification.senders),
        retention=timedelta(days=settings.retention_days),
    )


def build_judge(intake: Intake, senders: Mapping[str, Sender] | None) -> Judge:
    """Build what judges a kept delivery by the rights and the policy that its sender has now. One
    whose sender is no longer listed is judged as it was when it was accepted."""

    def judge(delivery: Delivery, request: DeliveryRequest) -> DeliveryRequest:
        unlisted = make_unlisted_sender(delivery.sender).sender
        sender = unlisted if senders is None else senders.get(delivery.sender)
        if sender is None:
            return request
        return judge_anew(intake, sender, request, is_held=delivery.kind == "held")

    return judge


def find_missing_bases(senders: Iterable[Sender], bases: Collection[str]) -> dict[str, str]:
    """Return by the names of senders their own servers that may not be asked."""
    return {
        sender.name: sender.policy.base
        for sender in senders
        if sender.policy.base and sender.policy.base not in bases
    }


def _check_bases(senders: Iterable[Sender], bases: Collection[str]) -> None:
    missing = sorted(
        f"{base} of {name}" for name, base in find_missing_bases(senders, bases).items()
    )
    if missing:
        raise Misconfigured(
            f"FETCH_FROM must hold the base of each sender: add {', '.join(missing)}"
        )


def open_key_sets(
    proofs: Iterable[Proof], context: ClientContext, key_sets: dict[str, KeySet]
) -> AddKeys:
    """Return what adds the keys of its issuer to the secrets of a sender, if its scheme needs
    them. It raises Unavailable where an issuer has never given its keys. `key_sets`: those that are
    open already, by address; others are added."""
    urls = {proof.jwks_url for proof in proofs if isinstance(proof, JsonWebToken)}
    for url in urls - key_sets.keys():
        key_sets[url] = KeySet(url, _open_fetch(url, context))

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
