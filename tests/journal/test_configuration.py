"""What is promised of the configuration's versions, documents and drafts, of doubles and tables
alike; and of what a worker knows of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from azure.data.tables.aio import TableServiceClient
from azure.storage.blob.aio import BlobServiceClient
from hypothesis import given
from hypothesis import strategies as st

from integration.core.errors import Misconfigured, Unavailable
from integration.journal.azure_configuration import AzureConfigurationStore
from integration.journal.configuration import (
    DATA_ROUTES,
    LEFT_OUT,
    MAX_WHY_LENGTH,
    ConfigurationStore,
    ConfigurationVersion,
    Draft,
    MemoryConfigurationStore,
    apply_changes,
    compute_digest,
    find_conflicts,
    is_document_name,
)
from integration.journal.configured_routes import (
    ConfiguredRoutes,
    format_data_routes,
    parse_data_routes,
)
from integration.journal.data_routes import ChosenRoute
from integration.journal.live_configuration import PUBLISHED, Document, LiveConfiguration
from integration.journal.table_keys import build_audit_id
from local.services import Running

NOON = datetime(2026, 3, 2, 12, 0, 0, 123456, tzinfo=UTC)
MAP = "maps/patient.toml"
FIRST = ConfigurationVersion(
    number=1, documents={MAP: "a" * 64}, published=NOON, published_by="anna@example.org", why="new"
)
DRAFT = Draft(
    id=build_audit_id(NOON, "0123456789abcdef"),
    base=1,
    changes={MAP: "b" * 64, DATA_ROUTES: None},
    saved=NOON,
    saved_by="anna@example.org",
)


@pytest.fixture(params=["memory", "table"])
async def store(
    request: pytest.FixtureRequest, namespace: str
) -> AsyncIterator[ConfigurationStore]:
    if request.param == "memory":
        yield MemoryConfigurationStore()
        return
    azurite: Running = request.getfixturevalue("azurite")
    async with (
        TableServiceClient.from_connection_string(azurite.storage) as tables,
        BlobServiceClient.from_connection_string(azurite.storage) as blobs,
    ):
        table = await tables.create_table_if_not_exists(namespace)
        yield AzureConfigurationStore(table, await blobs.create_container(namespace))


# -- versions and documents -----------------------------------------------------------------------


async def test_before_anything_is_published_the_package_is_in_use(
    store: ConfigurationStore,
) -> None:
    assert await store.read_latest() == ConfigurationVersion()
    assert await store.read_version(0) == ConfigurationVersion()
    assert await store.read_version(1) is None
    assert await store.list_versions(10, None) == []


async def test_the_latest_version_is_in_use_and_the_others_stay(store: ConfigurationStore) -> None:
    versions = [FIRST, *(replace(FIRST, number=n, restores=n - 1) for n in range(2, 12))]
    for version in versions:
        assert await store.add_version(version)
    assert await store.read_latest() == versions[-1]
    assert await store.read_version(4) == versions[3]
    assert await store.list_versions(3, None) == versions[:-4:-1]
    assert await store.list_versions(100, 3) == [versions[1], versions[0]]


async def test_of_two_who_publish_at_once_one_is_told(store: ConfigurationStore) -> None:
    others = [replace(FIRST, published_by=f"{number}@example.org") for number in range(4)]
    added = await asyncio.gather(*(store.add_version(version) for version in others))
    assert added.count(True) == 1
    assert await store.read_latest() == others[added.index(True)]


async def test_a_long_reason_is_cut_and_never_refused(store: ConfigurationStore) -> None:
    assert await store.add_version(replace(FIRST, why="x" * 40_000))
    assert len((await store.read_latest()).why) <= MAX_WHY_LENGTH


async def test_a_document_is_kept_by_what_it_says(store: ConfigurationStore) -> None:
    digest = await store.add_document("größer\n")
    assert digest == compute_digest("größer\n")
    assert await store.add_document("größer\n") == digest
    assert await store.read_document(digest) == "größer\n"
    assert await store.read_document("c" * 64) is None


# -- drafts ---------------------------------------------------------------------------------------


async def test_a_draft_is_saved_over_the_one_that_was_read_alone(
    store: ConfigurationStore,
) -> None:
    saved = await store.save_draft(DRAFT)
    assert saved is not None
    assert saved == DRAFT
    assert await store.save_draft(DRAFT) is None  # there is one already
    changed = await store.save_draft(replace(saved, changes={}))
    assert changed is not None
    assert await store.save_draft(saved) is None  # somebody has saved it since
    assert await store.list_drafts() == [replace(DRAFT, changes={})]
    read = await store.read_draft(DRAFT.id)
    assert read == changed
    await store.delete_draft(DRAFT.id)
    await store.delete_draft(DRAFT.id)
    assert await store.read_draft(DRAFT.id) is None
    assert await store.save_draft(changed) is None


@pytest.mark.parametrize("id_", ["", "../x", "a'b", "x" * 2000, "#"])
async def test_an_id_that_no_draft_has_is_unknown(store: ConfigurationStore, id_: str) -> None:
    assert await store.read_draft(id_) is None
    await store.delete_draft(id_)


_names = st.sampled_from([MAP, "maps/goal.toml", DATA_ROUTES])
_documents = st.dictionaries(_names, st.sampled_from(["a", "b", LEFT_OUT]))
_changes = st.dictionaries(_names, st.sampled_from(["a", "b", LEFT_OUT, None]))


@given(base=_documents, ours=_changes, theirs=_changes)
def test_a_draft_that_does_not_conflict_loses_nobody_s_change(
    base: dict[str, str], ours: dict[str, str | None], theirs: dict[str, str | None]
) -> None:
    before = ConfigurationVersion(number=1, documents=base)
    latest = ConfigurationVersion(number=2, documents=apply_changes(base, theirs))
    if find_conflicts(before, latest, ours):
        return
    published = apply_changes(latest.documents, ours)
    for name in {*base, *ours, *theirs}:
        wanted = [changes[name] for changes in (ours, theirs) if name in changes]
        # What nobody wanted otherwise stays; what one of them did not change is as the other wants.
        changed = [digest for digest in wanted if digest != base.get(name)]
        assert published.get(name) == (changed[0] if changed else base.get(name))


def test_a_document_that_somebody_else_changed_otherwise_is_a_conflict() -> None:
    base = ConfigurationVersion(number=1, documents={MAP: "a"})
    latest = ConfigurationVersion(number=2, documents={MAP: "b", "maps/goal.toml": "c"})
    assert find_conflicts(base, latest, {MAP: "d"}) == [MAP]
    assert find_conflicts(base, latest, {MAP: "b"}) == []  # the same change
    assert find_conflicts(base, latest, {DATA_ROUTES: "d"}) == []
    assert find_conflicts(base, latest, {"maps/goal.toml": None}) == ["maps/goal.toml"]


@pytest.mark.parametrize(
    ("name", "may_be"),
    [
        (MAP, True),
        ("senders.toml", True),
        (DATA_ROUTES, True),
        ("maps/my-map_2.toml", True),
        ("maps/../senders.toml", False),
        ("maps/Patient.toml", False),
        ("patient.toml", False),
        ("maps/patient.json", False),
        ("maps/patient.toml\n", False),
        ("", False),
    ],
)
def test_documents_have_names_of_their_kinds(name: str, may_be: bool) -> None:
    assert is_document_name(name) is may_be


# -- what a worker knows --------------------------------------------------------------------------


@dataclass(slots=True)
class Counting(MemoryConfigurationStore):
    """A store that counts what is read, and can be away."""

    reads: list[str] = field(default_factory=list)
    is_away: bool = False

    async def read_latest(self) -> ConfigurationVersion:
        self.reads.append("latest")
        if self.is_away:
            raise Unavailable("storage", "gone")
        return await MemoryConfigurationStore.read_latest(self)

    async def read_document(self, digest: str) -> str | None:
        self.reads.append(digest)
        return await MemoryConfigurationStore.read_document(self, digest)


@dataclass(slots=True)
class Worker:
    """A worker, its storage and its clock."""

    store: Counting = field(default_factory=Counting)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.live = self.start()

    def start(self) -> LiveConfiguration:
        package = {MAP: Document("shipped", "plain"), "maps/goal.toml": Document("goal", None)}
        return LiveConfiguration(store=self.store, package=package, clock=lambda: self.seconds)

    async def publish(self, number: int, **texts: str | None) -> None:
        documents = {
            f"maps/{name}.toml": LEFT_OUT if text is None else await self.store.add_document(text)
            for name, text in texts.items()
        }
        version = ConfigurationVersion(number=number, documents=documents)
        assert await self.store.add_version(version)

    async def get_texts(self) -> dict[str, str]:
        documents = (await self.live.get()).documents
        return {name: document.text for name, document in documents.items()}

    live: LiveConfiguration = field(init=False)


async def test_a_new_version_acts_in_every_worker_within_fifteen_seconds() -> None:
    worker = Worker()
    assert await worker.get_texts() == {MAP: "shipped", "maps/goal.toml": "goal"}
    await worker.publish(1, patient="changed", goal=None)
    worker.seconds = 9.9
    assert (await worker.get_texts())[MAP] == "shipped"
    worker.seconds = 15.0
    assert await worker.get_texts() == {MAP: "changed"}
    document = (await worker.live.get()).documents[MAP]
    assert document.origin == PUBLISHED


async def test_looking_costs_one_operation_each_ten_seconds_and_documents_are_read_once() -> None:
    worker = Worker()
    await worker.publish(1, patient="changed")
    for _ in range(50):
        await worker.live.get()
        worker.seconds += 1.0
    assert worker.store.reads.count("latest") == 5
    assert len(worker.store.reads) == 6
    await worker.publish(2, patient="changed", goal="other")
    await worker.live.refresh()
    assert len(worker.store.reads) == 8


async def test_many_who_ask_at_once_cost_one_operation() -> None:
    worker = Worker()
    found = await asyncio.gather(*(worker.live.get() for _ in range(20)))
    assert worker.store.reads == ["latest"]
    assert all(one is found[0] for one in found)


async def test_a_worker_that_cannot_look_works_by_what_it_knows_and_looks_again() -> None:
    worker = Worker()
    await worker.live.get()
    await worker.publish(1, patient="changed")
    worker.seconds, worker.store.is_away = 20.0, True
    assert (await worker.get_texts())[MAP] == "shipped"
    with pytest.raises(Unavailable):
        await worker.live.refresh()
    worker.seconds, worker.store.is_away = 31.0, False
    assert (await worker.get_texts())[MAP] == "changed"


async def test_a_worker_that_knows_nothing_yet_says_who_is_away() -> None:
    worker = Worker(store=Counting(is_away=True))
    with pytest.raises(Unavailable):
        await worker.live.get()


async def test_a_document_that_the_storage_has_lost_stops_the_work_and_says_so() -> None:
    worker = Worker()
    version = ConfigurationVersion(number=1, documents={MAP: "d" * 64})
    await worker.store.add_version(version)
    with pytest.raises(Misconfigured, match="the storage has lost a document"):
        await worker.live.get()


# -- data routes ----------------------------------------------------------------------------------


async def test_a_route_stays_as_it_was_chosen_last_with_who_chose_it_when(
    store: ConfigurationStore,
) -> None:
    routes = ConfiguredRoutes(LiveConfiguration(store=store, package={}))
    assert await routes.list_routes() == {}
    last = ChosenRoute("dataverse", 'anna "the \\ admin"', NOON)
    await routes.set_routes({"Observation": ChosenRoute("virtual", "somebody", NOON)})
    await routes.set_routes({"Condition": ChosenRoute("virtual")})
    await routes.set_routes({"Observation": last})
    found = await routes.list_routes()
    assert found == {"Observation": last, "Condition": ChosenRoute("virtual")}
    assert (await store.read_latest()).why == "data routes: Observation dataverse"


async def test_routes_that_are_chosen_at_once_are_all_kept(store: ConfigurationStore) -> None:
    workers = [ConfiguredRoutes(LiveConfiguration(store=store, package={})) for _ in range(3)]
    types = ("Goal", "Condition", "Observation")
    await asyncio.gather(
        *(
            worker.set_routes({type_: ChosenRoute("virtual")})
            for worker, type_ in zip(workers, types, strict=True)
        )
    )
    assert (await workers[0].list_routes()).keys() == {*types}


async def test_a_route_leaves_the_other_documents_as_they_are(store: ConfigurationStore) -> None:
    digest = await store.add_document("x = 1")
    await store.add_version(replace(FIRST, documents={MAP: digest}))
    live = LiveConfiguration(store=store, package={})
    await ConfiguredRoutes(live).set_routes({"Goal": ChosenRoute("virtual")})
    assert (await live.get()).documents[MAP] == Document("x = 1", PUBLISHED)


_chosen = st.builds(
    ChosenRoute,
    st.sampled_from(["virtual", "dataverse"]),
    st.none() | st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=20),
    st.none() | st.datetimes(timezones=st.just(UTC)),
)


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Za-z]{2,12}", fullmatch=True), _chosen))
def test_routes_are_read_as_they_were_written(routes: dict[str, ChosenRoute]) -> None:
    printable = {
        name: replace(
            chosen,
            changed_by=chosen.changed_by
            and "".join(char for char in chosen.changed_by if char.isprintable()),
        )
        for name, chosen in routes.items()
    }
    assert parse_data_routes(format_data_routes(routes)) == printable


@pytest.mark.parametrize("text", ["[", "Patient = 1", "[Patient]\nroute = 1"])
def test_a_document_of_routes_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Misconfigured, match="data-routes"):
        parse_data_routes(text)
