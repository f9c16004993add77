"""What people change in Dataverse reaches FHIR in their name, unless FHIR has changed since: then the
rule of the column decides. Nothing is lost without a note, and nothing goes round in circles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from integration.core.errors import Unavailable
from integration.core.model import Activity, Column, RowResult, WorkItem
from integration.mapping.model import AttributeMap, Conflict, EntityMap, Kind
from integration.mirror import mirror as mirroring
from integration.mirror.row_edits import is_exact
from local.dataverse.organization import CALLER, NURSE_USER
from tests.builders import MARKER, Body, patient
from tests.conftest import Route, mirrored_maps

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
WHO = f"Patient/{ANNA}"
DELIVERY = "019caaee-c260-7000-8000-000000000001"
SOMEBODY = {CALLER: NURSE_USER}
# The organisation has no column of its own for the digest here; this one takes text as well.
DIGEST = AttributeMap(column="department", kind=Kind.MAP)


def with_rules(entity: EntityMap, **rules: Conflict) -> EntityMap:
    return replace(
        entity,
        attributes=tuple(
            replace(item, conflict=rules.get(item.column, item.conflict))
            for item in entity.attributes
        ),
    )


def build_map(digest: str = "first", **rules: Conflict) -> EntityMap:
    shipped = mirrored_maps()["Patient"]
    entity = replace(shipped, attributes=(*shipped.attributes, DIGEST), digest=digest)
    return with_rules(entity, **rules)


def anna(home: str = "1", **elements: Any) -> Body:
    phone = {"system": "phone", "use": "home", "value": home}
    given: dict[str, Any] = {"name": [{"family": "Other", "given": ["Anna"]}], "telecom": [phone]}
    return patient(id=ANNA, **{**given, **elements})


def use(route: Route, entity: EntityMap) -> None:
    route.write_back = True
    route.maps = {"Patient": entity}


@pytest.fixture
async def shown(route: Route) -> Route:
    """Anna has her row."""
    use(route, build_map())
    await put(route, anna())
    assert (await mirror(route)).action == "created"
    return route


async def put(route: Route, resource: Body) -> None:
    route.fhir_double.add(resource)


async def mirror(route: Route, **item: Any) -> RowResult:
    await mirroring.mirror_resource(route.mirror, WorkItem(DELIVERY, resource=WHO, **item))
    noted = {row.resource: row for row in await route.journal.list_row_results(DELIVERY)}
    return noted[WHO]


async def edit(route: Route, **columns: Any) -> None:
    """As a nurse: Dataverse writes down who it was."""
    answer = await route.dataverse_double.send(
        "PATCH", f"contacts({ANNA})", columns, headers=SOMEBODY
    )
    assert answer.status_code == 204, answer.text


def get_patient(route: Route) -> Body:
    (found,) = route.fhir_double.of("Patient")
    return found


def get_home(route: Route) -> str:
    (number,) = [each["value"] for each in get_patient(route)["telecom"] if each["use"] == "home"]
    return str(number)


# -- an edit reaches FHIR -------------------------------------------------------------------------


async def test_an_edit_is_written_in_the_name_of_who_made_it(shown: Route) -> None:
    before = get_patient(shown)["meta"]["versionId"]
    await edit(shown, telephone2="555-0101")
    noted = await mirror(shown)
    assert get_home(shown) == "555-0101"
    assert noted.remarks == (
        "written to FHIR, as somebody has changed it in Dataverse: telephone2",
    )
    (provenance,) = shown.fhir_double.of("Provenance")
    (agent,) = provenance["agent"]
    assert agent["who"]["display"] == "Nora Nurse"
    assert agent["who"]["identifier"]["value"] == NURSE_USER
    assert provenance["target"] == [{"reference": WHO}]
    (replaced,) = provenance["entity"]
    assert replaced["what"] == {"reference": f"{WHO}/_history/{before}"}
    row = await shown.dataverse_double.contact()
    version = get_patient(shown)["meta"]["versionId"]
    assert (row["telephone2"], row["msemr_azurefhirversion"]) == ("555-0101", version)


async def test_our_own_echo_ends_by_itself(shown: Route) -> None:
    await edit(shown, telephone2="555-0101")
    await mirror(shown)
    written = len(shown.fhir_double.writes)
    version = get_patient(shown)["meta"]["versionId"]
    for _ in range(3):
        assert (await mirror(shown)).action == "unchanged"
    assert len(shown.fhir_double.writes) == written
    assert get_patient(shown)["meta"]["versionId"] == version


async def test_edits_of_different_columns_go_in_one_write(shown: Route) -> None:
    await edit(shown, telephone2="555-0101", firstname="Ann", address1_city="Newtown")
    await mirror(shown)
    stored = get_patient(shown)
    assert stored["name"][0]["given"] == ["Ann"]
    assert stored["address"] == [{"use": "home", "city": "Newtown"}]
    assert len(shown.fhir_double.of("Provenance")) == 1


async def test_an_edit_costs_no_more_requests_than_said(shown: Route) -> None:
    """At most four to FHIR and three to Dataverse, the echo included."""
    await shown.dataverse.get_user_id()  # once in a worker's life
    await edit(shown, telephone2="555-0101")
    fhir, rows = len(shown.fhir_double.received), len(shown.dataverse_double.received)
    await mirror(shown)
    await mirror(shown)  # as the FHIR server's event has it
    assert len(shown.fhir_double.received) - fhir <= 4
    assert len(shown.dataverse_double.received) - rows <= 3


async def test_a_cleared_column_is_cleared_in_fhir(shown: Route) -> None:
    await edit(shown, telephone2=None)
    await mirror(shown)
    assert "telecom" not in get_patient(shown)


async def test_nothing_is_written_where_nothing_is_switched_on(shown: Route) -> None:
    shown.write_back = False
    await edit(shown, telephone2="555-0101")
    noted = await mirror(shown)
    assert get_home(shown) == "1"
    assert noted.remarks == ("replaced what somebody has changed in Dataverse: telephone2",)


async def test_rows_that_do_not_tell_their_map_are_not_written_back(shown: Route) -> None:
    entity = build_map()
    others = tuple(item for item in entity.attributes if item.kind is not Kind.MAP)
    use(shown, replace(entity, attributes=others))
    await edit(shown, telephone2="555-0101")
    await mirror(shown)
    assert get_home(shown) == "1"


# -- FHIR has changed as well -----------------------------------------------------------------------


async def test_changes_of_different_columns_are_both_kept(shown: Route) -> None:
    await edit(shown, telephone2="555-0101")
    await put(shown, anna(gender="female"))
    await mirror(shown)
    assert get_home(shown) == "555-0101"
    assert get_patient(shown)["gender"] == "female"
    row = await shown.dataverse_double.contact()
    assert (row["telephone2"], row["gendercode"]) == ("555-0101", 2)


async def test_by_default_what_fhir_has_holds_and_is_noted(shown: Route) -> None:
    await edit(shown, telephone2=MARKER)
    await put(shown, anna("2"))
    noted = await mirror(shown)
    assert get_home(shown) == "2"
    assert (await shown.dataverse_double.contact())["telephone2"] == "2"
    assert noted.remarks == ("replaced what somebody has changed in Dataverse: telephone2",)
    assert MARKER not in str(noted)


async def test_a_column_may_hold_what_dataverse_has(shown: Route) -> None:
    use(shown, build_map(telephone2=Conflict.DATAVERSE))
    await edit(shown, telephone2="555-0101")
    await put(shown, anna("2"))
    await mirror(shown)
    assert get_home(shown) == "555-0101"
    assert (await shown.dataverse_double.contact())["telephone2"] == "555-0101"


async def test_a_column_may_wait_for_somebody_and_nothing_is_lost_meanwhile(shown: Route) -> None:
    use(shown, build_map(telephone2=Conflict.HOLD))
    await edit(shown, telephone2=MARKER)
    await put(shown, anna("2"))
    for _ in range(2):
        noted = await mirror(shown)
        assert noted.action == "refused"
        assert "telephone2" in noted.notes[0]
        assert MARKER not in str(noted)
    assert (await shown.dataverse_double.contact())["telephone2"] == MARKER
    assert get_home(shown) == "2"
    assert noted.is_replayable


@pytest.mark.parametrize("decided", ["2", "1"], ids=["as FHIR has it", "as it was"])
async def test_who_sets_the_row_as_fhir_has_it_ends_the_wait(shown: Route, decided: str) -> None:
    use(shown, build_map(telephone2=Conflict.HOLD))
    await edit(shown, telephone2="555-0101")
    await put(shown, anna("2"))
    assert (await mirror(shown)).action == "refused"
    await edit(shown, telephone2=decided)
    assert (await mirror(shown)).action == "updated"
    assert (await shown.dataverse_double.contact())["telephone2"] == get_home(shown) == "2"


async def test_who_writes_the_edit_into_fhir_ends_the_wait(shown: Route) -> None:
    use(shown, build_map(telephone2=Conflict.HOLD))
    await edit(shown, telephone2="555-0101")
    await put(shown, anna("2"))
    assert (await mirror(shown)).action == "refused"
    await put(shown, anna("555-0101"))
    assert (await mirror(shown)).action == "updated"
    assert (await shown.dataverse_double.contact())["telephone2"] == "555-0101"


async def test_the_same_change_on_both_sides_is_no_conflict(shown: Route) -> None:
    use(shown, build_map(telephone2=Conflict.HOLD))
    await edit(shown, telephone2="2")
    await put(shown, anna("2"))
    noted = await mirror(shown)
    assert (noted.action, noted.remarks) == ("updated", ())


async def test_a_change_just_before_the_write_is_not_overwritten(shown: Route) -> None:
    """The write is on condition of the version that was read: it is compared again."""
    await edit(shown, telephone2="555-0101")
    shown.fhir_double.will_do_as_asked()  # the read

    async def change() -> None:
        await put(shown, anna(gender="male"))

    shown.fhir_double.will_be_late_after(change)
    await mirror(shown)
    assert get_home(shown) == "555-0101"
    assert get_patient(shown)["gender"] == "male"


async def test_an_edit_does_not_keep_a_delivery_out(shown: Route) -> None:
    """It changes an element of what the EHR has written; a delivery that waits brings all of the
    patient, whenever it was accepted."""
    resource = anna("2", gender="female")
    entry = {"resource": resource, "request": {"method": "PUT", "url": WHO}}
    waiting = await shown.deliver({"resourceType": "Bundle", "type": "batch", "entry": [entry]})
    await edit(shown, telephone2="555-0101")
    shown.clock.later(1)
    await mirror(shown)
    assert get_home(shown) == "555-0101"
    await shown.process_all(waiting)
    assert await shown.statuses(waiting) == [200]
    assert (get_home(shown), get_patient(shown)["gender"]) == ("2", "female")


async def test_what_the_ehr_repeats_after_an_edit_is_written(shown: Route) -> None:
    """The patient is not as that content made it any more."""
    entry = {"resource": anna("2"), "request": {"method": "PUT", "url": WHO}}
    body = {"resourceType": "Bundle", "type": "batch", "entry": [entry]}
    await shown.process_all(await shown.deliver(body))
    await mirror(shown)
    await edit(shown, telephone2="555-0101")
    await mirror(shown)
    assert get_home(shown) == "555-0101"
    shown.clock.later(1)
    await shown.process_all(await shown.deliver(body))
    assert get_home(shown) == "2"


async def test_an_edit_that_is_taken_back_while_it_is_written_is_taken_back(shown: Route) -> None:
    """FHIR has the first edit, and the row has not come to show that."""
    await edit(shown, telephone2="555-0101")

    async def take_back() -> None:
        await edit(shown, telephone2="1")

    shown.dataverse_double.will_be_preceded("PATCH", take_back)
    await mirror(shown)
    assert get_home(shown) == "1"
    assert (await shown.dataverse_double.contact())["telephone2"] == "1"


async def test_a_second_edit_during_the_first_is_no_conflict(shown: Route) -> None:
    use(shown, build_map(telephone2=Conflict.HOLD))
    await edit(shown, telephone2="555-0101")

    async def correct() -> None:
        await edit(shown, telephone2="555-0102")

    shown.dataverse_double.will_be_preceded("PATCH", correct)
    noted = await mirror(shown)
    assert noted.action == "updated"
    assert get_home(shown) == "555-0102"


# -- what no stamp proves -------------------------------------------------------------------------


async def test_a_row_that_was_given_to_another_patient_writes_nothing_to_him(shown: Route) -> None:
    """Its columns show Anna, whatever its id says. Both were written in the same second."""
    ben = "2b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d12"
    shown.fhir_double.add(patient(id=ben, name=[{"family": "Berg"}], gender="male"))
    await edit(shown, msemr_azurefhirid=ben)
    item = WorkItem(DELIVERY, resource=f"Patient/{ben}", is_edit=True)
    await mirroring.mirror_resource(shown.mirror, item)
    stored = {each["id"]: each for each in shown.fhir_double.of("Patient")}
    assert stored[ben]["name"] == [{"family": "Berg"}]
    assert shown.fhir_double.of("Provenance") == []


async def test_the_day_that_passes_is_nobody_s_edit(shown: Route) -> None:
    """An address has ended since the row was written, and somebody has edited another column."""
    first = {"use": "home", "city": "Oldtown", "period": {"end": "2026-03-05"}}
    second = {"use": "home", "city": "Newtown", "period": {"start": "2026-03-06"}}
    await put(shown, anna(address=[first, second]))
    await mirror(shown)
    assert (await shown.dataverse_double.contact())["address1_city"] == "Oldtown"
    await edit(shown, jobtitle="nurse", telephone2="555-0101")
    shown.clock.later(7 * 24 * 3600.0)
    await mirror(shown)
    assert get_patient(shown)["address"] == [first, second]
    assert get_home(shown) == "555-0101"
    assert (await shown.dataverse_double.contact())["address1_city"] == "Newtown"


async def test_another_option_of_a_column_is_nobody_s_edit(shown: Route) -> None:
    await put(shown, anna(gender="other"))
    await mirror(shown)
    columns = await shown.dataverse.get_columns("contact")
    gender = columns["gendercode"]
    without = replace(gender, options=(gender.options or frozenset()) - {935000000})
    shown.dataverse._columns["contact"].columns = {**columns, "gendercode": without}
    await put(shown, anna(gender="other", birthDate="1980-05-03"))
    await mirror(shown)
    assert (await shown.dataverse_double.contact())["gendercode"] is None
    shown.dataverse._columns["contact"].columns = {**columns}
    await edit(shown, jobtitle="nurse")
    await mirror(shown)
    assert get_patient(shown)["gender"] == "other"


async def test_the_same_number_of_a_restored_server_is_no_base(shown: Route) -> None:
    await edit(shown, jobtitle="nurse")
    shown.fhir_double.forget(WHO)
    shown.clock.later(3600)
    await put(shown, anna("restored"))
    await mirror(shown, attempt=10)
    assert get_home(shown) == "restored"
    assert shown.fhir_double.of("Provenance") == []


async def test_what_stood_in_a_column_before_it_was_mapped_is_not_written(shown: Route) -> None:
    full = shown.maps["Patient"]
    fewer = tuple(item for item in full.attributes if item.column != "nickname")
    first = replace(full, attributes=fewer, digest="fewer")
    use(shown, first)
    await put(shown, anna(gender="female"))
    await mirror(shown)
    shown.former_maps["fewer"] = first
    use(shown, full)
    await edit(shown, nickname=MARKER, telephone2="555-0101")
    noted = await mirror(shown)
    assert get_home(shown) == "555-0101"
    assert MARKER not in str(get_patient(shown))
    assert "nickname" in noted.remarks[0]


async def test_a_row_without_a_stamp_is_left_by_a_look_and_gets_one_with_the_next_change(
    shown: Route,
) -> None:
    await edit(shown, department=None, telephone2="555-0101")
    noted = await mirror(shown, is_edit=True)
    assert (noted.action, get_home(shown)) == ("unchanged", "1")
    assert "stamp" in noted.notes[-1]
    assert (await shown.dataverse_double.contact())["telephone2"] == "555-0101"
    noted = await mirror(shown)
    assert noted.remarks == (
        "replaced, and nobody can tell whether somebody has changed it in Dataverse: telephone2",
    )
    assert (await shown.dataverse_double.contact())["department"].startswith("first ")


async def test_a_row_of_an_earlier_map_gets_a_new_stamp_before_anybody_edits_it(
    shown: Route,
) -> None:
    """Else the first edit after each published version would be lost."""
    use(shown, replace(shown.maps["Patient"], digest="second"))
    assert (await mirror(shown)).action == "updated"
    assert (await mirror(shown)).action == "unchanged"
    await edit(shown, telephone2="555-0101")
    await mirror(shown)
    assert get_home(shown) == "555-0101"


async def test_what_became_of_an_edit_is_told_even_if_the_answer_is_lost(shown: Route) -> None:
    await edit(shown, telephone2="555-0101")
    await put(shown, anna("2"))
    shown.dataverse_double.will_fail(kind="lost-reply", method="PATCH", next=1)
    await mirroring.mirror_resource(shown.mirror, WorkItem(DELIVERY, resource=WHO))
    await shown.mirror_all()
    told = [note for entry in shown.activity.entries for note in entry.notes]
    assert "replaced what somebody has changed in Dataverse: telephone2" in told


async def test_no_edit_is_written_over_before_the_log_tells_of_it(shown: Route) -> None:
    """A worker that ends just after it has written the row tells nothing more."""
    activities = shown.dataverse.upstream.activities

    async def refuse(_: Sequence[Activity]) -> None:
        raise Unavailable("storage", "away")

    await edit(shown, telephone2="555-0101")
    await put(shown, anna("2"))
    activities.store = refuse
    await mirroring.mirror_resource(shown.mirror, WorkItem(DELIVERY, resource=WHO))
    assert (await shown.dataverse_double.contact())["telephone2"] == "555-0101"
    activities.store = shown.activity.add
    activities.pending.clear()
    await shown.mirror_all()
    assert (await shown.dataverse_double.contact())["telephone2"] == "2"
    activities.pending.clear()  # as at a worker's end
    told = [note for entry in shown.activity.entries for note in entry.notes]
    assert "replaced what somebody has changed in Dataverse: telephone2" in told


# -- what cannot be written ----------------------------------------------------------------------------


async def test_an_edit_that_fhir_cannot_hold_is_replaced_and_noted(shown: Route) -> None:
    """The only address has ended: a city alone would make half an address."""
    ended = {"use": "home", "city": "Oldtown", "period": {"end": "2020-01-01"}}
    await put(shown, anna(address=[ended]))
    await mirror(shown)
    await edit(shown, address1_city=MARKER, telephone2="555-0101")
    noted = await mirror(shown)
    assert get_home(shown) == "555-0101", "the other edit does not suffer"
    assert get_patient(shown)["address"] == [ended]
    assert any("address1_city: not written to FHIR" in note for note in noted.notes)
    assert MARKER not in str(noted)
    assert (await shown.dataverse_double.contact())["address1_city"] == "Oldtown"


async def test_an_edit_that_the_server_refuses_is_replaced_and_noted(shown: Route) -> None:
    await edit(shown, telephone2="555-0101")
    shown.fhir_double.will_do_as_asked()
    shown.fhir_double.will_answer(422)
    noted = await mirror(shown)
    assert get_home(shown) == "1"
    assert noted.notes[-1].startswith("telephone2: not written to FHIR")
    assert (await shown.dataverse_double.contact())["telephone2"] == "1"


async def test_an_edit_whose_base_is_gone_is_replaced_and_noted(shown: Route) -> None:
    """Histories may be purged: nobody knows then what was there before the edit."""
    await edit(shown, telephone2="555-0101")
    await put(shown, anna("2"))
    shown.fhir_double.will_do_as_asked()
    shown.fhir_double.will_answer(404)
    noted = await mirror(shown, attempt=3)
    assert (await shown.dataverse_double.contact())["telephone2"] == get_home(shown) == "2"
    assert "nobody can tell" in noted.remarks[0]
    assert "telephone2" in noted.remarks[0]


async def test_a_base_that_is_not_shown_yet_is_asked_for_again(shown: Route) -> None:
    await edit(shown, telephone2="555-0101")
    await put(shown, anna("2"))
    shown.fhir_double.will_do_as_asked()
    shown.fhir_double.will_answer(404)
    await mirroring.mirror_resource(shown.mirror, WorkItem(DELIVERY, resource=WHO))
    ((again, _),) = shown.queued("mirror")
    assert (again.resource, again.attempt) == (WHO, 1)
    assert (await shown.dataverse_double.contact())["telephone2"] == "555-0101"


async def test_the_row_of_a_merged_patient_is_not_written_back(shown: Route) -> None:
    other = "2b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
    await shown.dataverse_double.write(other, lastname="Master")
    await shown.dataverse_double.change(
        "POST",
        "Merge",
        {
            "Target": {"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": other},
            "Subordinate": {"@odata.type": "Microsoft.Dynamics.CRM.contact", "contactid": ANNA},
            "PerformParentingChecks": False,
        },
    )
    await edit(shown, telephone2="555-0101")
    await mirror(shown)
    assert get_home(shown) == "1"
    assert shown.fhir_double.of("Provenance") == []


# -- maps that have changed ---------------------------------------------------------------------------


def with_path(entity: EntityMap, digest: str, **paths: str) -> EntityMap:
    return replace(
        entity,
        digest=digest,
        attributes=tuple(
            replace(item, path=paths.get(item.column, item.path)) for item in entity.attributes
        ),
    )


async def test_what_an_earlier_map_has_made_is_no_edit(shown: Route) -> None:
    first = shown.maps["Patient"]
    shown.former_maps["first"] = first
    use(shown, with_path(first, "second", telephone3="%home_phone.value"))
    await edit(shown, telephone2="555-0101")
    noted = await mirror(shown)
    assert get_home(shown) == "555-0101"
    assert noted.remarks == (
        "written to FHIR, as somebody has changed it in Dataverse: telephone2",
    )
    row = await shown.dataverse_double.contact()
    assert (row["telephone2"], row["telephone3"]) == ("555-0101", "555-0101")
    assert row["department"].startswith("second ")


async def test_where_the_earlier_map_is_unknown_fhir_holds(shown: Route) -> None:
    use(shown, with_path(shown.maps["Patient"], "second", telephone3="%home_phone.value"))
    await edit(shown, telephone2="555-0101")
    noted = await mirror(shown)
    assert get_home(shown) == "1"
    assert "telephone2" in noted.remarks[0]


async def test_what_was_typed_under_another_map_is_of_the_element_of_then(shown: Route) -> None:
    """The column showed another telephone, and shows the pager now."""
    first = shown.maps["Patient"]
    shown.former_maps["first"] = first
    await edit(shown, telephone3="555-0109", telephone2="555-0101")
    use(shown, with_path(first, "second", telephone3="%pager.value"))
    noted = await mirror(shown)
    assert get_home(shown) == "555-0101"
    assert [each["system"] for each in get_patient(shown)["telecom"]] == ["phone"]
    assert "telephone3" in noted.remarks[0]


async def test_a_column_that_the_app_may_not_read_is_not_cleared_in_fhir(shown: Route) -> None:
    columns = await shown.dataverse.get_columns("contact")
    assert not columns["birthdate"].secured
    assert is_exact(AttributeMap(column="x", kind=Kind.COPY), Column("x", "String"))
    assert not is_exact(
        AttributeMap(column="x", kind=Kind.COPY), Column("x", "String", secured=True)
    )


# -- a network that loses answers --------------------------------------------------------------------


async def test_after_a_gateway_s_answer_nobody_writes_until_the_server_cannot_be_at_work(
    shown: Route,
) -> None:
    await edit(shown, telephone2="555-0101")
    shown.fhir_double.will_do_as_asked()
    shown.fhir_double.will_answer(504)
    item = WorkItem(DELIVERY, resource=WHO)
    await mirroring.mirror_resource(shown.mirror, item)
    sent = len(shown.fhir_double.writes)
    await mirroring.mirror_resource(shown.mirror, item)
    assert len(shown.fhir_double.writes) == sent
    await shown.mirror_all()
    assert get_home(shown) == "555-0101"


async def test_an_edit_whose_answer_is_lost_is_written_once(shown: Route) -> None:
    await edit(shown, telephone2="555-0101")
    shown.fhir_double.will_do_as_asked()
    shown.fhir_double.will_lose_the_reply()
    await mirroring.mirror_resource(shown.mirror, WorkItem(DELIVERY, resource=WHO))
    await shown.mirror_all()
    assert get_home(shown) == "555-0101"
    assert get_patient(shown)["meta"]["versionId"] == "2"
    assert len(shown.fhir_double.of("Provenance")) == 1
    row: Mapping[str, Any] = await shown.dataverse_double.contact()
    assert row["msemr_azurefhirversion"] == "2"
