"""Small deliveries through the relay to HAPI's server: what is promised does not rest on one server."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx
import pytest

from integration.fhir.units import Limits
from tests.builders import batch, bundle, entry, observation, patient
from tests.equivalence.meaning import sent
from tests.equivalence.sides import Body, Hapi, Result, relayed

pytestmark = pytest.mark.hapi

MRN = "http://example.org/mrn"


@pytest.fixture
async def server(hapi_url: str) -> AsyncIterator[Hapi]:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        yield Hapi(hapi_url, http)


async def deliver(server: Hapi, body: Body, limits: Limits = Limits()) -> Result:
    """As a delivery of its own: nothing but the server remembers an earlier one."""
    return await relayed(server, sent("case.json", json.dumps(body).encode()), limits)


async def read(server: Hapi, identity: str | None) -> Body:
    found: Body = (await server.http.get(f"{server.url}/{identity}")).raise_for_status().json()
    return found


def new_id() -> str:
    return f"c-{uuid4()}"


def known(value: str, **elements: object) -> Body:
    return patient(identifier=[{"system": MRN, "value": value}], **elements)


async def test_a_created_patient_and_what_refers_to_it_arrive_together(server: Hapi) -> None:
    who = f"urn:uuid:{uuid4()}"
    result = await deliver(server, bundle(entry(observation(who)), entry(patient(), who)))
    assert result.statuses == [201, 201]
    stored = await read(server, result.places[0])
    assert stored["subject"]["reference"] == result.places[1]


async def test_units_of_a_split_transaction_find_what_earlier_ones_have_created(
    server: Hapi,
) -> None:
    who = f"urn:uuid:{uuid4()}"
    entries = [entry(observation(who, id=new_id())) for _ in range(6)]
    result = await deliver(server, bundle(*entries, entry(patient(), who)), Limits(entries=2))
    assert set(result.statuses) == {201}
    assert result.split
    subjects = {(await read(server, place))["subject"]["reference"] for place in result.places[:6]}
    assert subjects == {result.places[6]}


async def test_the_same_delivery_again_makes_no_version_and_no_other_resource(
    server: Hapi,
) -> None:
    body = bundle(
        entry(patient(), f"urn:uuid:{uuid4()}"),
        entry(known(new_id(), id=new_id()), method="PUT"),
    )
    first, second = await deliver(server, body), await deliver(server, body)
    assert first.places == second.places
    versions = {(await read(server, place))["meta"]["versionId"] for place in second.places}
    assert versions == {"1"}


async def test_the_same_content_in_other_bytes_makes_no_version(server: Hapi) -> None:
    value, id_ = new_id(), new_id()
    for number in range(3):
        exported = {"meta": {"lastUpdated": f"2026-01-0{number + 1}T00:00:00Z"}}
        by_condition = entry(known(value), method="PUT", url=f"Patient?identifier={MRN}|{value}")
        by_id = entry(patient(id=id_, **exported), method="PUT")
        result = await deliver(server, batch(by_condition, by_id))
    versions = {(await read(server, place))["meta"]["versionId"] for place in result.places}
    assert versions == {"1"}


async def test_the_later_of_two_deliveries_stands(server: Hapi) -> None:
    id_ = new_id()
    for gender in ("female", "other"):
        await deliver(server, batch(entry(patient(id=id_, gender=gender), method="PUT")))
    stored = await read(server, f"Patient/{id_}")
    assert (stored["gender"], stored["meta"]["versionId"]) == ("other", "2")


async def test_a_bad_entry_of_a_batch_does_not_stop_a_good_one_and_tells_the_server_s_reason(
    server: Hapi,
) -> None:
    lost = observation(f"Patient/{new_id()}", id=new_id())
    good = patient(id=new_id())
    result = await deliver(server, batch(entry(lost, method="PUT"), entry(good, method="PUT")))
    assert result.statuses == [400, 201]
    assert "HAPI-1094" in result.why


async def test_deliveries_with_one_condition_make_one_resource(server: Hapi) -> None:
    value = new_id()
    again = [
        entry(known(value), f"urn:uuid:{uuid4()}", ifNoneExist=f"identifier={MRN}|{value}")
        for _ in range(3)
    ]
    results = [await deliver(server, bundle(each)) for each in again[:2]]
    results.append(await deliver(server, bundle(*again[1:], kind="batch")))
    assert len({place for result in results for place in result.places}) == 1
    assert results[0].statuses == [201]
    assert results[1].statuses == [200]


async def test_a_condition_finds_what_was_written_since_it_was_last_asked(server: Hapi) -> None:
    """HAPI's server would repeat the result of the first search for a minute."""
    value, id_ = new_id(), new_id()
    condition = f"identifier={MRN}|{value}"
    search = entry(method="GET", url=f"Patient?{condition}&_elements=id&_count=2")
    await deliver(server, batch(search))
    await deliver(server, batch(entry(known(value, id=id_), method="PUT")))
    result = await deliver(server, bundle(entry(known(value), ifNoneExist=condition)))
    assert (result.statuses, result.places) == ([200], [f"Patient/{id_}"])


async def test_a_deleted_resource_is_written_anew(server: Hapi) -> None:
    id_ = new_id()
    for asked, status in (
        (entry(patient(id=id_), method="PUT"), 201),
        (entry(method="DELETE", url=f"Patient/{id_}"), 204),
        (entry(method="DELETE", url=f"Patient/{id_}"), 204),
        (entry(patient(id=id_), method="PUT"), 201),
    ):
        assert (await deliver(server, batch(asked))).statuses == [status]
    assert (await read(server, f"Patient/{id_}"))["meta"][
        "versionId"
    ] == "4"  # with the announcement of the delete
