"""The endpoints and triggers, in the order in which a delivery passes them. They hold no logic."""

from __future__ import annotations

import azure.functions as func

from integration.app import responses, settings, telemetry, wiring
from integration.app.error_handlers import endpoint, odata_endpoint, trigger
from integration.change_events import from_fhir as eventing
from integration.change_events import to_dataverse
from integration.core.errors import MethodNotAllowed
from integration.intake.accept import accept
from integration.intake.dry_run import plan_delivery
from integration.mirror import mirror as mirroring
from integration.operations import activity as activity_log
from integration.operations import deliveries as tracking
from integration.operations import health as health_check
from integration.operations.housekeeping import sweep
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE, RELAY_QUEUE
from integration.queues.queue_sender import parse_work_item
from integration.relay import process as relaying
from integration.virtual_tables import data_routes as routing

telemetry.start_telemetry()

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

# Each endpoint takes every method, so that a wrong one gets an OperationOutcome, not an empty 404.
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
STORAGE = "AzureWebJobsStorage"


@app.route("fhir/{type?}/{id?}", methods=METHODS)
@endpoint
async def intake(req: func.HttpRequest) -> func.HttpResponse:
    """Keep and queue a delivery, answer 202. With ?dry-run=true, only return its plan."""
    parts = await wiring.get_parts()
    if responses.is_dry_run(req):
        planned = await plan_delivery(
            parts.intake, parts.relay.limits, responses.build_incoming_request(req)
        )
        return responses.build_plan(planned)
    return responses.build_accepted(
        req, await accept(parts.intake, responses.build_incoming_request(req))
    )


@app.queue_trigger("msg", RELAY_QUEUE, STORAGE)
@trigger
async def relay(msg: func.QueueMessage) -> None:
    """Write a delivery, or one lane of it, to the FHIR server."""
    parts = await wiring.get_parts()
    await relaying.process(parts.relay, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{RELAY_QUEUE}-poison", STORAGE)
@trigger
async def relay_poison(msg: func.QueueMessage) -> None:
    """Park a delivery whose work item failed repeatedly."""
    parts = await wiring.get_parts()
    await relaying.park(
        parts.journal, parse_work_item(msg.get_body()), "processing failed repeatedly"
    )


@app.queue_trigger("msg", MIRROR_QUEUE, STORAGE)
@trigger
async def mirror(msg: func.QueueMessage) -> None:
    """Bring the rows of one resource in Dataverse up to date with FHIR."""
    parts = await wiring.get_parts()
    await mirroring.mirror_resource(parts.mirror, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{MIRROR_QUEUE}-poison", STORAGE)
@trigger
async def mirror_poison(msg: func.QueueMessage) -> None:
    """Park a row whose work item failed repeatedly."""
    parts = await wiring.get_parts()
    await mirroring.park(
        parts.mirror, parse_work_item(msg.get_body()), "mirroring failed repeatedly"
    )


@app.queue_trigger("msg", settings.get_events_queue_binding(), STORAGE)
@trigger
async def events(msg: func.QueueMessage) -> None:
    """Queue what others have changed at the FHIR server for the mirror."""
    parts = await wiring.get_parts()
    await eventing.queue_changes(parts.change_events, msg.get_body())


@app.queue_trigger("msg", f"{settings.get_events_queue_binding()}-poison", STORAGE)
@trigger
async def events_poison(msg: func.QueueMessage) -> None:
    """The same, once storage answers again. A message that cannot be read stays in this queue."""
    parts = await wiring.get_parts()
    await eventing.queue_changes(parts.change_events, msg.get_body())


@app.queue_trigger("msg", EXTERNAL_QUEUE, STORAGE)
@trigger
async def external(msg: func.QueueMessage) -> None:
    """Report to Dataverse that a resource in a virtual table has changed."""
    parts = await wiring.get_parts()
    await to_dataverse.notify_dataverse(parts.external_events, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{EXTERNAL_QUEUE}-poison", STORAGE)
@trigger
async def external_poison(msg: func.QueueMessage) -> None:
    """Give up on a report whose work item failed repeatedly."""
    parts = await wiring.get_parts()
    await to_dataverse.drop_notification(
        parts.external_events, parse_work_item(msg.get_body()), "notifying failed repeatedly"
    )


@app.route("odata/{*path}", methods=METHODS)
@odata_endpoint
async def odata(req: func.HttpRequest) -> func.HttpResponse:
    """Answer the OData requests of the virtual tables."""
    from integration.virtual_tables.answer import answer_request

    parts = await wiring.get_parts()
    return responses.build_odata_response(
        await answer_request(parts.virtual_tables, responses.build_odata_request(req))
    )


@app.route("data-routes", methods=METHODS)
@endpoint
async def data_routes(req: func.HttpRequest) -> func.HttpResponse:
    """Return where the rows of each table come from, FHIR or Dataverse. PATCH changes it."""
    parts = await wiring.get_parts()
    match req.method:
        case "GET":
            return responses.build_data_routes(await routing.list_routes(parts.data_routes))
        case "PATCH":
            return responses.build_changed_routes(
                await routing.change_routes(parts.data_routes, responses.parse_json_body(req))
            )
    raise MethodNotAllowed("GET", "PATCH")


# Not `{id}`: where routes overlap, the names of their functions decide which is taken.
# https://github.com/Azure/azure-functions-host/issues/9876
@app.route("deliveries/{id:guid}", methods=METHODS)
@endpoint
async def delivery(req: func.HttpRequest) -> func.HttpResponse:
    """Return the progress of a delivery, at the end its response bundle. DELETE cancels it."""
    parts = await wiring.get_parts()
    match req.method:
        case "GET":
            return responses.build_delivery_status(
                await tracking.get_status(parts.journal, req.route_params["id"])
            )
        case "DELETE":
            id_ = req.route_params["id"]
            return responses.build_cancelled(await tracking.cancel(parts.journal, id_, parts.now()))
    raise MethodNotAllowed("GET", "DELETE")


@app.route("deliveries/{id}/replay", methods=METHODS)
@endpoint
async def replay(req: func.HttpRequest) -> func.HttpResponse:
    """Queue a parked delivery, or its parked and refused rows, again once the cause is fixed."""
    parts = await wiring.get_parts()
    if req.method != "POST":
        raise MethodNotAllowed("POST")
    id_ = req.route_params["id"]
    return responses.build_replayed(
        await tracking.replay(parts.journal, parts.queue, id_, parts.now())
    )


@app.route("deliveries/replay", methods=METHODS)
@endpoint
async def replay_all(req: func.HttpRequest) -> func.HttpResponse:
    """Queue all parked deliveries that match again. With ?dry-run=true, only list them."""
    parts = await wiring.get_parts()
    if req.method != "POST":
        raise MethodNotAllowed("POST")
    chosen, dry = tracking.parse_replay_filter(req.params), responses.is_dry_run(req)
    page = await tracking.replay_all(parts.journal, parts.queue, chosen, parts.now(), dry_run=dry)
    return responses.build_delivery_page(req, page)


@app.route("deliveries", methods=METHODS)
@endpoint
async def deliveries(req: func.HttpRequest) -> func.HttpResponse:
    """List the deliveries, newest first."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    status, count = req.params.get("status"), req.params.get("_count", "50")
    page = await tracking.list_deliveries(parts.journal, status, count, req.params.get("after"))
    return responses.build_delivery_page(req, page)


@app.route("activity", methods=METHODS)
@endpoint
async def activity(req: func.HttpRequest) -> func.HttpResponse:
    """List the requests to upstreams and what came of them, newest first."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    return responses.build_activity_page(
        req, await activity_log.find_activity(parts.activity, req.params)
    )


@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@endpoint
async def health(req: func.HttpRequest) -> func.HttpResponse:
    """Return whether the app is alive; with ?deep=1, whether every upstream answers."""
    if req.params.get("deep") != "1":
        return responses.build_health({})
    parts = await wiring.get_parts()
    return responses.build_health(
        await health_check.check_upstreams(parts.journal, parts.fhir, parts.dataverse)
    )


@app.timer_trigger(arg_name="timer", schedule=settings.get_housekeeping_schedule())
@trigger
async def housekeeping(timer: func.TimerRequest) -> None:
    """Queue lost work again, park what takes too long, delete what is over."""
    parts = await wiring.get_parts()
    await sweep(parts.housekeeping)
