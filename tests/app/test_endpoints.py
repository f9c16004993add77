"""The endpoints and triggers, called as the host calls them: real storage, upstreams over real HTTP, one worker."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gzip
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

import azure.functions as func
import httpx
import pytest
import pytest_asyncio
import uvicorn
from azure.functions.timer import TimerRequest
from azure.storage.queue.aio import QueueClient, QueueServiceClient

import function_app
from integration.app import storage_clients, wiring
from integration.app.settings import read_settings
from integration.core.model import Delivery, DeliveryRequest, Status
from integration.journal.concerns import park_open
from integration.journal.store import Payload
from integration.journal.table_keys import make_delivery_id
from integration.mapping.files import MAPS_FOLDER
from integration.operations.flow import report_flow
from integration.queues.queue_sender import parse_work_item
from local.dataverse.app import create_app
from local.processes import PROJECT
from local.services import Running, find_free_ports
from tests.builders import MARKER, bundle, entry, observation, patient
from tests.conftest import FHIR_JSON
from tests.doubles import Clock, FhirDouble

# The clients of a worker live in one event loop.
one_worker = pytest.mark.asyncio(loop_scope="module")

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
UNKNOWN = "019caaee-c260-7000-8000-0000000fffff"

ANY = ["DELETE", "GET", "PATCH", "POST", "PUT"]
ANY_WITH_OPTIONS = sorted([*ANY, "OPTIONS"])

DOCUMENTED = re.compile(
    r"\| `(\w+)` \| (http|http, anonymous|queue|timer) \| `([^`]+)` \| ([A-Z, ]*)\|"
)

# What each endpoint is asked about to see which methods it takes. Of the feed, the `path`.
ADDRESSES: dict[str, list[dict[str, str]]] = {
    "intake": [
        *({}, {"type": "Patient"}, {"type": "Patient", "id": "p1"}),
        {"type": "deliveries", "id": UNKNOWN},
    ],
    "delivery": [{"id": UNKNOWN}],
    "replay": [{"id": UNKNOWN}],
    "correction": [{"id": UNKNOWN}],
    "replay_all": [{}],
    "deliveries": [{}],
    "attention": [{}],
    "flow": [{}],
    "jobs": [{}],
    "job": [{"id": "f" * 30}],
    "activity": [{}],
    "audit": [{}],
    "upstreams": [{}],
    "status": [{}],
    "data_routes": [{}],
    "configuration": [{}],
    "odata": [
        {"path": path}
        for path in (
            "",
            "$metadata",
            "msemr_goals",
            "msemr_goals/$count",
            f"msemr_goals({UNKNOWN})",
        )
    ],
}


@functools.cache
def list_functions() -> list[Any]:
    """The SDK gives them once only."""
    return list(function_app.app.get_functions())


def documented() -> list[tuple[str, str, str, list[str]]]:
    """(name, trigger, address or queue, methods) of each row of the table in docs/http.md."""
    text = (PROJECT / "docs/http.md").read_text("utf-8")
    rows = DOCUMENTED.findall(text)
    return [
        (name, trigger, at, sorted(re.findall("[A-Z]+", all_))) for name, trigger, at, all_ in rows
    ]


@dataclass
class Worker:
    """One worker and its upstreams."""

    fhir_double: FhirDouble
    queues: dict[str, QueueClient]
    contacts: str
    parts: list[wiring.Parts]

    async def claims(self, queue: str) -> list[Any]:
        """What is queued, taken off it."""
        found = []
        async for message in self.queues[queue].receive_messages():
            found.append(parse_work_item(base64.b64decode(message.content)))
            await self.queues[queue].delete_message(message)
        return found


async def serve(app: Any, stack: contextlib.AsyncExitStack) -> str:
    """The app on a port of its own, until the stack is unwound."""
    port = find_free_ports().host
    config = uvicorn.Config(app, "127.0.0.1", port, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())

    async def stop() -> None:
        server.should_exit = True
        await running

    stack.push_async_callback(stop)
    while not server.started:
        await asyncio.sleep(0.01)
    return f"http://127.0.0.1:{port}"


def over_http(fhir_double: FhirDouble) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        query = scope["query_string"].decode()
        url = f"http://fhir{scope['path']}" + (f"?{query}" if query else "")
        answer = await fhir_double.hear(httpx.Request(scope["method"], url, content=body))
        start = {"type": "http.response.start", "status": answer.status_code}
        await send({**start, "headers": [(b"content-type", FHIR_JSON.encode())]})
        await send({"type": "http.response.body", "body": answer.content})

    return app


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(azurite: Running) -> AsyncIterator[Worker]:
    fhir_double = FhirDouble(Clock())
    async with contextlib.AsyncExitStack() as stack:
        dataverse = create_app()
        stack.callback(dataverse.close)
        rows = await serve(dataverse, stack)
        settings = {
            "AzureWebJobsStorage": azurite.storage,
            "FHIR_URL": f"{await serve(over_http(fhir_double), stack)}/fhir",
            "FHIR_SCOPE": "none",
            "DATAVERSE_URL": rows,
            "DATAVERSE_SCOPE": "none",
            "MAX_DELIVERY_BYTES": "5000",
            "EXTERNAL_EVENTS": "Observation",
            "MAP_PREFIX": "abc",
        }
        env = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in settings.items():
            env.setenv(name, value)
        queues = await stack.enter_async_context(
            QueueServiceClient.from_connection_string(azurite.storage)
        )
        parts = await asyncio.gather(*(wiring.get_parts() for _ in range(5)))
        stack.push_async_callback(wiring.close_parts)
        names = ("relay", "mirror", "external-events", "jobs")
        clients = {name: queues.get_queue_client(name) for name in names}
        yield Worker(fhir_double, clients, f"{rows}/api/data/v9.2/contacts", parts)


async def knock(
    function: Any, method: str, path: str, body: Any = b"", **given: Any
) -> func.HttpResponse:
    """Call a function as the host does: `route_params`, `headers`, `params`, which become part of
    the url, or `query`, which is the raw query."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    query = given.pop("query", urlencode(given.pop("params", {})))
    url = f"http://host/api/{path}" + (f"?{query}" if query else "")
    # Without those that have no value: https://github.com/Azure/azure-functions-host/issues/3789
    params = dict(parse_qsl(query))
    values: dict[str, Any] = {"route_params": {}, "params": params, "headers": {}, **given}
    req = func.HttpRequest(method, url, body=content, **values)
    return await function(req)


async def post(body: Any, **headers: str) -> func.HttpResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    given = {"Content-Type": FHIR_JSON, **named}
    return await knock(function_app.intake, "POST", "fhir", body, headers=given)


async def ask(id_: str, method: str = "GET") -> func.HttpResponse:
    return await knock(function_app.delivery, method, f"deliveries/{id_}", route_params={"id": id_})


async def listed(**params: str) -> func.HttpResponse:
    return await knock(function_app.deliveries, "GET", "deliveries", params=params)


def read(response: func.HttpResponse) -> Any:
    return json.loads(response.get_body())


def message(**claim: Any) -> func.QueueMessage:
    return func.QueueMessage(body=json.dumps(claim).encode())


def outcome(response: func.HttpResponse, status: int) -> Any:
    """The first issue of an OperationOutcome."""
    assert response.status_code == status
    assert response.mimetype == FHIR_JSON
    assert read(response)["resourceType"] == "OperationOutcome"
    return read(response)["issue"][0]


def delivery_of(response: func.HttpResponse) -> str:
    assert response.status_code == 202
    base, _, id_ = response.headers["Content-Location"].rpartition("/")
    assert base == "http://host/api/fhir/deliveries"
    return str(id_)


def test_the_endpoints_are_those_of_docs_http() -> None:
    found = []
    for function in list_functions():
        trigger = function.get_trigger()
        if trigger.type == "queueTrigger":
            found.append((function.get_function_name(), "queue", trigger.queue_name))
        elif trigger.type == "timerTrigger":
            found.append((function.get_function_name(), "timer", trigger.schedule))
        else:
            assert trigger.type == "httpTrigger"
            kinds = {"function": "http", "anonymous": "http, anonymous"}
            kind = kinds[trigger.auth_level.value]
            found.append((function.get_function_name(), kind, trigger.route))
    assert sorted(found) == sorted((name, trigger, at) for name, trigger, at, _ in documented())


def test_every_method_has_a_endpoint_so_that_a_wrong_one_is_told_the_right_ones() -> None:
    for function in list_functions():
        trigger = function.get_trigger()
        if trigger.type == "httpTrigger" and function.get_function_name() != "health":
            has_options = function.get_function_name() in ("sender_intake", "odata")
            expected = ANY_WITH_OPTIONS if has_options else ANY
            assert sorted(str(method.value) for method in trigger.methods) == expected


def test_every_queue_has_a_endpoint_for_what_failed_again_and_again() -> None:
    queues = {at for _, trigger, at, _ in documented() if trigger == "queue"}
    named = (
        *("relay", "mirror", "fhir-events", "external-events"),
        *("inbox-events", "inbox-answers", "jobs", "dataverse-edits"),
    )
    assert queues == {*named, *(f"{name}-poison" for name in named)}


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize("name", ADDRESSES)
async def test_a_endpoint_takes_the_methods_of_docs_http(worker: Worker, name: str) -> None:
    (methods,) = [methods for function, _, _, methods in documented() if function == name]
    taken = set()
    for method in ANY:
        for address in ADDRESSES[name]:
            given = {"route_params": address, "headers": {"content-type": "text/plain"}}
            path = f"odata/{address['path']}" if "path" in address else "any"
            response = await knock(getattr(function_app, name), method, path, **given)
            if response.status_code != 405:
                taken.add(method)
    assert sorted(taken) == methods
    await worker.claims("relay")


@one_worker
@pytest.mark.azurite
async def test_requests_that_come_first_together_share_one_set_of_clients(worker: Worker) -> None:
    assert len({id(item) for item in worker.parts}) == 1


# --- a whole story -----------------------------------------------------------------------------


@one_worker
@pytest.mark.azurite
async def test_a_delivery_goes_through_all_endpoints(worker: Worker) -> None:
    accepted = await post(bundle(entry(patient(id=ANNA), method="PUT", url=f"Patient/{ANNA}")))
    delivery = delivery_of(accepted)
    assert outcome(accepted, 202)["severity"] == "information"

    waiting = await ask(delivery)
    assert waiting.status_code == 202
    assert waiting.headers["X-Progress"].startswith("accepted")

    (claim,) = await worker.claims("relay")
    assert claim.delivery == delivery
    await function_app.relay(message(delivery=claim.delivery))

    done = await ask(delivery)
    assert done.status_code == 200
    assert read(done)["type"] == "transaction-response"
    assert read(done)["entry"][0]["response"]["status"] == "201"

    (claim,) = await worker.claims("mirror")
    assert claim.resource == f"Patient/{ANNA}"
    await function_app.mirror(message(delivery=claim.delivery, resource=claim.resource))
    async with httpx.AsyncClient() as http:
        row = (await http.get(f"{worker.contacts}({ANNA})")).json()
    assert row["lastname"] == MARKER


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize("function", ["events", "events_poison"])
async def test_what_others_change_is_mirrored_as_a_delivery_of_its_own(
    worker: Worker, function: str
) -> None:
    data = {"resourceType": "Patient", "resourceFhirId": "p9", "resourceVersionId": 1}
    event = {"specversion": "1.0", "type": "Microsoft.HealthcareApis.FhirResourceCreated"}
    body = json.dumps({**event, "data": data}).encode()
    await getattr(function_app, function)(func.QueueMessage(body=body))
    (claim,) = await worker.claims("mirror")
    assert claim.resource == "Patient/p9"
    reported = await ask(claim.delivery)
    assert (reported.status_code, "entry" in read(reported)) == (200, False)


@one_worker
@pytest.mark.azurite
async def test_without_an_inbox_its_messages_are_logged_and_dropped(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await function_app.inbox(func.QueueMessage(body=b'{"subject": "any"}'))
    await function_app.inbox_poison(func.QueueMessage(body=b"any"))
    await function_app.answer_poison(message(delivery="d"))
    events = ["inbox.left", "inbox.left", "answer.requeued"]
    assert [record.message for record in caplog.records] == events
    assert await worker.claims("relay") == []


@one_worker
@pytest.mark.azurite
async def test_an_answer_of_what_is_not_known_is_no_failure(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    await function_app.answer(message(delivery=make_delivery_id(Clock()(), 1)))
    assert caplog.records == []
    assert await worker.claims("relay") == []


@one_worker
@pytest.mark.azurite
async def test_what_was_said_to_the_upstreams_is_listed_page_by_page(worker: Worker) -> None:
    delivery = delivery_of(await post(patient(id="p7")))
    await function_app.relay(message(delivery=delivery))
    await function_app.mirror(message(delivery=delivery, resource="Patient/p7"))
    await (await wiring.get_parts()).relay.activities.flush()
    params = {"delivery": delivery, "_count": "1", "code": "the key"}
    seen: list[Any] = []
    while True:
        response = await knock(function_app.activity, "GET", "activity", params=params)
        assert (response.status_code, response.mimetype) == (200, "application/json")
        body = read(response)
        seen += body["activity"]
        assert len(body["activity"]) <= 1
        if "next" not in body:
            break
        asked = httpx.URL(body["next"])
        assert asked.path == "/api/activity"
        assert "the key" not in str(asked)
        params = dict(asked.params)

    *looks, write, result = seen[-1], seen[-2], seen[-3], seen[0]
    assert [each["action"] for each in looks] == ["look-up"] * 2  # before the lock, and under it
    assert (write["action"], write["resource"]) == ("write unit 0.0", "Patient/p7")
    assert (result["action"], result["status"], result["table"]) == ("mirror", "created", "contact")
    assert result["category"] == "information"
    assert {"time", "duration", "row"} <= result.keys()
    relayed, mirrored = write["operation"], result["operation"]
    assert {each["operation"] for each in seen} == {relayed, mirrored}
    params = {"operation": relayed}
    listed = read(await knock(function_app.activity, "GET", "activity", params=params))["activity"]
    assert listed == [write, *looks[::-1]]
    assert MARKER not in json.dumps(seen)
    wrong = await knock(function_app.activity, "GET", "activity", params={"patient": "p7"})
    assert outcome(wrong, 400)["code"] == "not-supported"
    await worker.claims("relay")
    await worker.claims("mirror")


@one_worker
@pytest.mark.azurite
async def test_a_resource_goes_in_by_its_own_address(worker: Worker) -> None:
    params = {"type": "Patient", "id": "p1"}
    given = {"route_params": params, "headers": {"content-type": FHIR_JSON}}
    path = "fhir/Patient/p1"
    put = await knock(function_app.intake, "PUT", path, patient(), **given)
    delivery = delivery_of(put)
    await function_app.relay(message(delivery=delivery))
    assert "Patient/p1" in worker.fhir_double.stored
    gone = await knock(function_app.intake, "DELETE", path, route_params=params)
    await function_app.relay(message(delivery=delivery_of(gone)))
    assert "Patient/p1" not in worker.fhir_double.stored
    assert [claim.resource for claim in await worker.claims("mirror")] == ["Patient/p1"] * 2
    await worker.claims("relay")


@one_worker
@pytest.mark.azurite
async def test_a_cancelled_delivery_is_no_longer_there(worker: Worker) -> None:
    delivery = delivery_of(await post(patient()))
    cancelled = await ask(delivery, "DELETE")
    assert (cancelled.status_code, cancelled.get_body()) == (202, b"")
    assert outcome(await ask(delivery), 404)["code"] == "not-found"
    before = len(worker.fhir_double.received)
    await function_app.relay(message(delivery=delivery))
    assert len(worker.fhir_double.received) == before
    await worker.claims("relay")


@one_worker
@pytest.mark.azurite
async def test_a_finished_delivery_cannot_be_cancelled(worker: Worker) -> None:
    delivery = delivery_of(await post({"resourceType": "Basic", "code": {"text": "x"}}))
    await function_app.relay(message(delivery=delivery))
    assert outcome(await ask(delivery, "DELETE"), 409)["code"] == "conflict"
    await worker.claims("relay")


@one_worker
@pytest.mark.azurite
async def test_what_failed_again_and_again_is_parked(worker: Worker) -> None:
    delivery = delivery_of(await post(patient(active=True)))
    await function_app.relay_poison(message(delivery=delivery))
    parked = await ask(delivery)
    assert outcome(parked, 202)["code"] == "incomplete"
    assert "failed repeatedly" in outcome(parked, 202)["diagnostics"]
    await function_app.mirror_poison(message(delivery=delivery, resource="Patient/p9"))
    parts = await wiring.get_parts()
    assert [row.action for row in await parts.journal.list_row_results(delivery)] == ["parked"]
    await worker.claims("relay")


@one_worker
@pytest.mark.azurite
async def test_trouble_of_an_upstream_puts_the_claim_on_the_queue_again(worker: Worker) -> None:
    delivery = delivery_of(await post(patient(active=False)))
    await worker.claims("relay")
    worker.fhir_double.down = 500
    try:
        await function_app.relay(message(delivery=delivery))
    finally:
        worker.fhir_double.down = None
    properties = await worker.queues["relay"].get_queue_properties()
    assert properties.approximate_message_count == 1
    await worker.queues["relay"].clear_messages()


@one_worker
@pytest.mark.azurite
async def test_a_message_that_is_no_claim_fails_without_quoting_it(worker: Worker) -> None:
    for function in (function_app.relay, function_app.mirror):
        with pytest.raises(RuntimeError) as caught:
            await function(func.QueueMessage(body=f'{{"delivery": ["{MARKER}"]}}'.encode()))
        assert MARKER not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


# --- the feed and the data routes --------------------------------------------------------------


async def feed(path: str, method: str = "GET", **given: Any) -> func.HttpResponse:
    return await knock(function_app.odata, method, f"odata/{path}", **given)


async def routed(**asked: str) -> func.HttpResponse:
    address = "data-routes?bring=false"
    return await knock(function_app.data_routes, "PATCH", address, asked)


def odata_error(response: func.HttpResponse, status: int) -> Any:
    """https://docs.oasis-open.org/odata/odata-json-format/v4.01/odata-json-format-v4.01.html#sec_ErrorResponse"""
    assert response.status_code == status
    assert response.mimetype == "application/json"
    assert response.headers["OData-Version"] == "4.0"
    error = read(response)["error"]
    assert error["code"]
    assert error["message"]
    return error


@one_worker
@pytest.mark.azurite
async def test_the_feed_shows_what_the_fhir_server_holds(worker: Worker) -> None:
    about = observation("Patient/p1", id=ANNA)
    worker.fhir_double.add(about)
    listed_ = await feed("msemr_observations")
    assert (listed_.status_code, listed_.headers["OData-Version"]) == (200, "4.0")
    assert listed_.mimetype.startswith("application/json")
    body = read(listed_)
    assert body["@odata.context"] == "http://host/api/odata/$metadata#msemr_observations"
    (row,) = body["value"]
    assert (row["msemr_observationid"], row["msemr_codetext"]) == (ANNA, MARKER)
    candidate = await feed(f"msemr_observations({ANNA})")
    assert (candidate.status_code, candidate.headers["ETag"]) == (200, 'W/"1"')
    assert read(await feed(""))["@odata.context"] == "http://host/api/odata/$metadata"
    described = await feed("$metadata")
    assert described.mimetype == "application/xml"
    assert b"msemr_observation" in described.get_body()


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("msemr_nothing", "GET", 404),
        ("contacts", "GET", 404),  # mirrored
        (f"msemr_observations({UNKNOWN})", "GET", 404),
        ("msemr_observations(7)", "GET", 400),
        ("msemr_observations", "POST", 415),
    ],
)
async def test_the_feed_refuses_as_odata_does(
    worker: Worker, path: str, method: str, status: int
) -> None:
    odata_error(await feed(path, method, headers={"content-type": "text/plain"}), status)


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("", "POST", "GET, HEAD, OPTIONS"),
        ("msemr_observations", "DELETE", "GET, HEAD, POST, OPTIONS"),
        (f"msemr_observations({ANNA})", "PUT", "GET, HEAD, PATCH, DELETE, OPTIONS"),
        ("msemr_observations/$count", "POST", "GET, HEAD, OPTIONS"),
    ],
)
async def test_a_method_that_the_feed_does_not_take_is_told_those_that_it_does(
    worker: Worker, path: str, method: str, allowed: str
) -> None:
    response = await feed(path, method)
    odata_error(response, 405)
    assert response.headers["Allow"] == allowed


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize(("down", "status"), [(503, 503), (500, 503), (401, 500)])
async def test_a_fhir_server_in_trouble_is_an_error_of_odata(
    worker: Worker, down: int, status: int
) -> None:
    worker.fhir_double.down = down
    try:
        response = await feed("msemr_observations")
    finally:
        worker.fhir_double.down = None
    error = odata_error(response, status)
    assert MARKER not in json.dumps(error)
    if status == 503:
        assert int(response.headers["Retry-After"]) > 0


@one_worker
@pytest.mark.azurite
async def test_a_table_is_switched_from_the_feed_to_the_mirror_and_back(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def do_nothing(_: float) -> None:
        """Nobody waits in a test."""

    async def route_of(type_: str) -> str:
        found = read(await knock(function_app.data_routes, "GET", "data-routes"))["routes"]
        (route,) = [item["route"] for item in found if item["resource"] == type_]
        return str(route)

    worker.parts[0].data_routes.pause = do_nothing
    # A choice is a version of the configuration, for which the worker builds its parts anew.
    monkeypatch.setattr(
        wiring, "DataRoutes", functools.partial(wiring.DataRoutes, pause=do_nothing)
    )
    assert await route_of("Observation") == "virtual"
    chosen = await routed(Observation="dataverse")
    try:
        assert (chosen.status_code, chosen.mimetype) == (200, "application/json")
        assert "reconcile --type Observation" in read(chosen)["routes"]["Observation"]
        assert await route_of("Observation") == "dataverse"
        listed = read(await knock(function_app.data_routes, "GET", "data-routes"))["routes"]
        (found,) = [item for item in listed if item["resource"] == "Observation"]
        assert found["changedBy"] == "function key"
        assert datetime.fromisoformat(found["changed"]).tzinfo is not None
        # The organisation of this test has the table, without rows.
        assert read(await feed("msemr_observations"))["value"] == []
    finally:
        await routed(Observation="virtual")
    assert await route_of("Observation") == "virtual"
    assert (await feed("msemr_observations")).status_code == 200


@one_worker
@pytest.mark.azurite
async def test_a_map_is_published_and_the_next_patient_has_the_column(worker: Worker) -> None:
    """The same worker goes on, with the new map: nothing is deployed or started again."""

    async def change(body: dict[str, Any], query: str = "") -> func.HttpResponse:
        content = json.dumps(body).encode()
        address = f"configuration{query}"
        return await knock(function_app.configuration, "POST", address, content)

    shipped = (MAPS_FOLDER / "healthcare" / "patient.toml").read_text("utf-8")
    column = '\n[[attribute]]\ncolumn = "department"\npath = "id"\n'
    changes = {"maps/patient.toml": shipped + column}
    checked = await change({"changes": changes}, "?dry-run=true")
    assert read(checked)["maps"] == ["Patient"]
    published = await change({"changes": changes, "why": "the ward", "by": "anna"})
    assert published.status_code == 200
    number = read(published)["version"]
    try:
        told = read(await knock(function_app.configuration, "GET", "configuration"))
        assert (told["version"], told["history"][0]["why"]) == (number, "the ward")
        parts = await wiring.get_parts()
        delivery = make_delivery_id(parts.now(), 7)
        resource = worker.fhir_double.add(patient(id="of-the-ward"))
        await function_app.mirror(message(delivery=delivery, resource=resource))
        rows = await parts.journal.list_row_results(delivery)
        assert [(row.action, row.configuration) for row in rows] == [("created", number)]
        started = await change({"changes": {"maps/patient.toml": None}}, "?preview=Patient")
        assert started.status_code == 202
        assert "/api/jobs/" in started.headers["Location"]
    finally:
        back = await change({"restore": number - 1, "why": "the test is over"})
    assert read(back)["restores"] == number - 1
    refused = await change({"changes": {"maps/patient.toml": "["}, "why": "x"})
    assert "not valid TOML" in outcome(refused, 422)["diagnostics"]


@one_worker
@pytest.mark.azurite
async def test_a_choice_of_routes_that_is_none_is_refused(worker: Worker) -> None:
    assert outcome(await routed(Patient="virtual"), 400)["expression"] == ["Patient"]
    broken = await knock(function_app.data_routes, "PATCH", "data-routes", b"{")
    assert outcome(broken, 400)["code"] == "structure"


@one_worker
@pytest.mark.azurite
async def test_a_change_of_what_is_shown_is_told_by_a_queue_of_its_own(worker: Worker) -> None:
    """This organisation was not provisioned, so Dataverse refuses it, and the claim waits."""
    whole = bundle(entry(observation(id="w1"), method="PUT", url="Observation/w1"))
    delivery = delivery_of(await post(whole))
    await worker.claims("relay")
    await function_app.relay(message(delivery=delivery))
    (claim,) = await worker.claims("external-events")
    assert claim.resource == "Observation/w1"
    await function_app.external(message(delivery=delivery, resource=claim.resource))
    waiting = await worker.queues["external-events"].get_queue_properties()
    assert waiting.approximate_message_count == 1
    await worker.queues["external-events"].clear_messages()
    await function_app.external_poison(message(delivery=delivery, resource=claim.resource))
    await (await wiring.get_parts()).relay.activities.flush()
    params = {"delivery": delivery, "action": "notify"}
    reported = read(await knock(function_app.activity, "GET", "activity", params=params))[
        "activity"
    ]
    assert [item["status"] for item in reported] == ["dropped"]


# --- refusals ----------------------------------------------------------------------------------


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (patient(), {"Content-Type": "application/xml"}, 415),
        (b"{" * 5001, {}, 413),
        (gzip.compress(bytes(1_000_000)), {"Content-Encoding": "gzip"}, 413),
        (bundle(kind="batch-response"), {}, 422),
    ],
    ids=["broken", "XML", "too large", "a bomb", "an answer"],
)
async def test_a_refusal_is_an_operation_outcome_and_queues_nothing(
    worker: Worker, body: Any, headers: dict[str, str], status: int
) -> None:
    given = {"Content-Type": FHIR_JSON, **headers}
    response = await knock(function_app.intake, "POST", "fhir", body, headers=given)
    assert outcome(response, status)["diagnostics"]
    assert await worker.claims("relay") == []


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize(
    ("function", "method", "route", "allowed"),
    [
        ("intake", "GET", {}, "POST"),
        ("intake", "POST", {"type": "Patient", "id": "p1"}, "PUT, PATCH, DELETE"),
        ("delivery", "POST", {"id": UNKNOWN}, "GET, DELETE"),
        ("deliveries", "DELETE", {}, "GET"),
        ("data_routes", "PUT", {}, "GET, PATCH"),
        ("configuration", "PATCH", {}, "GET, POST"),
    ],
)
async def test_a_wrong_method_is_told_the_right_ones(
    worker: Worker, function: str, method: str, route: dict[str, str], allowed: str
) -> None:
    response = await knock(getattr(function_app, function), method, "any", route_params=route)
    assert outcome(response, 405)["code"] == "not-supported"
    assert response.headers["Allow"] == allowed


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize("id_", [UNKNOWN, "no-id", "../health"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_delivery_that_nobody_knows_is_not_found(
    worker: Worker, id_: str, method: str
) -> None:
    assert outcome(await ask(id_, method), 404)["code"] == "not-found"


# What each endpoint is asked, with a query that it does not take.
WRONG_QUERIES = [
    *(("intake", "POST", {}, query) for query in ("dry-run", "dry-run=", "dryrun=true", "Dry-Run=true")),
    ("intake", "POST", {}, "dry-run=true&dry-run=false"),
    ("intake", "POST", {}, "dry-run=yes"),
    ("intake", "POST", {}, "_format=xml"),
    ("intake", "POST", {}, "dry-run=%FF"),
    ("intake", "DELETE", {"type": "Patient", "id": "p1"}, "hardDelete=true"),
    ("intake", "DELETE", {"type": "Patient", "id": "p1"}, "_hardDelete=true"),
    ("intake", "DELETE", {"type": "Patient", "id": "p1"}, "harddelete"),
    ("intake", "PUT", {"type": "Patient", "id": "p1"}, "_meta-history=false"),
    ("delivery", "DELETE", {"id": UNKNOWN}, "soft"),
    ("delivery", "GET", {"id": UNKNOWN}, "status=done"),
    ("replay", "POST", {"id": UNKNOWN}, "dry-run=true"),
    ("edits_bell", "POST", {}, "entity=contact"),
    ("correction", "POST", {"id": UNKNOWN}, "dry-run=true"),
    *(("replay_all", "POST", {}, query) for query in ("sender=", "sender", "reason", "raeson=x", "=x")),
    ("deliveries", "GET", {}, "status"),
    ("deliveries", "GET", {}, "patient=x"),
    ("attention", "GET", {}, "kind="),
    ("attention", "GET", {}, "since=2026-03-02"),
    *(("flow", "GET", {}, f"hours={hours}") for hours in ("", "0", "169", "-1", "1.5", "x", "²")),
    ("flow", "GET", {}, "since=2026-03-02"),
    ("activity", "GET", {}, "since="),
    ("activity", "GET", {}, "patient=p7"),
    ("audit", "GET", {}, "patient=p7"),
    ("audit", "GET", {}, "kind=secret"),
    ("audit", "GET", {}, "after=x"),
    ("audit", "GET", {}, "_format=xml"),
    ("jobs", "GET", {}, "state=done"),
    ("jobs", "POST", {}, "kind=replay"),
    ("job", "GET", {"id": "f" * 30}, "wait=1"),
    ("upstreams", "GET", {}, "deep=1"),
    ("status", "GET", {}, "part=queues"),
    ("data_routes", "GET", {}, "type=Observation"),
    *(("configuration", "GET", {}, query) for query in ("version=", "version=x", "dry-run=true", "type=x")),
    *(("configuration", "POST", {}, query) for query in ("dry-run", "dry-run=yes", "deep=1")),
    ("health", "GET", {}, "deep"),
    ("health", "GET", {}, "deep=1"),
    ("health", "GET", {}, "depth=1"),
]  # fmt: skip


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize(("function", "method", "route", "query"), WRONG_QUERIES)
async def test_a_parameter_that_is_unknown_or_empty_is_refused_at_every_address(
    worker: Worker, function: str, method: str, route: dict[str, str], query: str
) -> None:
    given = {"route_params": route, "headers": {"content-type": FHIR_JSON}, "query": query}
    response = await knock(getattr(function_app, function), method, "any", patient(), **given)
    assert outcome(response, 400)["diagnostics"]
    assert await worker.claims("relay") == []


def test_every_endpoint_has_a_query_that_it_refuses() -> None:
    asked = {function for function, *_ in WRONG_QUERIES}
    # odata and the pages have rules of their own, with tests; sender_intake has those of intake.
    others = {"odata", "pages", "sender_intake"}
    assert asked == {name for name, trigger, _, _ in documented() if "http" in trigger} - others


@one_worker
@pytest.mark.azurite
async def test_the_function_key_and_the_format_may_be_parameters(worker: Worker) -> None:
    given = {"headers": {"content-type": FHIR_JSON}}
    query = "code=secret%3D&_format=application/fhir+json&_pretty=true"
    delivery_of(await knock(function_app.intake, "POST", "fhir", patient(), **given, query=query))
    assert len(await worker.claims("relay")) == 1


@one_worker
@pytest.mark.azurite
async def test_the_feed_refuses_an_option_without_a_value(worker: Worker) -> None:
    error = odata_error(await feed("msemr_observations", query="$filter"), 400)
    assert error["target"] == "$filter"


# --- without doing anything --------------------------------------------------------------------


@one_worker
@pytest.mark.azurite
async def test_a_dry_run_tells_the_plan_and_keeps_nothing(worker: Worker) -> None:
    before = read(await listed(_count="1"))["deliveries"][:1]
    given = {"headers": {"content-type": FHIR_JSON}, "params": {"dry-run": "true"}}
    path = "fhir/Patient/p1"
    route = {"type": "Patient", "id": "p1"}
    whole = bundle(entry(patient(birthDate="1999-01-01")))
    response = await knock(function_app.intake, "POST", "fhir", whole, **given)
    assert (response.status_code, response.mimetype) == (200, "application/json")
    assert read(response)["lanes"][0]["units"][0]["kind"] == "transaction"
    gone = await knock(function_app.intake, "DELETE", path, **given, route_params=route)
    (planned,) = read(gone)["lanes"][0]["units"][0]["entries"]
    assert planned["request"] == {"method": "DELETE", "url": "Patient/p1"}
    refused = await knock(function_app.intake, "POST", "fhir", b"{", **given)
    assert outcome(refused, 400)["code"] == "invalid"
    assert await worker.claims("relay") == []
    assert read(await listed(_count="1"))["deliveries"][:1] == before


@one_worker
@pytest.mark.azurite
async def test_parked_deliveries_are_replayed_by_reason(worker: Worker) -> None:
    delivery = delivery_of(await post(patient(deceasedBoolean=False)))
    await worker.claims("relay")
    await function_app.relay_poison(message(delivery=delivery))

    async def asked(**params: str) -> Any:
        address = ("POST", "deliveries/replay")
        return read(await knock(function_app.replay_all, *address, params=params))

    params = {"reason": "failed repeatedly", "_count": "500"}
    dry = await asked(**params, **{"dry-run": "true"})
    assert delivery in [item["id"] for item in dry["deliveries"]]
    assert await worker.claims("relay") == []
    assert await asked(**params) == dry
    assert delivery in [claim.delivery for claim in await worker.claims("relay")]
    assert (await asked(**params))["deliveries"] == []
    assert (await asked(reasons="x"))["issue"][0]["code"] == "not-supported"


@one_worker
@pytest.mark.azurite
async def test_housekeeping_forgets_what_is_over(worker: Worker) -> None:
    parts = await wiring.get_parts()
    old = parts.now() - timedelta(days=31)
    delivery = Delivery(
        id=make_delivery_id(old, 1),
        sender="default",
        key="k",
        digest="d",
        accepted=old,
        status=Status.DONE,
        kind="resource",
        entries=1,
        bytes=2,
        finished=old,
    )
    await parts.journal.add_delivery(delivery, Payload(DeliveryRequest("POST"), b"{}"))
    await function_app.housekeeping(timer=TimerRequest())
    assert await parts.journal.get_delivery(delivery.id) is None


# --- the list and health -----------------------------------------------------------------------


@one_worker
@pytest.mark.azurite
async def test_the_list_leads_from_page_to_page(worker: Worker) -> None:
    made = [delivery_of(await post(patient(multipleBirthInteger=n))) for n in range(3)]
    await worker.claims("relay")
    seen: list[str] = []
    params: dict[str, str] | None = {"_count": "2", "status": "accepted"}
    while params:
        body = read(await listed(**params))
        assert len(body["deliveries"]) <= 2
        seen += [item["id"] for item in body["deliveries"]]
        params = dict(httpx.URL(body["next"]).params) if "next" in body else None
    assert seen[:3] == made[::-1]
    assert len(seen) == len(set(seen))


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize("params", [{"status": "lost"}, {"_count": "0"}, {"after": "x"}])
async def test_what_the_list_cannot_be_asked_is_refused(
    worker: Worker, params: dict[str, str]
) -> None:
    assert outcome(await listed(**params), 400)["code"] == "value"


async def test_health_says_only_that_the_app_is_alive() -> None:
    """And it needs no settings: nothing is asked."""
    response = await knock(function_app.health, "GET", "health")
    assert (response.status_code, read(response)) == (200, {"status": "ok"})
    deep = await knock(function_app.health, "GET", "health", params={"deep": "1"})
    assert "/api/upstreams" in outcome(deep, 400)["diagnostics"]


@one_worker
@pytest.mark.azurite
async def test_forty_who_ask_for_the_upstreams_get_the_same_answer(worker: Worker) -> None:
    def count_asked() -> int:
        return sum(each.path.endswith("/metadata") for each in worker.fhir_double.received)

    before = count_asked()
    responses = await asyncio.gather(
        *(knock(function_app.upstreams, "GET", "upstreams") for _ in range(40))
    )
    assert {response.status_code for response in responses} == {200}
    body = read(responses[0])
    assert all(read(response) == body for response in responses)
    well = {"status": "ok", "storage": "ok", "fhir": "ok", "dataverse": "ok"}
    assert body.pop("checked").endswith("Z")
    assert body == well
    assert count_asked() - before <= 1  # none, if somebody has asked in the last minute
    assert responses[0].headers["Cache-Control"].startswith("private, max-age=")


async def get_status() -> Any:
    response = await knock(function_app.status, "GET", "status")
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "no-store"
    return read(response)


@one_worker
@pytest.mark.azurite
async def test_the_status_tells_what_is_queued_and_parked_and_who_was_refused(
    worker: Worker,
) -> None:
    (parts, *_) = worker.parts
    delivery = delivery_of(await post(patient(active=True)))
    await function_app.relay_poison(message(delivery=delivery))
    stranger = {"sender": "nobody", "type": "", "id": ""}
    await knock(function_app.sender_intake, "POST", "senders/nobody/fhir", route_params=stranger)
    await function_app.housekeeping(TimerRequest())
    asked = len(worker.fhir_double.received)
    parts.status_check.now = lambda: parts.now() + timedelta(seconds=6)  # what is kept is over

    try:
        found = await get_status()
    finally:
        parts.status_check.now = parts.now

    queues = {each.pop("queue"): each for each in found["queues"]}
    names = (
        *("relay", "mirror", "fhir-events", "external-events"),
        *("inbox-events", "inbox-answers", "jobs", "dataverse-edits"),
    )
    assert list(queues) == [each for name in names for each in (name, f"{name}-poison")]
    assert queues["relay"]["length"] >= 1
    assert 0 <= queues["relay"]["age"] < 600
    assert queues["relay-poison"] == {"length": 0}
    assert found["deliveries"]["parked"] >= 1
    assert found["deliveries"]["oldest"]["id"]
    (last,) = (each for each in found["senders"]["last"] if each["sender"] == "default")
    assert last["delivery"]["id"] == delivery
    assert last["delivery"]["status"] == "parked"
    assert found["housekeeping"]["last"]["failed"] == 0
    assert not found["housekeeping"]["overdue"]
    requests = found["refused"]["requests"]
    refused = {(each.get("sender"), each["status"]) for each in requests}
    assert refused == {(None, 401)}
    assert found["sender_problems"] == {}
    assert len(worker.fhir_double.received) == asked
    assert MARKER not in json.dumps(found)
    assert await get_status() != found  # the clock went back: a new one
    await worker.claims("relay")


# --- what passed -------------------------------------------------------------------------------


@one_worker
@pytest.mark.azurite
async def test_what_passed_is_counted_and_stored_by_the_worker(worker: Worker) -> None:
    (parts, *_) = worker.parts

    async def flow(hours: int = 1) -> Any:
        response = await knock(function_app.flow, "GET", "flow", params={"hours": str(hours)})
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        return read(response)

    async def count(name: str) -> int:
        return sum(hour[name] for hour in (await flow(2))["hours"])

    before = {name: await count(name) for name in ("accepted", "written", "unproven")}
    delivery = delivery_of(await post(bundle(entry(patient(active=True)))))
    await function_app.relay(message(delivery=delivery))
    stranger = {"sender": "nobody", "type": "", "id": ""}
    await knock(function_app.sender_intake, "POST", "senders/nobody/fhir", route_params=stranger)
    after = {name: await count(name) for name in before}
    assert {name: after[name] - before[name] for name in before} == dict.fromkeys(before, 1)
    assert len((await flow(168))["hours"]) == 168
    assert MARKER not in json.dumps(await flow())

    await parts.flow_recorder.flush()
    storage = read_settings().storage
    async with contextlib.AsyncExitStack() as stack:
        stores = storage_clients.build_status_stores(
            storage_clients.open_clients(storage, None, stack)
        )
        report = await report_flow(stores.flow, 2, parts.now())
    stored = [asdict(each.counts) for each in report.by_hour]
    assert {name: sum(each[name] for each in stored) for name in after} == after
    await worker.claims("relay")
    await worker.claims("mirror")


# --- who was shown what ------------------------------------------------------------------------


async def audited(**params: str) -> Any:
    response = await knock(function_app.audit, "GET", "audit", params=params)
    assert response.status_code == 200
    return read(response)["audit"]


@one_worker
@pytest.mark.azurite
async def test_an_answer_is_recorded_and_its_progress_is_not(worker: Worker) -> None:
    delivery = delivery_of(await post(patient(id="audited")))
    await worker.claims("relay")
    await ask(delivery)
    assert await audited(delivery=delivery) == []
    await function_app.relay(message(delivery=delivery))
    await worker.claims("mirror")
    assert (await ask(delivery)).status_code == 200
    (entry_,) = await audited(delivery=delivery)
    # Whoever holds the key of `delivery` is an operator.
    assert (entry_["kind"], entry_.get("sender")) == ("delivery-answer", None)
    assert (entry_["resources"], entry_["number"]) == (["Patient/audited"], 1)
    assert MARKER not in json.dumps(entry_)
    params = {"delivery": delivery, "_format": "application/fhir+ndjson"}
    exported = await knock(function_app.audit, "GET", "audit", params=params)
    assert exported.mimetype == "application/fhir+ndjson"
    assert json.loads(exported.get_body())["entity"][0]["what"]["reference"] == "Patient/audited"


@one_worker
@pytest.mark.azurite
async def test_a_dry_run_is_recorded(worker: Worker) -> None:
    given = {"headers": {"content-type": FHIR_JSON}, "params": {"dry-run": "true"}}
    before = len(await audited(kind="dry-run"))
    whole = bundle(entry(patient(id="dry"), method="PUT", url="Patient/dry"))
    assert (await knock(function_app.intake, "POST", "fhir", whole, **given)).status_code == 200
    await knock(function_app.intake, "POST", "fhir", b"{", **given)  # it shows nothing
    recorded = await audited(kind="dry-run")
    assert (len(recorded), recorded[0]["resources"]) == (before + 1, ["Patient/dry"])


@one_worker
@pytest.mark.azurite
async def test_rows_are_recorded_whoever_reads_them(worker: Worker) -> None:
    worker.fhir_double.add(observation("Patient/p1", id="listed"))
    assert (await feed("msemr_observations")).status_code == 200
    (newest, *_) = await audited(kind="rows", resource="Observation/listed")
    assert "Observation/listed" in newest["resources"]
    assert newest.keys().isdisjoint({"sender", "user", "key"})


# --- a worker that cannot start ----------------------------------------------------------------

KNOCK = """
import asyncio, json, sys
import azure.functions as func
import function_app

async def main():
    req = func.HttpRequest("POST", "http://host/api/fhir", headers={"content-type": "application/json"},
                           params={}, route_params={}, body=b'{"resourceType": "Patient"}')
    response = await function_app.intake(req)
    return response.status_code, json.loads(response.get_body())

print(json.dumps(asyncio.run(main())))
"""


def knock_elsewhere(settings: dict[str, str]) -> tuple[int, Any]:
    """In a process of its own, since a worker is wired only once."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KNOCK],
        cwd=PROJECT,
        env=settings,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    status, body = json.loads(done.stdout)
    return status, body


def test_missing_settings_are_told_all_at_once() -> None:
    status, body = knock_elsewhere({})
    assert (status, body["resourceType"]) == (500, "OperationOutcome")
    (issue,) = body["issue"]
    for name in ("AzureWebJobsStorage", "FHIR_URL", "DATAVERSE_URL"):
        assert name in issue["diagnostics"]


@pytest.mark.azurite
def test_storage_that_refuses_the_app_is_told_to_its_operator(azurite: Running) -> None:
    settings = {
        "AzureWebJobsStorage": azurite.storage.replace("AccountKey=Eby8", "AccountKey=Wrng"),
        "FHIR_URL": "http://127.0.0.1:9/fhir",
        "FHIR_SCOPE": "none",
        "DATAVERSE_URL": "http://127.0.0.1:9",
        "DATAVERSE_SCOPE": "none",
    }
    status, body = knock_elsewhere(settings)
    assert status == 500
    assert "roles" in body["issue"][0]["diagnostics"]


# --- jobs --------------------------------------------------------------------------------------


async def ask_jobs(method: str = "GET", body: Any = b"", **params: str) -> func.HttpResponse:
    return await knock(function_app.jobs, method, "jobs", body, params=params)


async def ask_job(id_: str, method: str = "GET") -> func.HttpResponse:
    return await knock(function_app.job, method, f"jobs/{id_}", route_params={"id": id_})


@one_worker
@pytest.mark.azurite
async def test_a_job_is_started_listed_stopped_and_done_over_http(worker: Worker) -> None:
    parts = worker.parts[0]
    sender = f"jobs {id(worker)}"
    moment = parts.now()
    delivery = Delivery(
        id=make_delivery_id(moment, 77),
        sender=sender,
        key="k",
        digest="d",
        accepted=moment,
        status=Status.ACCEPTED,
        kind="batch",
        entries=1,
        bytes=2,
    )
    await parts.journal.add_delivery(delivery, Payload(DeliveryRequest("POST"), b"{}"))
    assert await park_open(parts.journal, delivery, "answered 503", moment)
    await worker.claims("jobs")
    await worker.claims("relay")
    wanted = {"kind": "replay", "filter": {"sender": sender, "reason": "503"}, "started_by": "me"}

    started = await ask_jobs("POST", wanted)
    id_ = read(started)["id"]
    assert started.status_code == 202
    assert started.headers["Location"] == f"http://host/api/jobs/{id_}"
    assert read(started)["filter"] == {"status": "parked", "sender": sender, "reason": "503"}
    (item,) = await worker.claims("jobs")
    await function_app.job_slice(message(delivery="", job=item.job))

    done = read(await ask_job(id_))
    assert (done["state"], done["found"], done["done"]) == ("done", 1, 1)
    assert done["started_by"] == "me"
    assert [claim.delivery for claim in await worker.claims("relay")] == [delivery.id]
    assert outcome(await ask_job(id_, "DELETE"), 409)["code"] == "conflict"

    second = read(await ask_jobs("POST", {"kind": "cancel", "filter": {"status": "processing"}}))
    stopping = await ask_job(second["id"], "DELETE")
    assert (stopping.status_code, read(stopping)["state"]) == (202, "stopping")
    await function_app.job_poison(message(delivery="", job=second["id"]))
    assert read(await ask_job(second["id"]))["state"] == "failed"
    await worker.claims("jobs")

    page = read(await ask_jobs(_count="1"))
    assert [job["id"] for job in page["jobs"]] == [second["id"]]
    after = dict(parse_qsl(page["next"].partition("?")[2]))["after"]
    assert read(await ask_jobs(_count="1", after=after))["jobs"][0]["id"] == id_


@one_worker
@pytest.mark.azurite
@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{", None),
        ([], None),
        ({}, "kind"),
        ({"kind": "delete"}, "kind"),
        ({"kind": "replay", "count": 5}, "count"),
        ({"kind": "replay", "filter": {"page": "5"}}, "page"),
        ({"kind": "replay", "filter": {"reason": 5}}, "filter.reason"),
        ({"kind": "replay", "filter": {"reason": "r" * 201}}, "filter.reason"),
        ({"kind": "replay", "filter": {"since": "soon"}}, "since"),
        ({"kind": "replay", "filter": {"status": "done"}}, "filter"),
        ({"kind": "replay", "filter": {"attention": "any"}}, "filter"),
        ({"kind": "cancel"}, "filter"),
        ({"kind": "cancel", "filter": {"status": "done"}}, "filter"),
        ({"kind": "cancel", "filter": {"attention": "rows"}}, "filter"),
        ({"kind": "cancel", "started_by": "two\nlines"}, "started_by"),
        ({"kind": "reconcile"}, "filter.type"),
        ({"kind": "reconcile", "filter": {"type": "Patient", "dry_run": 1}}, "filter.dry_run"),
        ({"kind": "reconcile", "filter": {"status": "parked"}}, "status"),
    ],
)
async def test_a_job_that_cannot_be_understood_is_refused(
    worker: Worker, body: Any, where: str | None
) -> None:
    issue = outcome(await ask_jobs("POST", body), 400)
    assert issue.get("expression", [None]) == [where]
    assert await worker.claims("jobs") == []


@one_worker
@pytest.mark.azurite
async def test_a_job_takes_no_parameter_that_it_does_not_know(worker: Worker) -> None:
    assert outcome(await ask_jobs(state="done"), 400)
    assert outcome(await ask_jobs(after="nonsense"), 400)
    assert outcome(await ask_jobs("POST", {"kind": "replay"}, _count="5"), 400)
    assert await worker.claims("jobs") == []
    assert outcome(await ask_job("f" * 30), 404)
    assert outcome(await ask_job("no-id"), 404)
