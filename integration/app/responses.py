"""Convert HTTP requests to values, and results and errors to HTTP responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import azure.functions as func
import msgspec

from integration.app.settings import ReaderHeaders
from integration.core.errors import Issue, Rejected
from integration.core.model import Delivery, FhirResource, Status
from integration.fhir.operation_outcome import as_json
from integration.intake.accept import Accepted
from integration.intake.correct import Correction
from integration.intake.dialects import Handshake
from integration.intake.subscriptions import Acknowledged
from integration.journal.activity_log import ActivityPage
from integration.journal.attention import ConcernPage
from integration.journal.audit_entry import Reader
from integration.journal.audit_log import AuditPage
from integration.journal.jobs import Job, JobPage
from integration.journal.store import Page
from integration.odata import headers as odata_headers
from integration.odata import payload
from integration.operations import views
from integration.operations.audit_events import build_audit_event
from integration.operations.deliveries import DeliveryStatus, ReplayPage
from integration.operations.flow import FlowReport
from integration.operations.flow_views import describe_flow
from integration.operations.health import CheckedStates
from integration.operations.job_request import describe_job
from integration.operations.status import StatusReport
from integration.operations.status_views import describe_status
from integration.pages.http import SECURITY_HEADERS
from integration.senders.proofs.proof import SignedRequest
from integration.virtual_tables.odata_request import ODataRequest, ODataResponse

# The path of the feed: host.json's prefix, and the route of its function.
_PREFIX = "/api/"
_FEED = f"{_PREFIX}odata"

_FHIR = "application/fhir+json"
_NDJSON = "application/fhir+ndjson"

# Characters of a header that says who asks.
_MAX_WHO = 256

# How to answer, which FHIR clients state at the addresses that are FHIR's. `_pretty` is ignored.
FORMAT_PARAMETERS = ("_format", "_pretty")


def find_root(req: func.HttpRequest, public_url: str | None) -> str:
    """Return what stands before `/api` in the app's addresses. Without PUBLIC_URL it is what the
    caller says, which is right on a laptop only."""
    return public_url or _split_url(req.url)[0]


def build_signed_request(req: func.HttpRequest, root: str) -> SignedRequest:
    """Build what a proof is verified on: the request as its sender knows it."""
    return SignedRequest(
        method=req.method,
        url=f"{root}{_split_url(req.url)[1]}",
        headers={name.lower(): value for name, value in req.headers.items()},
        body=req.get_body(),
    )


def _split_url(url: str) -> tuple[str, str]:
    """Return what stands before host.json's prefix, and the rest with it. Routes ignore case:
    https://learn.microsoft.com/aspnet/core/fundamentals/routing#url-matching"""
    start = url.lower().find(_PREFIX)
    return (url, "") if start < 0 else (url[:start], url[start:])


def build_reader(req: func.HttpRequest, headers: ReaderHeaders) -> Reader:
    """Build who asks, as well as the request of a holder of a function key tells. The name of the
    key is not told to Python."""
    return Reader(sender=_read_name(req, headers.sender), user=_read_name(req, headers.user))


def _read_name(req: func.HttpRequest, header: str | None) -> str | None:
    """Return the beginning of a header, without what no text holds."""
    value = req.headers.get(header, "") if header else ""
    return "".join(char for char in value if char.isprintable())[:_MAX_WHO].strip() or None


def build_odata_request(req: func.HttpRequest, site_url: str | None) -> ODataRequest:
    """Build what the feed needs of the request. Dataverse asks the app at its own address."""
    url = urlsplit(req.url)
    _, _, path = url.path.partition(_FEED)
    root = f"{find_root(req, site_url)}{_FEED}/"
    headers = {name.lower(): value for name, value in req.headers.items()}
    return ODataRequest(
        method=req.method,
        root=root,
        path=unquote(path),
        query=url.query,
        headers=headers,
        body=req.get_body(),
    )


def build_odata_response(result: ODataResponse) -> func.HttpResponse:
    """Build the response of the feed."""
    headers = dict(result.headers)
    kind = headers.pop("Content-Type", None)
    return func.HttpResponse(
        result.body, status_code=result.status, headers=headers, mimetype=kind or "text/plain"
    )


def build_odata_error(
    status: int, issues: Sequence[Issue], headers: Mapping[str, str] | None = None
) -> func.HttpResponse:
    """Build an error response: https://docs.oasis-open.org/odata/odata-json-format/v4.01/odata-json-format-v4.01.html#sec_ErrorResponse"""
    headers_ = {**odata_headers.build_headers(), **(headers or {})}
    return _build_json(payload.build_error(issues), status, headers_, media="application/json")


def build_page_error(
    status: int, issues: Sequence[Issue], headers: Mapping[str, str] | None = None
) -> func.HttpResponse:
    """Build a page without anything of the app's, for whoever asked."""
    text = "The page cannot be shown. The log of the app says why.\n"
    headers_ = {"Cache-Control": "no-store", **SECURITY_HEADERS, **(headers or {})}
    return func.HttpResponse(text, status_code=status, headers=headers_, mimetype="text/plain")


def find_roots(req: func.HttpRequest, *roots: str | None) -> frozenset[str]:
    """Return what may stand before `/api` for people who use pages: the app's own address, and that
    of a gateway. Without both it is what the caller says, which is right on a laptop only."""
    return frozenset(filter(None, roots)) or frozenset({_split_url(req.url)[0]})


def build_correction(req: func.HttpRequest) -> Correction:
    """Build what an operator sends in the place of a delivery."""
    headers = {name.lower(): value for name, value in req.headers.items()}
    return Correction(corrected=req.route_params["id"], headers=headers, body=req.get_body())


def parse_json_body(req: func.HttpRequest) -> Any:
    """Parse the body as JSON. Raises Rejected."""
    try:
        return msgspec.json.decode(req.get_body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Rejected(Issue("structure", "the body is not JSON")) from None


def build_data_routes(tables: Sequence[Mapping[str, Any]]) -> func.HttpResponse:
    """List the tables with their data routes."""
    return _build_json({"routes": tables}, 200, media="application/json")


def build_changed_routes(
    meanings: Mapping[str, str], counts: Mapping[str, Any] | None = None
) -> func.HttpResponse:
    """Report what the changed data routes mean; `counts`: what each change concerns."""
    counted = {} if counts is None else {"counts": counts}
    return _build_json({"routes": meanings, **counted}, 200, media="application/json")


def build_configuration(described: Mapping[str, Any], status: int = 200) -> func.HttpResponse:
    """Show the configuration, or what became of changes of it."""
    headers = {"Cache-Control": "no-store"}
    return _build_json(described, status, headers, media="application/json")


def is_dry_run(query: Mapping[str, str]) -> bool:
    """Whether the request asks for a dry run. Raises Rejected."""
    return parse_flag(query, "dry-run", default=False)


def parse_flag(query: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Parse a parameter that is true or false. Raises Rejected."""
    value = query.get(name, "true" if default else "false")
    if value not in ("true", "false"):
        raise Rejected(Issue("value", f"{name} must be true or false", name))
    return value == "true"


def check_format(query: Mapping[str, str]) -> None:
    """Refuse a `_format` other than JSON: https://hl7.org/fhir/R4/http.html#parameters"""
    # A plus sign that is not percent-encoded is a space.
    if query.get("_format", "json").replace(" ", "+") not in ("json", _FHIR, "application/json"):
        raise Rejected(Issue("not-supported", "answers are in JSON only", "_format"))


def build_outcome(
    status: int, issues: Iterable[Issue], headers: Mapping[str, str] | None = None
) -> func.HttpResponse:
    """Build an OperationOutcome."""
    body = {"resourceType": "OperationOutcome", "issue": [as_json(issue) for issue in issues]}
    return _build_json(body, status, headers)


def build_handshake(handshake: Handshake) -> func.HttpResponse:
    """Respond to a handshake with 200: plain text, or JSON."""
    if isinstance(handshake.body, str):
        return func.HttpResponse(
            handshake.body, status_code=200, headers=dict(handshake.headers), mimetype="text/plain"
        )
    return _build_json(handshake.body, 200, handshake.headers, media="application/json")


def build_resource(resource: FhirResource) -> func.HttpResponse:
    """Respond with 200 and a resource."""
    return _build_json(resource, 200)


def build_accepted(
    base: str, result: Accepted | Acknowledged, status: int = 202
) -> func.HttpResponse:
    """Respond with 202 and the URL to poll: https://hl7.org/fhir/R4/async.html

    `base`: the sender's base address; `status`: what its policy has instead of 202. A notification
    without resources gets 200, so that its subscription becomes active.
    """
    if isinstance(result, Acknowledged):
        text = f"acknowledged; a {result.notification_type} without resources needs no processing"
        return build_outcome(200, [Issue("informational", text, None, "information")])
    issue = Issue("informational", f"stored and queued as {result.delivery}", None, "information")
    headers = {"Content-Location": f"{base}/deliveries/{result.delivery}"}
    return build_outcome(status, [issue, *result.refused], headers)


def build_delivery_status(result: DeliveryStatus, now: datetime) -> func.HttpResponse:
    """Respond with the progress of a delivery, or at its end with the response bundle."""
    delivery = result.delivery
    if delivery.status is Status.DONE:
        return _build_json(views.build_response_bundle(delivery, result.results, result.rows), 200)
    if delivery.status is Status.CANCELLED:
        return build_outcome(404, [Issue("not-found", views.describe_cancelled(delivery))])
    headers = {
        "X-Progress": views.describe_progress(delivery),
        "Retry-After": str(views.choose_pause(delivery, now)),
    }
    why = views.describe_waiting(delivery)
    if why is not None:
        needs_person = delivery.status is Status.PARKED or delivery.for_operator
        code, severity = ("incomplete", "warning") if needs_person else ("transient", "information")
        return build_outcome(202, [Issue(code, why, None, severity)], headers)
    return func.HttpResponse(status_code=202, headers=headers)


def build_cancelled(_: Delivery) -> func.HttpResponse:
    """Respond with 202, as FHIR's asynchronous pattern does to a DELETE."""
    return func.HttpResponse(status_code=202)


def build_replayed(delivery: Delivery) -> func.HttpResponse:
    """Respond with 202: the delivery is queued again."""
    issue = Issue("informational", f"{delivery.id} is queued again", None, "information")
    return build_outcome(202, [issue])


def refuse_deep(query: Mapping[str, str]) -> None:
    """Refuse the parameter of earlier versions, by which anybody could have the services asked."""
    if "deep" in query:
        text = "GET /api/upstreams tells whether the services answer, and needs a function key"
        raise Rejected(Issue("not-supported", text, "deep"))


def build_delivery_page(
    req: func.HttpRequest, query: Mapping[str, str], result: Page | ReplayPage
) -> func.HttpResponse:
    """List deliveries, with the URL of the next page, or of the next ones to replay."""
    body: dict[str, Any] = {
        "deliveries": [views.describe_delivery(item) for item in result.deliveries]
    }
    return _build_json(
        body | _build_next_link(req, query, result.after), 200, media="application/json"
    )


def build_activity_page(
    req: func.HttpRequest, query: Mapping[str, str], result: ActivityPage
) -> func.HttpResponse:
    """List entries of the activity log, with the URL of the next page."""
    body = {"activity": [views.describe_activity(entry) for entry in result.entries]}
    return _build_json(
        body | _build_next_link(req, query, result.after), 200, media="application/json"
    )


def build_attention_page(
    req: func.HttpRequest, query: Mapping[str, str], result: ConcernPage
) -> func.HttpResponse:
    """List what needs attention, with the URL of the next page."""
    body = {"attention": [views.describe_concern(concern) for concern in result.concerns]}
    return _build_json(
        body | _build_next_link(req, query, result.after), 200, media="application/json"
    )


def refuse_parameters(query: Mapping[str, str]) -> None:
    """Refuse the query parameters of a list where something is started. Raises Rejected."""
    if query:
        text = "a job is described by the body of the request alone"
        raise Rejected(Issue("not-supported", text, ", ".join(sorted(query))))


def build_started_job(root: str, job: Job) -> func.HttpResponse:
    """Respond with 202 and the address where the job shows its progress."""
    headers = {"Location": f"{root}{_PREFIX}jobs/{job.id}"}
    return _build_json(describe_job(job), 202, headers, media="application/json")


def build_job(job: Job, status: int = 200) -> func.HttpResponse:
    """Show how far a job is."""
    headers = {"Cache-Control": "no-store"}
    return _build_json(describe_job(job), status, headers, media="application/json")


def build_job_page(
    req: func.HttpRequest, query: Mapping[str, str], result: JobPage
) -> func.HttpResponse:
    """List jobs, with the URL of the next page."""
    body = {"jobs": [describe_job(job) for job in result.jobs]}
    return _build_json(
        body | _build_next_link(req, query, result.after), 200, media="application/json"
    )


def wants_audit_events(query: Mapping[str, str]) -> bool:
    """Whether the audit log is wanted as FHIR resources. Raises Rejected."""
    # A plus sign that is not percent-encoded is a space.
    wanted = query.get("_format", "json").replace(" ", "+")
    if wanted not in ("json", "application/json", _NDJSON):
        text = f"the audit log is answered as application/json, or as {_NDJSON}"
        raise Rejected(Issue("not-supported", text, "_format"))
    return wanted == _NDJSON


def build_audit_page(
    req: func.HttpRequest, query: Mapping[str, str], result: AuditPage
) -> func.HttpResponse:
    """List entries of the audit log with the URL of the next page; as AuditEvents, one in a line,
    with that URL in a header: https://www.rfc-editor.org/rfc/rfc8288"""
    link = _build_next_link(req, query, result.after)
    if not wants_audit_events(query):
        body = {"audit": [views.describe_audit_entry(entry) for entry in result.entries]}
        return _build_json(body | link, 200, media="application/json")
    lines = [msgspec.json.encode(build_audit_event(entry)) + b"\n" for entry in result.entries]
    headers = {"Link": f'<{link["next"]}>; rel="next"'} if link else {}
    return func.HttpResponse(b"".join(lines), status_code=200, headers=headers, mimetype=_NDJSON)


def _build_next_link(
    req: func.HttpRequest, query: Mapping[str, str], after: str | None
) -> dict[str, Any]:
    if after is None:
        return {}
    return {"next": f"{req.url.split('?')[0]}?{urlencode({**query, 'after': after})}"}


def build_plan(plan: Mapping[str, Any]) -> func.HttpResponse:
    """Respond with the plan of a dry run."""
    return _build_json(plan, 200, media="application/json")


def build_alive() -> func.HttpResponse:
    """Respond with 200: the app is alive."""
    return _build_json({"status": "ok"}, 200, media="application/json")


def build_rung(queued: bool) -> func.HttpResponse:
    """Respond with 202: edits are looked at. `queued`: by a look of its own."""
    return _build_json({"queued": queued}, 202, media="application/json")


def build_upstreams(result: CheckedStates) -> func.HttpResponse:
    """Respond with 200 if every upstream answers, be it slowly, and 503 if one does not."""
    body = {
        "status": "ok" if result.is_healthy else "degraded",
        "checked": result.checked,
        **result.texts,
    }
    headers = {"Cache-Control": f"private, max-age={result.max_age}"}
    return _build_json(body, 200 if result.is_answering else 503, headers, media="application/json")


def build_status(report: StatusReport) -> func.HttpResponse:
    """Respond with 200 and every part of the report, those that could not be read included."""
    headers = {"Cache-Control": "no-store"}
    return _build_json(describe_status(report), 200, headers, media="application/json")


def build_flow(report: FlowReport) -> func.HttpResponse:
    """Respond with what passed in the last hours."""
    headers = {"Cache-Control": "no-store"}
    return _build_json(describe_flow(report), 200, headers, media="application/json")


def _build_json(
    body: Any, status: int, headers: Mapping[str, str] | None = None, media: str = _FHIR
) -> func.HttpResponse:
    return func.HttpResponse(
        msgspec.json.encode(body),
        status_code=status,
        headers=dict(headers or {}),
        mimetype=media,
        charset="utf-8",
    )
