"""MIRROR_TO=healthcare-api: the toolkit's own maps write the rows, and still never an older state."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from integration.app import map_parts
from integration.core.model import RowResult, WorkItem
from integration.dataverse import requests
from integration.dataverse.client import parse_rows as rows_of
from integration.dataverse.requests import Change
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import AttributeMap, Kind
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import MARKER, Body, patient
from tests.conftest import DAY, LEASE, Route, every_map, told_by
from tests.doubles import MERGEABLE, MERGED, DataverseDouble, RecordedRequest

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
LATER = "019caaee-c260-7000-8000-000000000002"
API = "msind_UpsertBundle"

# No row of a child takes it.
TOO_LONG = {"system": "urn:a", "value": MARKER * 40}


@pytest.fixture
def dataverse() -> Iterator[DataverseDouble]:
    found = DataverseDouble(MERGEABLE)
    yield found
    found.app.close()


def anna(**elements: Any) -> Body:
    return patient(id=ANNA, **elements)


def doctor() -> Body:
    return {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Doc"}]}


async def hand_out(route: Route, claim: WorkItem) -> None:
    sink = map_parts.choose_sink("healthcare-api", route.web_api, route.order)
    await mirroring.mirror_resource(replace(route.mirror, sink=sink, maps=route.maps), claim)


async def mirror(route: Route, resource: str, delivery: str = DELIVERY) -> RowResult | None:
    """What was noted of it last."""
    await hand_out(route, WorkItem(delivery, resource=resource))
    noted = await route.journal.list_row_results(delivery)
    return next((each for each in reversed(noted) if each.resource == resource), None)


async def hand_out_queued(route: Route) -> None:
    """What is queued by now, whatever its delay; not what that queues."""
    claims = [claim for claim, _ in route.queued(MIRROR_QUEUE)]
    route.queue_sender.sent.clear()
    for claim in claims:
        await hand_out(route, claim)


def sent(route: Route) -> list[RecordedRequest]:
    """The bundles that the API was given."""
    return [each for each in route.dataverse_double.received if each.path.endswith(API)]


async def children(route: Route) -> list[Body]:
    question = requests.build_row_query(
        "msemr_medicalidentifiers", ["msemr_value"], "msemr_value ne null"
    )
    (answer,) = await route.dataverse.read([question], DELIVERY)
    return rows_of(answer)


async def test_only_the_setting_sends_resources_to_the_api(route: Route) -> None:
    sink = map_parts.choose_sink("web-api", route.web_api, route.order)
    claim = WorkItem(DELIVERY, resource=route.fhir_double.add(anna()))
    await mirroring.mirror_resource(replace(route.mirror, sink=sink), claim)
    assert sent(route) == []
    assert (await route.dataverse_double.contact())["lastname"] == MARKER


# --- which row ---------------------------------------------------------------------------------


async def test_a_patient_is_sent_as_fhir_has_it_and_becomes_a_contact(route: Route) -> None:
    resource = route.fhir_double.add(anna(identifier=[{"system": "urn:a", "value": "1"}]))
    noted = await mirror(route, resource)
    row = await route.dataverse_double.contact()
    assert (row["lastname"], row["msemr_azurefhirid"]) == (MARKER, ANNA)
    assert [each["msemr_value"] for each in await children(route)] == ["1"]
    assert noted == RowResult(
        delivery=DELIVERY,
        resource=resource,
        table="contact",
        row=row["contactid"],
        action="created",
        version="1",
    )
    (heard,) = sent(route)
    assert heard.body["msind_BundleTag"] == DELIVERY
    assert heard.headers["x-ms-client-request-id"] == DELIVERY
    bundle = json.loads(heard.body["msind_JSON"])
    assert bundle["entry"][0]["resource"] == route.fhir_double.stored[resource]


async def test_a_newer_version_updates_the_row(route: Route) -> None:
    await mirror(route, route.fhir_double.add(anna(gender="male")))
    noted = await mirror(route, route.fhir_double.add(anna(gender="female")))
    row = await route.dataverse_double.contact()
    assert (row["gendercode"], row["msemr_azurefhirversion"]) == (2, "2")
    assert noted is not None
    assert (noted.action, noted.row, noted.version) == ("updated", row["contactid"], "2")


async def test_the_same_version_is_sent_once(route: Route) -> None:
    first = await mirror(route, route.fhir_double.add(anna()))
    again = await mirror(route, f"Patient/{ANNA}", LATER)
    assert first is not None
    assert again == replace(first, delivery=LATER, action="unchanged")
    assert len(sent(route)) == 1


async def test_a_row_that_was_lost_is_brought_again(route: Route) -> None:
    noted = await mirror(route, route.fhir_double.add(anna()))
    assert noted is not None
    lost = Change(method="DELETE", entity_set="contacts", key=noted.row or "")
    await route.dataverse.apply_changes([lost], DELIVERY)
    again = await mirror(route, f"Patient/{ANNA}")
    assert again is not None
    assert again.action == "created"
    assert (await route.dataverse_double.contact())["lastname"] == MARKER


async def test_a_row_that_was_set_back_is_brought_again(route: Route) -> None:
    noted = await mirror(route, route.fhir_double.add(anna()))
    assert noted is not None
    await route.dataverse_double.write(noted.row or "", msemr_azurefhirversion="0")
    await mirror(route, f"Patient/{ANNA}")
    assert (await route.dataverse_double.contact())["msemr_azurefhirversion"] == "1"


async def test_two_rows_of_one_patient_are_for_a_person_to_merge(route: Route) -> None:
    await mirror(route, route.fhir_double.add(anna()))
    await route.dataverse_double.write(ANNA, lastname="two")
    noted = await mirror(route, f"Patient/{ANNA}", LATER)
    assert noted is not None
    assert noted.action == "refused"
    assert "merge" in noted.notes[0]


async def test_an_older_state_is_not_sent_after_a_newer(route: Route) -> None:
    """As a FHIR server tells it that reads from a copy."""
    resource = route.fhir_double.add(anna(gender="male"))
    lagging = route.fhir_double.stored[resource]
    route.clock.later(1)
    await mirror(route, route.fhir_double.add(anna(gender="female")))
    newest = route.fhir_double.stored[resource]
    route.fhir_double.stored[resource] = lagging
    await mirror(route, resource, LATER)
    assert await route.journal.list_row_results(LATER) == []
    assert (await route.dataverse_double.contact())["gendercode"] == 2
    route.fhir_double.stored[resource] = newest
    await hand_out_queued(route)
    (noted,) = await route.journal.list_row_results(LATER)
    assert noted.action == "unchanged"


async def test_a_version_of_a_node_whose_clock_is_behind_is_sent(route: Route) -> None:
    await mirror(route, route.fhir_double.add(anna(gender="male")))
    route.clock.later(-60)
    noted = await mirror(route, route.fhir_double.add(anna(gender="female")), LATER)
    assert noted is not None
    assert noted.action == "updated"
    assert (await route.dataverse_double.contact())["gendercode"] == 2


async def test_a_copy_that_lags_is_not_sent_where_the_clocks_of_the_server_differ(
    route: Route,
) -> None:
    resource = route.fhir_double.add(anna(gender="male"))
    lagging = route.fhir_double.stored[resource]
    route.clock.later(-60)
    await mirror(route, route.fhir_double.add(anna(gender="female")))
    route.fhir_double.will_answer(200, lagging)
    assert await mirror(route, resource, LATER) is None
    assert (await route.dataverse_double.contact())["gendercode"] == 2
    await hand_out_queued(route)
    (noted,) = await route.journal.list_row_results(LATER)
    assert noted.action == "unchanged"


async def test_two_states_of_one_moment_are_both_sent(route: Route) -> None:
    """Versions of other servers have no order: they are read until they rest."""
    resource = route.fhir_double.add(anna(gender="male"))
    meta = route.fhir_double.stored[resource]["meta"]
    meta["versionId"] = "zzz"
    await mirror(route, resource)
    meta["versionId"] = "1"  # which is what the next one counts from
    route.fhir_double.add(anna(gender="female"))
    route.fhir_double.stored[resource]["meta"]["versionId"] = "aaa"
    await mirror(route, resource)
    while route.queued(MIRROR_QUEUE):
        await hand_out_queued(route)
    assert (await route.dataverse_double.contact())["gendercode"] == 2


async def test_two_mirrors_at_once_end_with_the_newer_state(route: Route) -> None:
    """The slower one has read the older state, and would write last."""
    resource = route.fhir_double.add(anna(gender="male"))

    async def meanwhile() -> None:
        route.fhir_double.add(anna(gender="female"))
        await mirror(route, resource, LATER)

    route.dataverse_double.will_be_preceded("POST", meanwhile)
    await mirror(route, resource)
    assert (await route.dataverse_double.contact())["gendercode"] == 1
    await hand_out_queued(route)
    assert (await route.dataverse_double.contact())["gendercode"] == 2


async def test_a_crowd_of_mirrors_ends_with_one_row_of_the_newest_state(route: Route) -> None:
    resource = route.fhir_double.add(anna())

    async def one(number: int) -> None:
        route.fhir_double.add(anna(gender="female" if number % 2 else "male"))
        await mirror(route, resource)

    await asyncio.gather(*(one(number) for number in range(6)))
    while route.queued(MIRROR_QUEUE):
        await hand_out_queued(route)
    row = await route.dataverse_double.contact()
    assert (row["msemr_azurefhirversion"], row["gendercode"]) == ("7", 2)


# --- in part -----------------------------------------------------------------------------------


async def test_a_contact_whose_child_failed_is_written_and_the_child_s_table_noted(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    numbers = [TOO_LONG, {"system": "urn:a", "value": "1"}]
    noted = await mirror(route, route.fhir_double.add(anna(identifier=numbers)))
    assert noted is not None
    assert noted.action == "created"
    assert noted.notes == ("contact: error", "msemr_medicalidentifier: error")
    assert [each["msemr_value"] for each in await children(route)] == ["1"]
    assert MARKER not in repr(noted)
    assert MARKER not in told_by(caplog.records)


async def test_what_was_written_in_part_is_sent_again_by_the_next_claim(route: Route) -> None:
    await mirror(route, route.fhir_double.add(anna(identifier=[TOO_LONG])))
    noted = await mirror(route, f"Patient/{ANNA}", LATER)
    assert noted is not None
    assert noted.action == "updated"
    assert len(sent(route)) == 2


async def test_a_type_without_an_entity_map_in_the_toolkit_is_refused(route: Route) -> None:
    route.maps = {"Device": replace(load_shipped_maps()["Patient"], resource="Device")}
    noted = await mirror(route, route.fhir_double.add({"resourceType": "Device", "id": "1"}))
    assert noted is not None
    assert (noted.action, noted.row) == ("refused", None)


# --- what waits for others ---------------------------------------------------------------------


@pytest.fixture
def referring(route: Route) -> Body:
    """A patient who is not written before the practitioner has a row."""
    route.maps = every_map()
    route.fhir_double.add(doctor())
    return anna(generalPractitioner=[{"reference": "Practitioner/d1"}])


async def test_who_refers_to_what_has_no_row_yet_is_brought_when_it_comes(
    route: Route, referring: Body
) -> None:
    noted = await mirror(route, route.fhir_double.add(referring))
    assert noted is not None
    assert (noted.action, noted.notes) == ("refused", ("contact: error",))
    assert route.queued(MIRROR_QUEUE) == []
    await mirror(route, "Practitioner/d1")
    assert [claim.resource for claim, _ in route.queued(MIRROR_QUEUE)] == [f"Patient/{ANNA}"]
    await hand_out_queued(route)
    names = {row["lastname"] for row in await route.dataverse_double.contacts()}
    assert names == {MARKER, "Doc"}
    assert route.queued(MIRROR_QUEUE) == []


async def test_a_link_to_a_patient_without_a_row_is_made_when_that_one_comes(
    route: Route,
) -> None:
    link = [{"type": "seealso", "other": {"reference": "Patient/b"}}]
    noted = await mirror(route, route.fhir_double.add(anna(link=link)))
    assert noted is not None
    assert (noted.action, noted.notes) == (
        "created",
        ("contact: error", "msemr_contactlink: error"),
    )
    await mirror(route, route.fhir_double.add(patient(id="b")), LATER)
    ((claim, _),) = route.queued(MIRROR_QUEUE)
    noted = await mirror(route, claim.resource or "")
    assert noted is not None
    assert (noted.action, noted.notes) == ("updated", ())


async def test_a_reference_in_full_to_the_same_server_finds_its_row(route: Route) -> None:
    route.maps = every_map()
    await mirror(route, route.fhir_double.add(doctor()))
    full = f"{route.fhir.upstream.base}/Practitioner/d1"
    noted = await mirror(
        route, route.fhir_double.add(anna(generalPractitioner=[{"reference": full}]))
    )
    assert noted is not None
    assert (noted.action, noted.notes) == ("created", ())


async def test_what_comes_before_the_wait_for_it_is_noted_is_not_missed(
    route: Route, referring: Body
) -> None:
    async def nothing() -> None:
        pass

    async def comes() -> None:
        await mirror(route, "Practitioner/d1", LATER)

    route.dataverse_double.will_be_preceded("POST", nothing)
    route.dataverse_double.will_be_preceded("POST", comes)
    noted = await mirror(route, route.fhir_double.add(referring))
    assert noted is not None
    assert noted.action == "created"


async def test_who_waits_is_brought_though_the_answer_that_said_created_was_lost(
    route: Route, referring: Body
) -> None:
    await mirror(route, route.fhir_double.add(referring))
    route.dataverse_double.will_fail(kind="lost-reply", path=API)
    await mirror(route, "Practitioner/d1")
    route.clock.later(LEASE)
    await hand_out_queued(route)  # the practitioner
    await hand_out_queued(route)  # the patient
    names = {row["lastname"] for row in await route.dataverse_double.contacts()}
    assert names == {MARKER, "Doc"}


async def test_two_that_refer_to_each_other_and_fail_do_not_wake_each_other_for_ever(
    route: Route,
) -> None:
    for me, other in ((ANNA, "b"), ("b", ANNA)):
        link = [{"type": "seealso", "other": {"reference": f"Patient/{other}"}}]
        route.fhir_double.add(patient(id=me, link=link, identifier=[TOO_LONG]))
    await mirror(route, f"Patient/{ANNA}")
    await mirror(route, "Patient/b")
    rounds = 0
    while route.queued(MIRROR_QUEUE) and rounds < 9:
        await hand_out_queued(route)
        rounds += 1
    assert rounds <= 2


# --- deleted in FHIR ---------------------------------------------------------------------------


async def test_a_deleted_patient_s_contact_is_deactivated_and_active_again_when_it_comes_back(
    route: Route,
) -> None:
    resource = route.fhir_double.add(anna())
    await mirror(route, resource)
    last = route.fhir_double.stored[resource]
    route.fhir_double.delete(resource)
    noted = await mirror(route, resource)
    assert noted is not None
    assert noted.action == "deactivated"
    assert (await route.dataverse_double.contact())["statecode"] == 1
    route.fhir_double.stored[resource] = last
    route.clock.later(1)
    noted = await mirror(route, route.fhir_double.add(anna()))
    assert noted is not None
    assert (noted.action, noted.notes) == ("updated", ())
    assert (await route.dataverse_double.contact())["statecode"] == 0


async def test_a_patient_that_comes_back_out_of_use_stays_inactive(route: Route) -> None:
    resource = route.fhir_double.add(anna())
    await mirror(route, resource)
    route.fhir_double.delete(resource)
    await mirror(route, resource)
    route.clock.later(1)
    await mirror(route, route.fhir_double.add(anna(active=False)))
    assert (await route.dataverse_double.contact())["statecode"] == 1


async def test_a_contact_that_a_person_has_deactivated_is_as_its_patient_says(route: Route) -> None:
    noted = await mirror(route, route.fhir_double.add(anna()))
    assert noted is not None
    await route.dataverse_double.write(noted.row or "", statecode=1)
    await mirror(route, route.fhir_double.add(anna(gender="female")))
    row = await route.dataverse_double.contact()
    assert (row["statecode"], row["gendercode"]) == (0, 2)


@pytest.mark.parametrize("days", [1, 400])
async def test_a_patient_that_comes_back_is_active_however_long_it_was_gone(
    route: Route, days: int
) -> None:
    """What was noted of the deletion is forgotten by then."""
    resource = route.fhir_double.add(anna())
    await mirror(route, resource)
    last = route.fhir_double.stored[resource]
    route.fhir_double.delete(resource)
    await mirror(route, resource)
    route.clock.later(days * DAY)
    route.guard_store.locks.clear()
    route.fhir_double.stored[resource] = last
    await mirror(route, route.fhir_double.add(anna()))
    assert (await route.dataverse_double.contact())["statecode"] == 0


async def test_a_deactivation_whose_answer_was_lost_is_undone_when_the_patient_is_back(
    route: Route,
) -> None:
    resource = route.fhir_double.add(anna())
    await mirror(route, resource)
    last = route.fhir_double.stored[resource]
    route.fhir_double.delete(resource)
    route.dataverse_double.will_fail(kind="lost-reply", method="PATCH", path="contacts")
    await mirror(route, resource)
    assert (await route.dataverse_double.contact())["statecode"] == 1
    route.fhir_double.stored[resource] = last  # before the work item is tried again
    route.clock.later(LEASE)
    await hand_out_queued(route)
    assert (await route.dataverse_double.contact())["statecode"] == 0


async def test_a_contact_that_was_merged_by_hand_stays_inactive(route: Route) -> None:
    noted = await mirror(route, route.fhir_double.add(anna()))
    assert noted is not None
    await route.dataverse_double.write(noted.row or "", **MERGED)
    noted = await mirror(route, route.fhir_double.add(anna(gender="female")))
    assert noted is not None
    assert noted.notes == ("the row of contact was merged by hand: it stays inactive",)
    assert (await route.dataverse_double.contact())["statecode"] == 1


async def test_a_deleted_patient_s_contact_can_be_deleted_with_its_children(route: Route) -> None:
    route.on_delete = "delete"
    resource = route.fhir_double.add(anna(identifier=[{"system": "urn:a", "value": "1"}]))
    await mirror(route, resource)
    route.fhir_double.delete(resource)
    noted = await mirror(route, resource)
    assert noted is not None
    assert noted.action == "deleted"
    assert await route.dataverse_double.contacts() == []
    assert await children(route) == []


async def test_a_copy_that_lags_does_not_make_a_contact_of_a_deleted_patient(
    route: Route,
) -> None:
    """Two copies: one shows the deletion already, the other one not yet."""
    resource = route.fhir_double.add(anna())
    old = dict(route.fhir_double.stored[resource])
    route.clock.later(60)
    route.fhir_double.delete(resource)
    await mirror(route, resource)
    assert await route.dataverse_double.contacts() == []
    route.fhir_double.will_answer(200, old)
    noted = await mirror(route, resource)
    assert noted is not None
    assert noted.action == "created"
    while route.queued(MIRROR_QUEUE):
        await hand_out_queued(route)
    assert (await route.dataverse_double.contact())["statecode"] == 1


async def test_a_deleted_patient_s_contact_can_be_left(route: Route) -> None:
    route.on_delete = "leave"
    resource = route.fhir_double.add(anna())
    await mirror(route, resource)
    route.fhir_double.delete(resource)
    noted = await mirror(route, resource)
    assert noted is not None
    assert noted.action == "unchanged"
    assert (await route.dataverse_double.contact())["statecode"] == 0


async def test_a_deleted_patient_s_contact_is_found_though_our_map_does_not_fit(
    route: Route,
) -> None:
    """The toolkit's maps have written it; ours says only how it is found."""
    known = load_shipped_maps()["Patient"]
    wanting = AttributeMap(column="msemr_nosuchcolumn", kind=Kind.COPY, path="gender")
    route.maps = {"Patient": replace(known, attributes=(*known.attributes, wanting))}
    resource = route.fhir_double.add(anna())
    await mirror(route, resource)
    route.fhir_double.delete(resource)
    noted = await mirror(route, resource)
    assert noted is not None
    assert noted.action == "deactivated"


async def test_a_table_without_the_columns_that_find_a_row_is_for_an_operator(
    route: Route,
) -> None:
    route.maps = {
        "Patient": replace(load_shipped_maps()["Patient"], id_column="msemr_nosuchcolumn")
    }
    await mirror(route, "Patient/never-was")
    ((_, delay),) = route.queued(MIRROR_QUEUE)
    assert delay == 60


# --- trouble -----------------------------------------------------------------------------------


@pytest.mark.parametrize("wish", [{"kind": "lost-reply"}, {"kind": "status", "status": 504}])
async def test_nobody_sends_a_resource_while_dataverse_may_be_at_it_still(
    route: Route, wish: dict[str, Any]
) -> None:
    resource = route.fhir_double.add(anna())
    route.dataverse_double.will_fail(path=API, **wish)
    await mirror(route, resource)
    await mirror(route, resource, LATER)
    assert len(sent(route)) == 1
    route.clock.later(LEASE)
    await hand_out_queued(route)
    assert len(sent(route)) == 2
    assert (await route.dataverse_double.contact())["lastname"] == MARKER


async def test_a_turn_that_is_over_is_not_used(route: Route) -> None:
    """Another may have taken it."""

    async def slowly() -> None:
        route.clock.later(LEASE + 1)

    resource = route.fhir_double.add(anna())
    route.fhir_double.will_wait_for(slowly)
    await mirror(route, resource)
    assert sent(route) == []
    await hand_out_queued(route)
    assert len(sent(route)) == 1


async def test_a_turn_that_is_nearly_over_is_extended(route: Route) -> None:
    async def slowly() -> None:
        route.clock.later(LEASE / 2)

    resource = route.fhir_double.add(anna())
    route.fhir_double.will_wait_for(slowly)
    await mirror(route, resource)
    assert len(sent(route)) == 1


@pytest.mark.parametrize(
    "wish",
    [
        {"kind": "throttle", "retryAfter": 300},
        {"kind": "status", "status": 500},
        {"kind": "broken"},
    ],
    ids=["429", "500", "half an answer"],
)
async def test_an_answer_of_trouble_puts_the_claim_back_and_leaves_no_turn_taken(
    route: Route, wish: dict[str, Any]
) -> None:
    resource = route.fhir_double.add(anna())
    route.dataverse_double.will_fail(path=API, **wish)
    await mirror(route, resource)
    ((claim, delay),) = route.queued(MIRROR_QUEUE)
    assert delay == wish.get("retryAfter", 2)
    await hand_out(route, claim)
    assert (await route.dataverse_double.contact())["lastname"] == MARKER


async def test_a_bundle_that_is_refused_whole_is_noted_with_its_code_alone(route: Route) -> None:
    resource = route.fhir_double.add(anna())
    route.dataverse_double.will_fail(kind="status", status=400, code="0x80040265", path=API)
    noted = await mirror(route, resource)
    assert noted is not None
    assert (noted.action, noted.notes) == ("refused", ("answered 400 0x80040265",))


async def test_an_organisation_without_the_healthcare_apis_is_for_an_operator(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    resource = route.fhir_double.add(anna())
    route.dataverse_double.will_fail(kind="status", status=404, path=API)
    await mirror(route, resource)
    ((_, delay),) = route.queued(MIRROR_QUEUE)
    assert delay == 60
    (record,) = [each for each in caplog.records if each.message == "row.requeued"]
    assert "MIRROR_TO" in vars(record)["reason"]


async def test_a_fhir_server_that_is_down_puts_the_claim_back(route: Route) -> None:
    route.fhir_double.down = 500
    await mirror(route, f"Patient/{ANNA}")
    assert len(route.queued(MIRROR_QUEUE)) == 1
    assert sent(route) == []


async def test_the_headers_of_every_change_go_along(route: Route) -> None:
    route.dataverse.options = {"callerobjectid": ANNA}
    await mirror(route, route.fhir_double.add(anna()))
    (heard,) = sent(route)
    assert heard.headers["callerobjectid"] == ANNA
