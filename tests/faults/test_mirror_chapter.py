"""The mirror's chapter in small: each trouble can be made, and is judged by what the servers hold.

What the mirror makes of it is for `python -m faults --chapter mirror` to count. Here the judge is
shown rows that somebody else has spoiled, on the real services, without a mirror that mends them.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.storage.queue.aio import QueueServiceClient

from faults.judge import Report
from faults.mirror_chapter import MirrorChapter, build_settings
from faults.mirror_people import EVENTS, People, Person
from faults.mirror_troubles import TROUBLES, hand_over, meddle
from faults.proxy import Proxy
from faults.route import Route, make_client
from integration.mapping import load
from local.processes import PROJECT, Child
from local.services import Running, find_free_ports, run_services

pytestmark = [
    pytest.mark.live,
    pytest.mark.azurite,
    pytest.mark.skipif(
        not (PROJECT / "local/node_modules/azurite").is_dir(),
        reason="local/node_modules is missing: run make test",
    ),
    pytest.mark.skipif(
        "FHIR_URL" in os.environ,
        reason="FHIR_URL names a server that cannot be told to misbehave",
    ),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with run_services(find_free_ports(), tmp_path_factory.mktemp("mirror")) as it:
        yield it


@pytest.fixture
async def chapter(running: Running, tmp_path: Path) -> AsyncIterator[MirrorChapter]:
    """The chapter with its services, but nobody who mirrors."""
    async with (
        make_client() as http,
        QueueServiceClient.from_connection_string(running.storage) as queues,
    ):
        route = Route(
            running=running,
            host=Child(running.parts["fhir"].part),
            others=[],
            http=http,
            queues=queues,
            proxy=Proxy(upstream=()),
            kill_file=tmp_path / "kill",
        )
        report = Report(http=http, running=running, seed="test")
        for base in route.control_urls.values():
            (await http.post(f"{base}/reset")).raise_for_status()
        made = await MirrorChapter.open(route, report, "test")
        yield made


async def show(people: People, person: Person, **columns: Any) -> str:
    """Write the row as a mirror would, and return its key. The columns may spoil it."""
    url = f"{people.route.running.fhir_url}/{person.identity}"
    resource = (await people.route.http.get(url)).json()
    row = {
        "msemr_azurefhirid": person.id,
        "msemr_azurefhirversion": resource["meta"]["versionId"],
        "msemr_contacttype": 935000000,
        "lastname": resource["name"][0]["family"],
        **columns,
    }
    await people.ask_dataverse("PATCH", f"contacts({person.id})", json=row)
    children = (await people.ask_dataverse("GET", "msemr_medicalidentifiers")).json()["value"]
    for child in children:
        if child["_msemr_assignee_value"] == person.id:
            path = f"msemr_medicalidentifiers({child['msemr_medicalidentifierid']})"
            await people.ask_dataverse("DELETE", path)
    for each in resource["identifier"]:
        await people.ask_dataverse(
            "POST",
            "msemr_medicalidentifiers",
            json={
                "msemr_identifiersystem": each["system"],
                "msemr_value": each["value"],
                "msemr_Assignee@odata.bind": f"contacts({person.id})",
            },
        )
    return person.id


async def judge(chapter: MirrorChapter) -> dict[str, int]:
    await chapter.judge_round("test", 1)
    counts = chapter.report.tally.counts
    return {name: counts[name] for name in ("lost", "doubled", "stale", "wrong_person")}


async def test_rows_that_are_as_fhir_is_are_no_harm(chapter: MirrorChapter) -> None:
    people = chapter.people
    kept, gone = people.make(), people.make()
    for person in (kept, gone):
        await people.write(person)
        await people.write(person)
        await show(people, person)
    await people.delete(gone)
    await people.ask_dataverse("PATCH", f"contacts({gone.id})", json={"statecode": 1})
    assert set((await judge(chapter)).values()) == {0}
    assert chapter.report.tally.counts["written"] == 2


async def miss(people: People, person: Person) -> None:
    pass


async def double(people: People, person: Person) -> None:
    await show(people, person)
    row = {"msemr_azurefhirid": person.id, "lastname": f"{person.name}~1"}
    await people.ask_dataverse("POST", "contacts", json=row)


async def show_an_old_state(people: People, person: Person) -> None:
    await show(people, person)
    await people.write(person)


async def show_a_deleted_patient(people: People, person: Person) -> None:
    await show(people, person)
    await people.delete(person)


async def go_back(people: People, person: Person) -> None:
    await people.write(person)
    await show(people, person)
    await show(people, person, lastname=f"{person.name}~1")
    await show(people, person)


async def show_another(people: People, person: Person) -> None:
    await show(people, person, lastname="P99~1")


async def overwrite_a_stranger(people: People, person: Person) -> None:
    await show(people, person)
    people.strangers[person.id] = ("S0", "S0-x")


@pytest.mark.parametrize(
    ("harm", "spoil"),
    [
        ("lost", miss),
        ("doubled", double),
        ("stale", show_an_old_state),
        ("stale", show_a_deleted_patient),
        ("stale", go_back),
        ("wrong_person", show_another),
        ("wrong_person", overwrite_a_stranger),
    ],
)
async def test_each_harm_is_found_in_what_the_servers_hold(
    chapter: MirrorChapter, harm: str, spoil: Callable[[People, Person], Any]
) -> None:
    person = chapter.people.make()
    await chapter.people.write(person)
    await spoil(chapter.people, person)
    found = await judge(chapter)
    assert found[harm] > 0
    assert not chapter.report.tally.is_harmless
    # What is not mended is counted once.
    assert await judge(chapter) == found


async def test_work_that_never_ends_is_unexplained(chapter: MirrorChapter) -> None:
    await chapter.people.update(chapter.people.make())
    await chapter.calm("test", patience=0)
    assert chapter.report.tally.counts["unexplained"] == 1
    assert await chapter.count_work() == {}


async def test_who_waits_for_a_crowd_waits_for_its_events(chapter: MirrorChapter) -> None:
    await chapter.people.update(chapter.people.make())
    assert await chapter.route.wait_until_idle(0) is None
    assert await chapter.route.wait_until_idle(0, others=(EVENTS,)) == f"1 in {EVENTS}"
    await chapter.calm("test", patience=0)


async def test_each_trouble_injects_faults_and_is_undone(chapter: MirrorChapter) -> None:
    people = chapter.people
    for _ in range(8):
        person = people.make()
        await people.write(person)
        await show(people, person)
    others = [trouble for trouble in TROUBLES.values() if trouble.__name__ not in _WITH_A_HOST]
    for trouble in (meddle, hand_over, *others):  # while everybody has a row
        injected = await trouble(people, 4)
        assert injected > 0 or trouble.__name__ in _AT_THE_SERVICES, trouble.__name__
        await chapter.calm("test", patience=0)
    assert any(person.allowed.missing for person in people.known)
    assert any(person.allowed.merged for person in people.known)


# Those that ask the host for something, and those whose faults the services count as they meet them.
_WITH_A_HOST = {"switch_routes", "bring_weather"}
_AT_THE_SERVICES = {"finish_late", "hang_dataverse", "hide_behind_gateway"}


def test_organizations_may_be_switched(tmp_path: Path) -> None:
    settings = build_settings(tmp_path)
    maps = load.load_maps(
        "healthcare", own_folder=Path(settings["MAPS"]), enabled=[settings["MAPS_ENABLED"]]
    )
    assert maps.broken == {}
    assert maps.entities["Organization"].routes == ("dataverse", "virtual")
