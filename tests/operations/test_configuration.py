"""The configuration is changed as a whole, in one step; what is broken is never published, and what
was published can be taken back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from integration.core.errors import Rejected, Unavailable
from integration.journal.configuration import DATA_ROUTES, LEFT_OUT, ConfigurationVersion
from integration.journal.jobs import JobKind, MemoryJobs
from integration.operations.configuration import (
    ConfigurationParts,
    check_changes,
    compare_versions,
    discard_draft,
    find_draft,
    find_version,
    list_history,
    publish,
    publish_draft,
    read_changes,
    roll_back,
    save_draft,
)
from integration.operations.configuration_requests import (
    change_configuration,
    preview_changes,
    show_configuration,
)
from integration.operations.configuration_views import parse_configuration_request
from integration.operations.jobs import JobParts
from integration.operations.reconcile_jobs import ReconcileWork
from integration.queues.queue_sender import MemoryQueueSender
from tests.builders import MARKER
from tests.configured import GOAL, PATIENT, add_column, build_parts, change_patient
from tests.conftest import Route

ANNA = "anna@example.org"


@pytest.fixture
def parts(route: Route) -> ConfigurationParts:
    return build_parts(route)


async def read_text(parts: ConfigurationParts, name: str = PATIENT) -> str | None:
    documents = (await parts.live.refresh()).documents
    return documents[name].text if name in documents else None


async def refuse(work: Any) -> Rejected:
    with pytest.raises(Rejected) as caught:
        await work
    return caught.value


# -- publishing -----------------------------------------------------------------------------------


async def test_what_is_published_is_in_use_with_who_when_and_why(
    parts: ConfigurationParts,
) -> None:
    changes = add_column(parts, "department", "id")
    version = await publish(parts, changes, why=" the ward's column ", by=ANNA)
    assert (version.number, version.published_by, version.why) == (1, ANNA, "the ward's column")
    assert version.published == parts.now()
    assert await read_text(parts) == changes[PATIENT]
    assert await list_history(parts) == [version]


async def test_it_says_why_or_is_not_published(parts: ConfigurationParts) -> None:
    error = await refuse(publish(parts, add_column(parts, "department", "id"), why=" ", by=ANNA))
    assert "say in a few words why" in str(error)
    assert await list_history(parts) == []


BROKEN: dict[str, tuple[str, str, str]] = {
    "no TOML": ("[row]", "[row", "patient.toml: not valid TOML"),
    "an unknown key": ("[row]", "[row]\ntabel = 1", "tabel"),
    "a path that is none": ('path = "gender"', 'path = "gender."', "patient.toml:"),
    "a column that the table lacks": (
        'column = "gendercode"', 'column = "abc_gender"', "contact has no column abc_gender"
    ),
    "a table that is not there": ('table = "contact"', 'table = "abc_contact"', "abc_contact"),
    "a column twice": (
        'column = "gendercode"', 'column = "birthdate"', "birthdate"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_broken_is_not_published_and_says_where(
    parts: ConfigurationParts, name: str
) -> None:
    old, new, told = BROKEN[name]
    error = await refuse(publish(parts, change_patient(parts, old, new), why="x", by=ANNA))
    assert error.status == 422
    assert told in str(error)
    assert (await parts.live.refresh()).version == ConfigurationVersion()


async def test_senders_with_a_mistake_are_not_published(parts: ConfigurationParts) -> None:
    text = '[acme.proof]\nscheme = "baerer"\n'
    error = await refuse(publish(parts, {"senders.toml": text}, why="x", by=ANNA))
    assert "senders.toml:2: scheme must be one of" in str(error)


async def test_a_route_that_its_map_does_not_allow_is_not_published(
    parts: ConfigurationParts,
) -> None:
    text = '[Patient]\nroute = "virtual"\n'
    error = await refuse(publish(parts, {DATA_ROUTES: text}, why="x", by=ANNA))
    assert "its map allows the route dataverse" in str(error)


async def test_a_map_that_was_broken_before_does_not_stop_another(
    parts: ConfigurationParts,
) -> None:
    parts.live.package = {**parts.live.package, GOAL: parts.live.package[PATIENT]}
    checked = await check_changes(parts, {"maps/condition.toml": "["})
    assert all("condition" in problem for problem in checked.problems)


@pytest.mark.parametrize("name", ["patient.toml", "maps/../x.toml", "", "x" * 5000])
async def test_a_name_that_no_document_has_is_refused(parts: ConfigurationParts, name: str) -> None:
    error = await refuse(publish(parts, {name: "x"}, why="x", by=ANNA))
    assert "no document has this name" in str(error)


async def test_a_document_has_a_bound(parts: ConfigurationParts) -> None:
    error = await refuse(check_changes(parts, {PATIENT: "#" * 500_001}))
    assert error.status == 413


async def test_nothing_is_published_where_nothing_differs(parts: ConfigurationParts) -> None:
    same = {PATIENT: parts.live.package[PATIENT].text}
    error = await refuse(publish(parts, same, why="x", by=ANNA))
    assert "nothing differs" in str(error)


async def test_nothing_is_published_while_nobody_knows_whether_it_fits(
    parts: ConfigurationParts, route: Route
) -> None:
    route.dataverse_double.will_fail(kind="throttle", next=50)
    with pytest.raises(Unavailable, match="whether the map fits is not known"):
        await publish(parts, add_column(parts, "department", "id"), why="x", by=ANNA)
    assert await list_history(parts) == []


async def test_a_column_that_was_just_added_is_known_at_once(
    parts: ConfigurationParts, route: Route
) -> None:
    """The columns of a table are cached for long: who has just added one shall not wait."""
    await check_changes(parts, add_column(parts, "department", "id"))
    before = len(route.dataverse_double.received)
    await check_changes(parts, add_column(parts, "department", "id"))
    assert len(route.dataverse_double.received) == before
    await check_changes(parts, add_column(parts, "abc_new", "id"))
    assert len(route.dataverse_double.received) > before


async def test_what_is_as_the_package_has_it_is_not_kept(parts: ConfigurationParts) -> None:
    """So the next release of the package reaches it."""
    await publish(parts, add_column(parts, "department", "id"), why="x", by=ANNA)
    shipped = parts.live.package[PATIENT].text
    version = await publish(parts, {PATIENT: shipped}, why="back", by=ANNA)
    assert version.documents == {}
    again = await publish(parts, add_column(parts, "department", "id"), why="x", by=ANNA)
    assert [*again.documents] == [PATIENT]
    assert (await publish(parts, {PATIENT: None}, why="back", by=ANNA)).documents == {}


async def test_a_map_can_be_left_out(parts: ConfigurationParts) -> None:
    version = await publish(parts, {GOAL: LEFT_OUT}, why="no goals", by=ANNA)
    assert version.documents == {GOAL: LEFT_OUT}
    assert await read_text(parts, GOAL) is None


# -- people at once -------------------------------------------------------------------------------


async def test_of_two_who_publish_at_once_one_is_told(parts: ConfigurationParts) -> None:
    results = await asyncio.gather(
        *(
            publish(parts, add_column(parts, "department", f"'{number}'"), why="x", by=ANNA)
            for number in range(2)
        ),
        return_exceptions=True,
    )
    refused = [result for result in results if isinstance(result, Rejected)]
    assert [error.status for error in refused] == [409]
    assert len(await list_history(parts)) == 1


async def test_what_somebody_else_has_changed_since_is_not_overwritten(
    parts: ConfigurationParts,
) -> None:
    await publish(parts, add_column(parts, "department", "id"), why="x", by="ben@example.org")
    changes = add_column(parts, "jobtitle", "id")
    error = await refuse(publish(parts, changes, why="x", by=ANNA, base=0))
    assert error.status == 409
    assert "ben@example.org has published version 1 meanwhile" in str(error)
    goal = {GOAL: parts.live.package[GOAL].text + "\n# a comment\n"}
    version = await publish(parts, goal, why="x", by=ANNA, base=0)
    assert {*version.documents} == {PATIENT, GOAL}


# -- rolling back ---------------------------------------------------------------------------------


async def test_a_roll_back_is_one_step_and_a_version_of_its_own(
    parts: ConfigurationParts,
) -> None:
    await publish(parts, add_column(parts, "department", "id"), why="first", by=ANNA)
    first = await read_text(parts)
    await publish(parts, add_column(parts, "jobtitle", "id"), why="second", by=ANNA)
    version = await roll_back(parts, 1, why="it was wrong", by=ANNA)
    assert (version.number, version.restores) == (3, 1)
    assert await read_text(parts) == first
    back = await roll_back(parts, 0, why="all of it", by=ANNA)
    assert (back.number, back.documents) == (4, {})
    assert await read_text(parts) == parts.live.package[PATIENT].text


async def test_a_roll_back_leaves_the_data_routes_unless_it_names_them(
    parts: ConfigurationParts,
) -> None:
    await publish(parts, {DATA_ROUTES: '[Goal]\nroute = "virtual"\n'}, why="x", by=ANNA)
    await publish(parts, add_column(parts, "department", "id"), why="x", by=ANNA)
    version = await roll_back(parts, 0, why="x", by=ANNA)
    assert [*version.documents] == [DATA_ROUTES]
    version = await roll_back(parts, 0, why="x", by=ANNA, names=[DATA_ROUTES])
    assert version.documents == {}


async def test_a_roll_back_to_what_is_so_already_or_never_was_is_refused(
    parts: ConfigurationParts,
) -> None:
    await publish(parts, add_column(parts, "department", "id"), why="x", by=ANNA)
    assert "has the same documents" in str(await refuse(roll_back(parts, 1, why="x", by=ANNA)))
    assert (await refuse(roll_back(parts, 7, why="x", by=ANNA))).status == 404


async def test_versions_are_compared_by_their_documents(parts: ConfigurationParts) -> None:
    changes = add_column(parts, "department", "id")
    version = await publish(parts, changes, why="x", by=ANNA)
    (item,) = await compare_versions(parts, await find_version(parts, 0), version)
    assert (item.name, item.before) == (PATIENT, parts.live.package[PATIENT].text)
    assert item.after == changes[PATIENT]


# -- drafts ---------------------------------------------------------------------------------------


async def test_a_draft_is_kept_changed_and_published(parts: ConfigurationParts) -> None:
    draft = await save_draft(parts, add_column(parts, "department", "id"), by=ANNA)
    goal = parts.live.package[GOAL].text + "\n# a comment\n"
    await save_draft(parts, {GOAL: goal}, by=ANNA, id_=draft.id)
    changes = await read_changes(parts, await find_draft(parts, draft.id))
    assert {*changes} == {PATIENT, GOAL}
    version = await publish_draft(parts, draft.id, why="both", by=ANNA)
    assert {*version.documents} == {PATIENT, GOAL}
    assert (await refuse(find_draft(parts, draft.id))).status == 404


async def test_a_broken_draft_can_be_kept_and_not_published(parts: ConfigurationParts) -> None:
    draft = await save_draft(parts, {PATIENT: "["}, by=ANNA)
    assert (await refuse(publish_draft(parts, draft.id, why="x", by=ANNA))).status == 422
    await discard_draft(parts, draft.id)
    assert (await refuse(find_draft(parts, draft.id))).status == 404


# -- as JSON --------------------------------------------------------------------------------------


async def test_it_is_asked_and_told_as_json(parts: ConfigurationParts) -> None:
    changes = add_column(parts, "department", "id")
    body = {"changes": changes, "why": "the ward", "by": "whoever says so"}
    wanted = parse_configuration_request(body, None)
    checked = await change_configuration(parts, wanted, dry_run=True)
    assert checked == {"base": 0, "changed": [PATIENT], "maps": ["Patient"], "problems": []}
    published = await change_configuration(parts, wanted, dry_run=False)
    assert (published["version"], published["published_by"]) == (1, "whoever says so")
    told = await show_configuration(parts, {})
    assert told["version"] == 1
    documents = {item["name"]: item["from"] for item in told["documents"]}
    assert (documents[PATIENT], documents[GOAL]) == ("published", "clinical")
    assert [item["why"] for item in told["history"]] == ["the ward"]
    earlier = await show_configuration(parts, {"version": "0"})
    assert {item["from"] for item in earlier["documents"]} == {"healthcare", "clinical"}
    restore = parse_configuration_request({"restore": 0, "why": "no"}, ANNA)
    restored = await change_configuration(parts, restore, dry_run=False)
    assert (restored["restores"], restored["published_by"]) == (0, ANNA)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"changes": {PATIENT: 1}},
        {"changes": [PATIENT]},
        {"changes": {PATIENT: None}, "restore": 1},
        {"restore": True},
        {"restore": -1},
        {"restore": 1, "documents": "x"},
        {"restore": 1, "why": 3},
        {"restore": 1, "why": "a\nb"},
        {"restore": 1, "name": "x"},
    ],
)
def test_a_body_that_says_nothing_clear_is_refused(body: Any) -> None:
    with pytest.raises(Rejected):
        parse_configuration_request(body, None)


@pytest.mark.parametrize(
    "query", [{"version": "x"}, {"version": "-1"}, {"before": ""}, {"dry-run": "true"}]
)
async def test_a_query_that_means_nothing_is_refused(
    parts: ConfigurationParts, query: dict[str, str]
) -> None:
    await refuse(show_configuration(parts, query))


# -- previews -------------------------------------------------------------------------------------


def build_jobs(route: Route, jobs: MemoryJobs) -> JobParts:
    async def list_comparisons(_: str) -> list[str]:
        return ["content"]

    return JobParts(
        jobs=jobs,
        journal=route.journal,
        queue=MemoryQueueSender(),
        now=route.clock,
        new_token=lambda: "0" * 16,
        reconcile=ReconcileWork(
            list_comparisons=list_comparisons, check_bringing=None, work=None, preview=None
        ),  # type: ignore[arg-type]
    )


async def test_a_preview_is_a_job_that_knows_the_changes_by_their_digests(
    parts: ConfigurationParts, route: Route
) -> None:
    jobs = MemoryJobs()
    changes = add_column(parts, "department", f"'{MARKER}'")
    wanted = parse_configuration_request({"changes": changes, "by": ANNA}, None)
    job = await preview_changes(parts, build_jobs(route, jobs), wanted, {"preview": "Patient"})
    assert (job.kind, job.started_by) == (JobKind.PREVIEW, ANNA)
    preview = job.filter.preview
    assert preview is not None
    assert (preview.type, preview.base, [*preview.changes]) == ("Patient", 0, [PATIENT])
    assert await parts.live.read_text(preview.changes[PATIENT] or "") == changes[PATIENT]


@pytest.mark.parametrize(("type_", "status"), [("Goal", 400), ("Nothing", 400)])
async def test_a_preview_of_what_does_not_change_is_refused(
    parts: ConfigurationParts, route: Route, type_: str, status: int
) -> None:
    changes = add_column(parts, "department", "id")
    wanted = parse_configuration_request({"changes": changes}, None)
    work = preview_changes(parts, build_jobs(route, MemoryJobs()), wanted, {"preview": type_})
    assert (await refuse(work)).status == status


async def test_a_preview_of_what_is_broken_is_refused(
    parts: ConfigurationParts, route: Route
) -> None:
    wanted = parse_configuration_request({"changes": {PATIENT: "["}}, None)
    work = preview_changes(parts, build_jobs(route, MemoryJobs()), wanted, {"preview": "Patient"})
    assert (await refuse(work)).status == 422
