"""What stands already is not written again; what only looks the same is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.builders import Body, bundle, entry, observation, patient
from tests.conftest import Route

KNOWN = [{"system": "urn:mrn", "value": "7"}]
CONDITION = "identifier=urn:mrn|7"
URN = "urn:uuid:00000000-0000-4000-8000-000000000001"


def update(**elements: Any) -> Body:
    return entry(patient(id="p1", **elements), method="PUT", url="Patient/p1")


def conditional_update(**elements: Any) -> Body:
    url = f"Patient?{CONDITION}"
    return entry(patient(identifier=KNOWN, **elements), URN, method="PUT", url=url)


def observed(subject: str) -> Body:
    return entry(observation(subject, id="o1"), method="PUT", url="Observation/o1")


async def deliver(route: Route, *entries: Body, kind: str = "batch") -> list[int]:
    """A delivery of other bytes than those before it, whatever its entries."""
    stamped = bundle(*entries, kind=kind) | {"id": f"b-{len(route.journal.deliveries)}"}
    delivery = await route.deliver(stamped)
    await route.process_all(delivery)
    return await route.statuses(delivery)


def subject(route: Route) -> str:
    found: str = route.fhir_double.stored["Observation/o1"]["subject"]["reference"]
    return found


# --- the same content ----------------------------------------------------------------------------


async def test_what_the_server_sets_anyway_makes_no_content_of_its_own(route: Route) -> None:
    """An EHR may state when it has exported the resource, each time anew.

    https://hl7.org/fhir/R4/http.html#update: versionId and lastUpdated of a request are ignored.
    """
    for number in range(1, 4):
        meta = {"versionId": str(number), "lastUpdated": f"2026-01-0{number}T00:00:00Z"}
        assert (await deliver(route, update(meta=meta)))[0] in (200, 201)
    assert route.fhir_double.writes_of_each == {"Patient/p1": 1}


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_a_conditional_update_of_the_same_content_makes_no_new_version(
    route: Route, kind: str
) -> None:
    for _ in range(3):
        assert (await deliver(route, conditional_update(), kind=kind))[0] in (200, 201)
    (number,) = route.fhir_double.writes_of_each.values()
    # The second write goes to the resource by its id, the first one did not know it.
    assert number == 1


async def test_what_refers_to_the_same_resource_by_a_condition_makes_no_new_version(
    route: Route,
) -> None:
    create = entry(patient(identifier=KNOWN), URN, ifNoneExist=CONDITION)
    for _ in range(3):
        await deliver(route, create, observed(URN))
    assert route.fhir_double.writes_of_each["Observation/o1"] == 1


# --- what only looks the same --------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_a_link_follows_its_condition_to_another_resource(route: Route, kind: str) -> None:
    """The bytes are the same each time; what the condition finds is not."""
    create = entry(patient(identifier=KNOWN), URN, ifNoneExist=CONDITION)
    body = bundle(create, observed(URN), kind=kind)
    await route.process_all(await route.deliver(body))
    former = subject(route)
    route.fhir_double.delete(former)
    await route.process_all(await route.deliver(body))
    (present,) = route.fhir_double.of("Patient")
    assert subject(route) == f"Patient/{present['id']}" != former


def version_of(number: int, **elements: Any) -> Body:
    """A version whose number only the response of its entry states."""
    request = entry(patient(id="p1", **elements), method="PUT", url="Patient/p1")
    return request | {"response": {"status": "200", "etag": f'W/"{number}"'}}


async def test_a_later_version_with_the_content_of_an_earlier_one_is_written(
    route: Route,
) -> None:
    """Else the version between them, which arrives last, would stand."""
    route.settings = {"write_orders": {"": "version"}}
    for number, gender in ((1, "female"), (3, "female"), (2, "male")):
        await deliver(route, version_of(number, gender=gender), kind="history")
    assert route.fhir_double.stored["Patient/p1"]["gender"] == "female"
