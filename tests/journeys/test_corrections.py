"""Stories of corrections: an operator corrects what was refused, in its place among the others."""

from __future__ import annotations

import asyncio
import json
import re
from html import unescape
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.journeys.route import (
    FHIR_JSON,
    PATIENCE,
    Route,
    bundle,
    entry,
    locations,
    observation,
    patient,
    statuses,
)

pytestmark = [pytest.mark.live, pytest.mark.azurite]


def find_id(answer: httpx.Response) -> str:
    return answer.headers["content-location"].rpartition("/")[2]


async def correct(route: Route, delivery: str, body: Any) -> httpx.Response:
    url = f"{route.host.url}/api/deliveries/{delivery}/correction"
    return await route.http.post(url, content=json.dumps(body).encode(), headers=FHIR_JSON)


async def list_attention(route: Route, *deliveries: str) -> list[str]:
    """The deliveries of these that need attention."""
    answer = await route.http.get(f"{route.host.url}/api/attention", params={"_count": 500})
    found = {concern["delivery"] for concern in answer.json()["attention"]}
    return [delivery for delivery in deliveries if delivery in found]


async def test_a_bad_date_is_corrected_in_the_place_of_its_delivery(route: Route) -> None:
    """Another system and a later delivery have written what the first one wrote, meanwhile."""
    who = f"urn:uuid:{uuid4()}"
    other, third = str(uuid4()), str(uuid4())
    name = f"Corrected-{uuid4()}"

    def make(birth_date: str, **changed: Any) -> dict[str, Any]:
        return bundle(
            "batch",
            entry(patient(name, birthDate=birth_date), who),
            entry(observation(who)),
            entry(patient("Other", id=other, **changed), method="PUT"),
            entry(patient("Third", id=third, **changed), method="PUT"),
        )

    answer = await route.send(make("1984-13-45"))
    first = find_id(answer)
    entries = await route.arrive(answer)
    bad, linked, *others = (each["response"]["status"] for each in entries)
    assert (bad, others) == ("400", ["201", "201"])
    assert linked in ("201", "400")  # some servers refuse a link to what is not there
    assert await list_attention(route, first) == [first]

    by_hand = patient("By hand", id=other)
    url = f"{route.running.fhir_url}/Patient/{other}"
    assert (await route.http.put(url, json=by_hand, headers=route.own)).status_code == 200
    await route.deliver(bundle("batch", entry(patient("Later", id=third), method="PUT")))

    body = make("1984-05-06", gender="male")
    made = await correct(route, first, body)
    again = await correct(route, first, body)
    assert (made.status_code, again.status_code) == (202, 202), made.text
    second = find_id(made)
    assert (find_id(again), int(second[-12:], 16)) == (second, int(first[-12:], 16) + 1)
    corrected = await route.arrive(made)

    assert [each["response"]["status"] for each in corrected] == ["201", "201", "409", "409"]
    identity = locations(corrected)[0]
    seen = (await route.fhir(locations(corrected)[1])).json()
    assert seen["subject"]["reference"] == identity
    assert (await route.fhir(identity)).json()["birthDate"] == "1984-05-06"
    if linked == "201":
        assert locations(corrected)[1] == locations(entries)[1]
    for id_, family in ((other, "By hand"), (third, "Later")):
        assert (await route.fhir(f"Patient/{id_}")).json()["name"][0]["family"] == family
    await route.contact(identity.removeprefix("Patient/"), "1")
    row = await route.contact(third, "2")
    assert row["lastname"] == "Later"
    assert await list_attention(route, first, second) == []
    assert second in (await route.http.get(answer.headers["content-location"])).text
    audit = await route.http.get(f"{route.host.url}/api/audit", params={"kind": "correction"})
    assert second in audit.text


async def test_a_host_killed_after_a_correction_was_accepted_loses_nothing(
    faulty: Route,
) -> None:
    name = f"Killed-{uuid4()}"
    answer = await faulty.send(bundle("batch", entry(patient(name, birthDate="1984-13-45"))))
    first = find_id(answer)
    assert statuses(await faulty.arrive(answer)) == {"400"}
    await faulty.fault("fhir", next=1, kind="slow", delayMs=1500, method="POST")
    made = await correct(faulty, first, bundle("batch", entry(patient(name))))
    assert made.status_code == 202, made.text
    faulty.host.kill()
    faulty.host.start()
    async with asyncio.timeout(PATIENCE):
        while True:
            seen = await list_attention(faulty, first, find_id(made))
            status = await faulty.http.get(made.headers["content-location"])
            if status.status_code == 200:
                break
            assert seen, "neither is to be seen, and the patient is not in FHIR"
            await asyncio.sleep(0.05)
    entries = await faulty.arrive(made)
    assert statuses(entries) <= {"200", "201"}
    assert await list_attention(faulty, first, find_id(made)) == []


async def test_a_bad_date_is_corrected_by_hand_on_the_page(route: Route) -> None:
    name = f"By-hand-{uuid4()}"
    answer = await route.send(bundle("batch", entry(patient(name, birthDate="1984-13-45"))))
    first = find_id(answer)
    assert statuses(await route.arrive(answer)) == {"400"}
    pages = f"{route.host.url}/api/pages/deliveries"
    path = f"/api/pages/deliveries/{first}/correction"
    assert path in (await route.http.get(f"{pages}/{first}")).text

    page = await route.http.get(f"{pages}/{first}/correction")
    assert page.status_code == 200
    (token,) = {*re.findall(r'name="token" value="([^"]+)"', page.text)}
    (text,) = re.findall(r"(?s)<textarea[^>]*>\n(.*?)</textarea>", page.text)
    typed = unescape(text).replace("\n", "\r\n")
    headers = {"origin": route.host.url, "cookie": f"relay-form={token}"}

    async def send(typed: str) -> httpx.Response:
        form = {"token": token, "text": typed}
        return await route.http.post(f"{pages}/{first}/correction", data=form, headers=headers)

    broken = await send(typed.replace('"1984-13-45"', "1984-05-06"))
    assert (broken.status_code, "not JSON: line " in broken.text) == (400, True)
    assert name in broken.text
    sent = await send(typed.replace("1984-13-45", "1984-05-06"))
    assert sent.status_code == 303, sent.text
    second = sent.headers["location"].rpartition("/")[2]
    status = f"{route.host.url}/api/deliveries/{second}"
    made = httpx.Response(202, headers={"content-location": status})
    (written,) = locations(await route.arrive(made))
    assert (await route.fhir(written)).json()["birthDate"] == "1984-05-06"
    assert await list_attention(route, first, second) == []
    story = (await route.http.get(f"{pages}/{second}")).text
    assert f"/api/pages/deliveries/{first}" in story

    file = {"file": ("x.json", b"{}", "application/json")}
    late = await route.http.post(
        f"{pages}/{second}/correction", data={"token": token}, files=file, headers=headers
    )
    assert (late.status_code, "none of its entries was refused" in late.text) == (409, True)
    for kind in ("correction", "content"):
        audit = await route.http.get(f"{route.host.url}/api/audit", params={"kind": kind})
        assert (second if kind == "correction" else first) in audit.text
        assert name not in audit.text
