"""Stories of senders: each proves itself, none reaches what is another's."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from local.services import Ports, run_services
from tests.journeys.route import (
    FHIR_JSON,
    PATIENCE,
    Route,
    bundle,
    entry,
    locations,
    patient,
    statuses,
)
from tests.journeys.senders import SECRETS

pytestmark = [pytest.mark.live, pytest.mark.azurite]


async def send(
    route: Route, sender: str, body: Any, path: str = "", method: str = "POST", **headers: str
) -> httpx.Response:
    """As a sender with a token of its own."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await route.http.request(
        method,
        f"{route.host.url}/api/senders/{sender}/fhir{path}",
        content=data,
        headers={**FHIR_JSON, **authorize(sender), **named},
    )


def authorize(sender: str) -> dict[str, str]:
    secret = SECRETS[f"{sender.upper()}_TOKEN"]
    return (
        {"authorization": f"Bearer {secret}"}
        if sender != "feed"
        else {"verification-token": secret}
    )


async def wait(route: Route, sender: str, answer: httpx.Response) -> list[dict[str, Any]]:
    """Wait as the sender does: the entries of its response bundle."""
    assert answer.status_code in (200, 202), answer.text
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        status = await route.http.get(answer.headers["content-location"], headers=authorize(sender))
        if status.status_code != 202:
            assert status.status_code == 200, status.text
            entries: list[dict[str, Any]] = status.json()["entry"]
            return entries
    raise AssertionError("not done")


def identified(name: str, sender: str, **more: Any) -> dict[str, Any]:
    return patient(name, identifier=[{"system": f"urn:{sender}:mrn", "value": name}], **more)


async def test_what_one_hospital_sends_another_cannot_read_change_delete_or_cancel(
    route: Route,
) -> None:
    name, id_ = f"North-{uuid4()}", f"north-{uuid4()}"
    resource = identified(name, "north", id=id_)
    first = await send(route, "north", resource, f"/Patient/{id_}", "PUT")
    assert first.headers["content-location"].startswith(
        f"{route.host.url}/api/senders/north/fhir/deliveries/"
    )
    assert statuses(await wait(route, "north", first)) == {"201"}

    # Read: a search in a batch, and the answer of the other's delivery.
    search = bundle("batch", {"request": {"method": "GET", "url": f"Patient?family={name}"}})
    assert (await send(route, "south", search)).status_code == 403
    read = {"request": {"method": "GET", "url": f"Patient/{id_}"}}
    own = entry(identified(f"South-{uuid4()}", "south"))
    mixed = await send(route, "south", bundle("batch", own, read))
    assert mixed.status_code == 200, "south waits for its answer"
    assert [item["response"]["status"] for item in mixed.json()["entry"]] == ["201", "403"]
    assert name not in mixed.text
    address = first.headers["content-location"].replace("/north/", "/south/")
    for method in ("GET", "DELETE"):
        seen = await route.http.request(method, address, headers=authorize("south"))
        assert seen.status_code == 404
        stolen = await route.http.request(
            method, first.headers["content-location"], headers=authorize("south")
        )
        assert stolen.status_code == 401

    # Overwrite, by id, by condition, and by an identifier that would be found as the other's.
    change = identified("Changed", "south", id=id_)
    assert (await send(route, "south", change, f"/Patient/{id_}", "PUT")).status_code == 403
    condition = f"/Patient?identifier=urn:north:mrn|{name}"
    put = await send(route, "south", identified("Changed", "south"), condition, "PUT")
    assert put.status_code == 403
    assert (await send(route, "south", identified(name, "north"))).status_code == 403
    conditional = {"if_none_exist": f"identifier=urn:north:mrn|{name}"}
    create = await send(route, "south", patient("Changed"), "/Patient", **conditional)
    assert create.status_code == 403

    # Delete, by id and by condition.
    assert (await send(route, "south", b"", f"/Patient/{id_}", "DELETE")).status_code == 403
    assert (await send(route, "south", b"", condition, "DELETE")).status_code == 403

    kept = (await route.fhir(f"Patient/{id_}")).json()
    assert kept["name"][0]["family"] == name
    assert kept["meta"]["versionId"] == "1"


async def test_two_senders_may_number_their_messages_alike(route: Route) -> None:
    key = {"idempotency_key": f"message 1 {uuid4()}"}
    north = await send(route, "north", identified("A", "north"), **key)
    south = await send(route, "south", identified("B", "south"), **key)
    assert (north.status_code, south.status_code) == (202, 200)
    again = await send(route, "north", identified("A", "north"), **key)
    assert again.headers["content-location"] == north.headers["content-location"]
    other = await send(route, "north", identified("C", "north"), **key)
    assert other.status_code == 422


async def test_a_wrong_proof_leaves_nothing_behind(route: Route) -> None:
    listed = f"{route.host.url}/api/deliveries?_count=1"
    before = (await route.http.get(listed)).json()["deliveries"]
    for headers in ({"authorization": "Bearer made-up-token-of-nobody"}, {"authorization": ""}):
        answer = await send(route, "north", patient(f"Nobody-{uuid4()}"), **headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"]
    assert (
        await send(route, "north", b"", "/metadata", "GET", authorization="x")
    ).status_code == 401
    assert (await route.http.get(listed)).json()["deliveries"] == before


async def test_a_sender_that_waits_gets_its_answer_at_once(route: Route) -> None:
    answer = await send(route, "south", bundle("transaction", entry(identified("W", "south"))))
    assert answer.status_code == 200
    assert answer.json()["type"] == "transaction-response"
    (location,) = locations(answer.json()["entry"])
    assert (await route.fhir(location)).status_code == 200


async def test_what_a_client_asks_before_it_sends_says_what_it_may_send(route: Route) -> None:
    answer = await send(route, "north", b"", "/metadata", "GET")
    assert answer.status_code == 200
    statement = answer.json()
    assert statement["implementation"]["url"] == f"{route.host.url}/api/senders/north/fhir"
    codes = {item["code"] for item in statement["rest"][0]["resource"][0]["interaction"]}
    assert codes == {"create", "update", "delete"}
    assert (await route.http.get(f"{route.host.url}/api/fhir/metadata")).status_code == 200


async def test_a_patient_is_updated_and_deleted_by_its_identifier(route: Route) -> None:
    """As ITI-104 of IHE does it: https://profiles.ihe.net/ITI/PIXm/ITI-104.html"""
    name = f"Feed-{uuid4()}"
    condition = f"/Patient?identifier=urn:south:mrn|{name}"
    created = await send(route, "south", identified(name, "south"), condition, "PUT")
    assert created.status_code == 200, created.text
    (location,) = locations(created.json()["entry"])
    updated = await send(
        route, "south", identified(name, "south", gender="other"), condition, "PUT"
    )
    assert locations(updated.json()["entry"]) == [location]
    assert (await route.fhir(location)).json()["gender"] == "other"
    # South may delete, and not by a condition.
    assert (await send(route, "south", b"", condition, "DELETE")).status_code == 403
    deleted = await route.send(b"", condition, "DELETE")
    await route.arrive(deleted)
    assert (await route.fhir(location)).status_code == 410


async def test_a_feed_that_pauses_at_a_refusal_never_gets_one(route: Route) -> None:
    challenge = {"verification-token": SECRETS["FEED_TOKEN"], "challenge": "c-81f2"}
    base = f"{route.host.url}/api/senders/feed/fhir"
    posted = await route.http.post(base, json=challenge)
    asked = await route.http.get(base, params=challenge)
    wrong = await route.http.get(base, params={**challenge, "verification-token": "x" * 20})
    assert (posted.status_code, posted.text) == (200, "c-81f2")
    assert (asked.status_code, asked.text) == (200, "c-81f2")
    assert wrong.status_code == 401

    unreadable = await send(route, "feed", {"resourceType": "Nothing", "id": f"{uuid4()}"})
    assert unreadable.status_code == 200
    id_ = unreadable.headers["content-location"].rpartition("/")[2]
    found = (await route.http.get(f"{route.host.url}/api/deliveries?status=parked")).json()
    (held,) = [item for item in found["deliveries"] if item["id"] == id_]
    assert held["reason"].startswith("refused at the door: ")

    sound, bad = (
        entry(patient(f"Held-{uuid4()}")),
        {"request": {"method": "GET", "url": "Patient?family=x"}},
    )
    mixed = await send(route, "feed", bundle("batch", sound, bad))
    assert mixed.status_code == 200
    id_ = mixed.headers["content-location"].rpartition("/")[2]
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = (await route.http.get(f"{route.host.url}/api/deliveries?status=parked")).json()
        if held := [item for item in found["deliveries"] if item["id"] == id_]:
            break
    assert held[0]["reason"] == "1 of 2 entries were refused"
    assert (held[0]["written"], held[0]["refused"]) == (1, 1)


async def test_what_was_deleted_is_asked_for_where_nobody_has_signed_it(
    route: Route, source_ports: Ports
) -> None:
    """Every delete of Medplum has the same signature."""
    if not route.local_fhir:
        pytest.skip("FHIR_URL names the server, and no second one is started")

    def sign(body: bytes) -> dict[str, str]:
        secret = SECRETS["MEDPLUM_SECRET"].encode()
        return FHIR_JSON | {"X-Signature": hmac.digest(secret, body, hashlib.sha256).hex()}

    base = f"{route.host.url}/api/senders/medplum/fhir"
    gone, alive, never_there = (f"med-{uuid4()}" for _ in range(3))
    for id_ in (gone, alive, never_there):
        body = json.dumps(patient("Med", id=id_)).encode()
        answer = await route.http.post(base, content=body, headers=sign(body))
        assert answer.status_code == 202, answer.text
    with run_services(source_ports, route.folder / "medplum", parts=["fhir"]) as source:
        for id_ in (gone, alive):
            address = f"{source.fhir_url}/Patient/{id_}"
            put = await route.http.put(address, json=patient("Med", id=id_), headers=FHIR_JSON)
            assert put.status_code == 201
        await route.http.delete(f"{source.fhir_url}/Patient/{gone}")
        for id_ in (gone, alive, never_there):
            named = {"X-Medplum-Deleted-Resource": f"Patient/{id_}"}
            answer = await route.http.post(base, content=b"{}", headers=sign(b"{}") | named)
            assert answer.status_code == 202, answer.text
            status_url = (
                f"{route.host.url}/api/deliveries/"
                + answer.headers["content-location"].rpartition("/")[2]
            )
            until = time.monotonic() + PATIENCE
            while time.monotonic() < until:
                status = await route.http.get(status_url)
                if status.status_code == 200:
                    break
        assert (await route.fhir(f"Patient/{gone}")).status_code == 410
        for id_ in (alive, never_there):
            assert (await route.fhir(f"Patient/{id_}")).status_code == 200
