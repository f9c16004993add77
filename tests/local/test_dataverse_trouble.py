"""What goes wrong in Dataverse itself goes wrong in the stand-in: calls that outlive their client,
rows that staff merge, keys that the organization adds, pages between which rows change."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from local.dataverse.app import create_app

ROOT = "http://dataverse/api/data/v9.2/"
GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
ANNA = "11111111-1111-4111-8111-111111111111"
BERT = "22222222-2222-4222-8222-222222222222"
TYPE = "Microsoft.Dynamics.CRM.contact"


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def dataverse(clock: Clock) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(now=lambda: datetime(2026, 1, 2, tzinfo=UTC), clock=clock, sleep=clock.sleep)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url=ROOT) as client:
        yield client
    app.close()


async def control(client: httpx.AsyncClient, path: str, body: Any = None) -> Any:
    url = f"http://dataverse/control/{path}"
    response = await (client.get(url) if body is None else client.post(url, json=body))
    assert response.status_code in (200, 204), response.text
    return response.json() if response.content else None


async def add(client: httpx.AsyncClient, entity_set: str = "contacts", **columns: Any) -> str:
    response = await client.post(entity_set, json=columns)
    assert response.status_code == 204, response.text
    return re.findall(GUID, response.headers["OData-EntityId"])[0]


async def read(client: httpx.AsyncClient, key: str, entity_set: str = "contacts") -> Any:
    response = await client.get(f"{entity_set}({key})")
    assert response.status_code == 200, response.text
    return response.json()


async def list_names(client: httpx.AsyncClient) -> list[str]:
    rows = (await client.get("contacts?$orderby=lastname")).json()["value"]
    return [row["lastname"] for row in rows]


def refusal(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.json()["error"]["code"] == code


# --- calls that outlive their client -----------------------------------------------------------


async def create_late(client: httpx.AsyncClient, **fault: Any) -> None:
    await control(client, "faults", {"kind": "late", "method": "PATCH", **fault})
    with pytest.raises(httpx.ReadError):
        await client.patch(f"contacts({ANNA})", json={"lastname": "Late"})


async def test_a_late_call_is_executed_when_its_client_has_long_gone(
    dataverse: httpx.AsyncClient,
) -> None:
    await create_late(dataverse, held=True)
    assert await list_names(dataverse) == []
    assert (await control(dataverse, "stats"))["late"] == 1
    assert await control(dataverse, "late", {}) == {"executed": 1, "cancelled": 0}
    assert await list_names(dataverse) == ["Late"]
    assert (await control(dataverse, "stats"))["late"] == 0


async def test_a_late_call_keeps_its_conditions(dataverse: httpx.AsyncClient) -> None:
    await control(dataverse, "faults", {"kind": "late", "held": True})
    with pytest.raises(httpx.ReadError):
        await dataverse.patch(
            f"contacts({ANNA})", json={"lastname": "Late"}, headers={"If-None-Match": "*"}
        )
    await add(dataverse, contactid=ANNA, lastname="Before")
    await control(dataverse, "late", {})
    assert await list_names(dataverse) == ["Before"]


async def test_a_fault_can_be_meant_for_calls_that_say_something(
    dataverse: httpx.AsyncClient,
) -> None:
    await create_late(dataverse, held=True, body="Late", next=2)
    await dataverse.patch(f"contacts({BERT})", json={"lastname": "Bel"})
    assert await list_names(dataverse) == ["Bel"]
    with pytest.raises(httpx.ReadError):
        await dataverse.patch(f"contacts({BERT})", json={"lastname": "Late"})
    assert await control(dataverse, "late", {}) == {"executed": 2, "cancelled": 0}
    assert await list_names(dataverse) == ["Late", "Late"]


async def test_a_late_call_is_executed_after_a_delay(
    dataverse: httpx.AsyncClient, clock: Clock
) -> None:
    await create_late(dataverse, delayMs=90_000)
    while (await control(dataverse, "stats"))["late"]:
        await asyncio.sleep(0)
    assert clock.seconds == 90
    assert await list_names(dataverse) == ["Late"]


async def test_dataverse_cancels_what_takes_longer_than_two_minutes(
    dataverse: httpx.AsyncClient, clock: Clock
) -> None:
    await create_late(dataverse, held=True)
    await clock.sleep(121)
    assert await control(dataverse, "late", {}) == {"executed": 0, "cancelled": 1}
    assert await list_names(dataverse) == []
    fault = {"kind": "late", "delayMs": 120_001}
    refused = await dataverse.post("http://dataverse/control/faults", json=fault)
    assert refused.status_code == 400


async def test_a_hanging_request_for_definitions_ends_after_two_minutes(
    dataverse: httpx.AsyncClient, clock: Clock
) -> None:
    await control(dataverse, "faults", {"kind": "hang", "path": "EntityDefinitions"})
    assert (await dataverse.get("contacts")).status_code == 200
    refusal(await dataverse.get("EntityDefinitions(LogicalName='contact')"), 500, "0x80044151")
    assert clock.seconds == 120
    assert (await dataverse.get("EntityDefinitions(LogicalName='contact')")).status_code == 200


async def test_a_second_customization_is_refused_while_one_runs(
    dataverse: httpx.AsyncClient,
) -> None:
    body = {"SchemaName": "new_key", "KeyAttributes": ["lastname"]}
    keys = "EntityDefinitions(LogicalName='contact')/Keys"
    for status in (429, 503):
        fault = {"kind": "customizing", "status": status}
        await control(dataverse, "faults", fault)
        await add(dataverse)  # rows can be written meanwhile, and definitions be read
        assert (await dataverse.get(keys)).status_code == 200
        refusal(await dataverse.post(keys, json=body), status, "0x80071151")
    await control(dataverse, "faults", {"kind": "customizing"})
    refusal(await dataverse.post("PublishAllXml", json={}), 429, "0x80071151")
    assert (await dataverse.post("PublishAllXml", json={})).status_code == 204


# --- staff merge rows --------------------------------------------------------------------------


def build_merge(target: str, subordinate: str, **content: Any) -> dict[str, Any]:
    def name(key: str) -> dict[str, str]:
        return {"@odata.type": TYPE, "contactid": key}

    return {
        "Target": name(target),
        "Subordinate": name(subordinate),
        "UpdateContent": {"@odata.type": TYPE, **content},
        "PerformParentingChecks": False,
    }


async def test_a_merged_contact_is_inactive_and_keeps_its_id(
    dataverse: httpx.AsyncClient,
) -> None:
    await add(dataverse, contactid=ANNA, lastname="Ahl", firstname="Anna")
    await add(dataverse, contactid=BERT, lastname="Bel", suffix="Jr", msemr_azurefhirid="f-2")
    await add(dataverse, lastname="Child", **{"msemr_Contact1@odata.bind": f"contacts({BERT})"})
    before = await read(dataverse, BERT)
    merged = await dataverse.post("Merge", json=build_merge(ANNA, BERT, firstname="Ann"))
    assert merged.status_code == 204, merged.text

    subordinate = await read(dataverse, BERT)
    assert (subordinate["statecode"], subordinate["statuscode"]) == (1, 2)
    assert (subordinate["merged"], subordinate["_masterid_value"]) == (True, ANNA)
    assert subordinate["msemr_azurefhirid"] == "f-2"
    assert subordinate["lastname"] == "Bel"
    assert subordinate["@odata.etag"] != before["@odata.etag"]

    target = await read(dataverse, ANNA)
    assert (target["statecode"], target["merged"]) == (0, None)
    assert (target["firstname"], target["lastname"]) == ("Ann", "Ahl")
    # What was empty in the target comes from the subordinate, but for its key.
    assert (target["suffix"], target["msemr_azurefhirid"]) == ("Jr", None)
    (child,) = [row for row in (await dataverse.get("contacts")).json()["value"]
                if row["lastname"] == "Child"]  # fmt: skip
    assert child["_msemr_contact1_value"] == ANNA


async def test_a_merged_contact_can_be_activated_again_and_stays_merged(
    dataverse: httpx.AsyncClient,
) -> None:
    """Nothing of the platform protects a merge from a client that sets the state."""
    for key in (ANNA, BERT):
        await add(dataverse, contactid=key)
    await dataverse.post("Merge", json=build_merge(ANNA, BERT))
    await dataverse.patch(f"contacts({BERT})", json={"statecode": 0, "statuscode": 1})
    row = await read(dataverse, BERT)
    assert (row["statecode"], row["merged"], row["_masterid_value"]) == (0, True, ANNA)


async def test_rows_that_cannot_be_merged_are_refused(dataverse: httpx.AsyncClient) -> None:
    for key in (ANNA, BERT):
        await add(dataverse, contactid=key)
    refusal(await dataverse.post("Merge", json=build_merge(ANNA, ANNA)), 400, "0x80040203")
    nobody = build_merge(ANNA, "99999999-9999-4999-8999-999999999999")
    refusal(await dataverse.post("Merge", json=nobody), 404, "0x80040217")
    incomplete = build_merge(ANNA, BERT)
    del incomplete["PerformParentingChecks"]
    refusal(await dataverse.post("Merge", json=incomplete), 400, "0x80048d19")
    assert (await dataverse.post("Merge", json=build_merge(ANNA, BERT))).status_code == 204
    refusal(await dataverse.post("Merge", json=build_merge(ANNA, BERT)), 400, "0x80040203")
    wrong = build_merge(BERT, ANNA, suffix="much too long")
    refusal(await dataverse.post("Merge", json=wrong), 400, "0x80044331")
    assert (await read(dataverse, ANNA))["statecode"] == 0


async def test_lookups_to_a_deleted_row_are_emptied_and_their_rows_get_a_new_version(
    dataverse: httpx.AsyncClient,
) -> None:
    account = await add(dataverse, "accounts", name="Ward")
    key = await add(dataverse, **{"msemr_ManagingOrganization@odata.bind": f"accounts({account})"})
    before = (await read(dataverse, key))["@odata.etag"]
    assert (await dataverse.delete(f"accounts({account})")).status_code == 204
    row = await read(dataverse, key)
    assert row["_msemr_managingorganization_value"] is None
    assert row["@odata.etag"] != before
    await add(dataverse, "accounts", accountid=account, name="Ward")
    assert (await read(dataverse, key))["_msemr_managingorganization_value"] is None


# --- keys that the organization adds ------------------------------------------------------------

CHILD = "msemr_medicalidentifier"
KEY = {"table": CHILD, "name": "new_number", "columns": ["msemr_value"]}


def build_change_set(*changes: tuple[str, str, str]) -> dict[str, Any]:
    parts = "".join(
        "--changeset_x\r\nContent-Type: application/http\r\n"
        f"Content-Transfer-Encoding: binary\r\nContent-ID: {number}\r\n\r\n"
        f"{method} /api/data/v9.2/{path} HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{body}"
        "\r\n"
        for number, (method, path, body) in enumerate(changes, 1)
    )
    head = "--batch_x\r\nContent-Type: multipart/mixed; boundary=changeset_x\r\n\r\n"
    return {
        "content": f"{head}{parts}--changeset_x--\r\n--batch_x--\r\n".encode(),
        "headers": {"Content-Type": "multipart/mixed; boundary=batch_x"},
    }


@pytest.mark.parametrize(
    ("form", "content_id", "nested"),
    [("single", True, False), ("multipart", True, True), ("anonymous", False, False)],
)
async def test_a_key_on_a_child_refuses_the_change_set_and_the_answer_names_the_part(
    dataverse: httpx.AsyncClient, form: str, content_id: bool, nested: bool
) -> None:
    assert await control(dataverse, "settings", {"failedChangeSets": form})
    assert await control(dataverse, "keys", KEY) == {"status": "Active"}
    await add(dataverse, f"{CHILD}s", msemr_value="7")
    answer = await dataverse.post(
        "$batch",
        **build_change_set(
            ("POST", "contacts", '{"lastname": "Ahl"}'),
            ("POST", f"{CHILD}s", '{"msemr_value": "7"}'),
        ),
    )
    assert answer.status_code == 412
    assert '"code": "0x80060892"' in answer.text
    assert ("Content-ID: 2" in answer.text) is content_id
    assert "Content-ID: 1" not in answer.text
    assert ("changesetresponse_" in answer.text) is nested
    assert await list_names(dataverse) == []


async def test_a_key_is_not_enforced_where_rows_have_equal_values_already(
    dataverse: httpx.AsyncClient,
) -> None:
    for _ in range(2):
        await add(dataverse, f"{CHILD}s", msemr_value="7")
    assert await control(dataverse, "keys", KEY) == {"status": "Failed"}
    await add(dataverse, f"{CHILD}s", msemr_value="7")
    (shown,) = (await dataverse.get(f"EntityDefinitions(LogicalName='{CHILD}')/Keys")).json()[
        "value"
    ]
    assert shown["EntityKeyIndexStatus"] == "Failed"
    by_key = await dataverse.get(f"{CHILD}s(msemr_value='7')")
    assert by_key.status_code == 400


async def test_a_key_holds_for_rows_that_were_there_before_it(
    dataverse: httpx.AsyncClient,
) -> None:
    await add(dataverse, f"{CHILD}s", msemr_value="7")
    await add(dataverse, f"{CHILD}s")
    await add(dataverse, f"{CHILD}s")
    await control(dataverse, "keys", KEY)
    refusal(await dataverse.post(f"{CHILD}s", json={"msemr_value": "7"}), 412, "0x80060892")
    await control(dataverse, "reset", {})
    for _ in range(2):
        await add(dataverse, f"{CHILD}s", msemr_value="7")


async def test_an_organization_may_have_no_key_on_the_fhir_id(
    dataverse: httpx.AsyncClient,
) -> None:
    """No source of Microsoft's declares one, so two contacts can have one FHIR id."""
    await add(dataverse, contactid=ANNA, msemr_azurefhirid="f-1")
    second = {"msemr_azurefhirid": "f-1"}
    refusal(await dataverse.post("contacts", json=second), 412, "0x80060892")
    url = "http://dataverse/control/keys?table=contact&name=msemr_azurefhirid_key"
    assert (await dataverse.delete(url)).status_code == 204
    await add(dataverse, contactid=BERT, **second)
    assert (await dataverse.delete(url)).status_code == 404
    # A merge then moves it into a row that has none.
    target = await add(dataverse)
    await dataverse.post("Merge", json=build_merge(target, BERT))
    assert (await read(dataverse, target))["msemr_azurefhirid"] == "f-1"
    await control(dataverse, "reset", {})
    await add(dataverse, **second)
    refusal(await dataverse.post("contacts", json=second), 412, "0x80060892")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("keys", {"table": "nothing", "columns": ["x"]}),
        ("keys", {"table": "contact", "columns": ["nothing"]}),
        ("settings", {"failedChangeSets": "nothing"}),
        ("settings", {"nothing": 1}),
        ("settings", []),
    ],
)
async def test_a_key_or_setting_that_cannot_be_is_refused(
    dataverse: httpx.AsyncClient, path: str, body: Any
) -> None:
    answer = await dataverse.post(f"http://dataverse/control/{path}", json=body)
    assert answer.status_code == 400


# --- pages between which rows change ------------------------------------------------------------

TWO = {"Prefer": "odata.maxpagesize=2"}


async def read_pages(client: httpx.AsyncClient, url: str) -> AsyncIterator[list[str]]:
    while url:
        page = (await client.get(url, headers=TWO)).json()
        yield [row["lastname"] for row in page["value"]]
        url = page.get("@odata.nextLink", "")


@pytest.mark.parametrize("order", ["", "&$orderby=firstname", "&$orderby=firstname desc,suffix"])
async def test_a_row_deleted_or_added_between_pages_moves_no_other(
    dataverse: httpx.AsyncClient, order: str
) -> None:
    keys = {}
    for number in range(8):
        name = f"N{number}"
        first = {"firstname": f"F{number // 3}"} if number % 3 else {}
        key = f"{number}0000000-0000-4000-8000-000000000000"
        keys[name] = await add(dataverse, contactid=key, lastname=name, **first)
    seen: list[str] = []
    async for names in read_pages(dataverse, f"contacts?$select=lastname{order}"):
        seen += names
        # Staff delete the first row of the page, and add one somewhere.
        await dataverse.delete(f"contacts({keys.get(names[0], ANNA)})")
        key = f"00000000-0000-4000-8000-{len(seen):012}"
        await add(dataverse, contactid=key, lastname="New", firstname="A")
    assert sorted(name for name in seen if name != "New") == sorted(keys)


async def test_a_page_goes_on_where_a_deleted_row_was(dataverse: httpx.AsyncClient) -> None:
    keys = [await add(dataverse, lastname=f"N{number}") for number in range(5)]
    pages = read_pages(dataverse, "contacts?$orderby=lastname")
    assert await anext(pages) == ["N0", "N1"]
    await dataverse.delete(f"contacts({keys[1]})")
    assert await anext(pages) == ["N2", "N3"]


async def test_a_cookie_of_another_query_is_refused(dataverse: httpx.AsyncClient) -> None:
    for _ in range(3):
        await add(dataverse)
    page = (await dataverse.get("contacts", headers=TWO)).json()
    assert "pagingcookie" in page["@odata.nextLink"]
    refusal(await dataverse.get(page["@odata.nextLink"] + "&$orderby=lastname"), 400, "0x80060888")
    refusal(await dataverse.get("contacts?$skiptoken=nothing"), 400, "0x80060888")
