"""What a delivery refers to but does not contain is fetched once, where that is allowed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest

from integration.core.errors import Unavailable
from integration.core.http import BoundedClient, Limiter, Upstream
from integration.core.model import Status
from integration.core.rate_limiter import build_full_limit
from integration.relay.fetch import Sources
from tests.builders import MARKER, patient
from tests.conftest import Route
from tests.fhir.notices import (
    HOME,
    make_deletion,
    make_full_entry,
    make_named_entry,
    make_notification,
)

Body = dict[str, Any]

MOST = 20_000


@dataclass
class Source:
    """The server of a sender: its responses by address, in the order in which they are given."""

    answers: dict[str, list[httpx.Response]] = field(default_factory=dict)
    received: list[httpx.Request] = field(default_factory=list)

    async def hear(self, request: httpx.Request) -> httpx.Response:
        self.received.append(request)
        answers = self.answers.get(str(request.url), [])
        return answers.pop(0) if answers else httpx.Response(404)

    def has(self, path: str, *answers: httpx.Response | Body) -> None:
        made = [
            answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)
            for answer in answers
        ]
        self.answers[f"{HOME}/{path}"] = made

    @property
    def asked(self) -> list[str]:
        return [str(request.url).removeprefix(f"{HOME}/") for request in self.received]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
async def open_route(route: Route, source: Source) -> AsyncIterator[Route]:
    """A route that may fetch from the sender's server."""

    async def pause(_: float) -> None:
        await asyncio.sleep(0)

    http = BoundedClient(MOST, transport=httpx.MockTransport(source.hear))
    room = Limiter(build_full_limit(4), 0, lambda: 0.0, pause)
    home = Upstream(f"source {HOME}", HOME, http, room, pause=pause, jitter=lambda: 0.5)
    route.sources = Sources({HOME: home}, max_pages=3, max_bytes=MOST)
    yield route
    await http.aclose()


def found(*ids: str, following: str | None = None, **more: Any) -> Body:
    """A page of a searchset."""
    entries = [{"fullUrl": f"{HOME}/Patient/{id_}", "resource": patient(id=id_)} for id_ in ids]
    link = [{"relation": "next", "url": following}] if following else []
    return {"resourceType": "Bundle", "type": "searchset", "entry": entries, "link": link, **more}


def page(number: int) -> str:
    return f"{HOME}/Patient?page={number}"


# --- resources ---------------------------------------------------------------------------------


async def test_a_resource_that_is_only_named_is_fetched_and_written(
    open_route: Route, source: Source
) -> None:
    source.has("Patient/anna", patient(id="anna"))
    delivery = await open_route.deliver(make_notification(make_named_entry("Patient/anna")))
    await open_route.process_all(delivery)
    assert await open_route.statuses(delivery) == [204, 201]
    assert list(open_route.fhir_double.stored) == ["Patient/anna"]
    assert open_route.mirrored == ["Patient/anna"]
    (request,) = source.received
    assert (request.method, request.headers["accept"]) == ("GET", "application/fhir+json")
    assert "authorization" not in request.headers


async def test_a_focus_without_an_entry_is_counted_and_has_the_last_result(
    open_route: Route, source: Source
) -> None:
    source.has("Patient/anna", patient(id="anna"))
    made = make_notification(make_deletion("Patient/bert"), events=((1, f"{HOME}/Patient/anna"),))
    delivery = await open_route.deliver(made)
    await open_route.process_all(delivery)
    assert (await open_route.known(delivery)).entries == 3
    outcomes = await open_route.outcomes(delivery)
    assert [item.position for item in outcomes] == [0, 1, 2]
    assert (outcomes[2].location or "").startswith("Patient/anna")


async def test_a_resource_that_is_deleted_by_now_is_reported_and_not_written(
    open_route: Route,
) -> None:
    delivery = await open_route.deliver(make_notification(make_named_entry("Patient/anna")))
    await open_route.process_all(delivery)
    assert await open_route.statuses(delivery) == [204, 204]
    assert open_route.fhir_double.stored == {}


@pytest.mark.parametrize("home", ["https://evil.example/fhir", "http://home.example/fhir"])
async def test_a_server_that_is_not_allowed_gets_no_request(
    open_route: Route, source: Source, home: str
) -> None:
    made = make_notification(
        make_named_entry("Patient/anna", home=home), make_full_entry(patient(id="bert"))
    )
    delivery = await open_route.deliver(made)
    await open_route.process_all(delivery)
    assert source.received == []
    assert await open_route.statuses(delivery) == [204, 422, 201]
    (issue,) = (await open_route.outcomes(delivery))[1].issues or []
    assert "FETCH_FROM" in issue["diagnostics"]


async def test_without_an_allowed_base_nothing_is_fetched(route: Route) -> None:
    delivery = await route.deliver(make_notification(make_named_entry("Patient/anna")))
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [204, 422]


async def test_a_redirect_is_never_followed(open_route: Route, source: Source) -> None:
    away = httpx.Response(302, headers={"location": f"{HOME}/Patient/bert"})
    source.has("Patient/anna", away)
    source.has("Patient/bert", patient(id="anna"))
    delivery = await open_route.deliver(make_notification(make_named_entry("Patient/anna")))
    await open_route.process_all(delivery)
    assert source.asked == ["Patient/anna"]
    assert await open_route.statuses(delivery) == [204, 422]


@pytest.mark.parametrize("other", [{"id": "bert"}, {"resourceType": "Group"}])
async def test_a_response_with_another_resource_is_refused(
    open_route: Route, source: Source, other: Body
) -> None:
    source.has("Patient/anna", {**patient(id="anna"), **other})
    delivery = await open_route.deliver(make_notification(make_named_entry("Patient/anna")))
    await open_route.process_all(delivery)
    assert await open_route.statuses(delivery) == [204, 422]
    assert open_route.fhir_double.stored == {}


async def endless() -> AsyncIterator[bytes]:
    """Ends only if nobody stops reading."""
    for _ in range(100):
        yield b" " * (MOST // 4)
    raise AssertionError("read to its end")


async def test_an_endless_response_is_read_only_up_to_the_limit(
    open_route: Route, source: Source
) -> None:
    source.has("Patient/anna", httpx.Response(200, content=endless()))
    delivery = await open_route.deliver(make_notification(make_named_entry("Patient/anna")))
    await open_route.process_all(delivery)
    assert await open_route.statuses(delivery) == [204, 422]
    (issue,) = (await open_route.outcomes(delivery))[1].issues or []
    assert (issue["code"], "MAX_DELIVERY_BYTES" in issue["diagnostics"]) == ("too-long", True)


async def test_one_limit_holds_for_all_that_is_fetched_for_a_delivery(
    open_route: Route, source: Source
) -> None:
    for number in range(10):
        large = patient(id=f"p{number}", text={"div": "x" * (MOST // 3)})
        source.has(f"Patient/p{number}", large)
    many = make_notification(*(make_named_entry(f"Patient/p{number}") for number in range(10)))
    delivery = await open_route.deliver(many)
    await open_route.process_all(delivery)
    # Requests that run at the same time may exceed the limit; no later one is sent.
    assert 2 <= len(open_route.fhir_double.stored) <= 6
    statuses = await open_route.statuses(delivery)
    assert {status for status in statuses if status not in (201, 204)} == {422}


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_a_failing_server_requeues_the_delivery(
    open_route: Route, source: Source, status: int
) -> None:
    source.has("Patient/anna", *(httpx.Response(status) for _ in range(3)), patient(id="anna"))
    delivery = await open_route.deliver(make_notification(make_named_entry("Patient/anna")))
    await open_route.process(delivery)
    ((claim, delay),) = open_route.queued()
    assert (claim.attempt, delay > 0) == (1, True)
    assert await open_route.outcomes(delivery) == []
    await open_route.process_all()
    assert await open_route.statuses(delivery) == [204, 201]


async def test_a_repeated_work_item_plans_with_what_was_fetched_before(
    open_route: Route, source: Source
) -> None:
    """Whatever the server and the settings say by then."""
    source.has("Patient/anna", patient(id="anna", gender="female"), patient(id="anna"))
    open_route.fhir_double.down = 503
    delivery = await open_route.deliver(
        make_notification(
            make_named_entry("Patient/anna"),
            make_named_entry("Patient/bert", home="https://far.example"),
        )
    )
    await open_route.process(delivery)
    far = replace(open_route.sources.upstreams[HOME], base="https://far.example")
    open_route.sources = replace(open_route.sources, upstreams={"https://far.example": far})
    open_route.fhir_double.down = None
    await open_route.process_all()
    assert len(source.received) == 1
    assert open_route.fhir_double.stored["Patient/anna"]["gender"] == "female"
    assert await open_route.statuses(delivery) == [204, 201, 422]


# --- pages -------------------------------------------------------------------------------------


async def test_further_pages_are_fetched_and_their_results_follow_the_sender_s_own(
    open_route: Route, source: Source
) -> None:
    source.has("Patient?page=2", found("p3", following=page(3)))
    source.has("Patient?page=3", found("p4", "p5"))
    delivery = await open_route.deliver(found("p1", "p2", following=page(2)))
    await open_route.process_all(delivery)
    assert [
        (item.location or "").partition("/_history")[0]
        for item in await open_route.outcomes(delivery)
    ] == [f"Patient/p{n}" for n in range(1, 6)]
    known = await open_route.known(delivery)
    assert (known.entries, known.written, known.more) == (5, 5, False)


async def test_a_resource_that_each_page_includes_is_written_once(
    open_route: Route, source: Source
) -> None:
    source.has("Patient?page=2", found("p1", "p2"))
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process_all(delivery)
    assert await open_route.statuses(delivery) == [201, 200, 201]


async def test_the_number_of_pages_is_limited_and_the_rest_is_reported(
    open_route: Route, source: Source
) -> None:
    for number in range(2, 10):
        source.has(f"Patient?page={number}", found(f"p{number}", following=page(number + 1)))
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process_all(delivery)
    assert source.asked == [f"Patient?page={n}" for n in (2, 3, 4)]
    known = await open_route.known(delivery)
    assert (known.entries, known.more) == (4, True)


async def test_the_entries_of_all_pages_are_limited_whatever_the_limit_is_by_then(
    open_route: Route, source: Source
) -> None:
    sources = open_route.sources
    open_route.sources = replace(sources, max_entries=3)
    source.has("Patient?page=2", found("p2", "p3", following=page(3)))
    source.has("Patient?page=3", found("p4", following=page(4)))
    delivery = await open_route.deliver(found("p1", following=page(2)))
    open_route.fhir_double.will_answer(503)
    await open_route.process(delivery)
    open_route.sources = sources
    await open_route.process_all()
    assert source.asked == ["Patient?page=2", "Patient?page=3"]
    assert await open_route.statuses(delivery) == [201, 201, 201, 422]
    (issue,) = (await open_route.outcomes(delivery))[3].issues or []
    assert "MAX_DELIVERY_ENTRIES" in issue["diagnostics"]


async def test_pages_that_link_in_a_circle_are_fetched_once(
    open_route: Route, source: Source
) -> None:
    source.has("Patient?page=2", found("p2", following=page(2)), found("p2", following=page(2)))
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process_all(delivery)
    assert source.asked == ["Patient?page=2"]
    assert (await open_route.known(delivery)).more


@pytest.mark.parametrize(
    "following", ["https://evil.example/fhir/Patient?page=2", "Patient?page=2", 7, None]
)
async def test_a_page_on_another_server_is_reported_and_not_fetched(
    open_route: Route, source: Source, following: Any
) -> None:
    link = [{"relation": "next", "url": following}]
    delivery = await open_route.deliver({**found("p1"), "link": link})
    await open_route.process_all(delivery)
    assert source.received == []
    assert (await open_route.known(delivery)).more


async def test_a_page_on_another_server_after_a_page_on_this_one_is_not_fetched(
    open_route: Route, source: Source
) -> None:
    source.has("Patient?page=2", found("p2", following="https://evil.example/fhir/Patient"))
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process_all(delivery)
    assert source.asked == ["Patient?page=2"]
    known = await open_route.known(delivery)
    assert (known.entries, known.more) == (2, True)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(410),
        httpx.Response(400),
        httpx.Response(200, content=MARKER.encode()),
        httpx.Response(200, json={"resourceType": "Bundle", "type": "collection"}),
        httpx.Response(200, json=patient(id="p2")),
        httpx.Response(302, headers={"location": page(3)}),
    ],
)
async def test_a_page_that_cannot_be_read_is_reported_and_the_rest_is_written(
    open_route: Route, source: Source, answer: httpx.Response
) -> None:
    source.has("Patient?page=2", answer)
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process_all(delivery)
    assert await open_route.statuses(delivery) == [201, 422]
    (issue,) = (await open_route.outcomes(delivery))[1].issues or []
    assert issue["severity"] == "error"
    assert issue["expression"] == ["page 2"]
    assert MARKER not in json.dumps(issue)


async def test_a_bad_entry_of_a_page_is_refused_alone(open_route: Route, source: Source) -> None:
    bad = found("p2", "p3")
    bad["entry"][0]["resource"] = {"resourceType": MARKER}
    hint = {"resource": {"resourceType": "OperationOutcome", "issue": []}}
    bad["entry"].append(hint)
    source.has("Patient?page=2", bad)
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process_all(delivery)
    assert await open_route.statuses(delivery) == [201, 422, 201, 204]
    assert MARKER not in json.dumps((await open_route.outcomes(delivery))[1].issues)


async def test_a_page_that_fails_for_now_keeps_the_pages_before_it(
    open_route: Route, source: Source
) -> None:
    source.has("Patient?page=2", found("p2", following=page(3)))
    source.has("Patient?page=3", *(httpx.Response(503) for _ in range(3)), found("p3"))
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process(delivery)
    assert open_route.fhir_double.stored == {}
    await open_route.process_all()
    assert source.asked.count("Patient?page=2") == 1
    assert await open_route.statuses(delivery) == [201, 201, 201]


async def test_nothing_that_is_fetched_is_in_a_log(
    open_route: Route, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    source.has("Patient?page=2", found(MARKER))
    delivery = await open_route.deliver(found("p1", following=page(2)))
    await open_route.process_all(delivery)
    ours = [record for record in caplog.records if record.name.startswith("integration")]
    assert MARKER not in "".join(repr(vars(record)) for record in ours)
    assert (await open_route.known(delivery)).status is Status.DONE


async def test_when_a_response_cannot_be_stored_nothing_is_planned(
    open_route: Route, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.has("Patient/anna", patient(id="anna"))

    async def full_storage(*_: Any) -> bytes:
        raise Unavailable("storage", "ServiceRequestError")

    delivery = await open_route.deliver(make_notification(make_named_entry("Patient/anna")))
    monkeypatch.setattr(type(open_route.journal), "save_fetched", full_storage)
    await open_route.process(delivery)
    assert open_route.fhir_double.stored == {}
    assert [claim.attempt for claim, _ in open_route.queued()] == [1]
