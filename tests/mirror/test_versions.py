"""A contact never shows less than FHIR has said: whatever lags, begins again, crosses or repeats."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any

import pytest

from integration.core.model import WorkItem
from integration.core.state_version import StateVersion
from integration.journal.data_routes import MemoryDataRouteStore
from integration.journal.row_keys import MemoryRowKeys
from integration.mapping.files import MappedTable
from integration.mapping.load import load_shipped_maps
from integration.mirror.mirror import mirror_or_raise, mirror_resource
from integration.queues.names import MIRROR_QUEUE
from integration.queues.queue_sender import parse_work_item
from integration.virtual_tables.data_routes import DataRoutes, change_routes
from tests.builders import Body, bundle, entry, patient
from tests.conftest import Route

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
THEIRS = "99999999-9999-4999-8999-999999999999"
WHO = f"Patient/{ANNA}"
RUN = "019caaee-c260-7000-8000-0000000000aa"
HTML = {"content-type": "text/html"}


def make_item(number: int = 1, **fields: Any) -> WorkItem:
    return WorkItem(f"019caaee-c260-7000-8000-00000000000{number}", resource=WHO, **fields)


async def mirror(route: Route, number: int = 1, **fields: Any) -> str | None:
    """Return what was done, by the row result; None if the item was requeued."""
    item = make_item(number, **fields)
    await mirror_resource(route.mirror, item)
    results = await route.journal.list_row_results(item.delivery)
    return results[-1].action if results else None


def add_versions(route: Route, *genders: str) -> Body:
    """Write versions of the patient, a minute apart. Return the last one."""
    for gender in genders:
        route.clock.later(60)
        route.fhir_double.add(patient(id=ANNA, gender=gender))
    stored: Body = route.fhir_double.stored[WHO]
    return stored


async def get_contact(route: Route) -> tuple[int, Any, str]:
    """Return state, gender and version: male is 1, female 2."""
    row = await route.dataverse_double.contact()
    return row["statecode"], row["gendercode"], row["msemr_azurefhirversion"]


# --- a read that lags ----------------------------------------------------------------------------


async def test_a_read_that_shows_less_than_was_heard_of_is_made_again(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    old = add_versions(route, "male")
    await mirror(route)
    add_versions(route, "female")
    route.fhir_double.will_answer(200, old)
    assert await mirror(route, 2, version=StateVersion(id="2")) is None
    ((item, delay),) = route.queued(MIRROR_QUEUE)
    assert (item.version, item.attempt, delay) == (StateVersion(id="2"), 1, 2)
    reasons = [vars(record).get("reason") for record in caplog.records]
    assert any("version 1 after version 2 was heard of" in str(reason) for reason in reasons)
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "2")


async def test_a_new_patient_that_a_copy_does_not_know_yet_is_created_later(route: Route) -> None:
    version = StateVersion(id="1", updated=add_versions(route, "male")["meta"]["lastUpdated"])
    for _ in range(8):
        outcome = {"resourceType": "OperationOutcome", "issue": []}
        route.fhir_double.will_answer(404, outcome)
    assert await mirror(route, version=version) is None
    await route.mirror_all()
    assert await get_contact(route) == (0, 1, "1")


async def test_a_copy_that_lags_is_not_believed_where_the_clocks_of_the_server_differ(
    route: Route,
) -> None:
    """One node wrote version 2 with a clock a minute ahead, another one version 3 after it: what
    lags looks as if it were written later."""
    add_versions(route, "male")
    await mirror(route)
    old = add_versions(route, "other")
    route.clock.later(-180)
    heard = add_versions(route, "female")["meta"]
    route.fhir_double.will_answer(200, old)
    version = StateVersion(id="3", updated=heard["lastUpdated"])
    assert heard["lastUpdated"] < old["meta"]["lastUpdated"]
    assert await mirror(route, 2, version=version) is None
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "3")


async def test_a_row_is_not_set_back_where_the_clocks_of_the_server_differ(route: Route) -> None:
    """The item has heard of no more than the copy shows: the row tells that there is more."""
    old = add_versions(route, "male")
    route.clock.later(-180)
    add_versions(route, "female")
    await mirror(route)
    for _ in range(2):
        route.fhir_double.will_answer(200, old)
    assert await mirror(route, 2, version=StateVersion(id="1")) is None
    assert await get_contact(route) == (0, 2, "2")
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "2")


async def test_a_patient_that_never_appears_is_parked_and_never_absent(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await mirror(route, version=StateVersion(id="1"))
    await route.mirror_all()
    (result,) = await route.journal.list_row_results(make_item().delivery)
    assert result.action == "parked"
    assert "no such resource after version 1 was heard of" in result.notes[0]
    assert "row.parked" in [record.message for record in caplog.records]


async def test_a_lookup_that_is_filled_later_is_not_forgotten_because_a_read_lags(
    route: Route,
) -> None:
    """The work item of a row that waited for another names no version: the row itself does."""
    old = add_versions(route, "male")
    add_versions(route, "female")
    await mirror(route)
    for _ in range(2):  # it is read again at once, in case that FHIR has just changed
        route.fhir_double.will_answer(200, old)
    assert await mirror(route, 2) is None
    assert len(route.queued(MIRROR_QUEUE)) == 1
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "2")


async def test_an_item_that_was_overtaken_asks_dataverse_no_more_than_before(route: Route) -> None:
    add_versions(route, "male", "female")
    await mirror(route)
    received = len(route.dataverse_double.received)
    assert await mirror(route, 2, version=StateVersion(id="1")) == "unchanged"
    assert len(route.dataverse_double.received) == received + 1
    assert route.queued(MIRROR_QUEUE) == []


async def test_a_message_of_an_earlier_version_of_this_app_is_mirrored(route: Route) -> None:
    add_versions(route, "male")
    body = json.dumps({"delivery": make_item().delivery, "resource": WHO, "attempt": 0})
    await mirror_resource(route.mirror, parse_work_item(body.encode()))
    assert await get_contact(route) == (0, 1, "1")


async def test_what_the_relay_queues_names_the_version_that_the_server_stated(
    route: Route,
) -> None:
    created = patient(id="p1", active=True)
    for resource in (created, {**created, "active": False}):
        change = entry(resource, method="PUT", url="Patient/p1")
        await route.process(await route.deliver(bundle(change)))
    removed = {"request": {"method": "DELETE", "url": "Patient/p1"}}
    await route.process(await route.deliver(bundle(removed)))
    first, second, deleted = (item for item, _ in route.queued(MIRROR_QUEUE))
    written = route.fhir_double.past["Patient/p1"]
    assert (first.version.id, first.is_create) == ("1", True)
    assert first.version.updated == written[0]["resource"]["meta"]["lastUpdated"]
    assert (second.version.id, second.version.is_deleted, second.is_create) == ("2", False, False)
    assert deleted.version.is_deleted


async def test_a_deletion_that_a_copy_does_not_show_yet_is_mirrored_later(route: Route) -> None:
    """Not every server says which version a deletion is: then it is looked for again."""
    old = add_versions(route, "male")
    await mirror(route)
    route.fhir_double.delete(WHO)
    route.fhir_double.will_answer(200, old)
    assert await mirror(route, 2, version=StateVersion(is_deleted=True)) is None
    await route.mirror_all()
    assert (await get_contact(route))[0] == 1


async def test_a_patient_who_is_back_before_its_deletion_is_mirrored_stays_active(
    route: Route,
) -> None:
    add_versions(route, "male")
    await mirror(route)
    route.fhir_double.delete(WHO)
    add_versions(route, "female")
    await mirror(route, 2, version=StateVersion(is_deleted=True))
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "3")


# --- deletions and what crosses them -------------------------------------------------------------


async def test_an_update_that_crosses_the_deletion_does_not_undo_it(route: Route) -> None:
    add_versions(route, "male")
    await mirror(route)
    add_versions(route, "female")

    async def delete() -> None:
        route.clock.later(60)
        route.fhir_double.delete(WHO)
        assert await mirror(route, 2) == "deactivated"

    route.fhir_double.will_wait_for(delete)
    assert await mirror(route, 3) == "unchanged"
    row = await route.dataverse_double.contact()
    assert (row["statecode"], row["msemr_azurefhirversion"]) == (1, "deleted 3")


async def test_a_repeat_that_crosses_the_deletion_does_not_undo_it(route: Route) -> None:
    add_versions(route, "male")
    await mirror(route)

    async def delete() -> None:
        route.fhir_double.delete(WHO)
        assert await mirror(route, 2) == "deactivated"

    route.fhir_double.will_wait_for(delete)
    assert await mirror(route, 3) == "unchanged"
    assert await get_contact(route) == (1, 1, "deleted 2")


async def test_a_copy_that_lags_behind_a_deletion_does_not_undo_it(route: Route) -> None:
    add_versions(route, "male")
    await mirror(route)
    old = add_versions(route, "female")
    route.clock.later(60)
    route.fhir_double.delete(WHO)
    await mirror(route, 2)
    for _ in range(2):
        route.fhir_double.will_answer(200, old)
    assert await mirror(route, 3, version=StateVersion(id="2")) is None
    assert (await get_contact(route))[0] == 1
    await route.mirror_all()
    assert await get_contact(route) == (1, 1, "deleted 3")


@pytest.mark.parametrize("rule", ["deactivate", "delete"])
async def test_a_copy_that_lags_does_not_make_a_row_of_a_deleted_patient(
    route: Route, rule: str
) -> None:
    """Two copies: one shows the deletion already, the other one not yet."""
    route.on_delete = rule
    old = add_versions(route, "male")
    if rule == "delete":
        await mirror(route)
    route.clock.later(60)
    route.fhir_double.delete(WHO)
    assert await mirror(route, 2) == ("deleted" if rule == "delete" else "absent")
    route.fhir_double.will_answer(200, old)
    assert await mirror(route, 3, version=StateVersion(id="1")) == "created"
    route.fhir_double.will_answer(200, old)
    await route.mirror_all()
    states = [row["statecode"] for row in await route.dataverse_double.contacts()]
    assert states == ([] if rule == "delete" else [1])


async def test_a_copy_that_still_shows_an_earlier_deletion_does_not_repeat_it(
    route: Route,
) -> None:
    add_versions(route, "male")
    route.fhir_double.delete(WHO)
    history = route.fhir_double.get(f"{WHO}/_history")[1]
    add_versions(route, "female")
    await mirror(route)
    for _ in range(2):
        route.fhir_double.will_answer(410, {"resourceType": "OperationOutcome"})
        route.fhir_double.will_answer(200, history)
    assert await mirror(route, 2) is None
    assert await get_contact(route) == (0, 2, "3")


async def test_the_deletion_of_a_patient_not_in_use_has_its_place_too(route: Route) -> None:
    """Its contact was inactive before. An update in between would make it active."""
    route.fhir_double.add(patient(id=ANNA, active=False))
    await mirror(route)
    route.fhir_double.add(patient(id=ANNA, active=True))

    async def delete() -> None:
        route.fhir_double.delete(WHO)
        assert await mirror(route, 2) == "deactivated"

    route.fhir_double.will_wait_for(delete)
    await mirror(route, 3)
    assert (await get_contact(route))[0] == 1
    assert await mirror(route, 4) == "unchanged"


async def test_a_patient_who_comes_back_is_active_again(route: Route) -> None:
    add_versions(route, "male")
    await mirror(route)
    route.fhir_double.delete(WHO)
    await mirror(route, 2)
    add_versions(route, "female")
    assert await mirror(route, 3) == "updated"
    assert await get_contact(route) == (0, 2, "3")


@pytest.mark.parametrize("status", [404, 405])
async def test_without_a_history_a_deletion_is_mirrored_all_the_same(
    route: Route, status: int
) -> None:
    """Nothing tells that the read does not lag, so it is made again, for some seconds."""
    add_versions(route, "male")
    await mirror(route)
    route.fhir_double.delete(WHO)
    for _ in range(7):
        route.fhir_double.will_do_as_asked()
        route.fhir_double.will_answer(status)
    assert await mirror(route, 2) is None
    assert (await get_contact(route))[0] == 0
    await route.mirror_all()
    assert await get_contact(route) == (1, 1, "deleted")
    assert route.fhir_double.script == []


async def test_a_deletion_costs_dataverse_two_requests(route: Route) -> None:
    add_versions(route, "male")
    await mirror(route)
    route.fhir_double.delete(WHO)
    received = len(route.dataverse_double.received)
    asked = len(route.fhir_double.received)
    await mirror(route, 2)
    assert len(route.dataverse_double.received) == received + 2
    assert len(route.fhir_double.received) == asked + 2  # the read, and the history


# --- versions that begin again -------------------------------------------------------------------


async def test_a_patient_who_was_deleted_for_good_and_made_again_is_shown(route: Route) -> None:
    add_versions(route, "male", "female", "male")
    await mirror(route)
    route.fhir_double.forget(WHO)
    await mirror(route, 2, version=StateVersion(is_deleted=True))
    await route.mirror_all()
    assert await get_contact(route) == (1, 1, "deleted")
    add_versions(route, "female")
    await mirror(route, 3, version=StateVersion(id="1"))
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "1")


async def test_a_patient_made_again_is_shown_where_nobody_heard_of_the_deletion(
    route: Route,
) -> None:
    """A deletion for good reports no event. Within minutes the clocks of the server's nodes might
    differ, and the read might lag: so it is made again, for some seconds."""
    add_versions(route, "male", "female", "male")
    await mirror(route)
    route.fhir_double.forget(WHO)
    add_versions(route, "female")
    assert await mirror(route, 2, version=StateVersion(id="1")) is None
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "1")


async def test_a_patient_made_again_minutes_later_is_shown_at_once(route: Route) -> None:
    add_versions(route, "male", "female", "male")
    await mirror(route)
    route.fhir_double.forget(WHO)
    route.clock.later(300)
    add_versions(route, "female")
    assert await mirror(route, 2, version=StateVersion(id="1")) == "updated"
    assert await get_contact(route) == (0, 2, "1")


async def test_each_version_of_another_server_is_shown(route: Route) -> None:
    add_versions(route, "male", "female", "male", "female", "male")
    await mirror(route)
    route.fhir_double.forget(WHO)
    route.clock.later(300)
    for number, (gender, code) in enumerate([("female", 2), ("male", 1), ("female", 2)], 1):
        add_versions(route, gender)
        assert await mirror(route, 1 + number) == "updated"
        assert await get_contact(route) == (0, code, str(number))


async def test_a_server_that_was_restored_needs_the_word_of_an_operator(route: Route) -> None:
    backup = add_versions(route, "male")
    add_versions(route, "female")
    await mirror(route)
    route.fhir_double.stored[WHO] = backup
    assert await mirror(route, 2) is None
    assert await get_contact(route) == (0, 2, "2")
    route.queue_sender.sent.clear()
    told = replace(route.mirror, sink=replace(route.web_api, fhir_is_right=True))
    result = await mirror_or_raise(told, WorkItem(RUN, resource=WHO))
    assert (result.action, await get_contact(route)) == ("updated", (0, 1, "1"))


async def test_a_row_that_is_ahead_for_days_is_parked_with_what_to_do(route: Route) -> None:
    backup = add_versions(route, "male")
    add_versions(route, "female")
    await mirror(route)
    route.fhir_double.stored[WHO] = backup
    await mirror(route, 2)
    await route.mirror_all()
    (result,) = await route.journal.list_row_results(make_item(2).delivery)
    assert result.action == "parked"
    assert "--fhir-is-right" in result.notes[0]


async def test_versions_that_are_no_numbers_within_one_second_are_read_until_they_rest(
    route: Route,
) -> None:
    def put(version: str, gender: str, updated: str) -> None:
        meta = {"versionId": version, "lastUpdated": updated}
        route.fhir_double.stored[WHO] = {**patient(id=ANNA, gender=gender), "meta": meta}

    put("a1", "male", "2026-03-01T19:45:00.100Z")
    await mirror(route)
    put("b2", "female", "2026-03-01T19:46:00.200Z")

    async def change() -> None:
        put("c3", "other", "2026-03-01T19:46:00.900Z")
        assert await mirror(route, 2) == "updated"

    route.fhir_double.will_wait_for(change)
    await mirror(route, 3)
    await route.mirror_all()
    row = await route.dataverse_double.contact()
    assert row["msemr_azurefhirversion"] == "c3"
    put("d4", "female", "2026-03-01T19:46:00.950Z")
    assert await mirror(route, 4) is None
    await route.mirror_all()
    assert await get_contact(route) == (0, 2, "d4")


# --- a 404 that is not the FHIR server's ---------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"<html>no such route</html>", b"", b'{"statusCode": 404, "message": "Resource not found"}'],
    ids=["html", "empty", "a gateway's JSON"],
)
async def test_only_the_fhir_server_says_that_a_patient_is_gone(
    route: Route, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    add_versions(route, "male")
    await mirror(route)
    route.fhir_double.will_answer(404, body, HTML)
    assert await mirror(route, 2) is None
    assert (await get_contact(route))[0] == 0
    ((_, delay),) = route.queued(MIRROR_QUEUE)
    assert delay == 60
    (record,) = [each for each in caplog.records if each.message == "row.requeued"]
    assert record.levelno == logging.ERROR
    assert "FHIR_URL" in vars(record)["reason"]


# --- whose row -----------------------------------------------------------------------------------


async def test_a_row_that_replaced_another_is_known_though_the_answer_was_lost(
    route: Route,
) -> None:
    """Lookups of virtual tables lead to the recorded key."""
    keys = MemoryRowKeys()
    await keys.add("Patient", {ANNA: THEIRS})
    add_versions(route, "male")
    noticing = replace(route.mirror, row_keys=keys)
    route.dataverse_double.will_fail(kind="lost-reply", method="PATCH", path="contacts", next=1)
    await mirror_resource(noticing, make_item())
    ((item, _),) = route.queued(MIRROR_QUEUE)
    await mirror_resource(noticing, item)
    assert await keys.find_keys("Patient", [ANNA]) == {ANNA: ANNA}


async def test_a_row_whose_key_is_its_id_costs_no_write_of_the_keys(route: Route) -> None:
    class Counting(MemoryRowKeys):
        async def add(self, *_: Any) -> None:
            raise AssertionError("there is nothing to record")

    add_versions(route, "male")
    await mirror_resource(replace(route.mirror, row_keys=Counting()), make_item())
    assert await get_contact(route) == (0, 1, "1")


async def test_a_row_of_a_new_patient_costs_no_look_at_the_keys(route: Route) -> None:
    class Closed(MemoryRowKeys):
        async def find_keys(self, *_: Any) -> Any:
            raise AssertionError("nobody can have recorded a key")

    add_versions(route, "male")
    await mirror_resource(replace(route.mirror, row_keys=Closed()), make_item(is_create=True))
    assert await get_contact(route) == (0, 1, "1")


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        (1, {}),  # of a reconcile, a replay or a notification: a row may have been there before
        (2, {"is_create": True}),  # it was deleted, and created again
        (1, {"is_create": True, "attempt": 1}),
    ],
)
async def test_a_key_that_may_have_been_recorded_is_corrected(
    route: Route, versions: int, said: Any
) -> None:
    keys = MemoryRowKeys()
    await keys.add("Patient", {ANNA: THEIRS})
    add_versions(route, *["male"] * versions)
    await mirror_resource(replace(route.mirror, row_keys=keys), make_item(**said))
    assert await keys.find_keys("Patient", [ANNA]) == {ANNA: ANNA}


# --- a route that was switched -------------------------------------------------------------------


async def test_work_is_not_dropped_by_a_worker_that_has_not_heard_of_the_new_route(
    route: Route,
) -> None:
    store, now = MemoryDataRouteStore(), [0.0]
    known = load_shipped_maps()["Patient"]
    table = MappedTable("Patient", known.table, known.entity_set, ("virtual", "dataverse"))

    async def do_nothing(_: float) -> None:
        """Nobody waits in a test."""

    def open_routes() -> DataRoutes:
        return DataRoutes(
            store=store,
            tables={"Patient": table},
            is_mirroring=True,
            clock=lambda: now[0],
            pause=do_nothing,
        )

    first, second = open_routes(), open_routes()
    assert await second.get_change_queues() == {}
    await change_routes(first, {"Patient": "dataverse"}, "somebody", None)
    now[0] = 10.0
    add_versions(route, "male")
    late = replace(
        route.mirror,
        change_queues=second.get_change_queues,
        current_queues=second.read_change_queues,
    )
    await mirror_resource(late, make_item())
    assert await get_contact(route) == (0, 1, "1")
    await change_routes(first, {"Patient": "virtual"}, "somebody", None)
    now[0] = 30.0
    await mirror_resource(late, make_item(2))
    (result,) = await route.journal.list_row_results(make_item(2).delivery)
    assert result.action == "skipped"
