"""A sender: how it proves itself, what it may do, and how what it sends is taken. Pure.

Each class is one table of `senders.toml`, and each field one key of it; `load` checks a file
against these types. `senders.sample.toml` explains the keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from integration.senders.proofs.proof import Proof

SECONDS_PER_MINUTE = 60

Positive = Annotated[int, Meta(ge=1)]

# https://hl7.org/fhir/R4/http.html#create and the interactions after it, by their methods.
Method = Literal["POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a sender may do at the FHIR server. An entry outside of it is answered 403.

    Without a table it may create, update and patch resources of every type, and read nothing.
    """

    methods: tuple[Method, ...] = ("POST", "PUT", "PATCH")
    types: tuple[str, ...] = ()  # (): every type
    reads: bool = False  # GET and HEAD in a batch or transaction
    conditional_deletes: bool = False
    # The systems of identifiers that it may write, or name in a condition; (): every system.
    identifier_systems: tuple[str, ...] = ()
    # What the ids of resources must begin with that it updates, patches or deletes; (): anything.
    id_prefixes: tuple[str, ...] = ()
    requests_per_minute: Positive | None = None
    bytes_per_minute: Positive | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderPolicy:
    """How the deliveries of a sender are taken. None: as the setting of the same name says."""

    write_order: Literal["arrival", "lastUpdated", "version", "off"] | None = None
    messages: Literal["resources", "refuse"] | None = None
    documents: Literal["bundle", "resources", "both"] | None = None
    dangling: Literal["refuse", "note"] | None = None
    # Whether a urn:uuid: names the same resource in each delivery.
    trust: Literal["nothing", "uuids"] = "nothing"
    # Where the sender's own FHIR server is: relative references of notifications begin here, and
    # nothing else is fetched for this sender.
    base: str | None = None
    # What a delivery that is kept and queued is answered with.
    accepted_status: Literal[200, 202] = 202
    # What is refused for its content: answered 4xx, or kept for an operator and answered as if it
    # were accepted.
    refused_deliveries: Literal["answer", "hold"] = "answer"
    # What becomes of a delivery of which entries were refused: done, or parked for an operator.
    refused_entries: Literal["answer", "hold"] = "answer"
    # Seconds that the connection is held open for the response bundle.
    wait: Annotated[int, Meta(ge=0, le=200)] = 0
    # Whether gaps in the event numbers of subscriptions are told.
    event_numbers: Literal["counted", "ignored"] = "counted"
    # Where the key of a repeat stands: a header, or a pointer into the body (RFC 6901).
    idempotency_header: str = "Idempotency-Key"
    idempotency_pointer: str | None = None
    # What else than FHIR this sender sends: see intake.dialects.
    dialect: Literal["", "redox", "metriport", "event-grid", "medplum"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who posts deliveries. `name` is also in its addresses, and in the journal."""

    name: str
    proof: Proof
    rights: Rights = field(default_factory=Rights)
    policy: SenderPolicy = field(default_factory=SenderPolicy)
    problem: str | None = None  # why nothing can be taken from it: what an operator must set
