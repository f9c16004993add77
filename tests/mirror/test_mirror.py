"""A contact shows what its Patient is in FHIR, never an older state, whoever else writes."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from integration.core.model import RowResult, WorkItem
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import AttributeMap, Kind
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import MARKER, Body, patient
from tests.conftest import Route, every_map, told_by

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
THEIRS = "99999999-9999-4999-8999-999999999999"
DELIVERY = "019caaee-c260-7000-8000-000000000001"


def anna(**elements: Any) -> Body:
    return patient(id=ANNA, **elements)


async def mirror(route: Route, resource: str, **claim: Any) -> RowResult | None:
    """What was noted."""
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=resource, **claim))
    noted = await route.journal.list_row_results(DELIVERY)
    return noted[0] if noted else None


async def shown(route: Route, resource: Body) -> Body:
    """Write it to FHIR, mirror it: the contact, the only one."""
    await mirror(route, route.fhir_double.add(resource))
    return await route.dataverse_double.contact()


# --- which row ---------------------------------------------------------------------------------


async def test_a_contact_s_key_is_the_fhir_id_where_that_is_a_guid(route: Route) -> None:
    noted = await mirror(route, route.fhir_double.add(anna()))
    row = await route.dataverse_double.contact()
    assert row["contactid"] == row["msemr_azurefhirid"] == ANNA
    assert row["lastname"] == MARKER
    assert row["msemr_azurefhirversion"] == "1"
    assert noted == RowResult(
        delivery=DELIVERY,
        resource=f"Patient/{ANNA}",
        table="contact",
        row=ANNA,
        action="created",
        version="1",
    )


async def test_another_id_gives_the_same_guid_every_time(route: Route) -> None:
    first = await shown(route, patient(id="mrn.7"))
    UUID(first["contactid"])
    assert first["msemr_azurefhirid"] == "mrn.7"
    second = await shown(route, patient(id="mrn.7", active=True))
    assert second["contactid"] == first["contactid"]
    assert second["msemr_azurefhirversion"] == "2"


async def test_a_row_that_others_made_is_found_by_its_fhir_id_and_updated(route: Route) -> None:
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid=ANNA, jobtitle="kept")
    row = await shown(route, anna())
    assert (row["contactid"], row["lastname"]) == (THEIRS, MARKER)
    assert row["jobtitle"] == "kept"


@pytest.mark.parametrize("id_", ["ward-7a", ANNA])
async def test_two_resources_whose_ids_differ_in_case_do_not_share_a_row(
    route: Route, id_: str
) -> None:
    """FHIR ids are case sensitive, Dataverse's text and GUIDs are not."""
    route.maps = {"Organization": every_map()["Organization"]}
    clinics = [
        route.fhir_double.add({"resourceType": "Organization", "id": name, "name": name})
        for name in (id_, id_.upper())
    ]
    for _ in range(2):
        for clinic in clinics:
            await mirror(route, clinic)
    rows = await route.dataverse_double.rows("accounts")
    assert {row["msemr_azurefhirid"]: row["name"] for row in rows} == {
        id_: id_,
        id_.upper(): id_.upper(),
    }
    actions = {row.resource: row.action for row in await route.journal.list_row_results(DELIVERY)}
    assert actions == dict.fromkeys(clinics, "unchanged")
    route.fhir_double.delete(clinics[1])
    await mirror(route, clinics[1])
    rows = await route.dataverse_double.rows("accounts")
    assert {row["msemr_azurefhirid"]: row["statecode"] for row in rows} == {
        id_: 0,
        id_.upper(): 1,
    }


@pytest.mark.parametrize("id_", ["ward-7a", ANNA])
async def test_where_an_alternate_key_allows_one_of_them_the_other_is_refused(
    route: Route, id_: str
) -> None:
    """Contacts of the stand-in have an alternate key, and it ignores case."""
    for name, gender in ((id_, "female"), (id_.upper(), "male")):
        await mirror(route, route.fhir_double.add(patient(id=name, gender=gender)))
    row = await route.dataverse_double.contact()
    assert (row["msemr_azurefhirid"], row["gendercode"]) == (id_, 2)
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    assert noted[f"Patient/{id_.upper()}"].action == "refused"
    assert "alternate key" in noted[f"Patient/{id_.upper()}"].notes[0]


async def test_a_row_with_the_key_of_a_resource_and_the_id_of_another_is_left_alone(
    route: Route,
) -> None:
    await route.dataverse_double.write(ANNA, msemr_azurefhirid=ANNA.upper(), lastname="theirs")
    noted = await mirror(route, route.fhir_double.add(anna()))
    assert noted is not None
    assert noted.action == "refused"
    assert "letter case" in noted.notes[0]
    assert route.dataverse_double.writes == []


async def test_two_rows_of_one_patient_are_for_a_person_to_merge(route: Route) -> None:
    await route.dataverse_double.write(ANNA, lastname="one")
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid=ANNA, lastname="two")
    noted = await mirror(route, route.fhir_double.add(anna()))
    assert noted is not None
    assert noted.action == "refused"
    assert "merge" in noted.notes[0]
    assert route.dataverse_double.writes == []


async def test_a_resource_that_is_nowhere_is_noted_as_absent(route: Route) -> None:
    noted = await mirror(route, "Patient/never-was")
    assert noted is not None
    assert (noted.action, noted.row) == ("absent", None)
    assert await route.dataverse_double.contacts() == []


# --- which state -------------------------------------------------------------------------------


async def test_a_newer_version_is_shown(route: Route) -> None:
    await shown(route, anna(gender="male"))
    row = await shown(route, anna(gender="female"))
    assert (row["gendercode"], row["msemr_azurefhirversion"]) == (2, "2")


async def test_the_same_version_writes_nothing(route: Route) -> None:
    await shown(route, anna())
    written = len(route.dataverse_double.writes)
    noted = await mirror(route, f"Patient/{ANNA}")
    assert noted is not None
    assert (noted.action, noted.row) == ("unchanged", ANNA)
    assert len(route.dataverse_double.writes) == written


async def test_an_older_version_writes_nothing(route: Route) -> None:
    """The ninth is older than the tenth, also where both are text."""
    await route.dataverse_double.write(
        ANNA, msemr_azurefhirid=ANNA, msemr_azurefhirversion="10", lastname="later"
    )
    for _ in range(9):
        route.fhir_double.add(anna())
    assert await mirror(route, f"Patient/{ANNA}") is None
    assert len(route.queued(MIRROR_QUEUE)) == 1
    assert (await route.dataverse_double.contact())["lastname"] == "later"


async def test_what_fhir_no_longer_says_is_cleared(route: Route) -> None:
    await shown(route, anna(gender="male"))
    assert (await shown(route, anna()))["gendercode"] is None


async def test_a_row_that_changed_meanwhile_is_read_again(route: Route) -> None:
    await shown(route, anna())

    async def others_write() -> None:
        await route.dataverse_double.write(ANNA, jobtitle="by hand")

    route.dataverse_double.will_be_preceded("PATCH", others_write)
    row = await shown(route, anna(gender="female"))
    assert (row["gendercode"], row["jobtitle"]) == (2, "by hand")


async def test_a_row_that_never_rests_is_requeued(route: Route) -> None:
    await shown(route, anna())
    for number in range(20):

        async def others_write(number: int = number) -> None:
            await route.dataverse_double.write(ANNA, jobtitle=f"by hand {number}")

        route.dataverse_double.will_be_preceded("PATCH", others_write)
    await mirror(route, route.fhir_double.add(anna(gender="female")))
    ((claim, _),) = route.queued(MIRROR_QUEUE)
    assert (claim.resource, claim.attempt) == (f"Patient/{ANNA}", 1)


async def test_a_row_that_appears_meanwhile_is_updated(route: Route) -> None:
    async def others_create() -> None:
        await route.dataverse_double.write(ANNA, msemr_azurefhirid=ANNA, jobtitle="by hand")

    route.dataverse_double.will_be_preceded("PATCH", others_create)
    row = await shown(route, anna())
    assert (row["lastname"], row["jobtitle"]) == (MARKER, "by hand")


async def test_two_mirrors_at_once_end_with_the_newer_state(route: Route) -> None:
    """The slower one has read the older state, and writes last."""
    resource = route.fhir_double.add(anna(gender="male"))

    async def meanwhile() -> None:
        route.fhir_double.add(anna(gender="female"))
        await mirror(route, resource)

    route.dataverse_double.will_be_preceded("PATCH", meanwhile)
    await mirror(route, resource)
    row = await route.dataverse_double.contact()
    assert (row["gendercode"], row["msemr_azurefhirversion"]) == (2, "2")


async def test_a_crowd_of_mirrors_ends_with_one_row_of_the_newest_state(route: Route) -> None:
    resource = route.fhir_double.add(anna())

    async def one(number: int) -> None:
        route.fhir_double.add(anna(multipleBirthInteger=number))
        await mirror(route, resource)

    await asyncio.gather(*(one(number) for number in range(8)))
    for claim, _ in route.queued(MIRROR_QUEUE):
        await mirroring.mirror_resource(route.mirror, claim)
    row = await route.dataverse_double.contact()
    assert row["msemr_azurefhirversion"] == "9"


async def test_a_row_that_is_tried_at_once_is_queued_no_second_time(route: Route) -> None:
    resource = route.fhir_double.add(anna())
    route.fhir_double.down = 401
    item = WorkItem("a delivery", resource=resource, once=True)
    await mirroring.mirror_resource(route.mirror, item)
    assert route.queued(MIRROR_QUEUE) == []

    route.fhir_double.down = None
    await mirroring.mirror_resource(route.mirror, item)
    assert (await route.dataverse_double.contact())["lastname"] == MARKER


# --- active and gone ---------------------------------------------------------------------------


async def test_a_deleted_patient_s_contact_is_deactivated_and_kept(route: Route) -> None:
    await shown(route, anna())
    route.fhir_double.delete(f"Patient/{ANNA}")
    noted = await mirror(route, f"Patient/{ANNA}")
    row = await route.dataverse_double.contact()
    assert (row["statecode"], row["statuscode"], row["lastname"]) == (1, 2, MARKER)
    assert noted is not None
    assert noted.action == "deactivated"
    again = await mirror(route, f"Patient/{ANNA}")
    assert again is not None
    assert again.action == "unchanged"


async def test_a_patient_that_comes_back_is_active_again(route: Route) -> None:
    await shown(route, anna())
    resource = f"Patient/{ANNA}"
    last = route.fhir_double.stored[resource]
    route.fhir_double.delete(resource)
    await mirror(route, resource)
    route.fhir_double.stored[resource] = last
    assert (await shown(route, anna()))["statecode"] == 0


async def test_a_patient_not_in_use_is_inactive_from_the_start(route: Route) -> None:
    row = await shown(route, anna(active=False))
    assert row["statecode"] == 1
    assert row["lastname"] == MARKER


async def test_a_patient_put_out_of_use_becomes_inactive_and_back(route: Route) -> None:
    assert (await shown(route, anna()))["statecode"] == 0
    assert (await shown(route, anna(active=False)))["statecode"] == 1
    assert (await shown(route, anna(active=True)))["statecode"] == 0


async def test_a_row_is_born_active_and_put_out_of_use_in_one_change(route: Route) -> None:
    await mirror(route, route.fhir_double.add(anna(active=False)))
    (write,) = route.dataverse_double.writes
    assert write.path.endswith("$batch")
    assert (await route.dataverse_double.contact())["statecode"] == 1


async def test_a_patient_deleted_while_its_contact_is_made_does_not_stay_active(
    route: Route,
) -> None:
    """The deletion's own work item finds no row yet, and comes only once."""
    resource = route.fhir_double.add(anna())

    async def deleted() -> None:
        route.fhir_double.delete(resource)
        await mirror(route, resource)

    route.dataverse_double.will_be_preceded("PATCH", deleted)
    await mirror(route, resource)
    await route.mirror_all()
    assert (await route.dataverse_double.contact())["statecode"] == 1


# --- values that do not fit --------------------------------------------------------------------


async def test_long_values_are_cut_or_left_out_and_noted_without_them(route: Route) -> None:
    number = {"type": {"coding": [{"code": "MR"}]}, "value": MARKER * 40}
    name = {"family": MARKER * 10, "given": ["Anna"]}
    noted = await mirror(
        route, route.fhir_double.add(patient(id=ANNA, name=[name], identifier=[number]))
    )
    row = await route.dataverse_double.contact()
    assert row["lastname"] == (MARKER * 10)[:50]
    assert row["firstname"] == "Anna"
    assert row["msemr_medicalrecordnumber"] is None
    assert noted is not None
    assert noted.action == "created"
    assert sorted(re.split(r" and was | @ ", note)[0] for note in noted.notes) == [
        "lastname: the text is longer than 50 characters",
        "msemr_medicalidentifier.msemr_value: the text is longer than 250 characters",
        "msemr_medicalidentifier: a row without msemr_value was left out",
        "msemr_medicalrecordnumber: the text is longer than 256 characters",
    ]
    assert MARKER not in repr(noted)


async def test_a_value_without_an_option_costs_only_its_column(route: Route) -> None:
    noted = await mirror(route, route.fhir_double.add(anna(gender=MARKER, birthDate="1980")))
    row = await route.dataverse_double.contact()
    assert (row["gendercode"], row["birthdate"], row["lastname"]) == (None, None, MARKER)
    assert noted is not None
    assert [note.partition(":")[0] for note in noted.notes] == ["gendercode", "birthdate"]
    assert MARKER not in repr(noted)


async def test_an_id_that_does_not_fit_its_column_is_refused(route: Route) -> None:
    noted = await mirror(route, route.fhir_double.add(patient(id="x" * 64)))
    assert noted is not None
    assert noted.action == "refused"
    assert await route.dataverse_double.contacts() == []


# --- trouble -----------------------------------------------------------------------------------


async def test_what_dataverse_refuses_is_noted_with_its_code_alone(route: Route) -> None:
    resource = route.fhir_double.add(anna())
    route.dataverse_double.will_fail(kind="status", status=400, code="0x80048408", method="PATCH")
    noted = await mirror(route, resource)
    assert noted is not None
    assert (noted.action, noted.notes) == ("refused", ("answered 400 0x80048408",))
    assert route.queued(MIRROR_QUEUE) == []


@pytest.mark.parametrize("method", ["GET", "PATCH"])
@pytest.mark.parametrize(
    "wish",
    [
        {"kind": "throttle", "retryAfter": 300},
        {"kind": "status", "status": 503, "retryAfter": 300},
    ],
    ids=["429", "503"],
)
async def test_throttling_puts_the_claim_back_for_as_long_as_dataverse_says(
    route: Route, method: str, wish: dict[str, Any]
) -> None:
    resource = route.fhir_double.add(anna())
    route.dataverse_double.will_fail(method=method, **wish)
    assert await mirror(route, resource) is None
    ((claim, delay),) = route.queued(MIRROR_QUEUE)
    assert (claim.resource, claim.attempt, delay) == (resource, 1, 300)
    await mirroring.mirror_resource(route.mirror, claim)
    assert (await route.dataverse_double.contact())["lastname"] == MARKER


@pytest.mark.parametrize("kind", ["reset", "lost-reply"])
async def test_a_lost_connection_puts_the_claim_back_and_the_next_try_is_exact(
    route: Route, kind: str
) -> None:
    resource = route.fhir_double.add(anna())
    route.dataverse_double.will_fail(kind=kind, method="PATCH")
    await mirror(route, resource)
    ((claim, _),) = route.queued(MIRROR_QUEUE)
    await mirroring.mirror_resource(route.mirror, claim)
    row = await route.dataverse_double.contact()
    assert (row["lastname"], row["msemr_azurefhirversion"]) == (MARKER, "1")


async def test_a_fhir_server_that_is_down_puts_the_claim_back(route: Route) -> None:
    route.fhir_double.down = 500
    assert await mirror(route, f"Patient/{ANNA}") is None
    assert len(route.queued(MIRROR_QUEUE)) == 1
    assert await route.dataverse_double.contacts() == []


async def test_a_missing_column_is_for_an_operator_and_waits_long(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    known = load_shipped_maps()["Patient"]
    wanting = AttributeMap(column="msemr_nosuchcolumn", kind=Kind.COPY, path="gender")
    wide = replace(known, attributes=(*known.attributes, wanting))
    claim = WorkItem(DELIVERY, resource=route.fhir_double.add(anna()))
    await mirroring.mirror_resource(replace(route.mirror, maps={"Patient": wide}), claim)
    ((_, delay),) = route.queued(MIRROR_QUEUE)
    assert delay == 60
    (record,) = [each for each in caplog.records if each.message == "row.requeued"]
    assert record.levelno == logging.ERROR
    assert "msemr_nosuchcolumn" in vars(record)["reason"]
    assert await route.dataverse_double.contacts() == []


async def test_only_age_parks_a_row_and_the_journal_says_why(route: Route) -> None:
    route.fhir_double.down = 500
    first_failed = route.clock.now.timestamp()
    route.clock.later(route.max_age)
    noted = await mirror(route, f"Patient/{ANNA}", attempt=9, since=first_failed)
    assert noted is not None
    assert noted.action == "parked"
    assert "FHIR server" in noted.notes[0]
    assert route.queued(MIRROR_QUEUE) == []


async def test_a_claim_that_failed_again_and_again_is_parked(route: Route) -> None:
    claim = WorkItem(DELIVERY, resource=f"Patient/{ANNA}")
    await mirroring.park(route.mirror, claim, "mirroring failed repeatedly")
    (noted,) = await route.journal.list_row_results(DELIVERY)
    assert (noted.action, noted.notes) == ("parked", ("mirroring failed repeatedly",))


async def test_notes_and_logs_hold_no_patient_data(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    resource = route.fhir_double.add(anna(gender=MARKER, birthDate=MARKER, active=MARKER))
    for step in ({"kind": "status", "status": 400}, {"kind": "reset"}, None):
        if step:
            route.dataverse_double.will_fail(method="PATCH", **step)
        await mirror(route, resource)
    assert {"row.mirrored", "row.requeued"} <= {record.message for record in caplog.records}
    assert MARKER not in told_by(caplog.records)
    assert MARKER not in repr(await route.journal.list_row_results(DELIVERY))
    assert MARKER not in repr(route.queue_sender.sent)


async def test_a_resource_that_no_path_can_read_is_told_without_its_values(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    """The evaluator raises what Python raises, and its text may quote a value."""
    caplog.set_level(logging.DEBUG)
    odd = anna(telecom=[{"system": "phone", "value": "1", "rank": {"odd": MARKER}}])
    noted = await mirror(route, route.fhir_double.add(odd))
    assert noted is not None
    assert MARKER not in repr(noted)
    assert MARKER not in told_by(caplog.records)


async def test_dataverse_is_told_which_delivery_it_was(route: Route) -> None:
    await shown(route, anna())
    (written,) = route.dataverse_double.writes
    assert written.headers["x-ms-client-request-id"] == DELIVERY
    assert written.headers["if-none-match"] == "*"
