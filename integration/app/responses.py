"""Requests, results and errors of the doors as HTTP: FHIR's OperationOutcome, headers, statuses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import azure.functions as func
import msgspec

from integration.core.errors import Issue, Rejected
from integration.core.model import Delivery, Status
from integration.fhir.issues import as_json
from integration.intake.accept import Accepted
from integration.intake.http_request import IncomingRequest
from integration.intake.subscriptions import Acknowledged
from integration.journal.activity import ActivityPage
from integration.journal.store import Page
from integration.odata import headers as odata_headers
from integration.odata import payload
from integration.operations import views
from integration.operations.deliveries import DeliveryStatus, ReplayPage
from integration.virtual_tables.odata_request import ODataRequest, ODataResponse

# Where the feed is: host.json's prefix, and the route of its function.
_FEED = "/api/odata"

_FHIR = "application/fhir+json"
_POLL_AGAIN = "1"


def build_incoming_request(req: func.HttpRequest) -> IncomingRequest:
    """What intake needs of the request."""
    return IncomingRequest(
        method=req.method,
        type=req.route_params.get("type") or None,
        id=req.route_params.get("id") or None,
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
    )


def build_odata_request(req: func.HttpRequest) -> ODataRequest:
    """What the feed needs of the request."""
    url = urlsplit(req.url)
    before, _, path = url.path.partition(_FEED)
    root = f"{url.scheme}://{url.netloc}{before}{_FEED}/"
    told = {name.lower(): value for name, value in req.headers.items()}
    return ODataRequest(req.method, root, unquote(path), url.query, told, req.get_body())


def build_odata_response(result: ODataResponse) -> func.HttpResponse:
    """An answer of the feed."""
    told = dict(result.headers)
    kind = told.pop("Content-Type", None)
    return func.HttpResponse(
        result.body, status_code=result.status, headers=told, mimetype=kind or "text/plain"
    )


def build_odata_error(
    status: int, issues: Sequence[Issue], headers: Mapping[str, str] | None = None
) -> func.HttpResponse:
    """https://docs.oasis-open.org/odata/odata-json-format/v4.01/odata-json-format-v4.01.html#sec_ErrorResponse"""
    told = {**odata_headers.build_headers(), **(headers or {})}
    return _json(payload.build_error(issues), status, told, media="application/json")


def parse_json_body(req: func.HttpRequest) -> Any:
    """The body, as JSON. Raises Rejected."""
    try:
        return msgspec.json.decode(req.get_body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejected(Issue("structure", "the body is no JSON")) from None


def build_data_routes(told: Sequence[Mapping[str, Any]]) -> func.HttpResponse:
    """The tables with their data routes."""
    return _json({"routes": told}, 200, media="application/json")


def build_changed_routes(meant: Mapping[str, str]) -> func.HttpResponse:
    """What the chosen data routes mean."""
    return _json({"routes": meant}, 200, media="application/json")


def is_dry_run(req: func.HttpRequest) -> bool:
    """Whether nothing is to be done, only told."""
    asked: str = req.params.get("dry-run", "false")
    if asked not in ("true", "false"):
        raise Rejected(Issue("value", "dry-run must be true or false", "dry-run"))
    return asked == "true"


def build_outcome(
    status: int, issues: Iterable[Issue], headers: Mapping[str, str] | None = None
) -> func.HttpResponse:
    """An OperationOutcome."""
    body = {"resourceType": "OperationOutcome", "issue": [as_json(issue) for issue in issues]}
    return _json(body, status, headers)


def build_accepted(req: func.HttpRequest, result: Accepted | Acknowledged) -> func.HttpResponse:
    """202 with the address to poll: https://hl7.org/fhir/R4/async.html

    200 for a notification that there is nothing of to carry, so that a subscription becomes active.
    """
    if isinstance(result, Acknowledged):
        text = f"heard, and nothing to carry: a {result.notification_type} without resources"
        return build_outcome(200, [Issue("informational", text, None, "information")])
    address = f"{req.url.split('/api/')[0]}/api/deliveries/{result.delivery}"
    told = Issue("informational", f"kept and queued as {result.delivery}", None, "information")
    headers = {"Content-Location": address}
    return build_outcome(202, [told, *result.refused], headers)


def build_delivery_status(result: DeliveryStatus) -> func.HttpResponse:
    """Where a delivery is, and at the end its response bundle."""
    delivery = result.delivery
    if delivery.status is Status.DONE:
        return _json(views.build_response_bundle(delivery, result.results, result.rows), 200)
    if delivery.status is Status.CANCELLED:
        return build_outcome(404, [Issue("not-found", "the delivery was cancelled by its sender")])
    headers = {"X-Progress": views.describe_progress(delivery), "Retry-After": _POLL_AGAIN}
    if delivery.status is Status.PARKED:
        issue = Issue("incomplete", f"parked: {delivery.reason}", None, "warning")
        return build_outcome(202, [issue], headers)
    return func.HttpResponse(status_code=202, headers=headers)


def build_cancelled(_: Delivery) -> func.HttpResponse:
    """202, as FHIR's asynchronous pattern answers a DELETE."""
    return func.HttpResponse(status_code=202)


def build_replayed(delivery: Delivery) -> func.HttpResponse:
    """202: it is queued again."""
    told = Issue("informational", f"{delivery.id} is queued again", None, "information")
    return build_outcome(202, [told])


def build_delivery_page(req: func.HttpRequest, result: Page | ReplayPage) -> func.HttpResponse:
    """Deliveries as JSON, with the address of the next page, or of the next ones to replay."""
    body: dict[str, Any] = {
        "deliveries": [views.describe_delivery(item) for item in result.deliveries]
    }
    return _json(body | _next(req, result.after), 200, media="application/json")


def build_activity_page(req: func.HttpRequest, result: ActivityPage) -> func.HttpResponse:
    """Entries of the activity log, and the address of the next page."""
    body = {"activity": [views.describe_activity(entry) for entry in result.entries]}
    return _json(body | _next(req, result.after), 200, media="application/json")


def _next(req: func.HttpRequest, after: str | None) -> dict[str, Any]:
    if after is None:
        return {}
    # All but the function key, which some send as a parameter.
    kept = {name: value for name, value in req.params.items() if name != "code"}
    return {"next": f"{req.url.split('?')[0]}?{urlencode({**kept, 'after': after})}"}


def build_plan(told: Mapping[str, Any]) -> func.HttpResponse:
    """What would be sent."""
    return _json(told, 200, media="application/json")


def build_health(states: Mapping[str, str]) -> func.HttpResponse:
    """200 when all is well, 503 when a neighbour does not answer."""
    well = all(state == "ok" for state in states.values())
    body = {"status": "ok" if well else "degraded", **states}
    return _json(body, 200 if well else 503, media="application/json")


def _json(
    body: Any, status: int, headers: Mapping[str, str] | None = None, media: str = _FHIR
) -> func.HttpResponse:
    return func.HttpResponse(
        msgspec.json.encode(body),
        status_code=status,
        headers=dict(headers or {}),
        mimetype=media,
        charset="utf-8",
    )
