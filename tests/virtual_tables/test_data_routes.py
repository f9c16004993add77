"""Whether Dataverse has a table's rows from the mirror or from the feed, and what choosing means."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import pytest

from integration.app import wiring
from integration.cli import reconcile_command as command
from integration.core.errors import Issue, Misconfigured, Rejected
from integration.core.model import WorkItem
from integration.journal.audit_entry import Reader
from integration.journal.data_routes import ChosenRoute, MemoryDataRouteStore
from integration.journal.row_keys import MemoryRowKeys
from integration.mapping import files
from integration.mapping.files import MappedTable
from integration.mapping.load import parse_map
from integration.mapping.model import Route as DataRoute
from integration.mirror import mirror as mirroring
from integration.queues.names import EXTERNAL_QUEUE, MIRROR_QUEUE
from integration.relay import process as relaying
from integration.relay.parts import Relay
from integration.virtual_tables.answer import VirtualTables, answer_request
from integration.virtual_tables.data_routes import (
    BringingJobs,
    DataRoutes,
    change_routes,
    describe_changes,
    end_bringing,
    is_brought_by,
    list_routes,
)
from integration.virtual_tables.entity_type import build_entity_type
from integration.virtual_tables.feed_reader import FeedReader
from integration.virtual_tables.odata_request import ODataRequest
from integration.virtual_tables.physical.source import PhysicalTables
from integration.virtual_tables.row_keys import RowKeyResolver
from integration.virtual_tables.write import FeedWriter
from local.services import Running
from tests.audits import make_recorder
from tests.builders import MARKER, TODAY, Body, bundle, entry
from tests.conftest import Route
from tests.virtual_tables.conftest import get_token_key

DELIVERY = "019caaee-c260-7000-8000-000000000001"
WARD = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"

SHIPPED = files.list_tables(files.read_map_files("healthcare"))

# One map that serves both routes, with a table that the stand-in has.
WARDS = parse_map(
    """
resource = "Location"

[row]
table = "account"
entity_set = "accounts"
key = "accountid"
id_column = "msemr_azurefhirid"
version_column = "msemr_azurefhirversion"
updated_column = "msemr_azurefhirlastupdatedon"
routes = ["dataverse", "virtual"]
name_column = "name"

[[attribute]]
column = "name"
path = "name"
max_length = 160
""",
    "location.toml",
)


class Seconds:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


async def do_nothing(_: float) -> None:
    """Nobody waits in a test."""


@dataclass
class Workers:
    """Data routes of workers that share one storage."""

    kept: MemoryDataRouteStore = field(default_factory=MemoryDataRouteStore)
    clock: Seconds = field(default_factory=Seconds)

    def one(self, **more: Any) -> DataRoutes:
        given = {"tables": SHIPPED, "is_mirroring": True, "pause": do_nothing, **more}
        return DataRoutes(store=self.kept, clock=self.clock, **given)


@pytest.fixture
def workers() -> Workers:
    return Workers()


# --- which route a table has ----------------------------------------------------------------------


async def test_a_table_goes_the_way_its_map_says_until_another_is_chosen(workers: Workers) -> None:
    current = await workers.one().get_routes()
    assert current["Patient"] == "dataverse"
    assert {route for name, route in current.items() if name != "Patient"} == {"virtual"}
    assert current.keys() == SHIPPED.keys()


async def test_what_was_chosen_is_kept_and_known_at_once_to_the_worker_that_was_told(
    workers: Workers,
) -> None:
    routes = workers.one()
    assert (await routes.get_routes())["Observation"] == "virtual"
    await change_routes(routes, {"Observation": "dataverse"}, "somebody", None)
    assert (await routes.get_routes())["Observation"] == "dataverse"
    assert (await routes.get_routes())["Condition"] == "virtual"
    assert (await workers.one().get_routes())["Observation"] == "dataverse"  # one that starts later


async def test_a_choice_is_known_to_every_worker_after_fifteen_seconds(workers: Workers) -> None:
    candidate, other = workers.one(), workers.one()
    await other.get_routes()
    await change_routes(candidate, {"Observation": "dataverse"}, "somebody", None)
    workers.clock.now += 14.9
    assert (await other.get_routes())["Observation"] == "virtual"
    workers.clock.now += 0.1
    assert (await other.get_routes())["Observation"] == "dataverse"


async def test_a_change_is_answered_when_every_worker_uses_it(workers: Workers) -> None:
    """What the answer says of changes from now on holds for all of them."""
    other = workers.one()

    async def pass_time(seconds: float) -> None:
        await other.get_routes()  # at the last moment before the change is stored, or just after
        workers.clock.now += seconds

    candidate = workers.one(pause=pass_time)
    assert (await other.get_routes())["Observation"] == "virtual"
    await change_routes(candidate, {"Observation": "dataverse"}, "somebody", None)
    assert (await other.get_change_queues())["Observation"] == MIRROR_QUEUE


async def test_nobody_waits_for_a_choice_that_changes_nothing(workers: Workers) -> None:
    waited: list[float] = []

    async def record(seconds: float) -> None:
        waited.append(seconds)

    routes = workers.one(pause=record)
    await change_routes(routes, {"Observation": "virtual"}, "somebody", None)
    assert waited == []
    await change_routes(
        routes, {"Observation": "dataverse", "Condition": "dataverse"}, "somebody", None
    )
    assert len(waited) == 1


async def test_storage_is_not_asked_for_each_request(workers: Workers) -> None:
    routes = workers.one()
    first = await routes.get_routes()
    workers.clock.now += 14.9
    assert await routes.get_routes() is first


async def test_a_choice_that_the_map_has_no_room_for_any_more_does_not_count(
    workers: Workers,
) -> None:
    """An upgrade, or an organisation's own map, may take a route away."""
    await workers.kept.set_routes({"Patient": ChosenRoute("virtual")})
    await workers.kept.set_routes({"Basic": ChosenRoute("virtual")})
    current = await workers.one().get_routes()
    assert current["Patient"] == "dataverse"
    assert "Basic" not in current


async def test_every_table_is_told_with_its_route_and_those_it_may_have(workers: Workers) -> None:
    listed = await list_routes(workers.one())
    assert [item["resource"] for item in listed] == sorted(SHIPPED)
    (found,) = [item for item in listed if item["resource"] == "Observation"]
    assert found == {
        "resource": "Observation",
        "table": "msemr_observation",
        "entitySet": "msemr_observations",
        "route": "virtual",
        "possible": ["virtual", "dataverse"],
        "bringing": None,
        "changed": None,
        "changedBy": None,
    }


async def test_a_table_is_told_with_who_chose_its_route_and_when(workers: Workers) -> None:
    moment = datetime(2026, 3, 2, 12, tzinfo=UTC)
    routes = workers.one(now=lambda: moment)
    await change_routes(routes, {"Observation": "dataverse"}, "anna@example.org", None)
    (found,) = [item for item in await list_routes(routes) if item["resource"] == "Observation"]
    assert (found["changed"], found["changedBy"]) == (moment, "anna@example.org")
    await workers.kept.set_routes({"Goal": ChosenRoute("dataverse", "bert@example.org", moment)})
    (goal,) = [item for item in await list_routes(workers.one()) if item["resource"] == "Goal"]
    assert (goal["route"], goal["changedBy"]) == ("virtual", None)  # its map allows no other


async def test_what_a_change_would_mean_is_said_without_changing_anything(
    workers: Workers,
) -> None:
    routes = workers.one()
    meant = await describe_changes(routes, {"Observation": "dataverse"}, brings=False)
    assert meant == await change_routes(
        workers.one(), {"Observation": "dataverse"}, "somebody", None
    )
    with pytest.raises(Rejected, match="allows only the route virtual"):
        await describe_changes(routes, {"Goal": "dataverse"})


@pytest.mark.parametrize(
    ("mirrors", "of_patients", "of_observations", "of_conditions"),
    [
        (True, MIRROR_QUEUE, EXTERNAL_QUEUE, None),
        (False, None, EXTERNAL_QUEUE, None),
    ],
    ids=["with a mirror", "MIRROR_TO is off"],
)
async def test_who_hears_of_a_change_follows_from_the_route(
    workers: Workers,
    mirrors: bool,
    of_patients: str | None,
    of_observations: str | None,
    of_conditions: str | None,
) -> None:
    routes = workers.one(is_mirroring=mirrors, event_types=frozenset({"Observation"}))
    followed = await routes.get_change_queues()
    assert followed.get("Patient") == of_patients
    assert followed.get("Observation") == of_observations
    assert followed.get("Condition") == of_conditions


async def test_the_changes_of_a_mirrored_table_are_reported_after_they_are_mirrored(
    workers: Workers,
) -> None:
    routes = workers.one(event_types=frozenset({"Observation", "Patient"}))
    assert await routes.get_reported_types() == {}
    await bring(routes, Jobs(workers.kept))
    assert (await routes.get_change_queues())["Observation"] == MIRROR_QUEUE
    assert await routes.get_reported_types() == {"Observation": True}, "FHIR answers"
    await end(routes, "job 1")
    assert await routes.get_reported_types() == {"Observation": False}, "its rows answer"


# --- choosing -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "said", "where"),
    [
        (None, "send routes by resource type", None),
        ({}, "send routes by resource type", None),
        (["Observation"], "send routes by resource type", None),
        ({"Observation": "feed"}, "the route is dataverse or virtual", "Observation"),
        ({"Observation": None}, "the route is dataverse or virtual", "Observation"),
        ({"Observation": ["virtual"]}, "the route is dataverse or virtual", "Observation"),
        ({"Patient": "virtual"}, "the map of Patient allows only the route dataverse", "Patient"),
        ({"Goal": "dataverse"}, "the map of Goal allows only the route virtual", "Goal"),
    ],
)
async def test_what_is_no_choice_is_refused_with_what_would_be_one(
    workers: Workers, asked: Any, said: str, where: str | None
) -> None:
    with pytest.raises(Rejected) as caught:
        await change_routes(workers.one(), asked, "somebody", None)
    (issue,) = caught.value.issues
    assert said in issue.text
    assert issue.expression == where
    assert workers.kept.routes == {}


async def test_a_type_without_a_map_is_refused_without_quoting_it(workers: Workers) -> None:
    with pytest.raises(Rejected) as caught:
        await change_routes(workers.one(), {MARKER: "virtual"}, "somebody", None)
    (issue,) = caught.value.issues
    assert "there are AllergyIntolerance, " in issue.text
    assert MARKER not in f"{issue.text} {issue.expression}"


async def test_nothing_can_be_mirrored_where_nothing_is(workers: Workers) -> None:
    with pytest.raises(Rejected) as caught:
        await change_routes(
            workers.one(is_mirroring=False), {"Observation": "dataverse"}, "somebody", None
        )
    assert "MIRROR_TO is off" in caught.value.issues[0].text


async def test_choices_are_taken_together_or_not_at_all(workers: Workers) -> None:
    asked = {"Observation": "dataverse", "Patient": "virtual", "Goal": "dataverse"}
    with pytest.raises(Rejected) as caught:
        await change_routes(workers.one(), asked, "somebody", None)
    assert [issue.expression for issue in caught.value.issues] == ["Patient", "Goal"]
    assert workers.kept.routes == {}


async def test_the_answer_says_what_the_choice_means(workers: Workers) -> None:
    routes = workers.one()
    meant = await change_routes(
        routes, {"Observation": "dataverse", "Condition": "virtual"}, "somebody", None
    )
    assert meant["Condition"] == "virtual, unchanged"
    assert "is answered from the rows of msemr_observation at once" in meant["Observation"]
    assert "python -m integration reconcile --type Observation" in meant["Observation"]
    back = await change_routes(routes, {"Observation": "virtual"}, "somebody", None)
    assert "msemr_observations at /api/odata/ is answered from FHIR" in back["Observation"]
    assert "rows of msemr_observation stay as they are" in back["Observation"]


# --- bringing the rows first ----------------------------------------------------------------------


@dataclass
class Jobs:
    """The jobs that were added: of which type and by whom; and those that were told to begin:
    after how many seconds, and which job the store named by then."""

    kept: MemoryDataRouteStore
    added: list[tuple[str, str]] = field(default_factory=list)
    begun: list[tuple[str, float, str | None]] = field(default_factory=list)

    async def add(self, type_: str, by: str) -> str:
        self.added.append((type_, by))
        return f"job {len(self.added)}"

    async def begin(self, job: str, delay: float) -> None:
        self.begun.append((job, delay, self.kept.routes["Observation"].bringing))

    @property
    def parts(self) -> BringingJobs:
        return BringingJobs(add=self.add, begin=self.begin)


async def bring(routes: DataRoutes, jobs: Jobs, route: str = "dataverse") -> dict[str, str]:
    return await change_routes(routes, {"Observation": route}, "anna", jobs.parts)


async def end(routes: DataRoutes, job: str, *, is_brought: bool = True) -> bool:
    return await end_bringing(routes, "Observation", job, is_brought=is_brought)


async def test_while_the_rows_are_brought_fhir_answers_and_changes_are_mirrored(
    workers: Workers,
) -> None:
    routes, jobs = workers.one(), Jobs(workers.kept)
    meant = await bring(routes, jobs)
    assert "a job brings what was there before" in meant["Observation"]
    assert jobs.added == [("Observation", "anna")]
    ((job, delay, named),) = jobs.begun
    assert job == named == "job 1", "changes are mirrored before it begins"
    assert delay >= 30, "by then every worker mirrors, and a search shows what was written before"
    assert (await routes.get_routes())["Observation"] == "virtual"
    assert (await routes.get_change_queues())["Observation"] == MIRROR_QUEUE
    listed = {item["resource"]: item["bringing"] for item in await list_routes(routes)}
    assert listed["Observation"] == "job 1"
    assert listed["Condition"] is None


async def test_the_end_of_the_job_has_dataverse_answer(workers: Workers) -> None:
    routes, jobs = workers.one(), Jobs(workers.kept)
    await bring(routes, jobs)
    assert await end(workers.one(), "job 1")
    routes.clear_cache()
    assert (await routes.get_routes())["Observation"] == "dataverse"
    assert not routes.is_bringing("Observation")
    assert await end(routes, "job 1"), "a repeated end changes nothing"


async def test_who_chooses_it_again_gets_another_job(workers: Workers) -> None:
    """The first one may have been stopped."""
    routes, jobs = workers.one(), Jobs(workers.kept)
    await bring(routes, jobs)
    await bring(routes, jobs)
    assert not await is_brought_by(routes, "Observation", "job 1")
    assert await is_brought_by(routes, "Observation", "job 2")
    assert not await end(routes, "job 1")
    assert await end(routes, "job 2")


async def test_where_rows_are_missing_nothing_is_mirrored_any_more(workers: Workers) -> None:
    routes, jobs = workers.one(), Jobs(workers.kept)
    await bring(routes, jobs)
    assert not await end(routes, "job 1", is_brought=False)
    assert (await routes.get_routes())["Observation"] == "virtual"
    assert not routes.is_bringing("Observation")
    assert (await routes.get_change_queues()).get("Observation") is None


async def test_a_slow_answer_is_as_old_as_its_question(workers: Workers) -> None:
    """Else a worker would use what it was told for longer than a change waits for it."""
    routes = workers.one()

    class Slow(MemoryDataRouteStore):
        async def list_routes(self) -> Mapping[str, ChosenRoute]:
            listed = dict(await workers.kept.list_routes())
            workers.clock.now += 14
            return listed

    slow = replace(routes, store=Slow())
    await slow.get_routes()
    workers.kept.routes["Observation"] = ChosenRoute("dataverse")
    workers.clock.now += 2
    assert (await slow.get_routes())["Observation"] == "dataverse"


async def test_one_step_ends_the_bringing_and_its_job_changes_nothing_any_more(
    workers: Workers,
) -> None:
    routes, jobs = workers.one(), Jobs(workers.kept)
    await bring(routes, jobs)
    back = await bring(routes, jobs, "virtual")
    assert "no longer brought" in back["Observation"]
    assert (await routes.get_change_queues()).get("Observation") is None
    assert not await end(routes, "job 1")
    assert (await routes.get_routes())["Observation"] == "virtual"
    await bring(routes, jobs)
    assert not await end(routes, "job 1"), "another job brings them now"
    assert await end(routes, "job 2")


async def test_a_choice_at_the_same_moment_is_not_written_over_by_the_end_of_a_job(
    workers: Workers,
) -> None:
    routes, jobs = workers.one(), Jobs(workers.kept)
    await bring(routes, jobs)

    class Late(MemoryDataRouteStore):
        async def set_routes(self, chosen: Any, seen: Any = None) -> bool:
            workers.kept.routes["Observation"] = ChosenRoute("virtual", "bert")
            return await workers.kept.set_routes(chosen, seen)

    late = replace(routes, store=Late(workers.kept.routes))
    assert not await end(late, "job 1")
    assert workers.kept.routes["Observation"] == ChosenRoute("virtual", "bert")


async def test_where_the_rows_cannot_be_brought_nothing_changes(workers: Workers) -> None:
    async def refuse(type_: str, by: str) -> str:
        raise Rejected(Issue("conflict", "there is no such table"), status=409)

    routes, jobs = workers.one(), Jobs(workers.kept)
    refusing = replace(jobs.parts, add=refuse)
    with pytest.raises(Rejected, match="no such table"):
        await change_routes(routes, {"Observation": "dataverse"}, "anna", refusing)
    assert jobs.begun == []
    assert workers.kept.routes == {}


async def test_what_stays_as_it_was_is_not_kept_as_a_choice(workers: Workers) -> None:
    """So that the map goes on deciding."""
    await change_routes(workers.one(), {"Observation": "virtual"}, "somebody", None)
    assert workers.kept.routes == {}


# --- what a switch does ---------------------------------------------------------------------------


@dataclass
class Wards:
    """One table on its way: the route of deliveries, its mirror, and the feed."""

    route: Route
    data: DataRoutes
    row_keys: MemoryRowKeys = field(default_factory=MemoryRowKeys)

    @property
    def relay(self) -> Relay:
        relay = self.route.relay
        return replace(
            relay, context=replace(relay.context, change_queues=self.data.get_change_queues)
        )

    @property
    def feed(self) -> VirtualTables:
        keys = RowKeyResolver(self.row_keys, lambda type_: type_ == "Patient")
        route, fhir = self.route, self.route.fhir
        writing = FeedWriter(
            fhir=fhir,
            keys=keys,
            guard=route.order,
            new_run_id=lambda: DELIVERY,
            new_key=lambda: pytest.fail("no POST"),
            today=lambda: TODAY,
        )
        shapes = {"Location": build_entity_type(WARDS)}
        return VirtualTables(
            data_routes=self.data,
            entity_types=shapes,
            reader=FeedReader(fhir, keys, 100, lambda: TODAY, get_token_key),
            writer=writing,
            audit=make_recorder(),
            max_page_size=10,
            timeout=25.0,
            rows=PhysicalTables(
                dataverse=route.dataverse,
                maps={"Location": WARDS},
                max_scanned=100,
                get_token_key=get_token_key,
            ),
        )

    async def deliver(self, name: str) -> None:
        ward: Body = {"resourceType": "Location", "id": WARD, "name": name}
        put = entry(ward, method="PUT", url=f"Location/{WARD}")
        await relaying.process(self.relay, WorkItem(await self.route.deliver(bundle(put))))

    async def mirror(self) -> list[str]:
        """What becomes of each claim that is queued."""
        mirror = replace(
            self.route.mirror,
            maps={"Location": WARDS.select_route(DataRoute.DATAVERSE)},
            change_queues=self.data.get_change_queues,
        )
        done = []
        for message in [item for item in self.route.queue_sender.sent if item[0] == MIRROR_QUEUE]:
            self.route.queue_sender.sent.remove(message)
            await mirroring.mirror_resource(mirror, message[1])
            noted = await self.route.journal.list_row_results(message[1].delivery)
            done += [row.action for row in noted]
        return done

    async def rows(self) -> list[str]:
        """As the mirror has brought them."""
        return [row["name"] for row in await self.route.dataverse_double.rows("accounts")]

    async def ask(self, path: str) -> int:
        return (
            await answer_request(
                self.feed,
                ODataRequest(
                    method="GET", root="http://a/api/odata/", path=path, query="", headers={}
                ),
                Reader(),
            )
        ).status


@pytest.fixture
def wards(route: Route, workers: Workers) -> Wards:
    table = MappedTable("Location", "account", "accounts", ("dataverse", "virtual"))
    route.all_maps = {**route.all_maps, "Location": WARDS}
    return Wards(route, workers.one(tables={"Location": table}))


async def test_a_mirrored_table_is_answered_from_its_rows(wards: Wards) -> None:
    await wards.deliver("Ward 1")
    assert await wards.mirror() == ["created"]
    assert await wards.rows() == ["Ward 1"]
    wards.route.fhir_double.received.clear()
    for path in ("accounts", f"accounts({WARD})", "accounts/$count"):
        assert await wards.ask(path) == 200
    assert wards.route.fhir_double.received == []


async def test_a_table_that_becomes_virtual_is_shown_and_no_longer_mirrored(wards: Wards) -> None:
    await wards.deliver("Ward 1")
    await wards.mirror()
    await change_routes(wards.data, {"Location": "virtual"}, "somebody", None)
    await wards.deliver("Ward 2")
    assert wards.route.mirrored == []
    assert await wards.rows() == ["Ward 1"]  # as it was
    assert [await wards.ask(path) for path in ("accounts", f"accounts({WARD})")] == [200, 200]


async def test_what_was_queued_before_a_table_became_virtual_is_left_and_noted(
    wards: Wards,
) -> None:
    await wards.deliver("Ward 1")
    await change_routes(wards.data, {"Location": "virtual"}, "somebody", None)
    assert await wards.mirror() == ["skipped"]
    assert await wards.rows() == []
    assert wards.route.mirrored == []


async def test_a_table_that_is_mirrored_again_gets_its_changes(wards: Wards) -> None:
    await change_routes(wards.data, {"Location": "virtual"}, "somebody", None)
    await wards.deliver("Ward 1")
    await change_routes(wards.data, {"Location": "dataverse"}, "somebody", None)
    await wards.deliver("Ward 2")
    assert await wards.mirror() == ["created"]
    assert await wards.rows() == ["Ward 2"]
    assert await wards.ask(f"accounts({WARD})") == 200


# --- reconcile ------------------------------------------------------------------------------------


LOOK_ONLY = argparse.Namespace(dry_run=True, fhir_is_right=False)


@pytest.fixture
def stated(azurite: Running, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Settings of an app whose neighbours are not there."""
    monkeypatch.setenv("AzureWebJobsStorage", azurite.storage)
    for name in ("FHIR", "DATAVERSE"):
        monkeypatch.setenv(f"{name}_URL", "http://127.0.0.1:1")
        monkeypatch.setenv(f"{name}_SCOPE", "none")
    return monkeypatch


@pytest.mark.azurite
async def test_a_reconcile_looks_at_what_is_mirrored_and_nothing_else(stated: Any) -> None:
    async def reconciled() -> set[str]:
        async with command.open_reconcile(LOOK_ONLY) as reconcile:
            return {*reconcile.mirror.maps}

    async def chosen(route: str) -> None:
        routes = (await wiring.get_parts()).data_routes
        routes.pause = do_nothing
        await change_routes(routes, {"Observation": route}, "somebody", None)
        await wiring.close_parts()

    assert await reconciled() == {"Patient"}
    await chosen("dataverse")
    try:
        assert await reconciled() == {"Observation", "Patient"}
    finally:
        await chosen("virtual")
    assert await reconciled() == {"Patient"}


@pytest.mark.azurite
async def test_where_nothing_is_mirrored_there_is_nothing_to_reconcile(stated: Any) -> None:
    stated.setenv("MIRROR_TO", "off")
    with pytest.raises(Misconfigured, match="nothing is mirrored"):
        async with command.open_reconcile(LOOK_ONLY):
            pass
