"""Answer the requests of senders: below `/api/fhir`, where the host has checked a function key, and
below `/api/senders/{sender}/fhir`, where the sender's own proof decides.

Everything that a sender needs is below its base: it posts there, asks `metadata` what is taken, and
`deliveries/{id}` what became of a delivery.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

import azure.functions as func

from integration.app import responses
from integration.app.raw_query import parse_query, split_condition
from integration.app.wiring import Parts
from integration.core.errors import Issue, MethodNotAllowed, Rejected
from integration.core.flow import count_refusal
from integration.core.model import Status
from integration.fhir.capability_statement import build_capability_statement
from integration.intake import dialects
from integration.intake.accept import Accepted, accept
from integration.intake.dry_run import plan_delivery
from integration.intake.http_request import IncomingRequest
from integration.intake.identify import identify
from integration.journal.audit_entry import Reader
from integration.operations import deliveries as operations
from integration.operations.audit import record_answer, record_dry_run
from integration.senders.model import ProvenSender
from integration.senders.proofs.proof import SignedRequest

# Parameters of this app at the addresses below a base that take deliveries.
_PARAMETERS = ("dry-run", *responses.FORMAT_PARAMETERS)

_CONDITIONAL_METHODS = ("PUT", "PATCH", "DELETE")


@dataclass(frozen=True, slots=True)
class _SenderRequest:
    """A request of a proven sender. `base`: its base address, as the sender knows it."""

    sender: ProvenSender
    signed: SignedRequest
    base: str
    type: str | None
    id: str | None

    @property
    def reader(self) -> Reader:
        """Who reads, for the audit log."""
        return Reader(sender=self.sender.name, principal=self.sender.principal)


async def answer_sender_request(
    parts: Parts, req: func.HttpRequest, name: str | None
) -> func.HttpResponse:
    """Answer a request below a base. `name`: of the sender in the address; None: at `/api/fhir`."""
    try:
        return await _answer(parts, req, name)
    except Rejected as error:
        # What stands in the address is anybody's text.
        is_listed = name in (parts.identification.senders or {})
        parts.flow_recorder.count(name if is_listed else None, count_refusal(error.status))
        raise


async def _answer(parts: Parts, req: func.HttpRequest, name: str | None) -> func.HttpResponse:
    root = responses.find_root(req, parts.public_url)
    signed = responses.build_signed_request(req, root)
    dialect = _find_dialect(parts, name)
    if (preflight := dialects.answer_preflight(dialect, signed)) is not None:
        return responses.build_handshake(preflight)
    signed = dialects.move_token(dialect, signed)
    sender = await identify(parts.identification, signed, name)
    if (handshake := dialects.answer_handshake(dialect, signed)) is not None:
        return responses.build_handshake(handshake)
    request = _SenderRequest(
        sender,
        signed,
        f"{root}/api/fhir" if name is None else f"{root}/api/senders/{name}/fhir",
        req.route_params.get("type") or None,
        req.route_params.get("id") or None,
    )
    match request.type, request.id:
        case "metadata", None:
            return _answer_metadata(parts, request)
        case "deliveries", str():
            return await _answer_delivery(parts, request)
    return await _take_delivery(parts, request)


def _find_dialect(parts: Parts, name: str | None) -> str:
    sender = (parts.identification.senders or {}).get(name or "")
    return sender.policy.dialect if sender else "fhir"


def _answer_metadata(parts: Parts, request: _SenderRequest) -> func.HttpResponse:
    if request.signed.method != "GET":
        raise MethodNotAllowed("GET")
    responses.check_format(parse_query(request.signed.url, responses.FORMAT_PARAMETERS))
    statement = build_capability_statement(
        request.base, request.sender.sender.rights, parts.started
    )
    return responses.build_resource(statement)


async def _answer_delivery(parts: Parts, request: _SenderRequest) -> func.HttpResponse:
    responses.check_format(parse_query(request.signed.url, responses.FORMAT_PARAMETERS))
    id_, sender = request.id or "", request.sender.name
    match request.signed.method:
        case "GET":
            status = await operations.get_status(parts.journal, id_, sender)
            await record_answer(parts.audit, request.reader, status)
            return responses.build_delivery_status(status, parts.now())
        case "DELETE":
            cancelled = await operations.cancel(parts.journal, id_, parts.now(), sender)
            return responses.build_cancelled(cancelled)
    raise MethodNotAllowed("GET", "DELETE")


async def _take_delivery(parts: Parts, request: _SenderRequest) -> func.HttpResponse:
    """Keep and queue a delivery. With ?dry-run=true, show its plan."""
    query, condition = _split_query(request)
    responses.check_format(query)
    incoming = _build_incoming(request, condition)
    if responses.is_dry_run(query):
        plan = await plan_delivery(parts.intake, parts.relay.limits, incoming)
        await record_dry_run(parts.audit, request.reader, plan)
        return responses.build_plan(plan)
    result = await accept(parts.intake, incoming)
    policy = request.sender.sender.policy
    if isinstance(result, Accepted) and policy.wait:
        status = await operations.wait_for_end(
            parts.journal, result.delivery, policy.wait, asyncio.sleep
        )
        if status.delivery.status is Status.DONE:
            await record_answer(parts.audit, request.reader, status)
            return responses.build_delivery_status(status, parts.now())
    return responses.build_accepted(request.base, result, policy.accepted_status)


def _split_query(request: _SenderRequest) -> tuple[Mapping[str, str], str | None]:
    """Return this app's parameters, and the condition of a conditional update or delete."""
    url = request.signed.url
    takes_condition = request.signed.method in _CONDITIONAL_METHODS
    if not takes_condition or request.type is None or request.id is not None:
        return parse_query(url, _PARAMETERS), None
    # `code` is a search parameter of many resources, and the function key of callers that put it
    # into no header.
    is_key_in_query = not request.sender.has_own_address and (
        "x-functions-key" not in request.signed.headers
    )
    return split_condition(url, _PARAMETERS, is_key_in_query=is_key_in_query)


def _build_incoming(request: _SenderRequest, condition: str | None) -> IncomingRequest:
    signed = request.signed
    incoming = IncomingRequest(
        method=signed.method,
        type=request.type,
        id=request.id,
        headers=signed.headers,
        body=signed.body,
        condition=condition,
        sender=request.sender,
    )
    deleted = dialects.find_deleted_resource(request.sender.sender.policy.dialect, signed)
    if deleted is None:
        return incoming
    if request.sender.sender.policy.base is None:
        text = (
            "deletes are not taken from this sender: what is deleted is not signed, and no base "
            "is set at which it could be asked for"
        )
        raise Rejected(Issue("not-supported", text), status=422)
    type_, id_ = deleted
    return replace(incoming, method="DELETE", type=type_, id=id_, body=b"", confirm=True)
