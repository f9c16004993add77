"""The page Settings: what the app runs with, and which alerts would ring."""

from __future__ import annotations

from dataclasses import replace

from integration.journal.concern import Concern, ConcernKind
from integration.pages.parts import ShownSetting
from integration.queues.queue_reader import MemoryQueueReader, QueueState
from tests.builders import MARKER, patient
from tests.conftest import Route
from tests.pages.asking import visit

PATIENT = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"


def setting(name: str, value: str | None, **more: bool) -> ShownSetting:
    given = {"is_set": False, "is_secret": False, **more}
    return ShownSetting(group="Deliveries", name=name, value=value, **given)


async def test_each_setting_is_shown_with_where_it_came_from(route: Route) -> None:
    visitor = visit(route, "reader")
    settings = (
        setting("MAX_AGE", "60", is_set=True),
        setting("FEED_PAGE", "250"),
        setting("INBOX", None),
        setting("AzureWebJobsStorage", None, is_set=True, is_secret=True),
    )
    app = replace(visitor.parts.app, settings=settings)
    reply = await visitor.with_parts(app=app).get("settings")
    assert reply.status == 200
    assert reply.row("MAX_AGE") == ["MAX_AGE", "60", "set"]
    assert reply.row("FEED_PAGE") == ["FEED_PAGE", "250", "default"]
    assert reply.row("INBOX") == ["INBOX", "none", "not set"]
    secret = ["AzureWebJobsStorage", "has a value, which is not shown", "set"]
    assert reply.row("AzureWebJobsStorage") == secret
    assert "1.2.3" in reply.text


async def test_a_setting_by_an_earlier_name_is_pointed_at(route: Route) -> None:
    visitor = visit(route, "reader")
    app = replace(visitor.parts.app, renamed=(("ORDER", "WRITE_ORDER"),))
    visitor = visitor.with_parts(app=app)
    assert "ORDER is set, and is not read any more" in (await visitor.get("settings")).text


async def test_what_would_ring_comes_first_with_its_reason(route: Route) -> None:
    queues = MemoryQueueReader({"relay-poison": QueueState(3, None)})
    visitor = visit(route, "reader", status={"queue_reader": queues})
    known = {"delivery": "d", "sender": "lab", "reason": "a reason"}
    concern = Concern(id="1", since=route.clock(), kind=ConcernKind.ENTRIES, **known)
    await route.journal.put_concern(concern)
    reply = await visitor.get("settings")
    text = reply.text
    assert "2 alerts would ring" in text
    assert reply.row("parked")[1::2] == ["would ring", "3 messages in relay-poison"]
    assert reply.row("refused")[1::2] == ["would ring", "1 delivery has refused entries"]
    assert reply.row("budget")[1::2] == ["not known here", "only Azure knows"]
    assert text.index("refused would ring") < text.index("operator quiet")


async def test_where_all_is_well_no_alert_rings(route: Route) -> None:
    text = (await visit(route, "reader").get("settings")).text
    assert "No alert would ring, as far as the app knows" in text


async def test_somebody_without_a_role_sees_no_settings(route: Route) -> None:
    assert (await visit(route).get("settings")).status == 403
    assert (await visit(route, "phi").get("settings")).status == 403


async def test_no_page_for_admins_shows_a_patient(route: Route) -> None:
    """But the answer to the form of Maps, which has its own tests."""
    person = patient(id=PATIENT, name=[{"family": MARKER}], photo=[{"title": MARKER}])
    await route.process_all(await route.deliver(person, method="PUT", type="Patient", id=PATIENT))
    await route.mirror_all()
    route.fhir_double.refuses.add("Patient")
    await route.process_all(
        await route.deliver(person | {"id": "b"}, method="PUT", type="Patient", id="b")
    )
    assert MARKER in repr(await route.dataverse_double.contacts())
    visitor = visit(route, "admin", "phi")
    paths = ("settings", "maps", "maps/Patient", "data-routes", "data-routes/Patient")
    for path in paths:
        reply = await visitor.get(path)
        assert reply.status == 200
        assert MARKER not in reply.html, path
    assert "would ring" in (await visitor.get("settings")).text
