"""Every row has a key that leads back to its resource, and lookups have those of their contacts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest

from integration.core.errors import Rejected, Unavailable
from integration.core.model import WorkItem
from integration.journal.row_keys import MemoryRowKeys
from integration.mapping.primary_keys import ServerKeys, derive_primary_key
from integration.mirror import mirror as mirroring
from integration.virtual_tables.row_keys import RowKeyResolver
from tests.builders import observation, patient
from tests.conftest import Route
from tests.virtual_tables.conftest import Feed, made

ANNA = "1b0b6f2e-1f6c-4d7e-9a52-0c1f7a9b2d11"
THEIRS = "99999999-9999-4999-8999-999999999999"
WEIGHT = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"
DELIVERY = "019caaee-c260-7000-8000-000000000001"

PATIENT = "_msemr_subjectpatient_value"


@dataclass(slots=True)
class Kept(MemoryRowKeys):
    """Counts what it is asked and told."""

    asked: list[tuple[str, frozenset[str]]] = field(default_factory=list)
    led: list[frozenset[str]] = field(default_factory=list)
    away: bool = False
    meanwhile: Callable[[], object] = dict  # what happens while it is asked

    async def add_reverse(self, type_: str, keys: Mapping[str, str]) -> None:
        if self.away:
            raise Unavailable("storage", "away")
        self.led.append(frozenset(keys))
        await MemoryRowKeys.add_reverse(self, type_, keys)

    async def find_keys(self, type_: str, ids: Collection[str]) -> Mapping[str, str]:
        self.asked.append((type_, frozenset(ids)))
        self.meanwhile()
        return await MemoryRowKeys.find_keys(self, type_, ids)


class Seconds:
    """A clock that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Worker:
    """The keys as one worker knows them; patients are mirrored."""

    kept: Kept = field(default_factory=Kept)
    clock: Seconds = field(default_factory=Seconds)
    limit: int = 1000

    def __post_init__(self) -> None:
        self.keys = RowKeyResolver(
            self.kept, lambda type_: type_ == "Patient", self.clock, self.limit
        )

    async def key(self, name: str) -> str:
        return str((await self.keys.resolve_keys([name]))[name])

    async def id(self, type_: str, key: str) -> str:
        return (await self.keys.resolve_ids(type_, [UUID(key)]))[UUID(key)]


@pytest.fixture
def worker() -> Worker:
    return Worker()


# --- the key of a row -----------------------------------------------------------------------------


async def test_an_id_that_is_a_guid_is_the_key_and_needs_no_way_back(worker: Worker) -> None:
    assert await worker.key(f"Observation/{WEIGHT}") == WEIGHT
    assert await worker.id("Observation", WEIGHT) == WEIGHT
    assert worker.kept.led == []


async def test_another_id_has_a_key_that_leads_back_for_every_worker(worker: Worker) -> None:
    key = await worker.key("Observation/weight.1")
    assert key == derive_primary_key("Observation", "weight.1")
    other = Worker(worker.kept)
    assert await other.id("Observation", key) == "weight.1"
    assert await other.id("Condition", key) == key  # a key of another type leads nowhere


async def test_a_guid_in_capitals_has_another_key_than_the_one_in_lower_case(
    worker: Worker,
) -> None:
    """FHIR ids are case sensitive, GUIDs are not."""
    for id_ in (WEIGHT.upper(), WEIGHT):
        assert await worker.id("Observation", await worker.key(f"Observation/{id_}")) == id_
    assert await worker.key(f"Observation/{WEIGHT.upper()}") != WEIGHT


async def test_no_key_is_told_before_its_way_back_is_kept(worker: Worker) -> None:
    worker.kept.away = True
    with pytest.raises(Unavailable):
        await worker.key("Observation/weight.1")
    worker.kept.away = False
    key = await worker.key("Observation/weight.1")
    assert await Worker(worker.kept).id("Observation", key) == "weight.1"


async def test_a_way_back_is_kept_once_by_a_worker(worker: Worker) -> None:
    for _ in range(3):
        await worker.keys.resolve_keys(["Observation/a", "Observation/b", f"Observation/{WEIGHT}"])
    assert worker.kept.led == [{"a", "b"}]


async def test_rows_of_several_types_are_kept_type_by_type(worker: Worker) -> None:
    await worker.keys.resolve_keys(["Observation/1", "Condition/1"])
    for type_ in ("Observation", "Condition"):
        assert await worker.id(type_, derive_primary_key(type_, "1")) == "1"
    assert derive_primary_key("Observation", "1") != derive_primary_key("Condition", "1")


# --- a contact that was there before --------------------------------------------------------------


async def test_a_contact_with_a_key_of_its_own_is_known_both_ways(worker: Worker) -> None:
    await worker.kept.add("Patient", {ANNA: THEIRS})
    assert await worker.key(f"Patient/{ANNA}") == THEIRS
    assert await worker.id("Patient", THEIRS) == ANNA


async def test_only_types_that_are_mirrored_may_have_rows_with_keys_of_their_own(
    worker: Worker,
) -> None:
    await worker.keys.resolve_keys(
        [f"Patient/{ANNA}", f"Observation/{WEIGHT}", "Observation/weight.1"]
    )
    assert worker.kept.asked == [("Patient", {ANNA})]


async def test_what_storage_says_of_a_contact_is_believed_for_half_a_minute(
    worker: Worker,
) -> None:
    """The mirror may find another key at any time."""
    assert await worker.key(f"Patient/{ANNA}") == ANNA
    await worker.kept.add("Patient", {ANNA: THEIRS})
    worker.clock.now += 29
    assert await worker.key(f"Patient/{ANNA}") == ANNA
    worker.clock.now += 1
    assert await worker.key(f"Patient/{ANNA}") == THEIRS
    assert len(worker.kept.asked) == 2


async def test_a_key_that_a_worker_tells_leads_back_at_once_even_if_it_did_not_before(
    worker: Worker,
) -> None:
    key = derive_primary_key("Goal", "1")
    assert await worker.id("Goal", key) == key
    await worker.key("Goal/1")
    assert await worker.id("Goal", key) == "1"


async def test_what_a_worker_remembers_is_bounded() -> None:
    worker = Worker(limit=10)
    for start in range(0, 100, 4):
        names = [f"{type_}/{n}" for type_ in ("Patient", "Goal") for n in range(start, start + 2)]
        for name, key in (await worker.keys.resolve_keys(names)).items():
            assert await worker.id(name.partition("/")[0], str(key)) == name.partition("/")[2]
        known = (worker.keys._recorded, worker.keys._keys.entries, worker.keys._ids.entries)
        assert max(map(len, known)) <= 10
    assert (
        await worker.id("Goal", derive_primary_key("Goal", "1")) == "1"
    )  # forgotten here, kept there


async def test_what_is_forgotten_while_storage_is_asked_is_told_all_the_same(
    worker: Worker,
) -> None:
    """Two requests at once; the second finds the memory full."""
    await worker.kept.add("Patient", {ANNA: THEIRS, "p-2": WEIGHT})
    assert await worker.key(f"Patient/{ANNA}") == THEIRS
    worker.kept.meanwhile = worker.keys._keys.entries.clear
    found = await worker.keys.resolve_keys([f"Patient/{ANNA}", "Patient/p-2"])
    assert [*map(str, found.values())] == [THEIRS, WEIGHT]


# --- what the mirror finds ------------------------------------------------------------------------


async def mirrored(route: Route, kept: MemoryRowKeys, name: str) -> None:
    await mirroring.mirror_resource(
        replace(route.mirror, row_keys=kept), WorkItem(DELIVERY, resource=name)
    )


async def test_the_mirror_notes_the_key_of_a_contact_that_others_made(route: Route) -> None:
    kept = MemoryRowKeys()
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid=ANNA)
    await mirrored(route, kept, route.fhir_double.add(patient(id=ANNA)))
    assert await kept.find_keys("Patient", [ANNA]) == {ANNA: THEIRS}
    assert await kept.find_ids("Patient", [THEIRS]) == {THEIRS: ANNA}


async def test_the_mirror_notes_nothing_where_the_key_follows_from_the_id(route: Route) -> None:
    kept = MemoryRowKeys()
    await mirrored(route, kept, route.fhir_double.add(patient(id=ANNA)))
    assert (kept.keys_by_id, kept.ids_by_key) == ({}, {})


async def test_a_contact_that_is_made_anew_takes_the_place_of_the_one_that_is_gone(
    route: Route,
) -> None:
    kept = MemoryRowKeys()
    await kept.add("Patient", {ANNA: THEIRS})
    await mirrored(route, kept, route.fhir_double.add(patient(id=ANNA)))
    assert await kept.find_keys("Patient", [ANNA]) == {ANNA: ANNA}
    keys = RowKeyResolver(kept, lambda _: True)
    assert await keys.resolve_keys([f"Patient/{ANNA}"]) == {f"Patient/{ANNA}": UUID(ANNA)}


async def test_it_takes_that_place_though_the_answer_to_its_create_was_lost(route: Route) -> None:
    kept = MemoryRowKeys()
    await kept.add("Patient", {ANNA: THEIRS})
    name = route.fhir_double.add(patient(id=ANNA))
    route.dataverse_double.will_fail(kind="lost-reply", method="PATCH")
    for _ in range(2):
        await mirrored(route, kept, name)
    assert await kept.find_keys("Patient", [ANNA]) == {ANNA: ANNA}


async def test_a_contact_that_a_person_gave_to_another_patient_leads_to_that_one(
    route: Route,
) -> None:
    kept = MemoryRowKeys()
    first = route.fhir_double.add(patient(id=ANNA))
    await mirrored(route, kept, first)
    await route.dataverse_double.write(ANNA, msemr_azurefhirid="p-2")
    await mirrored(route, kept, route.fhir_double.add(patient(id="p-2")))
    keys = RowKeyResolver(kept, lambda _: True)
    found = await keys.resolve_keys([first, "Patient/p-2"])
    assert found["Patient/p-2"] == UUID(ANNA)
    assert found[first] != UUID(ANNA)
    ids = await keys.resolve_ids("Patient", found.values())
    assert [ids[key] for key in found.values()] == [ANNA, "p-2"]
    await route.dataverse_double.write(ANNA, msemr_azurefhirid=ANNA)  # and back
    await mirrored(route, kept, first)
    keys = RowKeyResolver(kept, lambda _: True)
    assert await keys.resolve_keys([first]) == {first: UUID(ANNA)}


async def test_the_feed_and_the_mirror_derive_the_same_key_for_a_contact(route: Route) -> None:
    kept = MemoryRowKeys()
    keys = RowKeyResolver(kept, lambda _: True, server_keys=route.web_api.server_keys)
    before = await keys.resolve_keys(["Patient/mrn.7"])
    await mirrored(route, kept, route.fhir_double.add(patient(id="mrn.7")))
    row = await route.dataverse_double.contact()
    assert before == {"Patient/mrn.7": UUID(row["contactid"])}


async def test_the_mirror_notes_the_way_back_from_a_key_that_it_derived(route: Route) -> None:
    kept = MemoryRowKeys()
    await mirrored(route, kept, route.fhir_double.add(patient(id="mrn.7")))
    key = route.web_api.server_keys.derive("Patient", "mrn.7")
    assert await kept.find_ids("Patient", [key]) == {key: "mrn.7"}


async def test_a_key_that_could_not_be_kept_is_mirrored_again(route: Route) -> None:
    """Else lookups to this contact would be wrong until its next change."""
    kept = Kept(away=True)
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid=ANNA)
    name = route.fhir_double.add(patient(id=ANNA))
    await mirrored(route, kept, name)
    ((claim, _),) = [(claim, delay) for queue, claim, delay in route.queue_sender.sent]
    kept.away = False
    await mirrored(route, kept, claim.resource)
    assert await kept.find_keys("Patient", [ANNA]) == {ANNA: THEIRS}


# --- in the feed ----------------------------------------------------------------------------------


def weights(*subjects: str) -> list[dict[str, Any]]:
    return [observation(f"Patient/{id_}", id=f"of-{id_}") for id_ in subjects]


def derive_key(feed: Feed, type_: str, id_: str) -> str:
    """The key of a row of this FHIR server, on either route."""
    return ServerKeys(feed.tables.reader.fhir.upstream.base).derive(type_, id_)


async def test_a_row_is_found_by_its_derived_key_by_another_worker_too(feed: Feed) -> None:
    await feed.put(patient(id="p-1"), *weights("p-1"))
    (row,) = (await feed.get("msemr_observations"))["value"]
    key = row["msemr_observationid"]
    assert key == derive_key(feed, "Observation", "of-p-1")
    other = replace(feed, tables=made(feed.tables.reader.fhir, feed.row_keys, feed.routes))
    assert (await other.get(f"msemr_observations({key})"))["msemr_azurefhirid"] == "of-p-1"


async def test_rows_whose_ids_differ_only_in_letter_case_are_read_and_written_apart(
    feed: Feed,
) -> None:
    for id_ in (WEIGHT, WEIGHT.upper()):
        await feed.put(observation("Patient/p-1", id=id_))
    rows = {row["msemr_azurefhirid"]: row for row in await feed.every("msemr_observations")}
    assert rows.keys() == {WEIGHT, WEIGHT.upper()}
    for id_, row in rows.items():
        address = f"msemr_observations({row['msemr_observationid']})"
        assert (await feed.get(address))["msemr_azurefhirid"] == id_
        assert (
            await feed.ask("PATCH", address, body={"msemr_codetext": f"of {id_}"})
        ).status == 204
    for id_ in rows:
        stored = await feed.stored(f"Observation/{id_}")
        assert stored["code"]["text"] == f"of {id_}"


@pytest.mark.parametrize("key", [WEIGHT, derive_primary_key("Observation", "of-p-1")])
async def test_a_key_that_nobody_was_told_leads_to_nothing(feed: Feed, key: str) -> None:
    with pytest.raises(Rejected) as caught:
        await feed.ask("GET", f"msemr_observations({key})")
    assert caught.value.status == 404


async def test_rows_are_filtered_by_the_keys_that_they_show(feed: Feed) -> None:
    await feed.put(patient(id="p-1"), *weights("p-1"))
    await feed.get("msemr_observations")
    key = derive_key(feed, "Observation", "of-p-1")
    found = await feed.get("msemr_observations", f"$filter=msemr_observationid eq {key}")
    assert [row["msemr_azurefhirid"] for row in found["value"]] == ["of-p-1"]
    assert feed.asked[-1].url.params["_id"] == "of-p-1"


async def test_the_related_list_of_a_contact_is_a_search_by_patient(feed: Feed) -> None:
    await feed.put(patient(id=ANNA), patient(id="p-2"), *weights(ANNA, "p-2"))
    found = await feed.get("msemr_observations", f"$filter={PATIENT} eq {ANNA}")
    assert [row["msemr_azurefhirid"] for row in found["value"]] == [f"of-{ANNA}"]
    assert feed.asked[-1].url.params["patient"] == f"Patient/{ANNA}"


async def test_the_list_of_a_contact_that_others_made_shows_its_patient_s_rows(
    route: Route, feed: Feed
) -> None:
    await route.dataverse_double.write(THEIRS, msemr_azurefhirid=ANNA)
    await mirrored(route, feed.row_keys, route.fhir_double.add(patient(id=ANNA)))
    await feed.put(patient(id=ANNA), patient(id="p-2"), *weights(ANNA, "p-2"))
    shown = {
        row["msemr_azurefhirid"]: row[PATIENT] for row in await feed.every("msemr_observations")
    }
    assert shown == {f"of-{ANNA}": THEIRS, "of-p-2": derive_key(feed, "Patient", "p-2")}
    found = await feed.get("msemr_observations", f"$filter={PATIENT} eq {THEIRS}")
    assert [row["msemr_azurefhirid"] for row in found["value"]] == [f"of-{ANNA}"]
    assert feed.asked[-1].url.params["patient"] == f"Patient/{ANNA}"


async def test_a_lookup_that_is_written_by_a_contact_s_key_refers_to_its_patient(
    feed: Feed,
) -> None:
    await feed.row_keys.add("Patient", {"p-1": THEIRS})
    await feed.put(patient(id="p-1"))
    body = {PATIENT: THEIRS, "msemr_codetext": "Weight"}
    row = (await feed.ask("POST", "msemr_observations", body=body)).headers["Location"]
    stored = await feed.stored(f"Observation/{row.rpartition('(')[2].rstrip(')')}")
    assert stored["subject"] == {"reference": "Patient/p-1"}


async def test_a_row_that_is_created_in_dataverse_has_the_id_of_its_key(feed: Feed) -> None:
    await feed.put(patient(id=ANNA))
    body = {"msemr_observationid": WEIGHT, PATIENT: ANNA, "msemr_codetext": "Weight"}
    assert (await feed.ask("POST", "msemr_observations", body=body)).status == 201
    assert (await feed.stored(f"Observation/{WEIGHT}"))["id"] == WEIGHT
    assert feed.row_keys.ids_by_key == {}
