"""Whatever an entry does, and wherever its answer is lost, the next attempt ends the delivery: it is
neither waited for nor written twice."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from integration.core.model import Status
from tests.builders import Body, bundle, entry, patient
from tests.conftest import Route

QUERY = "identifier=urn:mrn|7"
BEFORE = "before the server has it"
AFTER = "after the server has done it"
TWICE = "after the server has done it, twice"


def numbered(**elements: Any) -> Body:
    return patient(identifier=[{"system": "urn:mrn", "value": "7"}], **elements)


def build_patch() -> Body:
    parts = [
        {"name": "type", "valueCode": "replace"},
        {"name": "path", "valueString": "Patient.gender"},
        {"name": "value", "valueString": "other"},
    ]
    return {
        "resourceType": "Parameters",
        "parameter": [{"name": "operation", "part": parts}],
    }


# The entry, and whether its patient is there before.
WRITES: dict[str, tuple[Body, bool]] = {
    "create": (entry(numbered()), False),
    "conditional create": (entry(numbered(), ifNoneExist=QUERY), False),
    "conditional create of what is there": (entry(numbered(), ifNoneExist=QUERY), True),
    "update that creates": (entry(numbered(id="p1"), method="PUT"), False),
    "update": (entry(numbered(id="p1", gender="other"), method="PUT"), True),
    "conditional update that creates": (
        entry(numbered(), method="PUT", url=f"Patient?{QUERY}"),
        False,
    ),
    "conditional update": (
        entry(numbered(gender="other"), method="PUT", url=f"Patient?{QUERY}"),
        True,
    ),
    "patch": (entry(build_patch(), method="PATCH", url="Patient/p1"), True),
    "delete": (entry(None, method="DELETE", url="Patient/p1"), True),
    "conditional patch": (entry(build_patch(), method="PATCH", url=f"Patient?{QUERY}"), True),
    "conditional delete": (entry(None, method="DELETE", url=f"Patient?{QUERY}"), True),
}


def lose(route: Route, where: str) -> None:
    async def lose_one(work: Any, request: httpx.Request) -> httpx.Response:
        if where != BEFORE:
            await work(request)
        raise httpx.ReadError("gone", request=request)

    route.fhir_double.script += [lose_one] * (2 if where == TWICE else 1)


@pytest.mark.parametrize("kind", ["batch", "transaction"])
@pytest.mark.parametrize("where", [BEFORE, AFTER, TWICE])
@pytest.mark.parametrize("name", WRITES)
async def test_a_write_whose_answer_was_lost_ends_and_is_done_once(
    route: Route, name: str, where: str, kind: str
) -> None:
    written, is_there = WRITES[name]
    if (name, kind) == ("conditional delete", "transaction"):
        pytest.skip(
            "Azure's FHIR service takes none in a transaction, so it is refused at the door"
        )
    if is_there:
        route.fhir_double.add(numbered(id="p1", gender="female"))
    before = dict(route.fhir_double.versions)
    delivery = await route.deliver(bundle(written, kind=kind))
    lose(route, where)
    await route.process_all(delivery)
    known = await route.journal.get_delivery(delivery)
    assert known is not None
    assert (known.status, known.refused) == (Status.DONE, 0), await route.statuses(delivery)
    # A second request may be sent; a second version is not made. A delete is announced first.
    made = 2 if "delete" in name else 1
    for resource, version in route.fhir_double.versions.items():
        assert version <= before.get(resource, 0) + made, resource
    assert len(route.fhir_double.of("Patient")) <= 1
