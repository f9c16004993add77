"""An admin changes a map in a page: what is typed is checked, a draft is tried on every patient,
published with a reason, and taken back; others may look."""

from __future__ import annotations

from dataclasses import replace
from html import escape

import pytest

from integration.journal.configuration import DATA_ROUTES, LEFT_OUT
from integration.journal.jobs import JobKind, PreviewSummary
from integration.operations.configuration import publish
from integration.queues.names import JOB_QUEUE, MIRROR_QUEUE
from tests.builders import MARKER
from tests.configured import GOAL, PATIENT, add_column, build_parts
from tests.conftest import Route
from tests.pages.asking import NAME, Visitor, visit
from tests.reconcile.desk import Desk


@pytest.fixture
def admin(route: Route) -> Visitor:
    """An admin, and the jobs that compare the two ends of the route."""
    desk = Desk(route, queues={"Patient": MIRROR_QUEUE})
    return visit(route, "reader", "admin", jobs=desk.parts)


def read_shipped(visitor: Visitor, name: str = PATIENT) -> str:
    return visitor.parts.configuration.live.package[name].text


def make_text(visitor: Visitor, column: str = "department") -> str:
    return str(add_column(visitor.parts.configuration, column, "id")[PATIENT])


async def save(visitor: Visitor, text: str, **fields: str) -> str:
    """Save a draft. Return the address of its page."""
    given = {"document": PATIENT, "text": text.replace("\n", "\r\n"), "do": "save", **fields}
    reply = await visitor.post("configuration/edit", **given)
    assert reply.status == 303, reply.text
    return reply.location


async def publish_one(visitor: Visitor, column: str = "department") -> None:
    parts = visitor.parts.configuration
    await publish(parts, add_column(parts, column, "id"), why=f"the {column}", by=NAME)


# -- what everybody sees --------------------------------------------------------------------------


async def test_before_anything_is_published_the_package_is_in_use(route: Route) -> None:
    reply = await visit(route, "reader").get("configuration")
    assert "Version 0 is in use" in reply.text
    assert "Nothing was published yet." in reply.text
    assert reply.row(PATIENT) == [PATIENT, "the package, set healthcare"]
    assert "Edit" not in reply.text
    assert "The role admin may change them." in reply.text


async def test_versions_are_listed_with_who_when_and_why(admin: Visitor) -> None:
    await publish_one(admin)
    reply = await admin.get("configuration")
    assert "Version 1 is in use: 1 document differs" in reply.text.replace("\u00a0", " ")
    assert reply.row("1") == ["1", "2026-03-01 19:45 UTC", NAME, "the department"]
    assert reply.row(PATIENT)[1] == "published here"
    shown = await admin.get("configuration/versions/1")
    assert '+ column = "department"' in shown.text
    assert "in use" in shown.text


async def test_a_long_history_has_pages(admin: Visitor) -> None:
    for number in range(53):
        parts = admin.parts.configuration
        text = {PATIENT: read_shipped(admin) + f"\n# {number}\n"}
        await publish(parts, text, why=f"number {number}", by=NAME)
    reply = await admin.get("configuration")
    assert "number 52" in reply.text
    assert "number 2 " not in reply.text
    (following,) = [link for link in reply.links if "before=" in link]
    older = await admin.get(following)
    assert "number 2" in older.text
    assert "number 3 " not in older.text


@pytest.mark.parametrize("path", ["configuration/versions/7", "configuration/versions/x"])
async def test_a_version_that_never_was_is_a_page(admin: Visitor, path: str) -> None:
    assert (await admin.get(path)).status in (400, 404)


# -- the editor -----------------------------------------------------------------------------------


async def test_a_document_is_edited_as_it_is_in_use(admin: Visitor) -> None:
    reply = await admin.get("configuration/edit", document=PATIENT)
    assert escape(read_shipped(admin), quote=True) in reply.html.replace("&#34;", "&quot;").replace(
        "&#39;", "&#x27;"
    )
    assert 'hx-trigger="input changed delay:700ms"' in reply.html
    new = await admin.get("configuration/edit", document="coverage.toml")
    assert "maps/coverage.toml" in new.text


@pytest.mark.parametrize("name", ["", "../x.toml", "maps/X Y.toml", MARKER])
async def test_only_a_document_is_edited(admin: Visitor, name: str) -> None:
    reply = await admin.get("configuration/edit", document=name)
    assert reply.status == 400
    assert "name a document" in reply.text


async def test_what_is_typed_is_checked_and_nothing_is_kept(admin: Visitor) -> None:
    text = make_text(admin, "abc_missing")
    reply = await admin.post("configuration/edit", document=PATIENT, text=text, do="check")
    assert reply.status == 200
    assert "contact has no column abc_missing" in reply.text
    assert '+ column = "abc_missing"' in reply.text
    assert await admin.parts.configuration.live.store.list_drafts() == []
    right = await admin.post("configuration/edit", document=PATIENT, text=make_text(admin))
    assert "It can be published. It makes the rows of Patient." in right.text
    same = await admin.post("configuration/edit", document=PATIENT, text=read_shipped(admin))
    assert "nothing differs" in same.text
    broken = await admin.post("configuration/edit", document=PATIENT, text="[row")
    assert "not valid TOML" in broken.text


async def test_a_text_comes_back_from_a_browser_as_it_was(admin: Visitor) -> None:
    path = await save(admin, read_shipped(admin))
    reply = await admin.get(path)
    assert f"As they are in use already: {PATIENT}" in reply.text
    assert 'value="publish"' not in reply.html


async def test_a_document_that_is_too_large_is_refused(admin: Visitor) -> None:
    text = "#" * 500_001
    reply = await admin.post("configuration/edit", document=PATIENT, text=text, do="save")
    assert reply.status == 413


# -- drafts ---------------------------------------------------------------------------------------


async def test_a_draft_is_published_with_a_reason(admin: Visitor) -> None:
    path = await save(admin, make_text(admin))
    reply = await admin.get(path)
    assert "can be published" in reply.text
    assert '+ column = "department"' in reply.text
    refused = await admin.post(path, do="publish")
    assert refused.status == 400
    assert "say in a few words why" in refused.text
    done = await admin.post(path, do="publish", why="  the ward's\tcolumn ")
    assert (done.status, done.location) == (303, "configuration/versions/1")
    shown = await admin.get(done.location)
    assert "the ward's column" in shown.text
    assert "Every worker works by this version within 15 seconds" in shown.text
    assert (await admin.get(path)).status == 404


async def test_a_draft_takes_several_documents(admin: Visitor) -> None:
    path = await save(admin, make_text(admin))
    id_ = path.rpartition("/")[2]
    edit = await admin.get("configuration/edit", document=PATIENT, draft=id_)
    assert "department" in edit.text
    again = await admin.post("configuration/edit", document=GOAL, draft=id_, do="leave-out")
    assert again.location == path
    reply = await admin.get(path)
    assert f"{GOAL} is not used any more" in reply.text
    await admin.post(path, do="publish", why="both")
    version = await admin.parts.configuration.live.store.read_latest()
    assert version.documents[GOAL] == LEFT_OUT
    assert PATIENT in version.documents
    listed = await admin.get("configuration")
    assert listed.row(GOAL)[1] == "not used"
    back = await admin.post("configuration/edit", document=GOAL, do="package")
    await admin.post(back.location, do="publish", why="again")
    assert GOAL not in (await admin.parts.configuration.live.store.read_latest()).documents


async def test_a_broken_draft_says_what_is_wrong_and_cannot_be_published(admin: Visitor) -> None:
    path = await save(admin, "[row")
    reply = await admin.get(path)
    assert "cannot be published" in reply.text
    assert "not valid TOML" in reply.text
    assert 'value="publish"' not in reply.html
    assert (await admin.post(path, do="publish", why="x")).status == 422
    assert (await admin.post(path, do="discard")).location == "configuration"
    assert "Drafts" not in (await admin.get("configuration")).text


async def test_what_somebody_else_has_published_meanwhile_is_told(admin: Visitor) -> None:
    path = await save(admin, make_text(admin))
    await publish_one(admin, "jobtitle")
    reply = await admin.get(path)
    assert "version 1 is in use now" in reply.text
    refused = await admin.post(path, do="publish", why="x")
    assert refused.status == 409
    assert "has published version 1 meanwhile" in refused.text


async def test_a_draft_is_tried_on_every_patient(admin: Visitor, route: Route) -> None:
    path = await save(admin, make_text(admin))
    assert "Look at every Patient" in (await admin.get(path)).text
    reply = await admin.post(path, do="preview", type="Patient")
    assert reply.status == 303
    job = await admin.parts.jobs.jobs.get_job(reply.location.removeprefix("jobs/"))
    assert job is not None
    assert (job.kind, job.started_by) == (JobKind.PREVIEW, NAME)
    summary = PreviewSummary(
        columns={"department": 12, "jobtitle": 3}, without_row=2, examples=("Patient/p1",)
    )
    await admin.parts.jobs.jobs.save_job(
        replace(job, found=20, looked_at=20, done=13, left_out=7, summary=summary)
    )
    shown = await admin.get(reply.location)
    assert shown.row("department") == ["department", "12"]
    assert "Rows that would change 13 Rows that would stay 5 Without a row yet 2" in shown.text
    assert "Such as Patient/p1" in shown.text
    assert not any("patients/p1" in link for link in shown.links)
    nurse = admin.with_roles("reader", "phi")
    assert "/api/pages/patients/p1" in (await nurse.get(reply.location)).links
    assert "Preview" in (await admin.get("jobs")).text


# -- going back -----------------------------------------------------------------------------------


async def test_a_version_is_taken_back_after_seeing_what_that_changes(admin: Visitor) -> None:
    await publish_one(admin)
    shown = await admin.get("configuration/versions/0")
    assert "Version 0 would be published again, as version 2." in shown.text
    assert '- column = "department"' in shown.text
    refused = await admin.post("configuration/versions/0", do="restore")
    assert refused.status == 400
    done = await admin.post("configuration/versions/0", do="restore", why="it was wrong")
    assert done.location == "configuration/versions/2"
    assert (await admin.parts.configuration.live.store.read_latest()).documents == {}
    assert "The same as version 0" in (await admin.get(done.location)).text


async def test_rows_are_brought_after_every_worker_knows_the_version(admin: Visitor) -> None:
    await publish_one(admin)
    assert "Bring all rows of Patient" in (await admin.get("configuration/versions/1")).text
    reply = await admin.post("configuration/versions/1", do="bring", type="Patient")
    assert reply.status == 303
    queue = admin.parts.jobs.queue
    assert [(name, delay) for name, _, delay in queue.sent] == [(JOB_QUEUE, 15.0)]
    refused = await admin.post("configuration/versions/1", do="bring", type="Goal")
    assert refused.status == 409


# -- rights ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["reader", "operator", "phi"])
async def test_nobody_but_an_admin_may_change_anything(admin: Visitor, role: str) -> None:
    await publish_one(admin)
    path = await save(admin, make_text(admin, "jobtitle"))
    other = admin.with_roles("reader", role)
    assert (await other.get("configuration/edit", document=PATIENT)).status == 403
    for address, fields in (
        ("configuration/edit", {"document": PATIENT, "text": "x", "do": "save"}),
        (path, {"do": "publish", "why": "x"}),
        (path, {"do": "discard"}),
        ("configuration/versions/0", {"do": "restore", "why": "x"}),
        ("configuration/versions/1", {"do": "bring", "type": "Patient"}),
    ):
        assert (await other.post(address, **fields)).status == 403
    for address in ("configuration", path, "configuration/versions/0", "configuration/versions/1"):
        shown = await other.get(address)
        assert shown.status == 200
        assert "<button" not in shown.html
    assert (await admin.parts.configuration.live.store.read_latest()).number == 1


@pytest.mark.parametrize("do", ["", "delete"])
async def test_a_form_that_does_nothing_known_is_refused(admin: Visitor, do: str) -> None:
    await publish_one(admin)
    path = await save(admin, make_text(admin, "jobtitle"))
    for address in (path, "configuration/versions/0"):
        assert (await admin.post(address, do=do, why="x")).status == 400


async def test_the_routes_are_a_document_like_the_others(route: Route, admin: Visitor) -> None:
    parts = build_parts(route, admin.parts.configuration.live)
    await publish(parts, {DATA_ROUTES: '[Goal]\nroute = "virtual"\n'}, why="x", by=NAME)
    assert (await admin.get("configuration")).row(DATA_ROUTES)[1] == "published here"
