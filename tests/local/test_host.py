"""The host keeps the promises of the Azure one: HTTP, keys, queues, leases, poison, timers."""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.storage.queue import QueueClient, QueueServiceClient, aio

from integration.core import cron
from local.host import leases, routes
from local.host.functions import Function
from local.host.leases import Trigger
from local.host.queues import compute_poll_delay
from local.host.settings import (
    CannotStart,
    HostOptions,
    QueueOptions,
    parse_time_span,
    read_options,
)
from local.host.worker import Worker
from local.processes import Child
from local.services import find_free_ports, run_services, start_host
from tests.local.emulator import needs_azurite

SAMPLE = Path(__file__).parent / "sample_app"
GUID = "0b6d3d3e-9c4b-4a53-8f1f-6f0f8a2f4c11"
PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Stage:
    """Storage, a queue of the test's own, and a way to start hosts on it."""

    folder: Path
    queue: QueueClient
    poison: QueueClient
    start: Callable[..., Child]

    def send(self, name: str, **content: object) -> None:
        text = json.dumps({"name": name, **content}).encode()
        self.queue.send_message(base64.b64encode(text).decode())

    def notes(self, event: str) -> list[dict[str, object]]:
        path = self.folder / "notes"
        lines = path.read_text().splitlines() if path.exists() else []
        return [note for note in map(json.loads, lines) if note["event"] == event]

    def open(self, gate: str) -> None:
        (self.folder / gate).touch()


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with run_services(
        find_free_ports(), tmp_path_factory.mktemp("storage"), parts=["storage"]
    ) as running:
        yield running.settings()["AzureWebJobsStorage"]


@pytest.fixture
def stage(storage: str, tmp_path: Path) -> Iterator[Stage]:
    name = f"work-{uuid.uuid4().hex[:8]}"

    def start(**settings: str) -> Child:
        child_settings = {
            "AzureWebJobsStorage": storage,
            "SAMPLE_QUEUE": name,
            "SAMPLE_NOTES": str(tmp_path / "notes"),
            "HOST_USE_FUNC": "0",
            "HOST_FUNCTION_KEYS": "",
            "AzureWebJobs__yearly__Disabled": "true",
        }
        host = start_host({**child_settings, **settings}, find_free_ports().host, tmp_path, SAMPLE)
        return stack.enter_context(host)

    with ExitStack() as stack:
        service = stack.enter_context(QueueServiceClient.from_connection_string(storage))
        queue, poison = service.get_queue_client(name), service.get_queue_client(f"{name}-poison")
        queue.create_queue()
        yield Stage(tmp_path, queue, poison, start)


def eventually(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.05)


def length(queue: QueueClient) -> int:
    try:
        return queue.get_queue_properties().approximate_message_count or 0
    except ResourceNotFoundError:
        return 0


@needs_azurite
def test_a_request_reaches_its_function_as_azure_would_build_it(stage: Stage) -> None:
    url = stage.start().url
    answer = httpx.post(
        f"{url}/api/Echo/patient/{GUID}?a=1&A=2&empty=&bare&b=x%20y",
        headers={"X-Sample": "seen"},
        content="crème",
    )
    assert answer.status_code == 201
    assert answer.headers["content-type"] == "application/json"
    seen = answer.json()
    assert seen["route"] == {"kind": "patient", "id": GUID}
    assert seen["params"] == {"a": "1,2", "b": "x y"}
    assert seen["header"] == "seen"
    assert seen["body"] == "crème"
    assert seen["url"] == f"{url}/api/Echo/patient/{GUID}?a=1&A=2&empty=&bare&b=x%20y"

    assert httpx.get(f"{url}/api/echo/patient").json()["route"] == {"kind": "patient"}
    assert httpx.get(f"{url}/api/rest/a/b%2Fc%20d").text == "a/b%2Fc d"
    assert httpx.get(f"{url}/api/rest").text == "nothing"


@needs_azurite
def test_a_reply_keeps_its_status_headers_and_cookies(stage: Stage) -> None:
    url = stage.start().url
    cookies = httpx.get(f"{url}/api/cookies")
    assert cookies.text == "crème"
    assert cookies.headers["content-type"] == "text/plain; charset=utf-8"
    assert cookies.headers["set-cookie"] == "a=1; Path=/"
    assert cookies.headers["x-function"] == "cookies"
    assert httpx.head(f"{url}/api/cookies").content == b""
    assert httpx.get(f"{url}/api/nothing").status_code == 204


@needs_azurite
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/unknown"),
        ("GET", "/echo/patient"),
        ("GET", "/api/echo/patient/7"),
        ("GET", "/api/echo/p4tient"),
        ("PUT", "/api/echo/patient"),
    ],
)
def test_what_no_route_takes_is_404_and_empty(shared: str, method: str, path: str) -> None:
    answer = httpx.request(method, f"{shared}{path}")
    assert (answer.status_code, answer.content) == (404, b"")


@pytest.fixture(scope="module")
def shared(storage: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One host with keys, for the tests that only ask it."""
    folder = tmp_path_factory.mktemp("shared")
    settings = {
        "AzureWebJobsStorage": storage,
        "SAMPLE_QUEUE": "never-made",
        "SAMPLE_NOTES": str(folder / "notes"),
        "HOST_USE_FUNC": "0",
        "HOST_FUNCTION_KEYS": "_master=m==;default=d==;echo/partner=p==",
        "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT": "1000",
        "AzureFunctionsJobHost__functionTimeout": "00:00:01",
    }
    with start_host(settings, find_free_ports().host, folder, SAMPLE) as host:
        yield host.url


@needs_azurite
@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/api/echo/patient", None, 401),
        ("/api/echo/patient", "wrong", 401),
        ("/api/echo/patient", "d==", 201),
        ("/api/echo/patient", "m==", 201),
        ("/api/echo/patient", "p==", 201),
        ("/api/slow?seconds=0", "p==", 401),
        ("/api/admin-only", "d==", 401),
        ("/api/admin-only", "m==", 200),
        ("/api/rest/open", None, 200),
    ],
)
def test_a_function_asks_for_a_key_of_its_level(
    shared: str, path: str, key: str | None, status: int
) -> None:
    by_header = httpx.get(f"{shared}{path}", headers={"x-functions-key": key} if key else {})
    url = httpx.URL(f"{shared}{path}")
    by_query = httpx.get(url.copy_merge_params({"code": key} if key else {}))
    assert [by_header.status_code, by_query.status_code] == [status, status]
    if status == 401:
        assert by_header.content == b""


@needs_azurite
def test_a_body_over_the_limit_is_413(shared: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield from [b"x" * 600] * 2

    headers = {"x-functions-key": "d=="}
    url = f"{shared}/api/echo/patient"
    assert httpx.post(url, headers=headers, content=b"x" * 1001).status_code == 413
    assert httpx.post(url, headers=headers, content=chunks()).status_code == 413
    assert httpx.post(url, headers=headers, content=b"x" * 1000).status_code == 201


@needs_azurite
def test_a_body_that_is_cut_off_reaches_no_function(stage: Stage) -> None:
    host = stage.start()
    with socket.create_connection(("127.0.0.1", httpx.URL(host.url).port or 0)) as caller:
        caller.sendall(b"POST /api/echo/cut HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")
    eventually(lambda: "request.cut_off function=echo" in host.last_lines(50))
    assert "function=echo invocation" not in host.last_lines(50)


@needs_azurite
@pytest.mark.parametrize("path", ["/api/fails", "/api/slow?seconds=30"])
def test_an_exception_or_a_timeout_is_500_and_empty(shared: str, path: str) -> None:
    answer = httpx.get(f"{shared}{path}", headers={"x-functions-key": "d=="}, timeout=PATIENCE)
    assert (answer.status_code, answer.content) == (500, b"")


@needs_azurite
def test_an_exception_is_logged_with_its_function(stage: Stage) -> None:
    host = stage.start()
    httpx.get(f"{host.url}/api/fails")
    eventually(lambda: "ValueError: on purpose" in host.last_lines(50))
    assert "function.failed function=fails" in host.last_lines(50)


@needs_azurite
def test_a_message_runs_once_and_is_deleted(stage: Stage) -> None:
    stage.send("one")
    stage.start()
    eventually(lambda: length(stage.queue) == 0)
    (ended,) = stage.notes("ended")
    assert (ended["name"], ended["count"]) == ("one", 1)


@needs_azurite
def test_a_failing_message_is_tried_to_the_limit_and_then_parked(stage: Stage) -> None:
    stage.send("bad", fail=True)
    stage.start()
    eventually(lambda: length(stage.poison) == 1)
    assert [note["count"] for note in stage.notes("started")] == [1, 2, 3]
    (parked,) = stage.poison.peek_messages()
    assert json.loads(base64.b64decode(parked.content))["name"] == "bad"
    eventually(lambda: length(stage.queue) == 0)


@pytest.mark.slow
@needs_azurite
def test_a_failed_message_waits_for_the_visibility_timeout(stage: Stage) -> None:
    stage.send("bad", fail=True)
    stage.start(AzureFunctionsJobHost__extensions__queues__visibilityTimeout="00:00:02")
    eventually(lambda: len(stage.notes("started")) == 2)
    first, second = (note["at"] for note in stage.notes("started"))
    assert isinstance(first, float)
    assert isinstance(second, float)
    assert second - first >= 1.5


@needs_azurite
def test_a_message_that_is_not_base64_is_parked_as_it_came(stage: Stage) -> None:
    stage.queue.send_message('{"name": "plain"}')
    stage.start()
    eventually(lambda: length(stage.poison) == 1)
    (parked,) = stage.poison.peek_messages()
    assert parked.content == '{"name": "plain"}'
    assert stage.notes("started") == []


@needs_azurite
def test_plain_text_is_taken_when_host_json_says_so(stage: Stage) -> None:
    stage.queue.send_message('{"name": "plain"}')
    stage.start(AzureFunctionsJobHost__extensions__queues__messageEncoding="none")
    eventually(lambda: stage.notes("ended"))


@pytest.mark.slow
@needs_azurite
def test_a_killed_host_loses_no_message(stage: Stage) -> None:
    stage.send("held", gate="gate")
    host = stage.start(HOST_LEASE_SECONDS="2")
    eventually(lambda: stage.notes("started"))
    host.kill()
    stage.open("gate")
    stage.start(HOST_LEASE_SECONDS="2")
    eventually(lambda: stage.notes("ended"))
    assert [note["count"] for note in stage.notes("started")] == [1, 2]
    eventually(lambda: length(stage.queue) == 0)


@pytest.mark.slow
@needs_azurite
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_host_can_be_killed_before_or_after_a_request_and_is_followed_by_another(
    stage: Stage, side: str
) -> None:
    """The only request of this app is the host's own: the deletion of the message."""
    order, note = stage.folder / "kill", stage.folder / "kill.killed"
    order.write_text(f"{side}:2")
    host = stage.start(HOST_KILL=str(order), HOST_LEASE_SECONDS="1")
    stage.send("one")
    eventually(lambda: stage.notes("ended") and length(stage.queue) == 0)
    assert not note.exists()
    order.write_text(f"{side}:1 again")
    stage.send("two")
    eventually(lambda: note.exists() and length(stage.queue) == 0)
    assert note.read_text().startswith(f"{side} DELETE ")
    again = ["two"] if side == "before" else []
    assert [item["name"] for item in stage.notes("ended")] == ["one", "two", *again]
    assert host.running


@needs_azurite
def test_a_host_that_can_be_killed_still_ends_when_it_is_asked_to(stage: Stage) -> None:
    host = stage.start(HOST_KILL=str(stage.folder / "kill"))
    host.stop()
    assert "host.stopped" in host.last_lines()


@needs_azurite
async def test_a_message_that_another_has_taken_over_is_left_to_it(
    stage: Stage, storage: str
) -> None:
    stage.send("one")
    name = stage.queue.queue_name
    function = Function(
        name=name,
        kind="queueTrigger",
        argument="message",
        trigger={},
        call=print,
        wants_context=False,
    )
    async with aio.QueueClient.from_connection_string(storage, name) as queue:
        trigger = Trigger(
            function=function,
            queue=queue,
            poison=None,
            options=QueueOptions(),
            worker=Worker(HostOptions()),
        )
        (message,) = [item async for item in queue.receive_messages(visibility_timeout=30)]
        await queue.update_message(message.id, message.pop_receipt, visibility_timeout=30)
        deleting = queue.delete_message(message.id, message.pop_receipt)
        await leases.ignore_lost_lease(deleting, trigger, message)
    assert length(stage.queue) == 1


@pytest.mark.slow
@needs_azurite
def test_a_long_run_keeps_its_message_from_others(stage: Stage) -> None:
    stage.send("long", gate="gate")
    host = stage.start(HOST_LEASE_SECONDS="1", HOST_LOG_LEVEL="DEBUG")
    eventually(lambda: stage.notes("started"))
    stage.start(HOST_LEASE_SECONDS="1")
    eventually(lambda: host.last_lines(500).count("lease.renewed") > 4)
    stage.open("gate")
    eventually(lambda: length(stage.queue) == 0)
    assert len(stage.notes("started")) == 1


@needs_azurite
def test_no_more_run_at_once_than_batch_and_threshold(stage: Stage) -> None:
    for number in range(8):
        stage.send(f"message {number}", seconds=0.2)
    stage.start()
    eventually(lambda: len(stage.notes("ended")) == 8)
    running, highest = 0, 0
    for line in (stage.folder / "notes").read_text().splitlines():
        running += 1 if json.loads(line)["event"] == "started" else -1
        highest = max(highest, running)
    assert 2 <= highest <= 3  # host.json of the sample: a batch of 2, a new one when 1 is left


@needs_azurite
def test_a_stopping_host_lets_running_messages_end(stage: Stage) -> None:
    stage.send("last", gate="gate")
    host = stage.start()
    eventually(lambda: stage.notes("started"))
    stopping = threading.Thread(target=host.stop)
    stopping.start()
    eventually(lambda: "host.stopping" in host.last_lines())
    stage.open("gate")
    stopping.join(PATIENCE)
    assert len(stage.notes("ended")) == 1
    assert length(stage.queue) == 0


@needs_azurite
def test_a_queue_made_later_is_found(stage: Stage) -> None:
    stage.queue.delete_queue()
    stage.start()
    stage.queue.create_queue()
    stage.send("late")
    eventually(lambda: stage.notes("ended"))


@needs_azurite
def test_a_timer_may_run_at_the_start(stage: Stage) -> None:
    stage.start(AzureWebJobs__yearly__Disabled="false")
    eventually(lambda: stage.notes("timer"))
    (note,) = stage.notes("timer")
    assert note["past_due"] is False
    assert "-01-01T00:00:00" in str(note["next"])


@needs_azurite
def test_a_missing_connection_is_told_before_the_start(stage: Stage) -> None:
    with pytest.raises(CannotStart, match="set AzureWebJobsStorage"):
        stage.start(AzureWebJobsStorage="")


def test_an_app_without_the_file_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(CannotStart, match=r"no function_app\.py"):
        start_host({"HOST_USE_FUNC": "0"}, find_free_ports().host, tmp_path, tmp_path)


def test_a_trigger_the_host_does_not_know_is_named(tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(
        "import azure.functions as func\n"
        "app = func.FunctionApp()\n"
        "@app.blob_trigger('blob', 'box/{name}', 'AzureWebJobsStorage')\n"
        "def filed(blob: func.InputStream) -> None: ...\n"
    )
    with pytest.raises(CannotStart, match="filed: blobTrigger is not supported"):
        start_host({"HOST_USE_FUNC": "0"}, find_free_ports().host, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 */5 * * * *", "2026-02-27 10:05:00"),
        ("*/5 * * * *", "2026-02-27 10:05:00"),
        ("30 0 0 1 * *", "2026-03-01 00:00:30"),
        ("0 0 8-18/4 * * MON-FRI", "2026-02-27 12:00:00"),
        ("0 0 9 * * sat,sun", "2026-02-28 09:00:00"),
        ("0 0 0 29 2 *", "2028-02-29 00:00:00"),
        ("0 0 0 1 * MON", "2026-06-01 00:00:00"),
        ("* * * * * *", "2026-02-27 10:02:04"),
    ],
)
def test_a_schedule_names_its_next_moment(expression: str, expected: str) -> None:
    now = datetime(2026, 2, 27, 10, 2, 3, 500, tzinfo=UTC)
    instant = cron.find_next(cron.parse(expression), now)
    assert instant == datetime.fromisoformat(expected).replace(tzinfo=UTC)


@pytest.mark.parametrize("expression", ["", "* * *", "60 * * * * *", "0 0 0 0 * *", "0 0 x * * *"])
def test_a_broken_schedule_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"expected|cannot be read"):
        cron.parse(expression)


@pytest.mark.parametrize(
    ("template", "path", "expected"),
    [
        ("api/a/{id:int}", "/api/A/7/", {"id": "7"}),
        ("api/a/{id:int}", "/api/a/x", None),
        ("api/a/{id?}", "/api/a", {}),
        ("api/a/{id=5}", "/api/a", {"id": "5"}),
        ("api/a/{id:length(2,3)}", "/api/a/abcd", None),
        ("api/a/{id:regex(^[a-z]{{2}}$)}", "/api/a/xy", {"id": "xy"}),
        ("api/{type}({key})", "/api/Patient(a%2Fb)", {"type": "Patient", "key": "a%2Fb"}),
        ("api/{*rest}", "/api/$metadata/x", {"rest": "$metadata/x"}),
        ("api/{*rest}", "/api", {}),
        ("api/a", "/api//a", None),
    ],
)
def test_a_template_takes_what_asp_net_takes(
    template: str, path: str, expected: dict[str, str] | None
) -> None:
    assert routes.match(routes.parse(template), path) == expected


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("a/{x}", "a/list", True),
        ("a/{x:int}", "a/list", False),
        ("a/{*x}", "a/b/c", True),
        ("a/{x?}", "a", True),
        ("a/{x}", "a", False),
        ("a/b", "a/c", False),
    ],
)
def test_routes_that_overlap_are_seen(left: str, right: str, expected: bool) -> None:
    assert routes.can_overlap(routes.parse(left), routes.parse(right)) is expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("a/{x}", "a/list", True),
        ("a/list", "a/{x}", False),
        ("a/{*x}", "a/{y}", True),
        ("a/{x}", "a/{*y}", False),
        ("a/{x:guid}", "a/{y}", False),
        ("a/{x}", "a/{y}", True),
        ("a", "b", False),
    ],
)
def test_a_route_that_hides_another_is_told(first: str, second: str, expected: bool) -> None:
    assert routes.can_hide(routes.parse(first), routes.parse(second)) is expected


@pytest.mark.parametrize(
    ("text", "expected"), [("00:00:30", 30), ("1.02:00:00", 93_600), ("00:00:00.100", 0.1)]
)
def test_a_time_span_is_read(text: str, expected: float) -> None:
    assert parse_time_span(text, "here") == expected


@pytest.mark.parametrize("text", ["24:00:00", "5", "00:61:00"])
def test_a_time_span_that_misleads_is_refused(text: str) -> None:
    with pytest.raises(CannotStart, match=r"^here"):
        parse_time_span(text, "here")


def test_the_environment_overrides_host_json(tmp_path: Path) -> None:
    (tmp_path / "host.json").write_text('{"extensions": {"queues": {"batchSize": 4}}}')
    assert read_options(tmp_path, {}).queues.new_batch_threshold == 2
    env = {"AzureFunctionsJobHost__extensions__Queues__BatchSize": "8"}
    assert read_options(tmp_path, env).queues.batch_size == 8


def test_polling_slows_down_to_the_longest_interval() -> None:
    assert 0.15 < compute_poll_delay(1, 60) < 0.25
    assert compute_poll_delay(40, 60) == 60
