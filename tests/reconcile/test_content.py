"""Whatever a row shows that FHIR does not say is told by the name of its column, and mended."""

from __future__ import annotations

import argparse
import csv
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from integration.cli import reconcile_command as command
from integration.cli.reconcile_report import Report, format_progress
from integration.cli.saved_state import SavedState
from integration.core import decimal_json
from integration.core.errors import Misconfigured
from integration.core.model import WorkItem
from integration.mirror import mirror as mirroring
from integration.mirror import row_diff
from integration.mirror.healthcare_api_sink import HealthcareApiSink
from integration.queues.names import MIRROR_QUEUE
from integration.reconcile import walk
from integration.reconcile.run import Page, Position, ReconcileRun
from tests.builders import MARKER, Body, patient
from tests.conftest import Route, every_map, mirrored_maps, routed, told_by
from tests.doubles import DataverseDouble

RUN = "019caaee-c260-7000-8000-0000000000aa"
ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
OTTO = "0a4f2c9d-3f5b-4c0e-8f52-5b1f7a9b2d01"
THEIRS = "99999999-9999-4999-8999-999999999999"
GP = "3d1c7a3f-2a7d-4e8f-8b63-1d2a8b0c3e22"
PATIENT = mirrored_maps()["Patient"]
NUMBERS = "msemr_medicalidentifiers"

WHO = f"Patient/{ANNA}"


def anna(**elements: Any) -> Body:
    """A patient with some of everything: columns, children, and lookups of rows and concepts."""
    return patient(
        id=ANNA,
        gender="female",
        birthDate="1980-02-29",
        identifier=[{"system": "urn:mrn", "value": "1"}, {"system": "urn:mrn", "value": "2"}],
        generalPractitioner=[{"reference": f"Practitioner/{GP}"}],
        communication=[{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "de"}]}}],
        **elements,
    )


def otto(**elements: Any) -> Body:
    link = [{"other": {"reference": WHO}, "type": "seealso"}]
    return patient(id=OTTO, gender="male", link=link, **elements)


@dataclass
class Command:
    """Runs the command on a route."""

    route: Route
    folder: Path
    lines: list[str] = field(default_factory=list)

    async def run(self, *arguments: str) -> tuple[int, list[dict[str, str]]]:
        """The status, and the lines of the report."""
        file = self.folder / "report.csv"
        status = await self.start("--report", str(file), *arguments)
        with file.open(newline="") as lines:
            return status, list(csv.DictReader(lines))

    async def start(self, *arguments: str) -> int:
        parser = argparse.ArgumentParser()
        command.add_options(parser)

        @asynccontextmanager
        async def opened(chosen: argparse.Namespace) -> AsyncIterator[ReconcileRun]:
            mirror = self.route.mirror
            if chosen.fhir_is_right:
                mirror = replace(mirror, sink=replace(self.route.web_api, fhir_is_right=True))
            yield ReconcileRun(
                mirror=mirror,
                fhir=self.route.fhir,
                dataverse=self.route.dataverse,
                id=RUN,
                sleep=self.route.wait,
                dry_run=chosen.dry_run,
                fhir_is_right=chosen.fhir_is_right,
            )

        self.lines.clear()
        return await command.reconcile(parser.parse_args(arguments), self.lines.append, opened)


@pytest.fixture
async def planted(route: Route, tmp_path: Path) -> Command:
    """Anna, her doctor, and Otto, who refers to her: mirrored, and nothing differs."""
    return await plant_patients(route, tmp_path)


@pytest.fixture
async def unkeyed(route: Route, tmp_path: Path) -> AsyncIterator[Command]:
    """The same in an organisation where nothing keeps two rows from showing one patient."""
    dataverse = DataverseDouble({"contact": {"keys": None}})
    async with routed(
        fhir_double=route.fhir_double,
        dataverse=dataverse,
        clock=route.clock,
        journal=route.journal,
        queue_sender=route.queue_sender,
        guard_store=route.guard_store,
    ) as found:
        yield await plant_patients(found, tmp_path)
    dataverse.app.close()


async def plant_patients(route: Route, folder: Path) -> Command:
    route.maps = {name: every_map()[name] for name in ("Patient", "Practitioner")}
    doctor = {"resourceType": "Practitioner", "id": GP, "name": [{"family": "Doctor"}]}
    for resource in (doctor, anna(), otto()):
        item = WorkItem(RUN, resource=route.fhir_double.add(resource))
        await mirroring.mirror_resource(route.mirror, item)
    route.maps = mirrored_maps()
    it = Command(route, folder)
    assert await it.run("--all") == (0, [])
    return it


async def edit(it: Command, key: str = ANNA, **columns: Any) -> None:
    """As staff do it."""
    await it.route.dataverse_double.write(key, **columns)


async def change_row(it: Command, method: str, path: str, body: Body | None = None) -> None:
    await it.route.dataverse_double.change(method, path, body)


async def find_number(it: Command, value: str = "1") -> str:
    rows = await it.route.dataverse_double.rows(NUMBERS)
    return next(
        f"{NUMBERS}({row['msemr_medicalidentifierid']})"
        for row in rows
        if row["msemr_value"] == value
    )


# -- each kind of difference: planted, found, mended, and not found again --------------------------


async def plant_edited_column(it: Command) -> None:
    await edit(it, lastname="Changed", birthdate="1970-01-01")


async def plant_inactive_row(it: Command) -> None:
    await edit(it, statecode=1, statuscode=2)


async def plant_emptied_lookup(it: Command) -> None:
    await change_row(it, "PATCH", f"contacts({OTTO})", {"msemr_Link1@odata.bind": None})


async def plant_edited_child(it: Command) -> None:
    await change_row(it, "PATCH", await find_number(it), {"msemr_use": 935000002})


async def plant_missing_child(it: Command) -> None:
    await change_row(it, "DELETE", await find_number(it))


async def plant_surplus_child(it: Command) -> None:
    """One that the mirror made, as if its removal had been lost."""
    match = decimal_json.encode(["urn:mrn", "9"]).decode()
    key = row_diff.derive_key(ANNA, "msemr_medicalidentifier", match)
    body = {
        "msemr_value": "9",
        "msemr_identifiersystem": "urn:mrn",
        "msemr_Assignee@odata.bind": f"contacts({ANNA})",
    }
    await change_row(it, "PATCH", f"{NUMBERS}({key})", body)


async def plant_missing_row(it: Command) -> None:
    await change_row(it, "DELETE", f"contacts({OTTO})")


async def plant_row_behind(it: Command) -> None:
    it.route.fhir_double.add(anna(maritalStatus={"coding": [{"code": "M"}]}))


async def plant_emptied_version(it: Command) -> None:
    await edit(it, msemr_azurefhirversion=None)


async def plant_second_row(it: Command) -> None:
    await edit(it, THEIRS, msemr_azurefhirid=ANNA, lastname="Copy", msemr_contacttype=935000000)


async def plant_id_in_another_row(it: Command) -> None:
    await edit(it, msemr_azurefhirid=None)
    await edit(it, THEIRS, msemr_azurefhirid=ANNA, lastname="Copy", msemr_contacttype=935000000)


async def plant_another_id(it: Command) -> None:
    await edit(it, msemr_azurefhirid=OTTO, lastname="Otto's")


async def plant_id_in_capitals(it: Command) -> None:
    await edit(it, msemr_azurefhirid=ANNA.upper())


async def plant_unknown_id(it: Command) -> None:
    await edit(it, msemr_azurefhirid="typed by hand", msemr_azurefhirversion="7")


async def plant_ids_swapped(it: Command) -> None:
    await edit(it, ANNA, msemr_azurefhirid=OTTO)
    await edit(it, OTTO, msemr_azurefhirid=ANNA)


async def plant_emptied_id(it: Command) -> None:
    await edit(it, msemr_azurefhirid=None)


async def plant_deleted_patient(it: Command) -> None:
    it.route.fhir_double.delete(f"Patient/{OTTO}")


async def plant_orphan(it: Command) -> None:
    """The number of a patient who has it no longer, left behind by the row it belonged to."""
    await change_row(it, "PATCH", await find_number(it), {"msemr_Assignee@odata.bind": None})
    changed = anna() | {"identifier": [{"system": "urn:mrn", "value": "2"}]}
    item = WorkItem(RUN, resource=it.route.fhir_double.add(changed))
    await mirroring.mirror_resource(it.route.mirror, item)


Plant = Callable[[Command], Awaitable[None]]

# What is planted, how it is called, whom it is about, and the columns that are named.
KINDS: list[tuple[Plant, str, str, str]] = [
    (plant_edited_column, "different", ANNA, "lastname, birthdate"),
    (plant_inactive_row, "different", ANNA, "statecode"),
    (plant_emptied_lookup, "different", OTTO, "msemr_link1"),
    (plant_edited_child, "different", ANNA, "msemr_medicalidentifier.msemr_use"),
    (plant_missing_child, "different", ANNA, "msemr_medicalidentifier: too few"),
    (plant_surplus_child, "different", ANNA, "msemr_medicalidentifier: too many"),
    (plant_missing_row, "missing", OTTO, ""),
    (plant_row_behind, "behind", ANNA, "msemr_azurefhirversion, familystatuscode"),
    (plant_emptied_version, "behind", ANNA, "msemr_azurefhirversion"),
    (plant_id_in_another_row, "shown twice", ANNA, "msemr_azurefhirid"),
    (plant_unknown_id, "shows another", ANNA, "msemr_azurefhirid"),
    (plant_emptied_id, "different", ANNA, "msemr_azurefhirid"),
    (plant_deleted_patient, "left over", OTTO, ""),
]


# What an organisation's alternate key prevents.
UNKEYED: list[tuple[Plant, str, str, str]] = [
    (plant_second_row, "shown twice", ANNA, "msemr_azurefhirid"),
    (plant_another_id, "shows another", ANNA, "msemr_azurefhirid"),
    (plant_id_in_capitals, "shows another", ANNA, "msemr_azurefhirid"),
]


def name_plants(kinds: list[tuple[Plant, str, str, str]]) -> list[str]:
    return [plant.__name__ for plant, *_ in kinds]


@pytest.mark.parametrize(("plant", "kind", "who", "columns"), KINDS, ids=name_plants(KINDS))
async def test_a_difference_is_found_named_and_mended(
    planted: Command, plant: Plant, kind: str, who: str, columns: str
) -> None:
    await find_and_mend(planted, plant, kind, who, columns)


@pytest.mark.parametrize(("plant", "kind", "who", "columns"), UNKEYED, ids=name_plants(UNKEYED))
async def test_whose_row_it_is_needs_no_alternate_key(
    unkeyed: Command, plant: Plant, kind: str, who: str, columns: str
) -> None:
    await find_and_mend(unkeyed, plant, kind, who, columns)


async def find_and_mend(it: Command, plant: Plant, kind: str, who: str, columns: str) -> None:
    await plant(it)
    before = await it.route.dataverse_double.contacts()
    status, told = await it.run("--all", "--dry-run")
    assert status == 1
    assert (told[0]["resource"], told[0]["difference"]) == (f"Patient/{who}", kind)
    assert told[0]["columns"] == columns
    assert await it.route.dataverse_double.contacts() == before
    status, mended = await it.run("--all")
    # With the wrong row others may be wrong, too: those that refer to it.
    assert (status, mended[0]["resource"]) == (0, f"Patient/{who}")
    assert await it.run("--all") == (0, [])
    assert await find_wrong_contacts(it) == []


async def find_wrong_contacts(it: Command) -> list[str]:
    """The keys of active contacts of patients that show somebody else, or nobody who is there."""
    stored = it.route.fhir_double.stored
    rows = await it.route.dataverse_double.contacts()
    return [
        row["contactid"]
        for row in rows
        if row["statecode"] == 0
        and row["msemr_contacttype"] == 935000000
        and (
            row["contactid"] != row["msemr_azurefhirid"]
            or row["lastname"] != stored[f"Patient/{row['contactid']}"]["name"][0]["family"]
        )
    ]


async def test_two_rows_that_show_each_other_get_back_what_is_theirs(unkeyed: Command) -> None:
    await plant_ids_swapped(unkeyed)
    _, told = await unkeyed.run("--all")
    assert {each["resource"] for each in told} == {f"Patient/{ANNA}", f"Patient/{OTTO}"}
    assert await unkeyed.run("--all") == (0, [])
    assert await find_wrong_contacts(unkeyed) == []


async def test_a_child_of_no_row_is_found_and_deleted(planted: Command) -> None:
    await plant_orphan(planted)
    staff = {"msemr_value": "9", "msemr_identifiersystem": "urn:staff"}
    await change_row(planted, "POST", NUMBERS, staff)
    status, (orphan,) = await planted.run("--all", "--dry-run")
    assert status == 1
    assert (orphan["resource"], orphan["difference"]) == ("msemr_medicalidentifier", "orphaned")
    status, (orphan,) = await planted.run("--all")
    assert (status, orphan["action"]) == (0, "deleted")
    assert await planted.run("--all") == (0, [])
    rows = await planted.route.dataverse_double.rows(NUMBERS)
    assert sorted(row["msemr_value"] for row in rows) == ["2", "9"]


async def test_a_child_of_no_row_that_its_patient_still_needs_is_taken_back(
    planted: Command,
) -> None:
    number = await find_number(planted)
    await change_row(planted, "PATCH", number, {"msemr_Assignee@odata.bind": None})
    status, told = await planted.run("--all")
    assert status == 0
    assert [each["resource"] for each in told] == [WHO]
    assert await planted.run("--all") == (0, [])
    assert len(await planted.route.dataverse_double.rows(NUMBERS)) == 2


async def test_a_version_that_fhir_has_not_is_told_and_written_over_on_an_operators_word(
    planted: Command,
) -> None:
    """It may be that the FHIR server was read from a copy that lags, so nobody but an operator can
    say that the row is wrong."""
    await edit(planted, msemr_azurefhirversion="9", lastname="Of the other version")
    for _ in range(2):
        status, (told,) = await planted.run("--all")
        assert (status, told["difference"], told["action"]) == (1, "ahead", "")
        assert told["columns"] == "msemr_azurefhirversion"
    status, (told,) = await planted.run("--all", "--fhir-is-right")
    assert (status, told["action"]) == (0, "updated")
    assert await planted.run("--all") == (0, [])
    assert await find_wrong_contacts(planted) == []


async def test_without_all_an_operators_word_counts_as_well(planted: Command) -> None:
    await edit(planted, msemr_azurefhirversion="9", lastname="Of the other version")
    assert await planted.run() == (0, [])
    status, (told,) = await planted.run("--fhir-is-right")
    assert (status, told["action"]) == (0, "updated")
    assert await find_wrong_contacts(planted) == []


async def test_a_patient_that_a_restored_server_does_not_know_is_gone_on_an_operators_word(
    planted: Command,
) -> None:
    planted.route.fhir_double.forget(f"Patient/{OTTO}")
    status, (told,) = await planted.run("--all")
    assert (status, told["difference"], told["action"]) == (1, "unknown", "")
    status, (told,) = await planted.run("--all", "--fhir-is-right")
    assert (status, told["action"]) == (0, "deactivated")
    assert await planted.run("--all") == (0, [])


async def test_a_row_whose_type_somebody_changed_is_for_a_person(planted: Command) -> None:
    await edit(planted, msemr_contacttype=935000001)
    status, lines = await planted.run("--all")
    (told,) = (each for each in lines if each["resource"] == WHO)
    assert (status, told["difference"], told["action"]) == (1, "shows another", "")
    assert told["columns"] == "msemr_contacttype"


async def test_two_rows_of_which_none_has_the_patients_key_are_for_a_person(
    unkeyed: Command,
) -> None:
    await change_row(unkeyed, "DELETE", f"contacts({OTTO})")
    for number in (1, 2):
        key = f"99999999-9999-4999-8999-99999999999{number}"
        await edit(unkeyed, key, msemr_azurefhirid=OTTO, msemr_contacttype=935000000)
    status, lines = await unkeyed.run("--all")
    (told,) = (each for each in lines if each["resource"] == f"Patient/{OTTO}")
    assert (status, told["difference"], told["action"]) == (1, "shown twice", "refused")
    assert "merge" in told["notes"]


async def test_what_staff_keep_in_columns_of_their_own_is_not_told(planted: Command) -> None:
    await edit(planted, description="Likes to be called in the morning", jobtitle="Baker")
    before = await planted.route.dataverse_double.contacts()
    assert await planted.run("--all") == (0, [])
    assert await planted.route.dataverse_double.contacts() == before


async def test_no_value_is_told_of_what_differs(
    planted: Command, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    for plant, *_ in KINDS[:6]:
        await plant(planted)
    await edit(planted, lastname=f"Changed-{MARKER}", firstname=MARKER)
    await planted.run("--all", "--dry-run")
    file = (planted.folder / "report.csv").read_text()
    told = file + "".join(planted.lines) + told_by(caplog.records) + capsys.readouterr().err
    assert "lastname" in told
    assert MARKER not in told


async def mirror_queued(it: Command) -> None:
    """What the app does with the work items of those who waited for a row."""
    for item, _ in it.route.queued(MIRROR_QUEUE):
        await mirroring.mirror_resource(it.route.mirror, item)


# -- how it walks ---------------------------------------------------------------------------------


async def test_many_patients_take_few_requests(route: Route, tmp_path: Path) -> None:
    for number in range(60):
        identifier = [{"system": "urn:mrn", "value": str(number)}]
        resource = route.fhir_double.add(patient(id=f"p{number}", identifier=identifier))
        await mirroring.mirror_resource(route.mirror, WorkItem(RUN, resource=resource))
    it = Command(route, tmp_path)
    route.fhir_double.received.clear()
    route.dataverse_double.received.clear()
    assert await it.run("--all") == (0, [])
    # How many there are, one page of them, and who of those that have rows is there.
    assert len(route.fhir_double.received) == 3
    # Rows; children; two kinds of children without a row; rows by their ids; who this app is.
    asked = [each for each in route.dataverse_double.received if "Definitions" not in each.path]
    assert len(asked) == 6


async def test_a_work_item_that_comes_in_between_is_not_overtaken(planted: Command) -> None:
    """FHIR is read; it changes and is mirrored; only then is the difference mended."""
    await edit(planted, lastname="Changed")

    async def change() -> None:
        name = [{"family": "Married"}]
        item = WorkItem(RUN, resource=planted.route.fhir_double.add(anna() | {"name": name}))
        await mirroring.mirror_resource(planted.route.mirror, item)

    planted.route.dataverse_double.will_be_preceded("PATCH", change)
    status, _ = await planted.run("--all")
    assert status == 0
    assert await planted.run("--all") == (0, [])
    rows = await planted.route.dataverse_double.contacts()
    assert "Married" in {row["lastname"] for row in rows}


async def test_a_row_that_changes_while_it_is_given_back_is_left_to_the_next_run(
    planted: Command,
) -> None:
    await plant_unknown_id(planted)
    moves = iter([lambda: edit(planted, jobtitle="Baker")])

    async def change() -> None:
        await next(moves)()

    planted.route.dataverse_double.will_be_preceded("PATCH", change)
    await planted.run("--all")
    assert (await planted.run("--all"))[0] == 0
    await mirror_queued(planted)
    assert await planted.run("--all") == (0, [])
    assert await find_wrong_contacts(planted) == []


async def test_a_run_that_was_interrupted_goes_on_in_the_part_where_it_was(
    planted: Command,
) -> None:
    planted.route.fhir_double.delete(f"Patient/{OTTO}")
    state = str(planted.folder / "state.json")
    # The count and the page of the patients, then the search for those that have rows.
    for _ in range(2):
        planted.route.fhir_double.will_do_as_asked()
    planted.route.fhir_double.will_answer(400)
    assert await planted.start("--all", "--dry-run", "--resume", state) == 2
    assert f"--resume {state}" in planted.lines[-1]
    planted.route.fhir_double.received.clear()
    assert await planted.start("--all", "--dry-run", "--resume", state) == 1
    searches = [
        each for each in planted.route.fhir_double.received if each.path.endswith("Patient")
    ]
    assert len(searches) == 1
    assert [*planted.folder.glob("state*")] == []


async def test_progress_is_plain_lines_where_there_is_no_terminal(
    planted: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    await planted.run("--all")
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert "\r" not in told
    assert "Patient: [####################] 2 of 2 compared, 0 differ, 0 repaired\n" in told


def test_progress_has_a_bar_where_it_is_known_how_much_there_is() -> None:
    count = Counter(compared=1500, missing=3, repaired=2)
    line = "Patient: [########............] 1,500 of 4,000 compared, 3 differ, 2 repaired"
    assert format_progress("Patient", count, "p1", 4000) == line
    line = "Patient rows: 1,500 compared (until p1), 3 differ, 2 repaired"
    assert format_progress("Patient rows", count, "p1", None) == line


async def test_rows_that_other_maps_make_are_not_compared(route: Route, tmp_path: Path) -> None:
    route.fhir_double.add(anna())
    sink = HealthcareApiSink(route.web_api, route.order)
    it = ReconcileRun(
        mirror=replace(route.mirror, sink=sink),
        fhir=route.fhir,
        dataverse=route.dataverse,
        id=RUN,
        sleep=route.wait,
    )
    with pytest.raises(Misconfigured, match="MIRROR_TO=web-api"):
        await anext(walk.walk_content(it, PATIENT))


async def test_who_waits_for_a_row_hears_of_it(planted: Command) -> None:
    """Otto's link to Anna was emptied when her row was deleted, and is filled by the same run."""
    await change_row(planted, "DELETE", f"contacts({ANNA})")
    await planted.run("--all")
    await mirror_queued(planted)
    assert await planted.run("--all") == (0, [])


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, ""),
        (0.2, ", about 1 s left"),
        (200.0, ", about 4 min left"),
        (9000.0, ", about 2.5 h left"),
    ],
)
def test_progress_says_how_long_it_will_take(seconds: float | None, told: str) -> None:
    count = Counter(compared=1000)
    assert format_progress("Patient", count, "p1", 4000, seconds).endswith(f"0 repaired{told}")


async def test_the_time_left_is_that_of_the_speed_so_far(
    capsys: pytest.CaptureFixture[str],
) -> None:
    times = iter([0.0, 10.0, 20.0])
    report = Report(print, SavedState(None, []), clock=lambda: next(times))
    for _ in range(3):
        report.add_page("Patient", Page(100, (), Position()), 500)
    *_, second, third = capsys.readouterr().err.splitlines()
    assert second.endswith("about 30 s left")
    assert third.endswith("about 20 s left")
