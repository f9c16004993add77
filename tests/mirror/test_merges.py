"""Two records of one person: the contact of the one that was replaced is put out of use, and leads to
the contact that is used instead; until the merge is undone.

https://hl7.org/fhir/R4/patient.html#links
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from integration.core.model import RowResult, WorkItem
from integration.mapping import load
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from local.dataverse import tables
from tests.builders import Body, patient
from tests.conftest import Route, routed
from tests.doubles import DataverseDouble

OLD = "0a4f2c9d-3f5b-4c0e-8f52-5b1f7a9b2d01"
NEW = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
THIRD = "2c1c7a3f-2a7d-4e8f-8b63-1d2a8b0c3e22"
DELIVERY = "019caaee-c260-7000-8000-000000000001"

ACTIVE, INACTIVE = (0, 1), (1, 2)  # statecode, statuscode


def link(to: str, kind: str) -> Body:
    return {"other": {"reference": f"Patient/{to}"}, "type": kind}


def replaced(by: str = NEW) -> Body:
    return patient(id=OLD, active=False, link=[link(by, "replaced-by")])


def replacing() -> Body:
    return patient(id=NEW, active=True, link=[link(OLD, "replaces")])


async def mirror(route: Route, resource: Body) -> RowResult:
    """Write it to FHIR and mirror it, then all that this has woken: what was noted of it."""
    name = route.fhir_double.add(resource)
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=name))
    noted = [row for row in await route.journal.list_row_results(DELIVERY) if row.resource == name]
    for _ in range(10):
        claims = [claim for claim, _ in route.queued(MIRROR_QUEUE)]
        route.queue_sender.sent.clear()
        if not claims:
            return noted[-1]
        for claim in claims:
            await mirroring.mirror_resource(route.mirror, claim)
    raise AssertionError("patients wake each other for ever")


async def contact(route: Route, key: str) -> Body:
    (row,) = [row for row in await route.dataverse_double.contacts() if row["contactid"] == key]
    return row


def state(row: Body) -> tuple[int, int]:
    return row["statecode"], row["statuscode"]


async def links(route: Route) -> list[tuple[str, str, str]]:
    """(contact, kind, contact) of every row of links."""
    concepts = await route.dataverse_double.rows("msemr_codeableconcepts")
    codes = {each["msemr_codeableconceptid"]: each["msemr_code"] for each in concepts}
    return sorted(
        (row["_msemr_patient_value"], codes[row["_msemr_linktype_value"]], row["_msemr_link_value"])
        for row in await route.dataverse_double.rows("msemr_contactlinks")
    )


async def test_a_patient_that_was_replaced_is_inactive_and_leads_to_the_other(route: Route) -> None:
    await mirror(route, patient(id=NEW))
    await mirror(route, patient(id=OLD))
    before = len(route.dataverse_double.writes)
    noted = await mirror(route, replaced())
    row = await contact(route, OLD)
    assert (state(row), row["_msemr_link1_value"]) == (INACTIVE, NEW)
    assert await links(route) == [(OLD, "replaced-by", NEW)]
    assert state(await contact(route, NEW)) == ACTIVE
    assert (noted.action, noted.notes) == ("updated", ())
    assert len(route.dataverse_double.writes) == before + 1, "row and link change together"


async def test_a_patient_may_arrive_when_it_was_replaced_already(route: Route) -> None:
    await mirror(route, patient(id=NEW))
    noted = await mirror(route, replaced())
    row = await contact(route, OLD)
    assert (state(row), row["_msemr_link1_value"]) == (INACTIVE, NEW)
    assert await links(route) == [(OLD, "replaced-by", NEW)]
    assert noted.action == "created"


async def test_the_link_waits_for_the_other_patient_and_the_deactivation_does_not(
    route: Route,
) -> None:
    noted = await mirror(route, replaced())
    row = await contact(route, OLD)
    assert (state(row), row["_msemr_link1_value"]) == (INACTIVE, None)
    assert await links(route) == []
    assert "msemr_link1: the Patient is not in Dataverse yet" in noted.notes
    await mirror(route, patient(id=NEW))
    row = await contact(route, OLD)
    assert (state(row), row["_msemr_link1_value"]) == (INACTIVE, NEW)
    assert await links(route) == [(OLD, "replaced-by", NEW)]


@pytest.mark.parametrize("first", ["replaced", "replacing"])
async def test_patients_that_name_each_other_are_linked_both_ways_whichever_comes_first(
    route: Route, first: str
) -> None:
    arriving = [replaced(), replacing()]
    for resource in arriving if first == "replaced" else reversed(arriving):
        await mirror(route, resource)
    old, new = await contact(route, OLD), await contact(route, NEW)
    assert (state(old), old["_msemr_link1_value"]) == (INACTIVE, NEW)
    assert (state(new), new["_msemr_link1_value"]) == (ACTIVE, OLD)
    assert await links(route) == [(OLD, "replaced-by", NEW), (NEW, "replaces", OLD)]


async def test_a_merge_that_is_undone_leaves_no_trace(route: Route) -> None:
    await mirror(route, replacing())
    await mirror(route, replaced())
    await mirror(route, patient(id=OLD, active=True))
    await mirror(route, patient(id=NEW))
    for key in (OLD, NEW):
        row = await contact(route, key)
        assert state(row) == ACTIVE
        assert (row["_msemr_link1_value"], row["_msemr_link1type_value"]) == (None, None)
    assert await links(route) == []


async def test_a_patient_without_a_word_of_being_active_is_active_again(route: Route) -> None:
    await mirror(route, patient(id=NEW))
    await mirror(route, replaced())
    await mirror(route, patient(id=OLD))
    assert state(await contact(route, OLD)) == ACTIVE


async def test_a_patient_that_was_merged_wrongly_leads_to_the_right_one_afterwards(
    route: Route,
) -> None:
    await mirror(route, patient(id=NEW))
    await mirror(route, patient(id=THIRD))
    await mirror(route, replaced())
    await mirror(route, replaced(by=THIRD))
    row = await contact(route, OLD)
    assert (state(row), row["_msemr_link1_value"]) == (INACTIVE, THIRD)
    assert await links(route) == [(OLD, "replaced-by", THIRD)]


async def test_a_link_that_waited_for_nothing_is_forgotten_when_the_merge_is_undone(
    route: Route,
) -> None:
    """The other patient comes after all, but no longer replaces this one."""
    await mirror(route, replaced())
    await mirror(route, patient(id=OLD))
    await mirror(route, patient(id=NEW))
    row = await contact(route, OLD)
    assert (state(row), row["_msemr_link1_value"]) == (ACTIVE, None)
    assert await links(route) == []


# --- without the healthcare columns --------------------------------------------------------------

REPLACED_BY = {
    "type": "Lookup",
    "schemaName": "new_ReplacedBy",
    "label": "Replaced By",
    "targets": ["contact"],
    "navigation": {"contact": "new_ReplacedBy"},
}

# As docs/mapping.md has it.
ADDITION = """
adds_to = "Patient"

[[attribute]]
column = "{prefix}_replacedby"
path = "link.where(type = 'replaced-by').other.first()"
kind = "lookup"

[rest]
link = "link.where(type != 'replaced-by')"
"""


@pytest.fixture
async def plain(route: Route) -> AsyncIterator[Route]:
    """A route to an organisation without them, with a lookup of its own."""
    additions = tables.read_additions()
    additions["contact"]["columns"]["new_replacedby"] = REPLACED_BY
    dataverse = DataverseDouble(additions)
    ends = {
        "journal": route.journal,
        "queue_sender": route.queue_sender,
        "guard_store": route.guard_store,
    }
    async with routed(route.fhir_double, dataverse, route.clock, **ends) as found:
        found.maps = found.all_maps = load.load_shipped_maps("plain", "new")
        yield found
    dataverse.app.close()


async def test_without_columns_for_links_the_contact_is_inactive_and_the_link_is_noted(
    plain: Route,
) -> None:
    await mirror(plain, patient(id=NEW))
    noted = await mirror(plain, replaced())
    assert state(await contact(plain, OLD)) == INACTIVE
    assert [note.partition(" @ ")[0] for note in noted.notes] == [
        "link: 1 more than the map has columns for"
    ]
    await mirror(plain, patient(id=OLD))
    assert state(await contact(plain, OLD)) == ACTIVE


async def test_an_organisation_can_have_a_column_of_its_own_for_the_replacement(
    plain: Route, tmp_path: Path
) -> None:
    (tmp_path / "merges.toml").write_text(ADDITION, "utf-8")
    plain.maps = plain.all_maps = load.load_maps("plain", "new", tmp_path).entities
    noted = await mirror(plain, replaced())
    assert noted.notes == ("new_replacedby: the Patient is not in Dataverse yet",)
    await mirror(plain, patient(id=NEW))
    row: dict[str, Any] = await contact(plain, OLD)
    assert (state(row), row["_new_replacedby_value"]) == (INACTIVE, NEW)
    await mirror(plain, patient(id=OLD))
    row = await contact(plain, OLD)
    assert (state(row), row["_new_replacedby_value"]) == (ACTIVE, None)
