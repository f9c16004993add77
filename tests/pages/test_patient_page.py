"""One patient: found without its values leaving bodies, shown with its row, and each look recorded."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import UTC, datetime
from typing import Any

import pytest

from integration.core.errors import Unavailable
from integration.core.model import Delivery, WorkItem
from integration.fhir.version_list import ListedVersion
from integration.fhir.write_mark import Mark
from integration.journal.attention import ConcernFilter, ConcernPage
from integration.journal.audit_entry import AccessKind
from integration.journal.store import MemoryJournal
from integration.journal.table_keys import make_delivery_id
from integration.mirror.mirror import Mirror, mirror_resource
from integration.pages.patient import MAX_RESULTS
from integration.pages.patient_facts import list_touches
from integration.queues.names import MIRROR_QUEUE
from tests.audits import FailingAuditLog, make_recorder
from tests.builders import MARKER, bundle, entry, patient
from tests.conftest import Route, told_by
from tests.pages.asking import NAME, Visitor, make_parts

ANNA = "9b1de2a4-6f0e-4b7b-8d39-0d8a52c4e1b7"
THEIRS = "11111111-2222-4333-8444-555555555555"
MRN = "MRN-4711-secret"
PATIENT_TYPE = 935000000
SYSTEM = "https://hospital.example/mrn"


def anna(**elements: Any) -> dict[str, Any]:
    identifier = [{"system": SYSTEM, "value": MRN}]
    return patient(id=ANNA, identifier=identifier, birthDate="1980-02-03", **elements)


async def deliver(route: Route, resource: dict[str, Any]) -> str:
    """As a sender does, up to the row."""
    delivery = await route.deliver(bundle(entry(resource, method="PUT")))
    await route.process_all(delivery)
    await route.mirror_all()
    return delivery


async def mirror(route: Route, resource: str, delivery: str = "run") -> None:
    await mirror_resource(route.mirror, WorkItem(delivery, resource=resource))


async def test_a_patient_is_shown_with_its_row_and_who_wrote_each_version(route: Route) -> None:
    first = await deliver(route, anna())
    route.fhir_double.add({**anna(), "gender": "female"})
    await mirror(route, f"Patient/{ANNA}")
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert page.status == 200
    assert MARKER in page.text
    assert "Born 1980-02-03" in page.text
    assert "Its row is up to date" in page.text
    assert f"/api/pages/deliveries/{first}" in page.links
    assert "wrote version 1 in FHIR, by its entry 0" in page.text
    assert "2 2026-03-01 19:45 UTC not the relay" in page.text
    form = f"http://dataverse/main.aspx?etn=contact&id={ANNA}&pagetype=entityrecord"
    assert form in page.links
    assert MRN not in page.html


async def test_a_row_that_is_behind_is_told_with_the_reason(route: Route) -> None:
    await deliver(route, anna())
    route.fhir_double.add(anna(gender="male"))
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert "Its row is behind" in page.text
    assert "its work item may be on its way" in page.text
    await route.dataverse_double.write(ANNA, msemr_azurefhirid=None)
    await route.dataverse_double.write(
        THEIRS, msemr_azurefhirid=ANNA, msemr_contacttype=PATIENT_TYPE
    )
    await mirror(route, f"Patient/{ANNA}")
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert "No row can be taken for its own" in page.text
    assert "more than one row of contact has this FHIR id: merge them" in page.text
    assert page.text.count(THEIRS) == 1
    assert "Row refused more than one row of contact has this FHIR id" in page.text


async def test_a_row_that_was_merged_names_the_one_it_was_merged_into(route: Route) -> None:
    await deliver(route, anna())
    await route.dataverse_double.write(THEIRS, lastname="Sample")
    merging = {
        "Target": {"contactid": THEIRS, "@odata.type": "Microsoft.Dynamics.CRM.contact"},
        "Subordinate": {"contactid": ANNA, "@odata.type": "Microsoft.Dynamics.CRM.contact"},
        "PerformParentingChecks": False,
    }
    await route.dataverse_double.change("POST", "Merge", merging)
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert f"into the row {THEIRS}" in page.text
    assert "inactive" in page.text


async def test_a_patient_that_was_replaced_leads_to_the_other(route: Route) -> None:
    link = [{"other": {"reference": "Patient/other-1"}, "type": "replaced-by"}]
    route.fhir_double.add(anna(link=link, active=False))
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert "It was merged into Patient/other-1" in page.text
    assert "/api/pages/patients/other-1" in page.links


async def test_a_version_that_kept_the_mark_of_the_one_before_is_not_the_relays(
    route: Route,
) -> None:
    await deliver(route, anna())
    stored = dict(route.fhir_double.stored[f"Patient/{ANNA}"])
    route.fhir_double.add({**stored, "gender": "other"})
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert "somebody who kept the relay's mark of the version before" in page.text


async def test_a_patient_that_fhir_never_had_is_a_404_with_a_sentence(route: Route) -> None:
    page = await Visitor(make_parts(route)).get("patients/nobody")
    assert page.status == 404
    assert "FHIR has no Patient/nobody" in page.text


async def test_a_deleted_patient_is_a_410_with_what_its_row_shows(route: Route) -> None:
    await deliver(route, anna())
    route.fhir_double.delete(f"Patient/{ANNA}")
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert page.status == 410
    assert f"Patient/{ANNA} was deleted" in page.text
    assert "Its row does not show that it was deleted" in page.text
    await mirror(route, f"Patient/{ANNA}")
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert "Its row shows that it was deleted" in page.text
    assert "inactive" in page.text


@pytest.mark.parametrize("id_", ["a%20b", "..", "x" * 65, "Pat_1"])
async def test_what_is_no_id_is_asked_of_nobody(route: Route, id_: str) -> None:
    page = await Visitor(make_parts(route)).get(f"patients/{id_}")
    assert page.status == 404
    assert route.fhir_double.received == []
    assert route.audit.entries == []


async def test_what_cannot_be_read_is_said_in_its_part_and_the_rest_is_shown(route: Route) -> None:
    await deliver(route, anna())
    route.fhir_double.down = 500
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert page.status == 200
    assert "FHIR server: a read returned status 500" in page.text
    assert "It is not known whether its row is up to date" in page.text
    assert ANNA in page.text
    route.fhir_double.down = None
    route.dataverse_double.will_fail(kind="status", status=500, next=100)
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert page.status == 200
    assert MARKER in page.text
    assert "Its row cannot be read: Dataverse" in page.text


class HangingConcerns(MemoryJournal):
    """Never lists what needs attention."""

    async def list_concerns(
        self, criteria: ConcernFilter, limit: int, after: str | None
    ) -> ConcernPage:
        await asyncio.Event().wait()
        raise AssertionError


async def test_a_part_that_hangs_is_waited_for_no_longer_than_its_time(route: Route) -> None:
    route.fhir_double.add(anna())
    route.journal = HangingConcerns()
    page = await Visitor(make_parts(route, patients={"timeout": 0.05})).get(f"patients/{ANNA}")
    assert page.status == 200
    assert "What needs attention not read not read within 0.05 s" in page.text


async def test_each_look_is_recorded_before_the_answer_leaves(route: Route) -> None:
    route.fhir_double.add(anna())
    await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    (found,) = route.audit.entries
    assert found.reader.user == NAME
    assert (found.access.kind, found.access.resources) == (
        AccessKind.PATIENT,
        (f"Patient/{ANNA}",),
    )
    refusing = make_recorder(FailingAuditLog())
    page = await Visitor(make_parts(route, audit=refusing)).get(f"patients/{ANNA}")
    assert page.status == 503
    assert MARKER not in page.html


@pytest.mark.parametrize("path", ["patients", f"patients/{ANNA}"])
async def test_only_who_may_see_patient_data_sees_a_patient(route: Route, path: str) -> None:
    route.fhir_double.add(anna())
    for roles in (("reader", "operator", "admin"), ("phi",)):
        page = await Visitor(make_parts(route), roles).get(path)
        assert page.status == 403
        assert MARKER not in page.html
    assert (await Visitor(make_parts(route), ("reader", "phi")).get(path)).status == 200


# -- finding ---------------------------------------------------------------------------------------


async def test_a_patient_is_found_by_an_identifier_that_no_address_and_no_log_holds(
    route: Route, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    route.fhir_double.add(anna())
    visitor = Visitor(make_parts(route))
    for fields in ({"system": SYSTEM, "identifier": MRN}, {"identifier": MRN}):
        page = await visitor.post("patients", by="identifier", **fields)
        assert (page.status, page.location) == (303, f"patients/{ANNA}")
        search = route.fhir_double.received[-1]
        assert (search.method, search.path) == ("POST", "/fhir/Patient/_search")
        assert MRN in search.body
    await route.activities.flush()
    logged = told_by([r for r in caplog.records if r.name.startswith("integration")])
    held = (logged, str(route.activity.entries), str(route.audit.entries))
    assert not any(MRN in text for text in held)
    assert not any(MRN in request.path + request.query for request in visitor.asked)


async def test_an_identifier_of_nobody_is_a_404_that_does_not_repeat_it(route: Route) -> None:
    page = await Visitor(make_parts(route)).post("patients", by="identifier", identifier=MRN)
    assert page.status == 404
    assert "FHIR has no patient with this identifier" in page.text
    assert MRN not in page.html
    (found,) = route.audit.entries
    assert (found.access.types, found.access.number) == (("Patient",), 0)


async def test_an_identifier_of_several_shows_their_ids_and_is_recorded_for_each(
    route: Route,
) -> None:
    route.fhir_double.add(anna())
    route.fhir_double.add({**anna(), "id": "other-1"})
    page = await Visitor(make_parts(route)).post("patients", by="identifier", identifier=MRN)
    assert page.status == 200
    assert "2 patients have this identifier" in page.text
    assert MARKER not in page.html
    assert route.audit.entries[-1].access.number == 2


async def test_a_fhir_server_that_is_away_is_told_without_the_value(route: Route) -> None:
    route.fhir_double.down = 500
    page = await Visitor(make_parts(route)).post("patients", by="identifier", identifier=MRN)
    assert page.status == 503
    assert MRN not in page.html


async def test_a_key_leads_back_to_the_patient_by_what_is_recorded_or_by_its_row(
    route: Route,
) -> None:
    visitor = Visitor(make_parts(route))
    route.fhir_double.add({**anna(), "id": "ehr-1"})
    await mirror(route, "Patient/ehr-1")
    key = (await route.dataverse_double.contact())["contactid"]
    page = await visitor.post("patients", by="key", key=key.upper())
    assert page.location == "patients/ehr-1"
    await route.row_keys.add("Patient", {"ehr-2": THEIRS})
    page = await visitor.post("patients", by="key", key=THEIRS)
    assert page.location == "patients/ehr-2"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"by": "key", "key": THEIRS}, 404),
        ({"by": "key", "key": "contact 7"}, 400),
        ({"by": "id", "id": "a/b"}, 400),
        ({"by": "identifier", "system": SYSTEM}, 400),
        ({}, 400),
    ],
)
async def test_what_leads_to_nobody_says_so(
    route: Route, fields: dict[str, str], status: int
) -> None:
    page = await Visitor(make_parts(route)).post("patients", **fields)
    assert page.status == status
    assert 'role="alert"' in page.html


async def test_an_id_leads_to_its_page(route: Route) -> None:
    page = await Visitor(make_parts(route)).post("patients", by="id", id=f"Patient/{ANNA}")
    assert page.location == f"patients/{ANNA}"


# -- bringing the row up to date -------------------------------------------------------------------


async def test_an_operator_has_a_row_brought_up_to_date_and_sees_the_result(route: Route) -> None:
    route.fhir_double.add(anna())
    visitor = Visitor(make_parts(route))
    after = await visitor.post(f"patients/{ANNA}/mirror")
    assert after.status == 303
    ((item, delay),) = route.queued(MIRROR_QUEUE)
    assert (item.resource, delay) == (f"Patient/{ANNA}", 0)
    page = await visitor.get(after.location)
    assert "Its row is being brought up to date. It is queued." in page.text
    assert "hx-get" in page.html
    await route.mirror_all()
    page = await visitor.get(after.location)
    assert "Its row was brought up to date. Result: created, version 1" in page.text
    assert 'hx-get="/api/pages/patients' not in page.html
    assert "Its row is up to date" in page.text
    run = await route.known(item.delivery)
    assert (run.kind, run.sender) == ("operator", "")


async def test_a_run_that_is_tried_again_says_why(route: Route) -> None:
    route.fhir_double.add(anna())
    visitor = Visitor(make_parts(route))
    after = await visitor.post(f"patients/{ANNA}/mirror")
    route.fhir_double.down = 500
    ((item, _),) = route.queued(MIRROR_QUEUE)
    await mirror_resource(route.mirror, item)
    page = await visitor.get(f"patients/{ANNA}/mirrored?delivery={item.delivery}")
    assert "It is tried again: FHIR server: a read returned status 500" in page.text
    assert after.location.endswith(item.delivery)


async def test_an_operator_without_sight_of_patients_sees_the_result_alone(route: Route) -> None:
    route.fhir_double.add(anna())
    visitor = Visitor(make_parts(route), ("operator",))
    after = await visitor.post(f"patients/{ANNA}/mirror")
    page = await visitor.get(after.location)
    assert page.status == 200
    assert "Its row is being brought up to date" in page.text
    assert MARKER not in page.html
    assert route.audit.entries == []


async def test_a_reader_has_no_row_brought_up_to_date(route: Route) -> None:
    route.fhir_double.add(anna())
    visitor = Visitor(make_parts(route), ("reader", "phi"))
    assert (await visitor.post(f"patients/{ANNA}/mirror")).status == 403
    assert route.queue_sender.sent == []
    assert "Bring its row up to date" not in (await visitor.get(f"patients/{ANNA}")).text


async def test_a_form_of_somebody_elses_page_queues_nothing(route: Route) -> None:
    page = await Visitor(make_parts(route)).post(f"patients/{ANNA}/mirror", token="other" * 6)
    assert page.status == 403
    assert route.queue_sender.sent == []


async def test_rows_that_are_not_mirrored_are_not_queued(route: Route) -> None:
    async def nothing() -> dict[str, str]:
        return {}

    route.fhir_double.add(anna())
    visitor = Visitor(make_parts(route, patients={"change_queues": nothing}))
    page = await visitor.post(f"patients/{ANNA}/mirror")
    assert page.status == 409
    assert "rows of Patient are not mirrored" in page.text
    assert "patients are not mirrored" in (await visitor.get(f"patients/{ANNA}")).text


@pytest.mark.parametrize("delivery", ["x", "0199d9b8-0000-7000-8000-000000000000"])
async def test_a_result_under_an_unknown_id_is_said_to_be_unknown(
    route: Route, delivery: str
) -> None:
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}/mirrored?delivery={delivery}")
    assert "nothing was queued under this id" in page.text


async def test_a_queue_that_takes_nothing_is_told(route: Route) -> None:
    class Refusing:
        async def send(self, *_: object) -> None:
            raise Unavailable("storage", "down")

    visitor = Visitor(make_parts(route, patients={"queue": Refusing()}))
    assert (await visitor.post(f"patients/{ANNA}/mirror")).status == 503


class HalfJournal(MemoryJournal):
    """Never reads one of its deliveries."""

    hanging = ""

    async def get_delivery(self, id_: str) -> Delivery | None:
        if id_ == self.hanging:
            raise Unavailable("storage", "answered 503")
        return await super().get_delivery(id_)


async def test_a_delivery_that_cannot_be_read_says_so_beside_those_that_can(route: Route) -> None:
    journal = HalfJournal()
    route.journal = journal
    first = await deliver(route, anna())
    route.clock.later(60)
    second = await deliver(route, anna(gender="female"))
    await mirror(route, f"Patient/{ANNA}", delivery="deleted")
    journal.hanging = first
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    senders = {
        row[1].replace(" ", ""): row[2]
        for row in page.rows
        if len(row) == 4 and row[3].startswith(("wrote", "row"))
    }
    assert senders == {
        first: "not read: storage: answered 503",
        second: (await route.known(second)).sender or "transaction",
        "deleted": "not kept",
    }


async def test_a_version_names_its_delivery_however_often_the_row_was_mirrored_since(
    route: Route,
) -> None:
    first = await deliver(route, anna())
    for number in range(MAX_RESULTS):
        route.clock.later(60)
        await mirror(route, f"Patient/{ANNA}", delivery=f"run-{number}")
    page = await Visitor(make_parts(route)).get(f"patients/{ANNA}")
    assert f"/api/pages/deliveries/{first}" in page.links
    (version,) = [row for row in page.rows if row[0] == "1" and len(row) == 3]
    assert version[2].endswith("delivery , entry 0")


def test_a_version_without_a_time_stands_where_its_delivery_was_accepted() -> None:
    accepted = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)]
    ids = [make_delivery_id(time, 1) for time in accepted]
    versions = [
        ListedVersion(
            id=str(number),
            updated=None if number == 2 else accepted[number].isoformat(),
            is_deleted=False,
            mark=Mark(delivery=id_, position=0),
        )
        for number, id_ in enumerate(ids)
    ]
    assert [touch.delivery for touch in list_touches(versions, [])] == ids[::-1]


async def test_maps_that_take_long_to_load_keep_no_one_and_take_no_time_of_an_upstream(
    route: Route,
) -> None:
    """They load for longer than an upstream may take, and only while others are answered."""
    await deliver(route, anna())
    has_others, loaded = threading.Event(), []

    def load() -> Mirror:
        loaded.append(has_others)
        assert has_others.wait(timeout=20), "the event loop is kept"
        return route.mirror

    visitor = Visitor(make_parts(route, patients={"timeout": 0.5, "load_mirror": load}))
    asyncio.get_running_loop().call_later(0.6, has_others.set)
    page = await visitor.get(f"patients/{ANNA}")
    assert "Its row is up to date" in page.text
    has_others.clear()
    asyncio.get_running_loop().call_later(1.1, has_others.set)
    assert (await visitor.post("patients", by="key", key=ANNA)).location == f"patients/{ANNA}"
    assert len(loaded) == 2
