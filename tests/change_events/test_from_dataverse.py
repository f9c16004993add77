"""Rows that people have edited are mirrored again, whatever becomes of the link to their changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from integration.change_events.from_dataverse import BELL_DELAY, queue_edits, ring
from integration.core.errors import Misconfigured, Rejected, Unavailable
from integration.core.model import Response, WorkItem
from integration.dataverse import change_tracking
from integration.dataverse.change_tracking import UnreadableChanges
from integration.journal.edit_cursors import Stage
from integration.mapping.model import AttributeMap, Kind
from integration.mirror import mirror as mirroring
from integration.queues.names import EDITS_QUEUE, MIRROR_QUEUE
from local.dataverse.organization import CALLER, NURSE_USER, USER
from tests.builders import MARKER, patient
from tests.conftest import Route
from tests.mirror.test_row_edits import build_map, use

ANNA, BEN = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11", "2b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d12"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
SOMEBODY = {CALLER: NURSE_USER}


@pytest.fixture
async def followed(route: Route) -> Route:
    """Anna and Ben have rows, and the edits of rows are followed from now on."""
    use(route, build_map())
    for id_ in (ANNA, BEN):
        name = route.fhir_double.add(patient(id=id_))
        await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=name))
    assert await queue_edits(route.edit_source) == 0
    return route


async def edit(route: Route, key: str = ANNA, **columns: Any) -> None:
    answer = await route.dataverse_double.send(
        "PATCH", f"contacts({key})", columns or {"telephone2": MARKER}, headers=SOMEBODY
    )
    assert answer.status_code == 204, answer.text


async def look(route: Route) -> list[str]:
    """The resources that a look has queued."""
    route.queue_sender.sent.clear()
    await queue_edits(route.edit_source)
    return [str(name) for name in route.mirrored]


# -- what is queued -------------------------------------------------------------------------------


async def test_a_row_that_somebody_edits_is_queued_once(followed: Route) -> None:
    await edit(followed)
    await edit(followed, telephone3="2")
    assert await look(followed) == [f"Patient/{ANNA}"]
    assert await look(followed) == []


async def test_what_this_app_writes_is_not_queued(followed: Route) -> None:
    followed.fhir_double.add(patient(id=ANNA, gender="female"))
    await mirroring.mirror_resource(followed.mirror, WorkItem(DELIVERY, resource=f"Patient/{ANNA}"))
    assert await look(followed) == []


async def test_at_first_every_row_that_somebody_else_wrote_last_is_looked_at(route: Route) -> None:
    """An edit from before it was switched on, or while the first pages are read, is one as well."""
    use(route, build_map())
    for id_ in (ANNA, BEN):
        name = route.fhir_double.add(patient(id=id_))
        await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=name))
    await edit(route)
    assert await look(route) == [f"Patient/{ANNA}"]
    assert await look(route) == []


async def test_what_is_read_of_rows_follows_the_maps(followed: Route) -> None:
    """A link has the columns that were asked for first: another map may need others."""
    await edit(followed)
    (cursor,) = followed.edit_cursors.cursors.values()
    followed.edit_cursors.cursors["contact"] = replace(cursor, columns="contactid")
    assert await look(followed) == [f"Patient/{ANNA}"]


async def test_each_look_that_finds_edits_has_a_delivery_of_its_own(followed: Route) -> None:
    """Its rows tell what became of the edits: the next look must not write over that."""
    deliveries = set()
    for number in range(2):
        await edit(followed, telephone2=str(number))
        await queue_edits(followed.edit_source)
        ((item, _),) = followed.queued(MIRROR_QUEUE)
        deliveries.add(item.delivery)
        await followed.mirror_all()
    assert len(deliveries) == 2
    for delivery in deliveries:
        results = await followed.journal.list_row_results(delivery)
        (noted,) = [row for row in results if row.resource == f"Patient/{ANNA}"]
        assert "written to FHIR" in noted.remarks[0]


async def test_an_id_that_leads_nowhere_does_not_make_a_contact_inactive(followed: Route) -> None:
    """Somebody may type the id of a patient who is yet to come, or mistype it."""
    other = "3b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d13"
    await edit(
        followed,
        other,
        lastname="Cara",
        msemr_contacttype=935000000,
        msemr_azurefhirid="not-there-yet",
    )
    assert await look(followed) == ["Patient/not-there-yet"]
    await followed.mirror_all()
    rows = {row["contactid"]: row for row in await followed.dataverse_double.contacts()}
    assert rows[other]["statecode"] == 0


async def test_a_look_that_was_queued_before_it_was_switched_off_does_nothing(
    followed: Route,
) -> None:
    await edit(followed)
    assert await queue_edits(replace(followed.edit_source, is_on=False)) == 0


async def test_a_ring_that_could_not_be_queued_may_be_repeated(followed: Route) -> None:
    class Away:
        async def send(self, queue: str, item: WorkItem, delay: float = 0) -> None:
            raise Unavailable("storage", "away")

    with pytest.raises(Unavailable):
        await ring(replace(followed.edit_source, queue=Away()), build_message())
    assert await ring(followed.edit_source, build_message())


async def test_rows_that_show_no_patient_are_left_alone(followed: Route) -> None:
    other = "3b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d13"
    await edit(followed, other, lastname="A supplier")
    await edit(followed, ANNA, msemr_azurefhirid="../Patient?name=x")
    await edit(followed, "4b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d14", msemr_azurefhirid="..")
    await edit(followed, BEN, msemr_contacttype=935000001)
    assert await look(followed) == []


async def test_a_deleted_row_is_nothing_to_write(followed: Route) -> None:
    await followed.dataverse_double.change("DELETE", f"contacts({ANNA})")
    await edit(followed, BEN)
    assert await look(followed) == [f"Patient/{BEN}"]


async def test_an_edit_reaches_fhir_and_the_round_ends(followed: Route) -> None:
    await edit(followed, telephone2="555-0101")
    await queue_edits(followed.edit_source)
    await followed.mirror_all()
    (anna,) = [each for each in followed.fhir_double.of("Patient") if each["id"] == ANNA]
    assert {"system": "phone", "use": "home", "value": "555-0101"} in anna["telecom"]
    assert await look(followed) == []


async def test_many_pages_are_read_to_their_end(followed: Route) -> None:
    for key in (ANNA, BEN):
        await edit(followed, key)
    before = len(followed.dataverse_double.received)
    assert await queue_edits(replace(followed.edit_source, page_size=1)) == 2
    assert len(followed.dataverse_double.received) == before + 2
    assert sorted(map(str, followed.mirrored)) == [f"Patient/{ANNA}", f"Patient/{BEN}"]
    assert (await followed.edit_cursors.read("contact")).stage is Stage.FOLLOWING


async def test_what_one_run_has_no_time_for_the_next_one_does(followed: Route) -> None:
    for key in (ANNA, BEN):
        await edit(followed, key)
    hasty = replace(
        followed.edit_source, clock=iter(range(100)).__next__, max_duration=1.5, page_size=1
    )
    assert await queue_edits(hasty) == 1
    assert await queue_edits(hasty) == 1
    assert sorted(map(str, followed.mirrored)) == [f"Patient/{ANNA}", f"Patient/{BEN}"]


# -- links that are lost ----------------------------------------------------------------------------


async def test_after_a_week_without_a_look_every_row_is_compared(
    followed: Route, caplog: pytest.LogCaptureFixture
) -> None:
    await edit(followed)
    (cursor,) = followed.edit_cursors.cursors.values()
    old = cursor.link.replace("03%2F02%2F2026", "02%2F02%2F2026")
    assert old != cursor.link
    followed.edit_cursors.cursors["contact"] = replace(cursor, link=old)
    assert await look(followed) == [f"Patient/{ANNA}"]
    assert "edits.lost_track" in caplog.text
    assert await look(followed) == []


async def test_a_link_to_another_host_is_not_followed(followed: Route) -> None:
    """It would get the token of this app. An organisation may have two names."""
    await edit(followed)
    body = {
        "value": [],
        "@odata.deltaLink": "https://elsewhere/api/data/v9.2/contacts?$deltatoken=1",
    }
    page = change_tracking.parse_page(Response(200, {}, json.dumps(body).encode()))
    assert page.link == "api/data/v9.2/contacts?$deltatoken=1"
    with pytest.raises(UnreadableChanges):
        change_tracking.parse_page(
            Response(200, {}, b'{"value": [], "@odata.deltaLink": "https://elsewhere/x"}')
        )


async def test_two_runs_at_once_do_not_lose_an_edit(followed: Route) -> None:
    """The slower one finds that the cursor has moved, and stops; its work items stand."""
    await edit(followed)
    before = await followed.edit_cursors.read("contact")

    async def run_beside() -> None:
        await queue_edits(followed.edit_source)

    followed.dataverse_double.will_be_preceded("GET", run_beside)
    await queue_edits(followed.edit_source)
    assert {*map(str, followed.mirrored)} == {f"Patient/{ANNA}"}
    after = await followed.edit_cursors.read("contact")
    assert after.etag is not None
    assert before.etag is not None
    assert int(after.etag) == int(before.etag) + 1


async def test_a_worker_that_dies_before_the_link_is_kept_queues_the_edit_again(
    followed: Route,
) -> None:
    await edit(followed)
    cursor = await followed.edit_cursors.read("contact")
    assert await look(followed) == [f"Patient/{ANNA}"]
    followed.edit_cursors.cursors["contact"] = cursor
    assert await look(followed) == [f"Patient/{ANNA}"]


# -- what an operator must do -------------------------------------------------------------------------


async def test_maps_that_do_not_tell_themselves_are_refused_with_what_to_do(route: Route) -> None:
    entity = build_map()
    others = tuple(item for item in entity.attributes if item.kind is not Kind.MAP)
    use(route, replace(entity, attributes=others))
    with pytest.raises(Misconfigured, match="map_digest in MAPS_ENABLED"):
        await queue_edits(route.edit_source)


async def test_a_column_that_is_too_short_for_stamps_is_told(route: Route) -> None:
    """It had twelve characters once: no edit would ever be written."""
    entity = build_map()
    others = tuple(item for item in entity.attributes if item.kind is not Kind.MAP)
    short = AttributeMap(column="address1_upszone", kind=Kind.MAP)
    use(route, replace(entity, attributes=(*others, short)))
    assert (await route.dataverse.get_columns("contact"))["address1_upszone"].max_length == 4
    with pytest.raises(Misconfigured, match="too short for a stamp"):
        await queue_edits(route.edit_source)


async def test_a_table_that_is_not_tracked_is_told_with_what_to_do(route: Route) -> None:
    use(route, build_map())
    await route.dataverse.get_columns("contact")
    route.dataverse_double.will_fail(kind="status", status=400, code="0x80060888", next=1)
    with pytest.raises(Misconfigured, match="have its changes tracked"):
        await queue_edits(route.edit_source)


async def test_while_dataverse_is_away_nothing_is_lost(followed: Route) -> None:
    await edit(followed)
    followed.dataverse_double.will_fail(kind="status", status=500, next=1)
    with pytest.raises(Unavailable):
        await queue_edits(followed.edit_source)
    assert await look(followed) == [f"Patient/{ANNA}"]


# -- the doorbell ----------------------------------------------------------------------------------------


def build_message(user: str = NURSE_USER) -> bytes:
    return json.dumps(
        {"PrimaryEntityName": "contact", "PrimaryEntityId": ANNA, "InitiatingUserId": user}
    ).encode()


async def test_whoever_rings_has_the_edits_looked_at(followed: Route) -> None:
    followed.queue_sender.sent.clear()
    assert await ring(followed.edit_source, build_message())
    ((queue, item, delay),) = followed.queue_sender.sent
    assert (queue, delay) == (EDITS_QUEUE, BELL_DELAY)
    assert ANNA not in str(item), "nothing of the message is kept"


async def test_a_storm_of_rings_is_one_look_that_comes_after_each_of_them(followed: Route) -> None:
    followed.queue_sender.sent.clear()
    rung = [await ring(followed.edit_source, build_message()) for _ in range(100)]
    assert rung == [True] + [False] * 99
    followed.clock.later(BELL_DELAY)
    assert await ring(followed.edit_source, build_message())


async def test_what_this_app_writes_rings_for_nobody(followed: Route) -> None:
    followed.queue_sender.sent.clear()
    assert not await ring(followed.edit_source, build_message(USER))
    assert followed.queue_sender.sent == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"PrimaryEntityName"', b"\xff"])
async def test_what_is_no_message_of_a_webhook_is_refused(followed: Route, body: bytes) -> None:
    with pytest.raises(Rejected, match="no message"):
        await ring(followed.edit_source, body)


async def test_without_a_bell_nobody_can_ring(followed: Route) -> None:
    with pytest.raises(Rejected, match="WRITEBACK"):
        await ring(replace(followed.edit_source, is_bell_on=False), build_message())
