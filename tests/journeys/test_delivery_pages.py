"""Stories of somebody at the pages: what a delivery became, and what one of its entries holds."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest

from tests.builders import MARKER
from tests.journeys.route import Route, bundle, entry, locations, patient

pytestmark = [pytest.mark.live, pytest.mark.azurite]


async def test_a_delivery_is_looked_at_and_its_content_with_a_record_of_it(route: Route) -> None:
    who = patient(MARKER, id=str(uuid4()))
    body = bundle("batch", entry(who, method="PUT"))
    answer = await route.send(body)
    entries = await route.arrive(answer)
    await route.contact(who["id"])
    id_ = answer.headers["content-location"].rsplit("/", 1)[1]
    pages = f"{route.host.url}/api/pages/deliveries/{id_}"

    story = await route.http.get(pages)
    assert story.status_code == 200
    assert "Finished" in story.text
    assert locations(entries)[0] in story.text
    assert MARKER not in story.text

    content = await route.http.get(f"{pages}/entries/0")
    assert content.status_code == 200
    assert len(re.findall(MARKER, content.text)) == 2  # as it came, and as it was sent
    whole = await route.http.get(f"{pages}/content")
    assert whole.json() == body
    assert whole.headers["content-disposition"].startswith("attachment")

    audit = await route.http.get(
        f"{route.host.url}/api/audit", params={"delivery": id_, "kind": "content"}
    )
    assert [look["resources"] for look in audit.json()["audit"]] == [[f"Patient/{who['id']}"]] * 2
    assert MARKER not in audit.text
