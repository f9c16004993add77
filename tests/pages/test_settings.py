"""The page Settings: what the app runs with, and which alerts would ring."""

from __future__ import annotations

from dataclasses import replace

from integration.journal.concern import Concern, ConcernKind
from integration.pages.parts import ShownSetting
from integration.queues.queue_reader import QueueState
from tests.builders import MARKER, patient
from tests.conftest import Route
from tests.pages.console import open_console, read, row

PATIENT = "6f1d0a1e-5b7e-4f0e-8a0b-0a1b2c3d4e5f"


def setting(name: str, value: str | None, **more: bool) -> ShownSetting:
    given = {"is_set": False, "is_secret": False, **more}
    return ShownSetting(group="Deliveries", name=name, value=value, **given)


async def test_each_setting_is_shown_with_where_it_came_from(route: Route) -> None:
    reply = (
        await open_console(route)
        .with_settings(
            setting("MAX_AGE", "60", is_set=True),
            setting("FEED_PAGE", "250"),
            setting("INBOX", None),
            setting("AzureWebJobsStorage", None, is_set=True, is_secret=True),
        )
        .get("settings")
    )
    assert reply.status == 200
    assert row(reply, "MAX_AGE") == ["MAX_AGE", "60", "set"]
    assert row(reply, "FEED_PAGE") == ["FEED_PAGE", "250", "default"]
    assert row(reply, "INBOX") == ["INBOX", "none", "not set"]
    secret = ["AzureWebJobsStorage", "has a value, which is not shown", "set"]
    assert row(reply, "AzureWebJobsStorage") == secret
    assert "1.2.3" in read(reply)


async def test_a_setting_by_an_earlier_name_is_pointed_at(route: Route) -> None:
    console = open_console(route)
    app = replace(console.parts.app, renamed=(("ORDER", "WRITE_ORDER"),))
    console = replace(console, parts=replace(console.parts, app=app))
    assert "ORDER is set, and is not read any more" in read(await console.get("settings"))


async def test_what_would_ring_comes_first_with_its_reason(route: Route) -> None:
    console = open_console(route)
    known = {"delivery": "d", "sender": "lab", "reason": "a reason"}
    concern = Concern(id="1", since=route.clock(), kind=ConcernKind.ENTRIES, **known)
    await route.journal.put_concern(concern)
    console.queues.states = {"relay-poison": QueueState(3, None)}
    reply = await console.get("settings")
    text = read(reply)
    assert "2 alerts would ring" in text
    assert row(reply, "parked")[1::2] == ["would ring", "3 messages in relay-poison"]
    assert row(reply, "refused")[1::2] == ["would ring", "1 delivery has refused entries"]
    assert row(reply, "budget")[1::2] == ["not known here", "only Azure knows"]
    assert text.index("refused would ring") < text.index("operator quiet")


async def test_where_all_is_well_no_alert_rings(route: Route) -> None:
    text = read(await open_console(route).get("settings"))
    assert "No alert would ring, as far as the app knows" in text


async def test_somebody_without_a_role_sees_no_settings(route: Route) -> None:
    assert (await open_console(route).with_roles().get("settings")).status == 403
    assert (await open_console(route).with_roles("phi").get("settings")).status == 403


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
    console = open_console(route).with_roles("admin", "phi")
    paths = ("settings", "maps", "maps/Patient", "data-routes", "data-routes/Patient")
    for path in paths:
        reply = await console.get(path)
        assert reply.status == 200
        assert MARKER.encode() not in reply.body, path
    assert "would ring" in read(await console.get("settings"))
