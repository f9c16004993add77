"""The endpoints and triggers of the app, in the order in which a delivery passes them. No logic."""

from __future__ import annotations

from collections.abc import Mapping

import azure.functions as func

from integration.app import responses, settings, telemetry, wiring
from integration.app.data_route_requests import PARAMETERS as DATA_ROUTE_PARAMETERS
from integration.app.data_route_requests import answer_data_routes
from integration.app.error_handlers import (
    endpoint,
    odata_endpoint,
    page_endpoint,
    public_sender_endpoint,
    sender_endpoint,
    trigger,
)
from integration.app.sender_requests import answer_sender_request
from integration.change_events.from_dataverse import leave_edits, queue_edits, ring
from integration.change_events.from_fhir import queue_changes
from integration.change_events.to_dataverse import drop_notification, notify_dataverse
from integration.core.errors import MethodNotAllowed
from integration.intake.correct import correct_delivery
from integration.intake.inbox import drop_message, queue_left_files, take_files
from integration.mirror.mirror import mirror_resource
from integration.mirror.mirror import park as park_row
from integration.operations import deliveries as operations
from integration.operations import jobs as job_verbs
from integration.operations.activity import PARAMETERS as ACTIVITY_PARAMETERS
from integration.operations.activity import find_activity
from integration.operations.answers import leave_answer, write_answer
from integration.operations.attention import PARAMETERS as ATTENTION_PARAMETERS
from integration.operations.attention import find_concerns
from integration.operations.audit import PARAMETERS as AUDIT_PARAMETERS
from integration.operations.audit import find_audit_entries, record_answer, record_correction
from integration.operations.configuration_requests import (
    change_configuration,
    preview_changes,
    show_configuration,
)
from integration.operations.configuration_views import PARAMETERS as CONFIGURATION_PARAMETERS
from integration.operations.configuration_views import parse_configuration_request
from integration.operations.delivery_list import LIST_PARAMETERS, list_deliveries
from integration.operations.flow import PARAMETERS as FLOW_PARAMETERS
from integration.operations.flow import find_flow
from integration.operations.health import check_upstreams
from integration.operations.housekeeping import sweep
from integration.operations.job_request import parse_job_request
from integration.operations.status import report_status
from integration.queues.names import (
    ANSWER_QUEUE,
    EDITS_QUEUE,
    EXTERNAL_QUEUE,
    INBOX_QUEUE,
    JOB_QUEUE,
    MIRROR_QUEUE,
    RELAY_QUEUE,
)
from integration.queues.queue_sender import parse_work_item
from integration.relay.end import park_failed
from integration.relay.process import process

telemetry.start_telemetry()

app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)

# Endpoints take every method, so that a wrong one gets an OperationOutcome and not an empty 404.
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]
STORAGE = "AzureWebJobsStorage"

Query = Mapping[str, str]  # the query parameters of a request, by name


@app.route("fhir/{type?}/{id?}", methods=METHODS)
@sender_endpoint
async def intake(req: func.HttpRequest) -> func.HttpResponse:
    """Store and queue a delivery of whoever has the function key, and show what became of it."""
    return await answer_sender_request(await wiring.get_parts(), req, None)


@app.route(
    "senders/{sender}/fhir/{type?}/{id?}",
    methods=[*METHODS, "OPTIONS"],
    auth_level=func.AuthLevel.ANONYMOUS,
)
@public_sender_endpoint
async def sender_intake(req: func.HttpRequest) -> func.HttpResponse:
    """Do the same for a sender that proves itself, by what `senders.toml` says of it."""
    return await answer_sender_request(await wiring.get_parts(), req, req.route_params["sender"])


@app.queue_trigger("msg", INBOX_QUEUE, STORAGE)
@trigger
async def inbox(msg: func.QueueMessage) -> None:
    """Take a file that a sender has put into its folder of the inbox."""
    parts = await wiring.get_parts()
    await take_files(parts.inbox, msg.get_body())


@app.queue_trigger("msg", f"{INBOX_QUEUE}-poison", STORAGE)
@trigger
async def inbox_poison(msg: func.QueueMessage) -> None:
    """Leave a file that could not be taken repeatedly to housekeeping."""
    drop_message()


@app.queue_trigger("msg", RELAY_QUEUE, STORAGE)
@trigger
async def relay(msg: func.QueueMessage) -> None:
    """Send a delivery, or one lane of it, to the FHIR server."""
    parts = await wiring.get_parts()
    await process(parts.relay, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{RELAY_QUEUE}-poison", STORAGE)
@trigger
async def relay_poison(msg: func.QueueMessage) -> None:
    """Park a delivery whose work item failed repeatedly."""
    parts = await wiring.get_parts()
    item = parse_work_item(msg.get_body())
    await park_failed(parts.journal, item, parts.now())


@app.queue_trigger("msg", ANSWER_QUEUE, STORAGE)
@trigger
async def answer(msg: func.QueueMessage) -> None:
    """Write the answer of a delivery that came as a file."""
    parts = await wiring.get_parts()
    await write_answer(parts.answers, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{ANSWER_QUEUE}-poison", STORAGE)
@trigger
async def answer_poison(msg: func.QueueMessage) -> None:
    """Leave an answer that could not be written repeatedly to housekeeping."""
    leave_answer(parse_work_item(msg.get_body()))


@app.queue_trigger("msg", MIRROR_QUEUE, STORAGE)
@trigger
async def mirror(msg: func.QueueMessage) -> None:
    """Update the rows of one resource in Dataverse from FHIR."""
    parts = await wiring.get_parts()
    await mirror_resource(parts.mirror, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{MIRROR_QUEUE}-poison", STORAGE)
@trigger
async def mirror_poison(msg: func.QueueMessage) -> None:
    """Park a row whose work item failed repeatedly."""
    parts = await wiring.get_parts()
    await park_row(parts.mirror, parse_work_item(msg.get_body()), "mirroring failed repeatedly")


@app.queue_trigger("msg", settings.get_events_queue_binding(), STORAGE)
@trigger
async def events(msg: func.QueueMessage) -> None:
    """Queue the mirroring of resources that others changed in the FHIR server."""
    parts = await wiring.get_parts()
    await queue_changes(parts.change_events, msg.get_body())


@app.queue_trigger("msg", f"{settings.get_events_queue_binding()}-poison", STORAGE)
@trigger
async def events_poison(msg: func.QueueMessage) -> None:
    """Do the same after failures of the storage. A message that cannot be parsed stays here."""
    parts = await wiring.get_parts()
    await queue_changes(parts.change_events, msg.get_body())


@app.queue_trigger("msg", EXTERNAL_QUEUE, STORAGE)
@trigger
async def external(msg: func.QueueMessage) -> None:
    """Notify Dataverse that a row of a virtual table has changed."""
    parts = await wiring.get_parts()
    await notify_dataverse(parts.external_events, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{EXTERNAL_QUEUE}-poison", STORAGE)
@trigger
async def external_poison(msg: func.QueueMessage) -> None:
    """Drop a notification that failed repeatedly."""
    parts = await wiring.get_parts()
    item = parse_work_item(msg.get_body())
    await drop_notification(parts.external_events, item, "notifying Dataverse failed repeatedly")


@app.queue_trigger("msg", EDITS_QUEUE, STORAGE)
@trigger
async def edits(msg: func.QueueMessage) -> None:
    """Look which rows people have edited in Dataverse, as somebody has rung."""
    parts = await wiring.get_parts()
    await queue_edits(parts.edit_source)


@app.queue_trigger("msg", f"{EDITS_QUEUE}-poison", STORAGE)
@trigger
async def edits_poison(msg: func.QueueMessage) -> None:
    """Leave a look that failed repeatedly to the timer."""
    leave_edits()


@app.queue_trigger("msg", JOB_QUEUE, STORAGE)
@trigger
async def job_slice(msg: func.QueueMessage) -> None:
    """Do a slice of a job that an operator has started."""
    parts = await wiring.get_parts()
    async with parts.fhir.upstream.activities.track():  # the calls of a slice are one operation
        await job_verbs.do_slice(parts.jobs, parse_work_item(msg.get_body()))


@app.queue_trigger("msg", f"{JOB_QUEUE}-poison", STORAGE)
@trigger
async def job_poison(msg: func.QueueMessage) -> None:
    """End a job whose work item failed repeatedly."""
    parts = await wiring.get_parts()
    await job_verbs.give_up(parts.jobs, parse_work_item(msg.get_body()))


@app.route("edits", methods=METHODS)
@endpoint(["code"])
async def edits_bell(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Take the message of a webhook of Dataverse, which says that somebody has edited a row."""
    parts = await wiring.get_parts()
    if req.method != "POST":
        raise MethodNotAllowed("POST")
    return responses.build_rung(await ring(parts.edit_source, req.get_body()))


@app.route("odata/{*path}", methods=[*METHODS, "OPTIONS"])
@odata_endpoint
async def odata(req: func.HttpRequest) -> func.HttpResponse:
    """Respond to a request of the virtual tables."""
    from integration.virtual_tables.answer import answer_request

    parts = await wiring.get_parts()
    request = responses.build_odata_request(req, parts.site_url)
    reader = responses.build_reader(req, parts.reader_headers)
    answer = await answer_request(parts.virtual_tables, request, reader)
    return responses.build_odata_response(answer)


@app.route("data-routes", methods=METHODS)
@endpoint(DATA_ROUTE_PARAMETERS)
async def data_routes(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """List from where the feed answers for each table. PATCH changes it, `dry-run=true` says what
    that would do, and `bring=false` changes it at once."""
    return await answer_data_routes(await wiring.get_parts(), req, query)


@app.route("configuration", methods=METHODS)
@endpoint(CONFIGURATION_PARAMETERS)
async def configuration(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Show maps, senders and data routes in use, and their versions. POST publishes others."""
    parts = await wiring.get_parts()
    match req.method:
        case "GET":
            return responses.build_configuration(
                await show_configuration(parts.configuration, query)
            )
        case "POST":
            reader = responses.build_reader(req, parts.reader_headers)
            wanted = parse_configuration_request(responses.parse_json_body(req), reader.user)
            if "preview" in query:
                job = await preview_changes(parts.configuration, parts.jobs, wanted, query)
                return responses.build_started_job(responses.find_root(req, parts.public_url), job)
            is_dry_run = responses.is_dry_run(query)
            answer = await change_configuration(parts.configuration, wanted, dry_run=is_dry_run)
            return responses.build_configuration(answer)
    raise MethodNotAllowed("GET", "POST")


# Not `{id}`: where routes overlap, the names of their functions decide which one is used.
# https://github.com/Azure/azure-functions-host/issues/9876
@app.route("deliveries/{id:guid}", methods=METHODS)
@endpoint(responses.FORMAT_PARAMETERS)
async def delivery(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Show the progress of a delivery, then its response bundle. DELETE cancels it."""
    responses.check_format(query)
    parts = await wiring.get_parts()
    id_ = req.route_params.get("id", "")
    match req.method:
        case "GET":
            status = await operations.get_status(parts.journal, id_)
            reader = responses.build_reader(req, parts.reader_headers)
            await record_answer(parts.audit, reader, status)
            return responses.build_delivery_status(status, parts.now())
        case "DELETE":
            cancelled = await operations.cancel(parts.journal, id_, parts.now())
            return responses.build_cancelled(cancelled)
    raise MethodNotAllowed("GET", "DELETE")


@app.route("deliveries/{id}/replay", methods=METHODS)
@endpoint()
async def replay(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Queue a parked delivery, refused entries or rows again, after the cause is removed."""
    parts = await wiring.get_parts()
    if req.method != "POST":
        raise MethodNotAllowed("POST")
    id_ = req.route_params["id"]
    replayed = await operations.replay(
        parts.journal, parts.queue, id_, parts.now(), parts.replay_terms
    )
    return responses.build_replayed(replayed)


@app.route("deliveries/{id}/correction", methods=METHODS)
@endpoint()
async def correction(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Keep and queue corrected bytes, which take the place of those of a delivery."""
    parts = await wiring.get_parts()
    if req.method != "POST":
        raise MethodNotAllowed("POST")
    terms = parts.replay_terms
    accepted = await correct_delivery(
        parts.intake, responses.build_correction(req), judge=terms.judge, retention=terms.retention
    )
    reader = responses.build_reader(req, parts.reader_headers)
    await record_correction(parts.audit, reader, accepted.delivery)
    root = responses.find_root(req, parts.public_url)
    return responses.build_accepted(f"{root}/api", accepted)


@app.route("deliveries/replay", methods=METHODS)
@endpoint([*operations.REPLAY_PARAMETERS, "dry-run"])
async def replay_all(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Queue all again that matches: parked, or refused. With ?dry-run=true, list it."""
    parts = await wiring.get_parts()
    if req.method != "POST":
        raise MethodNotAllowed("POST")
    page = await operations.replay_all(
        parts.journal,
        parts.queue,
        operations.parse_replay_filter(query, parts.replay_terms),
        parts.now(),
        dry_run=responses.is_dry_run(query),
    )
    return responses.build_delivery_page(req, query, page)


@app.route("deliveries", methods=METHODS)
@endpoint(LIST_PARAMETERS)
async def deliveries(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """List the deliveries that match, newest first."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    page = await list_deliveries(parts.journal, query)
    return responses.build_delivery_page(req, query, page)


@app.route("attention", methods=METHODS)
@endpoint(ATTENTION_PARAMETERS)
async def attention(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """List what is not where it should be, newest first."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    page = await find_concerns(parts.journal, query)
    return responses.build_attention_page(req, query, page)


@app.route("jobs", methods=METHODS)
@endpoint(job_verbs.LIST_PARAMETERS)
async def jobs(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """List the jobs, newest first. POST starts one: replay or cancel all that matches."""
    parts = await wiring.get_parts()
    match req.method:
        case "GET":
            page = await job_verbs.list_jobs(parts.jobs.jobs, query)
            return responses.build_job_page(req, query, page)
        case "POST":
            responses.refuse_parameters(query)
            reader = responses.build_reader(req, parts.reader_headers)
            wanted = parse_job_request(responses.parse_json_body(req), reader.user)
            started = await job_verbs.start_job(parts.jobs, wanted)
            return responses.build_started_job(responses.find_root(req, parts.public_url), started)
    raise MethodNotAllowed("GET", "POST")


@app.route("jobs/{id}", methods=METHODS)
@endpoint()
async def job(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Show how far a job is. DELETE stops it."""
    parts = await wiring.get_parts()
    id_ = req.route_params["id"]
    match req.method:
        case "GET":
            return responses.build_job(await job_verbs.get_job(parts.jobs.jobs, id_))
        case "DELETE":
            return responses.build_job(await job_verbs.stop_job(parts.jobs.jobs, id_), 202)
    raise MethodNotAllowed("GET", "DELETE")


@app.route("activity", methods=METHODS)
@endpoint(ACTIVITY_PARAMETERS)
async def activity(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """List the calls to upstreams and their results, newest first."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    page = await find_activity(parts.activity, query)
    return responses.build_activity_page(req, query, page)


@app.route("audit", methods=METHODS)
@endpoint(AUDIT_PARAMETERS)
async def audit(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """List who was shown patient data, newest first, as JSON or as FHIR's AuditEvents."""
    responses.wants_audit_events(query)
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    page = await find_audit_entries(parts.audit.log, query)
    return responses.build_audit_page(req, query, page)


@app.route("flow", methods=METHODS)
@endpoint(FLOW_PARAMETERS)
async def flow(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Report what passed in the last hours, by hour and by sender, and what was not mapped."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    return responses.build_flow(await find_flow(parts.flow, query, parts.now()))


@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
@endpoint(["deep"])
async def health(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Report that the app is alive, and nothing else: anybody may ask."""
    responses.refuse_deep(query)
    return responses.build_alive()


@app.route("upstreams", methods=METHODS)
@endpoint()
async def upstreams(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Report whether every upstream responds. They are asked once a minute, however many ask."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    return responses.build_upstreams(await check_upstreams(parts.upstream_check))


@app.route("status", methods=METHODS)
@endpoint()
async def status(req: func.HttpRequest, query: Query) -> func.HttpResponse:
    """Report queues, open deliveries, senders, upstreams and housekeeping, and ask no upstream."""
    parts = await wiring.get_parts()
    if req.method != "GET":
        raise MethodNotAllowed("GET")
    return responses.build_status(await report_status(parts.status_check))


@app.route("pages/{*path}", methods=METHODS, auth_level=func.AuthLevel.ANONYMOUS)
@page_endpoint
async def pages(req: func.HttpRequest) -> func.HttpResponse:
    """Show the pages of the people who run the app, to those who are signed in."""
    from integration.app.page_requests import answer_page_request

    parts = await wiring.get_parts()
    roots = responses.find_roots(req, parts.site_url, parts.public_url)
    return await answer_page_request(parts.pages, req, roots)


@app.timer_trigger(arg_name="timer", schedule=settings.get_housekeeping_schedule())
@trigger
async def housekeeping(timer: func.TimerRequest) -> None:
    """Queue lost work again, park what takes too long, delete what is no longer needed."""
    parts = await wiring.get_parts()
    await sweep(parts.housekeeping)
    await queue_left_files(parts.inbox)


if (edits_schedule := settings.get_edits_schedule()) is not None:

    @app.timer_trigger(arg_name="timer", schedule=edits_schedule)
    @trigger
    async def edits_timer(timer: func.TimerRequest) -> None:
        """Look which rows people have edited in Dataverse."""
        parts = await wiring.get_parts()
        await queue_edits(parts.edit_source)
