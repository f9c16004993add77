"""What FHIR has and no row shows as it is, is found and mended, however much there is of it."""

from __future__ import annotations

import argparse
import csv
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from integration.cli import reconcile_command as command
from integration.core.errors import Misconfigured, Unavailable
from integration.core.model import Column, WorkItem
from integration.dataverse.client import Dataverse
from integration.mapping.load import load_shipped_maps
from integration.mapping.model import LongId
from integration.mapping.primary_keys import ServerKeys
from integration.mirror import mirror as mirroring
from integration.reconcile import walk
from integration.reconcile.differences import DifferenceKind, Repair, compare_versions
from integration.reconcile.run import Page, Position, ReconcileRun
from tests.builders import MARKER, Body, patient
from tests.conftest import Route, told_by
from tests.doubles import DataverseDouble

RUN = "019caaee-c260-7000-8000-0000000000aa"
ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
THEIRS = "99999999-9999-4999-8999-999999999999"
PATIENT = load_shipped_maps()["Patient"]


def reconcile(route: Route, *, dry: bool = False) -> ReconcileRun:
    return ReconcileRun(
        mirror=route.mirror,
        fhir=route.fhir,
        dataverse=route.dataverse,
        id=RUN,
        sleep=route.wait,
        dry_run=dry,
    )


async def pages(
    route: Route, since: str | None = None, *, dry: bool = False, deleted: bool = False
) -> list[Page]:
    it = reconcile(route, dry=dry)
    walked = (
        walk.walk_rows(it, PATIENT) if deleted else walk.walk_versions(it, PATIENT, Position(since))
    )
    return [page async for page in walked]


async def settled(route: Route, since: str | None = None, **how: bool) -> list[Repair]:
    return [each for page in await pages(route, since, **how) for each in page.repairs]


def found(differences: list[Repair]) -> dict[str, DifferenceKind]:
    return {each.difference.resource: each.difference.kind for each in differences}


async def mirrored(route: Route, *resources: Body) -> None:
    for resource in resources:
        claim = WorkItem(RUN, resource=route.fhir_double.add(resource))
        await mirroring.mirror_resource(route.mirror, claim)


# --- what differs ------------------------------------------------------------------------------


async def test_what_is_missing_or_behind_is_found_and_what_is_shown_is_not(route: Route) -> None:
    await mirrored(route, patient(id="same"), patient(id="behind"))
    route.fhir_double.add(patient(id="behind"))
    route.fhir_double.add(patient(id="missing"))
    differences = await settled(route, dry=True)
    assert found(differences) == {
        "Patient/behind": DifferenceKind.BEHIND,
        "Patient/missing": DifferenceKind.MISSING,
    }
    (behind,) = [
        each.difference for each in differences if each.difference.kind is DifferenceKind.BEHIND
    ]
    assert (behind.fhir_version, behind.row_version) == ("2", "1")


async def test_a_dry_run_changes_nothing(route: Route) -> None:
    route.fhir_double.add(patient(id=ANNA))
    assert [each.result for each in await settled(route, dry=True)] == [None]
    assert route.dataverse_double.writes == []
    assert await route.journal.list_row_results(RUN) == []


async def test_what_differs_is_mended_and_a_second_run_finds_nothing(route: Route) -> None:
    await mirrored(route, patient(id="behind"))
    route.fhir_double.add(patient(id="behind"))
    route.fhir_double.add(patient(id=ANNA))
    differences = await settled(route)
    assert {each.result.action for each in differences if each.result} == {"created", "updated"}
    assert all(each.is_done for each in differences)
    assert await settled(route) == []
    noted = {row.resource: row.action for row in await route.journal.list_row_results(RUN)}
    assert noted == {"Patient/behind": "updated", f"Patient/{ANNA}": "created"}


async def test_a_row_that_shows_a_later_version_than_was_searched_is_left(route: Route) -> None:
    """FHIR has moved on since the page was read, and so has the mirror."""
    await mirrored(route, patient(id=ANNA), patient(id=ANNA))
    route.fhir_double.stored[f"Patient/{ANNA}"]["meta"]["versionId"] = "1"
    assert await settled(route) == []


async def test_ids_that_differ_in_case_are_two_resources(route: Route) -> None:
    await mirrored(route, patient(id="ward-7a"))
    route.fhir_double.add(patient(id="WARD-7A"))
    assert found(await settled(route, dry=True)) == {"Patient/WARD-7A": DifferenceKind.MISSING}


async def test_what_the_mirror_refuses_is_told_with_its_reason(route: Route) -> None:
    await route.dataverse_double.write(ANNA, lastname="one")
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid=ANNA, lastname="two")
    route.fhir_double.add(patient(id=ANNA))
    route.fhir_double.add(patient(id="x" * 64))
    differences = await settled(route)
    assert found(differences) == {
        f"Patient/{ANNA}": DifferenceKind.BEHIND,
        f"Patient/{'x' * 64}": DifferenceKind.MISSING,
    }
    assert not any(each.is_done for each in differences)
    notes = {each.difference.kind: each.cells[-1] for each in differences}
    assert "merge" in notes[DifferenceKind.BEHIND]
    assert "longer" in notes[DifferenceKind.MISSING]


def test_a_resource_that_several_rows_show_is_for_a_person() -> None:
    shown = {"msemr_azurefhirid": "p1", "msemr_azurefhirversion": "1"}
    rows = [{**shown, "contactid": ANNA}, {**shown, "contactid": THEIRS}]
    columns = {"msemr_azurefhirid": Column("msemr_azurefhirid", "String")}
    resource = {"id": "p1", "meta": {"versionId": "1"}}
    (only,) = compare_versions(PATIENT, [resource], rows, columns, server_keys=ServerKeys())
    assert (only.kind, only.row) == (DifferenceKind.TWICE, None)


async def test_a_practitioner_of_the_same_id_shows_no_patient(route: Route) -> None:
    other = 935000001
    await route.dataverse_double.write(
        THEIRS, msemr_azurefhirid="p1", msemr_azurefhirversion="1", msemr_contacttype=other
    )
    route.fhir_double.add(patient(id="p1"))
    assert found(await settled(route, dry=True)) == {"Patient/p1": DifferenceKind.MISSING}


# --- how it walks ------------------------------------------------------------------------------


async def test_every_page_is_looked_at_and_one_look_up_serves_many(route: Route) -> None:
    await mirrored(route, *(patient(id=f"p{number}") for number in range(25)))
    route.fhir_double.page_size = 10
    route.dataverse_double.received.clear()
    found_ = await pages(route)
    assert [page.count for page in found_] == [10, 10, 5]
    assert [each for page in found_ for each in page.repairs] == []
    asked = [each for each in route.dataverse_double.received if "$batch" in each.path]
    single = [each for each in route.dataverse_double.received if each.path.endswith("/contacts")]
    assert len(asked) + len(single) == 3


async def test_a_run_begins_at_a_moment_and_tells_how_far_it_is(route: Route) -> None:
    route.fhir_double.add(patient(id="before"))
    route.clock.later(3600)
    route.fhir_double.add(patient(id="then"))
    moment = route.fhir_double.stored["Patient/then"]["meta"]["lastUpdated"]
    (page,) = await pages(route, moment, dry=True)
    assert found(list(page.repairs)) == {"Patient/then": DifferenceKind.MISSING}
    assert page.position.at == moment


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/fhir/Patient?ct=1",
        "http://fhir/other/Patient?ct=1",
        "http://fhir/fhirx?ct=1",
        "/fhir/Patient?ct=1",
    ],
)
async def test_a_next_page_elsewhere_is_not_asked_for(route: Route, url: str) -> None:
    route.fhir_double.add(patient(id=ANNA))
    link = [{"relation": "next", "url": url}]
    route.fhir_double.will_say(lambda searchset: searchset.update(link=link))
    with pytest.raises(Misconfigured, match="next page"):
        await pages(route, dry=True)
    assert len(route.fhir_double.received) == 1


async def test_an_upstream_that_is_down_is_waited_for_and_costs_nothing(route: Route) -> None:
    route.fhir_double.will_answer(500)
    route.dataverse_double.will_fail(kind="throttle", retryAfter=300, method="PATCH")
    route.fhir_double.add(patient(id=ANNA))
    (only,) = await settled(route)
    assert only.is_done
    assert route.waits == [2.0, 300]


async def test_trouble_that_lasts_ends_the_run(route: Route) -> None:
    route.fhir_double.down = 500
    with pytest.raises(Unavailable):
        await pages(route)
    assert 3600 - 900 <= sum(route.waits) <= 3600


async def test_a_search_that_the_server_does_not_take_is_for_an_operator(route: Route) -> None:
    route.fhir_double.will_answer(400)
    with pytest.raises(Misconfigured, match="returned status 400"):
        await pages(route)


async def test_a_next_page_that_the_server_no_longer_keeps_costs_nothing(route: Route) -> None:
    for number in range(5):
        route.fhir_double.add(patient(id=f"p{number}"))
        route.clock.later(60)
    route.fhir_double.page_size = 2
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_answer(400)
    differences = await settled(route, dry=True)
    assert {*found(differences)} == {f"Patient/p{number}" for number in range(5)}


# --- rows that are left over -------------------------------------------------------------------


async def test_the_row_of_a_deleted_patient_is_found_and_deactivated(route: Route) -> None:
    await mirrored(route, patient(id="there"), patient(id=ANNA))
    route.fhir_double.delete(f"Patient/{ANNA}")
    (only,) = await settled(route, deleted=True)
    assert (only.difference.kind, only.difference.row) == (DifferenceKind.LEFT_OVER, ANNA)
    assert only.result is not None
    assert only.result.action == "deactivated"
    assert await settled(route, deleted=True) == []


async def test_a_row_of_a_patient_that_never_was_here_is_told_and_left_alone(route: Route) -> None:
    """Two FHIR servers may fill one organisation."""
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid="of-another", lastname="x")
    await route.dataverse_double.write(ANNA, msemr_azurefhirid="no, id", lastname="x")
    differences = await settled(route, deleted=True)
    assert found(differences) == {
        "Patient/of-another": DifferenceKind.UNKNOWN,
        "Patient/no, id": DifferenceKind.UNKNOWN,
    }
    assert [each.result for each in differences] == [None, None]
    assert route.dataverse_double.writes == []


async def test_rows_are_looked_through_page_by_page(route: Route) -> None:
    await mirrored(route, *(patient(id=f"p{number}") for number in range(7)))
    route.fhir_double.delete("Patient/p6")
    it = replace(reconcile(route, dry=True), page_size=3, ids_per_search=2)
    found_ = [page async for page in walk.walk_rows(it, PATIENT)]
    assert [page.count for page in found_] == [3, 2, 2]
    assert found([each for page in found_ for each in page.repairs]) == {
        "Patient/p6": DifferenceKind.LEFT_OVER
    }


async def test_rows_that_leave_the_list_take_no_other_row_with_them(route: Route) -> None:
    """A row that is deactivated is in no page any more, and the rows behind it move up."""
    await mirrored(route, *(patient(id=f"p{number}") for number in range(7)))
    for number in range(7):
        route.fhir_double.delete(f"Patient/p{number}")
    it = replace(reconcile(route), page_size=2)
    pages_ = [page async for page in walk.walk_rows(it, PATIENT)]
    repairs = [each for page in pages_ for each in page.repairs]
    assert [each.result.action for each in repairs if each.result] == ["deactivated"] * 7
    assert {row["statecode"] for row in await route.dataverse_double.contacts()} == {1}


async def test_many_rows_of_one_id_do_not_hold_the_walk_up(route: Route) -> None:
    unkeyed = DataverseDouble({"contact": {"keys": None}})
    for number in range(5):
        key = f"00000000-0000-4000-8000-00000000000{number}"
        await unkeyed.write(key, msemr_azurefhirid="same", lastname="x")
    await unkeyed.write(THEIRS, msemr_azurefhirid="then", lastname="x")
    async with httpx.AsyncClient(transport=unkeyed) as http:
        dataverse = Dataverse(replace(route.dataverse.upstream, http=http))
        it = replace(reconcile(route, dry=True), dataverse=dataverse, page_size=2)
        walked = [page async for page in walk.walk_rows(it, PATIENT)]
    unkeyed.app.close()
    repairs = [each for page in walked for each in page.repairs]
    assert {each.difference.resource for each in repairs} == {"Patient/same", "Patient/then"}


async def test_a_404_of_a_gateway_removes_no_row(route: Route) -> None:
    await mirrored(route, patient(id=ANNA))
    del route.fhir_double.stored[f"Patient/{ANNA}"]
    route.fhir_double.will_do_as_asked()
    route.fhir_double.will_answer(404, b"<html>no such route</html>", {"content-type": "text/html"})
    with pytest.raises(Misconfigured, match="check FHIR_URL"):
        await pages(route, deleted=True)
    assert (await route.dataverse_double.contact())["statecode"] == 0


async def test_rows_that_show_no_ids_cannot_be_traced_back(route: Route) -> None:
    digests = replace(PATIENT, long_id=LongId.DIGEST)
    with pytest.raises(Misconfigured, match="digests"):
        await anext(walk.walk_rows(reconcile(route), digests))


# --- as a command ------------------------------------------------------------------------------


def options(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_options(parser)
    return parser.parse_args(arguments)


class Terminal:
    """Runs the command on a route: the status, what it said."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.lines: list[str] = []

    async def run(self, *arguments: str) -> int:
        @asynccontextmanager
        async def opened(chosen: argparse.Namespace) -> AsyncIterator[ReconcileRun]:
            yield reconcile(self.route, dry=chosen.dry_run)

        self.lines.clear()
        return await command.reconcile(options(*arguments), self.lines.append, opened)


@pytest.fixture
def terminal(route: Route) -> Terminal:
    return Terminal(route)


async def test_the_status_says_whether_anything_differs_at_the_end(
    route: Route, terminal: Terminal
) -> None:
    assert await terminal.run() == 0
    route.fhir_double.add(patient(id=ANNA))
    assert await terminal.run("--dry-run") == 1
    assert await terminal.run() == 0
    counts = re.split(r"  +", terminal.lines[-1])
    heads = re.split(r"  +", terminal.lines[-2].strip())
    counted = {name: count for name, count in zip(heads, counts[1:], strict=True) if count != "0"}
    assert counted == {"compared": "1", "missing": "1", "repaired": "1"}
    route.fhir_double.add(patient(id="x" * 64))
    assert await terminal.run() == 1


async def test_a_report_holds_every_difference_and_no_patient_data(
    route: Route, terminal: Terminal, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for number in range(30):
        route.fhir_double.add(patient(id=f"p{number}", gender=MARKER))
    file = tmp_path / "report.csv"
    assert await terminal.run("--dry-run", "--report", str(file)) == 1
    assert len([line for line in terminal.lines if "missing" in line]) == 21
    assert await terminal.run("--report", str(file)) == 0
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["resource"] for row in rows} == {f"Patient/p{number}" for number in range(30)}
    assert {(row["difference"], row["action"]) for row in rows} == {("missing", "created")}
    assert all("gendercode" in row["notes"] for row in rows)
    told = file.read_text() + "".join(terminal.lines) + told_by(caplog.records)
    assert MARKER not in told


async def test_a_run_that_ended_early_goes_on_where_it_was(
    route: Route, terminal: Terminal, tmp_path: Path
) -> None:
    for number in range(4):
        route.fhir_double.add(patient(id=f"p{number}"))
        route.clock.later(60)
    route.fhir_double.page_size = 2
    for _ in range(2):  # how many there are, and the first page of them
        route.fhir_double.will_do_as_asked()
    for _ in range(2):  # each resource is read before its row is made
        route.fhir_double.will_do_as_asked()
    for _ in range(2):  # the next page, and the search that begins anew where it stood
        route.fhir_double.will_answer(400)
    state, report = tmp_path / "state", tmp_path / "report.csv"
    go = ("--resume", str(state), "--report", str(report))
    assert await terminal.run(*go) == 2
    assert "returned status 400" in terminal.lines[0]
    assert len(await route.dataverse_double.contacts()) == 2
    assert await terminal.run(*go) == 0
    assert not state.exists()
    assert len(await route.dataverse_double.contacts()) == 4
    resources = [line.partition(",")[0] for line in report.read_text().splitlines()]
    assert resources == ["resource", *(f"Patient/p{number}" for number in range(4))]


async def test_a_run_does_not_go_on_from_one_that_was_asked_something_else(
    route: Route, terminal: Terminal, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    route.fhir_double.add(patient(id="x" * 64))
    route.fhir_double.page_size = 1
    route.clock.later(60)
    route.fhir_double.add(patient(id=ANNA))
    for _ in range(2):
        route.fhir_double.will_do_as_asked()
    for _ in range(2):
        route.fhir_double.will_answer(400)
    assert await terminal.run("--resume", str(state), "--dry-run") == 2
    route.fhir_double.received.clear()
    assert await terminal.run("--resume", str(state)) == 2
    assert "other options" in terminal.lines[0]
    state.write_text(MARKER)
    assert await terminal.run("--resume", str(state)) == 2
    assert MARKER not in terminal.lines[0]
    assert route.fhir_double.received == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--since", "yesterday"], "--since"),
        (["--type", "Basic"], "Basic is not mirrored"),
        (["--report", "/no/such/folder/report.csv"], "No such file"),
    ],
)
async def test_what_cannot_be_done_is_said_before_anything_is(
    route: Route, terminal: Terminal, arguments: list[str], said: str
) -> None:
    assert await terminal.run(*arguments) == 2
    assert said in terminal.lines[0]
    assert route.fhir_double.received == []
