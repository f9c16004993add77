"""A sender: how it proves itself, what it may do, and how what it sends is taken. Pure.

Each class is one table of `senders.toml`, and each field one key of it; `load` checks a file
against these types. `senders.sample.toml` explains the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from integration.core.model import ALL_RIGHTS, Rights
from integration.senders.proofs.proof import Proof

Positive = Annotated[int, Meta(ge=1)]

# The longest `wait`: Azure's load balancer ends a request after 230 s.
# https://learn.microsoft.com/azure/azure-functions/functions-scale#timeout
_MAX_WAIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How much a sender may send in a minute, to one instance of the app. None: any number."""

    requests_per_minute: Positive | None = None
    bytes_per_minute: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderPolicy:
    """How the deliveries of a sender are taken. None: as the setting of the same name says."""

    write_order: Literal["arrival", "lastUpdated", "version", "off"] | None = None
    messages: Literal["resources", "refuse"] | None = None
    documents: Literal["bundle", "resources", "both"] | None = None
    dangling: Literal["refuse", "note"] | None = None
    # uuids: a urn:uuid: names the same resource in each delivery.
    trust: Literal["nothing", "uuids"] = "nothing"
    # The sender's own FHIR server: relative references of notifications begin here, and nothing
    # else is fetched for this sender.
    base: str | None = None
    # What a delivery that is kept and queued is answered with.
    accepted_status: Literal[200, 202] = 202
    # hold: what cannot be read is kept for an operator, and answered as if it were accepted.
    refused_deliveries: Literal["answer", "hold"] = "answer"
    # hold: a delivery of which entries were refused ends parked.
    refused_entries: Literal["answer", "hold"] = "answer"
    # Seconds that the connection is held open for the response bundle.
    wait: Annotated[int, Meta(ge=0, le=_MAX_WAIT)] = 0
    # Whether gaps in the event numbers of subscriptions are told.
    event_numbers: Literal["counted", "ignored"] = "counted"
    # Where the key of a repeat stands, where the proof covers none: in a header, or in the body.
    idempotency_header: str = "Idempotency-Key"
    idempotency_pointers: tuple[str, ...] = ()
    # What else than FHIR it sends: see intake.dialects.
    dialect: Literal["fhir", "redox", "metriport", "event-grid", "medplum"] = "fhir"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who posts deliveries. `name` is also in its addresses, and in the journal. `is_listed`: by
    `senders.toml`."""

    name: str
    is_listed: bool = True
    proof: Proof = field(default_factory=Proof)
    rights: Rights = field(default_factory=Rights)
    quota: Quota = field(default_factory=Quota)
    policy: SenderPolicy = field(default_factory=SenderPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenSender:
    """Who has sent a request. `principal`: who exactly, as far as the proof tells; `message_id`:
    what the proof covers, and what repeats share."""

    sender: Sender
    principal: str | None = None
    message_id: str | None = None

    has_own_address: bool = False  # not that of the holders of a function key

    @property
    def name(self) -> str:
        """The name of the sender."""
        return self.sender.name


def make_unlisted_sender(name: str = "default") -> ProvenSender:
    """Return a sender of an app that has no `senders.toml`: whoever holds the function key."""
    return ProvenSender(sender=Sender(name=name, is_listed=False, rights=ALL_RIGHTS))
