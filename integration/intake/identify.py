"""VERB identify: who has sent a request. Only then is anything of it parsed or kept.

The Functions host checks the key of `/api/fhir`. Whoever has no key, as most vendors, has an
address of its own, which the host lets everybody call: there the proof of `senders.toml` decides.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from integration.core.errors import Issue, Misconfigured, Rejected, Unauthorized
from integration.core.log_events import log_event
from integration.core.offload import offload
from integration.intake.http_request import check_size
from integration.intake.quotas import Quotas
from integration.journal.store import Journal
from integration.senders.model import ProvenSender, Sender, make_unlisted_sender
from integration.senders.proofs.proof import Proof, Secrets, SignedRequest, Unproven
from integration.senders.proofs.registry import SCHEMES
from integration.senders.schemes import FUNCTION_KEY, SenderSecrets, covers_address, get_scheme

_UNPROVEN = (
    "no sender is proven by this request; the app's log says why, and `python -m integration "
    "sender try FILE` says it of a request in a file"
)
_NO_SENDERS = (
    "this deployment knows no senders: write senders.toml (docs/senders.md) and deploy it with the "
    "app"
)

# Adds the public keys of the issuer that a proof names, for the schemes that need them.
AddKeys = Callable[[Proof, Secrets, SignedRequest], Awaitable[Secrets]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identification:
    """What identifying needs. `senders`: by name; None: there is no `senders.toml`.

    `is_hosted`: the app runs in Azure. `new_token`: marks what may be used once as used here.
    `max_bytes`: of a body; to verify a larger one would be work for nothing, that anybody can ask
    for.
    """

    senders: Mapping[str, Sender] | None
    journal: Journal
    now: Callable[[], datetime]
    add_keys: AddKeys
    new_token: Callable[[], str]
    quotas: Quotas
    secrets: SenderSecrets = field(default_factory=SenderSecrets)
    sender_header: str | None = None
    is_hosted: bool = False
    max_bytes: int = 50_000_000


async def identify(
    identification: Identification, request: SignedRequest, name: str | None
) -> ProvenSender:
    """Return who has sent a request. `name`: of the sender's own address; None: the host has
    checked a function key.

    Raises Unauthorized (401), Rejected with 429 over a quota, and Misconfigured for a sender whose
    settings are missing, and Rejected with 413 for a body that is too large.
    """
    check_size(len(request.body), identification.max_bytes)
    try:
        if name is None:
            proven = _identify_by_key(identification, request)
        else:
            proven = await _identify_by_proof(identification, request, name)
    except Unproven as reason:
        senders = identification.senders or {}
        sender = senders.get(name or "")
        log_event(
            "request.unproven",
            # What stands in the address is anybody's text.
            sender=sender.name if sender else None,
            scheme=get_scheme(sender.proof) if sender else None,
            reason=str(reason),
        )
        raise Unauthorized(_UNPROVEN) from None
    identification.quotas.take(proven.sender, len(request.body))
    return proven


def _identify_by_key(identification: Identification, request: SignedRequest) -> ProvenSender:
    header = identification.sender_header
    named = request.headers.get(header.lower(), "").strip() if header else ""
    if len(named) > _MAX_NAME or not named.isprintable():
        text = f"the name of the sender is longer than {_MAX_NAME} characters, or no plain text"
        raise Rejected(Issue("too-long", text))
    if identification.senders is None:
        if identification.is_hosted:
            log_event("request.unproven", sender=None, scheme=None, reason=_NO_SENDERS)
            raise Unauthorized(_NO_SENDERS)
        return make_unlisted_sender(named or "default")
    by_key = {
        sender.name: sender
        for sender in identification.senders.values()
        if get_scheme(sender.proof) == FUNCTION_KEY
    }
    if not named and len(by_key) == 1:
        return ProvenSender(sender=next(iter(by_key.values())))
    if named not in by_key:
        raise Unproven("a function key, and no sender whose scheme is function-key is named")
    return ProvenSender(sender=by_key[named])


async def _identify_by_proof(
    identification: Identification, request: SignedRequest, name: str
) -> ProvenSender:
    sender = (identification.senders or {}).get(name)
    if sender is None:
        raise Unproven("the address names no sender")
    scheme = get_scheme(sender.proof)
    if scheme == FUNCTION_KEY:
        raise Unproven("its sender proves itself by a function key, at /api/fhir")
    if (problem := identification.secrets.problems.get(name)) is not None:
        raise Misconfigured(problem)
    secrets = await identification.add_keys(
        sender.proof, identification.secrets.secrets.get(name, Secrets()), request
    )
    now = identification.now()
    # A hash of many bytes would hold up all that this worker does.
    proven = await offload(
        len(request.body),
        lambda: SCHEMES[scheme].verify(sender.proof, secrets, request, now),
    )
    is_covered = covers_address(sender.proof, has_query="?" in request.url)
    if not is_covered and not _is_post_to_base(request, name):
        raise Unproven("its scheme does not sign the address: only a POST to the base is taken")
    if proven.once is not None:
        token = identification.new_token()
        first = await identification.journal.claim_key(name, f"once {proven.once.id}", token)
        if first != token:
            raise Unproven("what may be used once was used before")
    return ProvenSender(
        sender=sender,
        principal=proven.principal,
        message_id=proven.message_id,
        has_own_address=True,
    )


def _is_post_to_base(request: SignedRequest, name: str) -> bool:
    path = urlsplit(request.url).path
    return request.method == "POST" and path.endswith(f"/senders/{name}/fhir")


# As of every header: see http_request.
_MAX_NAME = 1000
