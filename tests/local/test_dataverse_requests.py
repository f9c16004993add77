"""What a request may ask of Dataverse beside the row, and what the stand-in refuses of it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from local.dataverse.app import create_app
from local.dataverse.organization import (
    ACT_FOR,
    BYPASS,
    BYPASS_PLUGINS,
    NURSE,
    NURSE_USER,
    USER,
    Organization,
)

ANNA = "11111111-1111-4111-8111-111111111111"
BERT = "22222222-2222-4222-8222-222222222222"
NOBODY = "99999999-9999-4999-8999-999999999999"
WEIGHT = {"type": "Decimal", "schemaName": "new_Weight", "label": "Weight", "precision": 2}
CHILD = {
    "type": "Lookup",
    "schemaName": "new_Child",
    "label": "Child",
    "targets": ["contact"],
    "navigation": {"contact": "new_Child"},
}
ADDITIONS = {
    "contact": {"columns": {"new_weight": {**WEIGHT, "min": 0, "max": 500}, "new_child": CHILD}}
}

Client = httpx.AsyncClient


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Client]]:
    """Makes a client of a stand-in for an organization."""
    apps: list[Any] = []

    def open_(**options: Any) -> Client:
        app = create_app(additions=ADDITIONS, **options)
        transport = httpx.ASGITransport(app=app)
        apps.append(app)
        return Client(transport=transport, base_url="http://dataverse/api/data/v9.2/")

    yield open_
    for app in apps:
        app.close()


@pytest.fixture
def dataverse(opened: Callable[..., Client]) -> Client:
    return opened()


def code(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return str(answer.json()["error"]["code"])


async def writes(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("http://dataverse/control/writes")).json()
    return found


async def row(client: Client, key: str = ANNA) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"contacts({key})")).json()
    return found


# --- bypassing, acting for others, duplicates ---------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "bypassed"),
    [
        ({"MSCRM.BypassBusinessLogicExecution": "CustomSync"}, ["CustomSync"]),
        (
            {"MSCRM.BypassBusinessLogicExecution": "CustomSync,CustomAsync"},
            ["CustomSync", "CustomAsync"],
        ),
        ({"MSCRM.BypassCustomPluginExecution": "true"}, ["CustomSync"]),
    ],
)
async def test_bypassing_is_recorded_with_the_write(
    dataverse: Client, headers: dict[str, str], bypassed: list[str]
) -> None:
    answer = await dataverse.patch(f"contacts({ANNA})", json={}, headers=headers)
    assert answer.status_code == 204
    assert (await writes(dataverse))[0]["bypass"] == bypassed


async def test_the_time_of_a_write_is_recorded(dataverse: Client) -> None:
    before = datetime.now(UTC)
    await dataverse.patch(f"contacts({ANNA})", json={})
    (write,) = await writes(dataverse)
    assert before <= datetime.fromisoformat(write["at"]) <= datetime.now(UTC)


async def test_a_write_that_asks_for_nothing_is_recorded_without_it(dataverse: Client) -> None:
    await dataverse.patch(f"contacts({ANNA})", json={})
    assert (await writes(dataverse))[0].keys() == {
        "method",
        "path",
        "table",
        "id",
        "created",
        "at",
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"MSCRM.BypassBusinessLogicExecution": "All"},
        {"MSCRM.BypassBusinessLogicExecution": "CustomSync;CustomAsync"},
        {"MSCRM.BypassCustomPluginExecution": "yes"},
        {"MSCRM.SuppressDuplicateDetection": "0"},
        {"CallerObjectId": "nurse@hospital.example"},
    ],
)
async def test_a_parameter_that_cannot_be_meant_is_refused(
    dataverse: Client, headers: dict[str, str]
) -> None:
    answer = await dataverse.patch(f"contacts({ANNA})", json={}, headers=headers)
    assert code(answer, 400) == "0x80040203"
    assert await writes(dataverse) == []


@pytest.mark.parametrize(
    ("privilege", "headers"),
    [
        (BYPASS, {"MSCRM.BypassBusinessLogicExecution": "CustomSync"}),
        (BYPASS_PLUGINS, {"MSCRM.BypassCustomPluginExecution": "true"}),
        (ACT_FOR, {"CallerObjectId": NURSE}),
    ],
)
async def test_what_a_user_has_no_privilege_for_is_refused_by_the_name_of_the_privilege(
    opened: Callable[..., Client], privilege: str, headers: dict[str, str]
) -> None:
    everything = Organization().privileges
    client = opened(organization=Organization(privileges=everything - {privilege}))
    answer = await client.patch(f"contacts({ANNA})", json={}, headers=headers)
    assert code(answer, 403) == "0x80040220"
    assert privilege in answer.json()["error"]["message"]


@pytest.mark.parametrize("header", [("CallerObjectId", NURSE), ("MSCRMCallerID", NURSE_USER)])
async def test_a_row_says_for_whom_it_was_written_and_who_wrote_it(
    dataverse: Client, header: tuple[str, str]
) -> None:
    await dataverse.patch(f"contacts({ANNA})", json={}, headers=dict([header]))
    found = await row(dataverse)
    assert (found["_createdby_value"], found["_createdonbehalfby_value"]) == (NURSE_USER, USER)
    assert (found["_ownerid_value"], found["_modifiedonbehalfby_value"]) == (NURSE_USER, USER)
    await dataverse.patch(f"contacts({ANNA})", json={"lastname": "B"})
    found = await row(dataverse)
    assert (found["_modifiedby_value"], found["_modifiedonbehalfby_value"]) == (USER, None)
    assert found["_createdby_value"] == NURSE_USER


async def test_nobody_can_be_acted_for_whom_the_organization_does_not_know(
    dataverse: Client,
) -> None:
    answer = await dataverse.get("WhoAmI", headers={"CallerObjectId": NOBODY})
    assert code(answer, 403) == "0x80072560"


async def test_a_duplicate_is_refused_only_where_that_is_asked_for(dataverse: Client) -> None:
    detection = {"MSCRM.SuppressDuplicateDetection": "false"}
    same = {"emailaddress1": "Ahl@example.org"}
    assert (
        await dataverse.patch(f"contacts({ANNA})", json=same, headers=detection)
    ).status_code == 204
    again = await dataverse.patch(f"contacts({ANNA})", json=same, headers=detection)
    assert again.status_code == 204, "a row is no duplicate of itself"
    other = {"emailaddress1": "ahl@EXAMPLE.org"}
    refused = await dataverse.patch(f"contacts({BERT})", json=other, headers=detection)
    assert code(refused, 412) == "0x80040333"
    assert (await dataverse.patch(f"contacts({BERT})", json=other)).status_code == 204


# --- values --------------------------------------------------------------------------------------


async def test_decimals_are_bounded_and_lose_the_places_that_the_column_has_not(
    dataverse: Client,
) -> None:
    await dataverse.patch(f"contacts({ANNA})", json={"new_weight": 61.235})
    assert (await row(dataverse))["new_weight"] == 61.24
    refused = await dataverse.patch(f"contacts({ANNA})", json={"new_weight": 500.1})
    assert code(refused, 400) == "0x80044330"


@pytest.mark.parametrize("column", ["statecode", "statuscode"])
async def test_a_state_cannot_be_emptied(dataverse: Client, column: str) -> None:
    await dataverse.patch(f"contacts({ANNA})", json={})
    refused = await dataverse.patch(f"contacts({ANNA})", json={column: None})
    assert code(refused, 400) == "0x80040203"
    assert (await row(dataverse))[column] is not None


async def test_a_lookup_is_bound_read_filtered_and_cleared(dataverse: Client) -> None:
    await dataverse.patch(f"contacts({BERT})", json={"lastname": "B"})
    for url in (f"/contacts({BERT})", f"contacts({BERT})"):
        bound = {"new_Child@odata.bind": url}
        assert (await dataverse.patch(f"contacts({ANNA})", json=bound)).status_code == 204
    found = (await dataverse.get(f"contacts({ANNA})?$select=_new_child_value")).json()
    assert found["_new_child_value"] == BERT
    inside = "Microsoft.Dynamics.CRM.In"
    for condition in (
        f"_new_child_value eq {BERT}",
        f"{inside}(PropertyName='new_child',PropertyValues=['{BERT}','{NOBODY}'])",
        f"{inside}(PropertyName='_new_child_value',PropertyValues=[\"{BERT}\"])",
    ):
        answer = await dataverse.get("contacts", params={"$filter": condition})
        assert [item["contactid"] for item in answer.json()["value"]] == [ANNA]
    cleared = {"new_Child@odata.bind": None}
    assert (await dataverse.patch(f"contacts({ANNA})", json=cleared)).status_code == 204
    assert (await row(dataverse))["_new_child_value"] is None


@pytest.mark.parametrize(
    ("payload", "status", "expected"),
    [
        ({"new_child@odata.bind": f"/contacts({ANNA})"}, 400, "0x80048d19"),
        ({"new_Other@odata.bind": f"/contacts({ANNA})"}, 400, "0x80048d19"),
        ({"_new_child_value": ANNA}, 400, "0x80060888"),
        ({"new_child": ANNA}, 400, "0x80060888"),
        ({"new_Child@odata.bind": f"/contacts({NOBODY})"}, 404, "0x80040217"),
        ({"new_Child@odata.bind": f"/Contacts({ANNA})"}, 404, "0x8006088a"),
    ],
)
async def test_a_lookup_that_is_set_wrongly_is_refused(
    dataverse: Client, payload: dict[str, Any], status: int, expected: str
) -> None:
    await dataverse.patch(f"contacts({ANNA})", json={})
    assert code(await dataverse.patch(f"contacts({ANNA})", json=payload), status) == expected


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("sql=select%20contactid%20from%20contact", 501),
        ("fetchXml=%3Cfetch/%3E", 501),
        ("$filter=new_Child/new_Child/lastname%20eq%20'B'", 400),
        ("$filter=new_Nobody/lastname%20eq%20'B'", 400),
        ("$filter=lastname%20eq%20@p&@p='B'", 501),
        ("$filter=Microsoft.Dynamics.CRM.LastYear(PropertyName='createdon')", 501),
        ("api-version=9.2", 400),
        ("$format=xml", 400),
    ],
)
async def test_a_query_option_that_is_not_followed_is_never_ignored(
    dataverse: Client, query: str, status: int
) -> None:
    assert (await dataverse.get(f"contacts?{query}")).status_code == status


# --- many rows at once ----------------------------------------------------------------------------


async def many(client: Client, action: str, *targets: dict[str, Any]) -> httpx.Response:
    typed = [{"@odata.type": "Microsoft.Dynamics.CRM.contact", **target} for target in targets]
    place = f"contacts/Microsoft.Dynamics.CRM.{action}"
    return await client.post(place, json={"Targets": typed})


async def test_create_multiple_answers_with_the_ids_and_update_multiple_with_nothing(
    dataverse: Client,
) -> None:
    made = await many(dataverse, "CreateMultiple", {"lastname": "A"}, {"lastname": "B"})
    assert made.status_code == 200, made.text
    first_id, two = made.json()["Ids"]
    changed = await many(
        dataverse, "UpdateMultiple", {"contactid": first_id, "lastname": "C"}, {"contactid": two}
    )
    assert (changed.status_code, changed.content) == (204, b"")
    assert (await row(dataverse, first_id))["lastname"] == "C"


async def test_update_multiple_creates_nothing_and_is_one_transaction(dataverse: Client) -> None:
    await dataverse.patch(f"contacts({ANNA})", json={"lastname": "A"})
    refused = await many(
        dataverse,
        "UpdateMultiple",
        {"contactid": ANNA, "lastname": "X"},
        {"contactid": NOBODY, "lastname": "Y"},
    )
    assert code(refused, 404) == "0x80040217"
    assert (await row(dataverse))["lastname"] == "A"
    assert code(await many(dataverse, "UpdateMultiple", {"lastname": "Z"}), 400) == "0x80048d19"


async def test_delete_multiple_is_for_other_kinds_of_tables(dataverse: Client) -> None:
    assert (await many(dataverse, "DeleteMultiple", {"contactid": ANNA})).status_code == 404


def batch(*parts: str, change_set: bool = True) -> dict[str, Any]:
    def lines(boundary: str, content: list[str]) -> str:
        return "".join(f"--{boundary}\r\n{item}\r\n" for item in content) + f"--{boundary}--\r\n"

    content = list(parts)
    if change_set:
        head = "Content-Type: multipart/mixed; boundary=c\r\n\r\n"
        content = [head + lines("c", content)]
    return {
        "content": lines("b", content),
        "headers": {"Content-Type": "multipart/mixed; boundary=b"},
    }


def part(line: str, body: str, number: int, *headers: str) -> str:
    head = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n"
    inner = "".join(f"{header}\r\n" for header in ("Content-Type: application/json", *headers))
    return f"{head}Content-ID: {number}\r\n\r\n{line} HTTP/1.1\r\n{inner}\r\n{body}"


async def test_a_change_set_changes_a_row_that_it_has_made(dataverse: Client) -> None:
    sent = batch(
        part(f"PATCH contacts({ANNA})", '{"lastname": "A"}', 1, "If-None-Match: *"),
        part(f"PATCH contacts({BERT})", f'{{"new_Child@odata.bind": "/contacts({ANNA})"}}', 2),
        part(f"PATCH contacts({ANNA})", '{"statecode": 1}', 3, "If-Match: *"),
    )
    answer = await dataverse.post("$batch", **sent)
    assert re.findall(r"HTTP/1\.1 (\d+)", answer.text) == ["204", "204", "204"]
    assert (
        (await row(dataverse))["statecode"],
        (await row(dataverse, BERT))["_new_child_value"],
    ) == (
        1,
        ANNA,
    )


async def test_a_failed_condition_undoes_the_whole_change_set(dataverse: Client) -> None:
    await dataverse.patch(f"contacts({ANNA})", json={"lastname": "A"})
    sent = batch(
        part(f"PATCH contacts({BERT})", '{"lastname": "B"}', 1),
        part(f"PATCH contacts({ANNA})", '{"lastname": "X"}', 2, 'If-Match: W/"1"'),
    )
    answer = await dataverse.post("$batch", **sent)
    assert answer.status_code == 412
    assert "0x80060882" in answer.text
    assert (await dataverse.get(f"contacts({BERT})")).status_code == 404


async def test_a_content_id_is_given_once(dataverse: Client) -> None:
    twice = [part("POST contacts", "{}", 1), part("POST contacts", "{}", 1)]
    assert code(await dataverse.post("$batch", **batch(*twice)), 400) == "0x80060888"


async def test_a_batch_is_sent_for_one_user_but_bypasses_part_by_part(dataverse: Client) -> None:
    bypass = "MSCRM.BypassBusinessLogicExecution: CustomSync"
    parts = [
        part(f"PATCH contacts({ANNA})", "{}", 1, bypass),
        part(f"PATCH contacts({BERT})", "{}", 2),
    ]
    sent = batch(*parts)
    sent["headers"] |= {"CallerObjectId": NURSE, "MSCRM.BypassBusinessLogicExecution": "CustomSync"}
    assert (await dataverse.post("$batch", **sent)).status_code == 200
    first, second = await writes(dataverse)
    assert (first["user"], second["user"]) == (NURSE_USER, NURSE_USER)
    assert ("bypass" in first, "bypass" in second) == (True, False)


@pytest.mark.parametrize(("number", "status"), [(500, 200), (501, 400)])
async def test_a_filter_has_so_many_conditions_at_most(
    dataverse: Client, number: int, status: int
) -> None:
    condition = " or ".join(["lastname eq 'B'"] * number)
    answer = await dataverse.get("contacts", params={"$filter": condition})
    assert answer.status_code == status, answer.text
