"""Reads may lag behind writes: what follows a resource is told what it must at least see."""

from __future__ import annotations

from copy import deepcopy

import pytest

from integration.core.model import WorkItem
from integration.mirror import mirror as mirroring
from integration.queues.names import MIRROR_QUEUE
from tests.builders import Body, batch, bundle, entry, patient
from tests.conftest import LEASE, Route
from tests.relay.ending_journal import FailingJournal, Killed, KillingJournal

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
NAME = f"Patient/{ANNA}"


def anna(**elements: object) -> Body:
    return patient(id=ANNA, **elements)


def updating(**elements: object) -> Body:
    return batch(entry(anna(**elements), method="PUT", url=NAME))


def will_read(route: Route, status: int, resource: Body | None = None) -> None:
    """Answer the next read as a replica does that does not have the last write yet."""
    route.fhir_double.will_answer(status, resource or {"resourceType": "OperationOutcome"})


async def mirror_next(route: Route) -> WorkItem:
    """Process the next work item of the mirror. Return it."""
    item, delay = route.queued(MIRROR_QUEUE)[0]
    route.queue_sender.sent.remove((MIRROR_QUEUE, item, delay))
    await mirroring.mirror_resource(route.mirror, item)
    return item


async def test_a_contact_waits_for_the_version_that_was_written(route: Route) -> None:
    route.fhir_double.add(anna(birthDate="1970-01-01"))
    before = deepcopy(route.fhir_double.stored[NAME])
    await route.process_all(await route.deliver(updating(birthDate="1980-01-01")))
    will_read(route, 200, before)
    item = await mirror_next(route)
    assert item.version is not None
    assert item.version.id == "2"
    assert await route.dataverse_double.contacts() == []
    await mirror_next(route)
    assert (await route.dataverse_double.contact())["msemr_azurefhirversion"] == "2"


async def test_a_patient_that_cannot_be_read_yet_is_not_taken_for_deleted(route: Route) -> None:
    await route.process_all(await route.deliver(updating()))
    will_read(route, 404)
    await mirror_next(route)
    await mirror_next(route)
    assert (await route.dataverse_double.contact())["statecode"] == 0


async def test_a_deleted_patient_that_can_still_be_read_is_not_left_active(route: Route) -> None:
    await route.process_all(await route.deliver(updating()))
    await mirror_next(route)
    before = deepcopy(route.fhir_double.stored[NAME])
    await route.process_all(
        await route.deliver(batch({"request": {"method": "DELETE", "url": NAME}}))
    )
    will_read(route, 200, before)
    item = await mirror_next(route)
    assert item.version is not None
    assert item.version.is_deleted
    assert (await route.dataverse_double.contact())["statecode"] == 0
    await mirror_next(route)
    assert (await route.dataverse_double.contact())["statecode"] == 1


async def test_a_patient_that_stays_absent_is_taken_for_deleted_in_the_end(route: Route) -> None:
    await route.process_all(await route.deliver(updating()))
    await mirror_next(route)
    await route.process_all(await route.deliver(updating(active=True)))
    route.fhir_double.delete(NAME)  # by somebody else
    while route.queued(MIRROR_QUEUE):
        await mirror_next(route)
    assert (await route.dataverse_double.contact())["statecode"] == 1


async def test_a_history_that_lags_hides_nobody_who_was_overtaken(route: Route) -> None:
    """A first write arrives after that of a later delivery. The history does not show it yet."""
    double = route.fhir_double
    first, second = await route.deliver(updating()), await route.deliver(updating(active=True))

    async def be_overtaken() -> None:
        route.clock.later(2 * LEASE)
        await route.process(second)
        history = deepcopy(double.get(f"{NAME}/_history")[1])
        lagging = {"resource": history, "response": {"status": "200"}}
        found = {"resourceType": "Bundle", "type": "batch-response", "entry": [lagging]}
        double.will_answer(200, found, look_up=True)

    double.will_be_late_after(be_overtaken)
    await route.process_all(first)
    assert double.writes_of_each[NAME] == 3  # the later one, the late one, and the later one again
    assert double.stored[NAME]["active"] is True
    assert (await route.outcomes(first))[0].superseded
    # The mirror is told of the state that was restored, and not of an earlier one.
    told = {item.version.id for item, _ in route.queued(MIRROR_QUEUE) if item.version}
    assert told == {"1", "3"}


# --- first writes ---------------------------------------------------------------------------------

EMPTY = {
    "resource": {"resourceType": "Bundle", "type": "searchset", "total": 0},
    "response": {"status": "200"},
}


def will_show_nothing(route: Route, looks: int) -> None:
    """Answer so many looks as a replica does that does not have the resource yet."""
    found = {"resourceType": "Bundle", "type": "batch-response", "entry": [EMPTY]}
    for _ in range(looks):
        route.fhir_double.will_answer(200, found, look_up=True)


async def test_a_first_write_that_was_made_just_now_is_not_overwritten_by_an_earlier_delivery(
    route: Route,
) -> None:
    first, second = await route.deliver(updating()), await route.deliver(updating(active=True))
    await route.process(second)
    will_show_nothing(route, looks=3)
    await route.process(first)
    assert route.fhir_double.writes_of_each[NAME] == 1, "no earlier state was to be seen"
    assert route.fhir_double.stored[NAME]["active"] is True
    assert (await route.outcomes(first))[0].superseded


async def test_a_resource_that_stays_unseen_for_long_is_asked_for_again_later(
    route: Route,
) -> None:
    first, second = await route.deliver(updating()), await route.deliver(updating(active=True))
    await route.process(second)
    will_show_nothing(route, looks=6)
    await route.process(first)
    assert await route.statuses(first) == []
    assert route.fhir_double.writes_of_each[NAME] == 1
    await route.process_all()
    assert (await route.outcomes(first))[0].superseded


@pytest.mark.parametrize("next_one", ["the earlier", "the same", "the same, twice"])
async def test_a_worker_that_dies_after_a_first_write_leaves_word_of_it(
    route: Route, next_one: str
) -> None:
    """Its claim has ended, and the reads do not show yet what it has written."""
    route.journal = journal = KillingJournal()
    earlier, same = await route.deliver(updating()), await route.deliver(updating(active=True))
    journal.kills = True
    with pytest.raises(Killed):
        await route.process(same)
    route.clock.later(LEASE + 1)
    for delivery in {"the earlier": [earlier], "the same": [same]}.get(next_one, [same, same]):
        will_show_nothing(route, looks=3 if next_one != "the same, twice" else 7)
        await route.process(delivery)
        route.fhir_double.look_up_script.clear()
        assert route.fhir_double.writes_of_each[NAME] == 1
    for delivery in (same, earlier):
        await route.process_all(delivery)
    assert await route.statuses(same) == [200]
    assert (await route.outcomes(earlier))[0].superseded
    assert route.fhir_double.stored[NAME]["active"] is True
    assert route.fhir_double.writes_of_each[NAME] == 1


async def test_a_first_write_that_could_not_be_recorded_is_not_repeated(route: Route) -> None:
    route.journal = journal = FailingJournal()
    delivery = await route.deliver(updating())
    journal.kills = True
    await route.process(delivery)
    will_show_nothing(route, looks=3)
    await route.process(delivery)
    assert route.fhir_double.writes_of_each[NAME] == 1
    assert await route.statuses(delivery) == [200]


@pytest.mark.parametrize(("status", "waits"), [(429, False), (500, True)])
async def test_who_was_told_that_nothing_was_written_does_not_wait_for_reads(
    route: Route, status: int, waits: bool
) -> None:
    delivery = await route.deliver(updating())
    answer = {"response": {"status": str(status)}}
    route.fhir_double.will_answer(
        200, {"resourceType": "Bundle", "type": "batch-response", "entry": [answer]}
    )
    await route.process(delivery)
    assert route.waits == []
    await route.process(delivery)
    assert bool(route.waits) == waits


async def test_what_is_absent_long_after_its_first_write_is_written_again(route: Route) -> None:
    """Somebody else has deleted it at the FHIR server."""
    await route.process_all(await route.deliver(updating()))
    route.fhir_double.delete(NAME)
    route.clock.later(11)
    later = await route.deliver(updating(active=True))
    await route.process(later)
    assert route.fhir_double.stored[NAME]["active"] is True
    assert route.waits == []


async def test_two_workers_with_one_history_leave_no_earlier_version_behind(route: Route) -> None:
    """The first goes on after the second has written everything."""
    versions = [
        {
            "fullUrl": f"https://ehr.example/{NAME}",
            "resource": anna(birthDate=f"198{number}-01-01", meta={"versionId": str(number)}),
            "request": {"method": "PUT", "url": NAME},
            "response": {"status": "200"},
        }
        for number in (3, 2, 1)
    ]
    delivery = await route.deliver(bundle(*versions, kind="history"))

    async def let_another_worker_finish() -> None:
        await route.process(delivery)

    route.fhir_double.will_wait_for(let_another_worker_finish)
    await route.process(delivery)
    await route.process_all()
    history = route.fhir_double.get(f"{NAME}/_history")[1]["entry"]
    dates = [item["resource"]["birthDate"] for item in reversed(history)]
    assert dates == ["1981-01-01", "1982-01-01", "1983-01-01"]


# --- locks that do not last -----------------------------------------------------------------------


async def test_a_slow_server_that_refuses_a_unit_each_time_is_believed_in_the_end(
    route: Route,
) -> None:
    """A patch of nothing is answered with 404, as is a condition on a version that is gone. The
    locks of the unit run out between the look and the request."""
    route.fhir_double.add(patient(id="known"))
    query = "Patient?identifier=urn:mrn|7"
    patch = {
        "resourceType": "Parameters",
        "parameter": [
            {
                "name": "operation",
                "part": [
                    {"name": "type", "valueCode": "replace"},
                    {"name": "path", "valueString": "Patient.active"},
                    {"name": "value", "valueBoolean": True},
                ],
            }
        ],
    }
    delivery = await route.deliver(
        bundle(
            {"request": {"method": "PATCH", "url": query}, "resource": patch},
            entry(patient(id="known", active=True), method="PUT", url="Patient/known"),
            entry(
                patient(identifier=[{"system": "urn:mrn", "value": "8"}]),
                method="PUT",
                url="Patient?identifier=urn:mrn|8",
            ),
        )
    )

    async def pass_time() -> None:
        route.clock.later(LEASE / 5)

    for _ in range(5000):
        route.fhir_double.will_be_late_after(pass_time)
    await route.process_all(delivery)
    assert await route.statuses(delivery) == [404, 404, 404]
