"""A table is compared with Dataverse from a page, by an admin, who sees before what it will do."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import fields
from html import unescape
from typing import Any
from urllib.parse import urlencode

import pytest

from integration.core.byte_budget import ByteBudget
from integration.journal.data_routes import MemoryDataRouteStore
from integration.journal.jobs import JobState
from integration.mapping import files, load
from integration.operations import jobs
from integration.pages.answer import answer_page
from integration.pages.http import PageRequest, Reply
from integration.pages.parts import MapSources, PagesParts
from integration.pages.people import SignIn
from integration.queues.names import JOB_QUEUE
from integration.virtual_tables.data_routes import DataRoutes
from tests.builders import MARKER, patient
from tests.conftest import Route
from tests.reconcile.desk import Desk

SITE = "https://relay.example"
NAME = "ada@hospital.example"
TOKEN = "t" * 32
ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"

_MAP_FILES = files.read_map_files("healthcare")
_MAPS = load.build_maps(_MAP_FILES)


def build_parts(desk: Desk) -> PagesParts:
    """What these pages need. Nothing else is asked for anything."""
    route = desk.route
    given: dict[str, Any] = dict.fromkeys((field.name for field in fields(PagesParts)), None)
    given |= {
        "sign_in": SignIn(easy_auth=True, is_open=False),
        "journal": route.journal,
        "jobs": desk.parts,
        "fhir": route.fhir,
        "dataverse": route.dataverse,
        "budget": ByteBudget(),
        "data_routes": DataRoutes(
            store=MemoryDataRouteStore(),
            tables=files.list_tables(_MAP_FILES),
            is_mirroring=True,
            now=route.clock,
        ),
        "maps": MapSources(files=_MAP_FILES, load=lambda: _MAPS, on_delete="deactivate"),
        "now": route.clock,
        "new_token": lambda: TOKEN,
    }
    return PagesParts(**given)


async def ask(
    desk: Desk, path: str, roles: tuple[str, ...], form: Mapping[str, str] | None = None
) -> Reply:
    claims = [{"typ": "roles", "val": role} for role in roles]
    claims.append({"typ": "preferred_username", "val": NAME})
    principal = base64.b64encode(json.dumps({"claims": claims}).encode()).decode()
    request = PageRequest(
        method="GET" if form is None else "POST",
        path=path,
        query="",
        headers={
            "x-ms-client-principal": principal,
            "cookie": f"__Host-relay-form={TOKEN}",
            "origin": SITE,
            "content-type": "application/x-www-form-urlencoded",
        },
        body=b"" if form is None else urlencode({"token": TOKEN, **form}).encode(),
        url=f"{SITE}/api/pages/{path}",
        origins=frozenset({SITE}),
    )
    return await answer_page(build_parts(desk), request)


def read(reply: Reply) -> str:
    """The words of a page, without its tags."""
    text = unescape(re.sub(r"<[^>]*>", " ", reply.body.decode()))
    return " ".join(text.replace("\u202f", " ").replace("\xa0", " ").split())


@pytest.fixture
def desk(route: Route) -> Desk:
    return Desk(route)


async def test_only_an_admin_is_offered_to_compare_and_only_what_is_mirrored(desk: Desk) -> None:
    links = [
        re.findall(
            r"data-routes/(\w+)/reconcile", (await ask(desk, "data-routes", roles)).body.decode()
        )
        for roles in (("reader", "operator"), ("reader", "admin"))
    ]
    assert links[0] == []
    assert "Patient" in links[1]
    assert "Observation" not in links[1]
    refused = await ask(desk, "data-routes/Patient/reconcile", ("reader", "operator"))
    assert refused.status == 403


async def test_what_it_does_is_said_and_counted_before(desk: Desk) -> None:
    desk.route.fhir_double.will_answer(200, {"resourceType": "Bundle", "total": 12345})
    reply = await ask(desk, "data-routes/Patient/reconcile", ("admin",))
    assert reply.status == 200
    text = read(reply)
    assert "Compare Patient with Dataverse?" in text
    assert "12 345 Patient resources" in text
    assert "All that the rows show." in text
    assert desk.queue.sent == []


@pytest.mark.parametrize(
    "path", ["data-routes/Observation/reconcile", "data-routes/Nothing/reconcile"]
)
async def test_a_table_that_is_not_mirrored_is_refused(desk: Desk, path: str) -> None:
    for form in (None, {"do": "mend", "compare": "content"}):
        reply = await ask(desk, path, ("admin",), form)
        assert reply.status in (404, 409)
    assert desk.jobs.jobs == {}


@pytest.mark.parametrize("form", [{}, {"do": "delete"}, {"do": "mend", "compare": "names"}])
async def test_a_form_that_says_something_else_is_refused(desk: Desk, form: dict[str, str]) -> None:
    reply = await ask(desk, "data-routes/Patient/reconcile", ("admin",), form)
    assert reply.status == 400
    assert desk.jobs.jobs == {}


async def test_an_operator_cannot_start_one_by_the_form_of_other_jobs(desk: Desk) -> None:
    form = {"do": "reconcile", "status": "parked"}
    reply = await ask(desk, "jobs", ("operator",), form)
    assert reply.status == 400
    assert desk.jobs.jobs == {}


async def test_an_admin_starts_it_and_sees_what_became_of_it(desk: Desk) -> None:
    await desk.mirrored(patient(id=ANNA, name=[{"family": MARKER}]))
    await desk.route.dataverse_double.write(ANNA, lastname="Edited")
    path = "data-routes/Patient/reconcile"
    begun = await ask(desk, path, ("admin",), {"do": "look", "compare": "content"})
    assert begun.status == 303
    address = begun.headers["Location"].removeprefix("/api/pages/")
    assert [queue for queue, _, _ in desk.queue.sent] == [JOB_QUEUE]
    assert "Stop it" in read(await ask(desk, address, ("operator",)))
    await desk.work()
    looked = read(await ask(desk, address, ("reader",)))
    assert f"Differ 1; the last one: Patient/{ANNA} is different (lastname)" in looked
    assert f"by {NAME}" in looked
    assert "Only looks yes" in looked

    mended = await ask(desk, path, ("admin",), {"do": "mend", "compare": "content"})
    await desk.work()
    reply = await ask(desk, mended.headers["Location"].removeprefix("/api/pages/"), ("reader",))
    assert "Mended 1: what was done to which rows" in read(reply)
    assert "Differ still 0" in read(reply)
    assert "/api/pages/deliveries/" in reply.body.decode()
    listed = await ask(desk, "jobs", ("reader",))
    assert "Reconcile Patient, only a look" in read(listed)
    assert MARKER not in looked + read(reply) + read(listed)


async def test_a_job_that_waits_says_for_whom(desk: Desk) -> None:
    desk.route.fhir_double.down = 500
    job = await desk.start()
    (_, item, _) = desk.queue.sent.pop()
    await jobs.do_slice(desk.parts, item)
    text = read(await ask(desk, f"jobs/{job.id}", ("reader",)))
    assert "It waits, and goes on by itself: FHIR server" in text


async def test_a_job_that_has_ended_early_says_why(desk: Desk) -> None:
    job = await desk.start()
    desk.queues = {}
    await desk.work()
    assert (await desk.get(job)).state is JobState.FAILED
    text = read(await ask(desk, f"jobs/{job.id}", ("reader",)))
    assert "It has ended early: rows of Patient are not mirrored" in text
