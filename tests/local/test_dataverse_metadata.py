"""What the stand-in tells of its columns is what a writer needs to know before it writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from local.dataverse import tables
from local.dataverse.app import create_app

DECIMAL = {"type": "Decimal", "schemaName": "new_Weight", "label": "Weight", "precision": 3}
ADDITIONS = {"contact": {"columns": {"new_weight": {**DECIMAL, "min": 0, "max": 500}}}}


@pytest.fixture
async def dataverse() -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(additions=ADDITIONS)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://dataverse/api/data/v9.2/"
    ) as client:
        yield client
    app.close()


async def attributes(
    client: httpx.AsyncClient, cast: str, query: str, table: str = "contact"
) -> Any:
    place = f"EntityDefinitions(LogicalName='{table}')/Attributes"
    answer = await client.get(f"{place}{f'/Microsoft.Dynamics.CRM.{cast}' if cast else ''}?{query}")
    assert answer.status_code == 200, answer.text
    return {item["LogicalName"]: item for item in answer.json()["value"]}


async def test_every_column_says_whether_it_is_required_and_when_it_may_be_written(
    dataverse: httpx.AsyncClient,
) -> None:
    query = "$select=LogicalName,AttributeType,RequiredLevel,IsValidForCreate,IsValidForUpdate"
    found = await attributes(dataverse, "", query)
    assert found["contactid"]["RequiredLevel"]["Value"] == "SystemRequired"
    assert found["contactid"]["IsValidForCreate"] is True
    assert found["contactid"]["IsValidForUpdate"] is False
    assert found["lastname"]["RequiredLevel"]["Value"] == "ApplicationRequired"
    assert found["fullname"]["IsValidForCreate"] is found["fullname"]["IsValidForUpdate"] is False
    assert found["birthdate"]["RequiredLevel"]["Value"] == "None"


@pytest.mark.parametrize(
    ("cast", "query", "column", "expected"),
    [
        (
            "DateTimeAttributeMetadata",
            "$select=LogicalName,Format,DateTimeBehavior",
            "birthdate",
            {"Format": "DateOnly", "DateTimeBehavior": {"Value": "DateOnly"}},
        ),
        (
            "DateTimeAttributeMetadata",
            "$select=LogicalName,Format,DateTimeBehavior",
            "msemr_name1startdate",
            {"Format": "DateOnly", "DateTimeBehavior": {"Value": "UserLocal"}},
        ),
        (
            "DateTimeAttributeMetadata",
            "$select=LogicalName,Format,DateTimeBehavior",
            "msemr_azurefhirlastupdatedon",
            {"Format": "DateAndTime", "DateTimeBehavior": {"Value": "UserLocal"}},
        ),
        (
            "LookupAttributeMetadata",
            "$select=LogicalName,Targets",
            "parentcustomerid",
            {"Targets": ["account", "contact"]},
        ),
        (
            "IntegerAttributeMetadata",
            "$select=LogicalName,MinValue,MaxValue",
            "numberofchildren",
            {"MinValue": 0, "MaxValue": 1000000000},
        ),
        (
            "DoubleAttributeMetadata",
            "$select=LogicalName,MinValue,MaxValue,Precision",
            "address1_latitude",
            {"Precision": 5},
        ),
        (
            "DecimalAttributeMetadata",
            "$select=LogicalName,MinValue,MaxValue,Precision",
            "new_weight",
            {"MinValue": 0, "MaxValue": 500, "Precision": 3},
        ),
        (
            "MoneyAttributeMetadata",
            "$select=LogicalName,MinValue,MaxValue,Precision",
            "annualincome",
            {"MinValue": 0, "Precision": 2},
        ),
        (
            "BigIntAttributeMetadata",
            "$select=LogicalName,MinValue,MaxValue",
            "versionnumber",
            {"MaxValue": 9223372036854775807},
        ),
        (
            "BooleanAttributeMetadata",
            "$select=LogicalName&$expand=OptionSet($select=TrueOption,FalseOption)",
            "msemr_azurefhirsyncenabled",
            {},
        ),
    ],
)
async def test_a_cast_tells_the_limits_of_a_column(
    dataverse: httpx.AsyncClient, cast: str, query: str, column: str, expected: dict[str, Any]
) -> None:
    found = (await attributes(dataverse, cast, query))[column]
    if "Targets" in found:
        found["Targets"].sort()
    assert {name: found[name] for name in expected} == expected


async def test_a_cast_to_a_type_that_no_column_has_finds_nothing(
    dataverse: httpx.AsyncClient,
) -> None:
    query = "$select=LogicalName,MinValue,MaxValue,Precision"
    for cast in ("MoneyAttributeMetadata", "DecimalAttributeMetadata"):
        assert await attributes(dataverse, cast, query, "msemr_contactlink") == {}


async def test_a_cast_to_a_type_that_does_not_exist_is_refused(
    dataverse: httpx.AsyncClient,
) -> None:
    place = "EntityDefinitions(LogicalName='contact')/Attributes/Microsoft.Dynamics.CRM."
    assert (await dataverse.get(f"{place}NumberAttributeMetadata")).status_code == 404


@pytest.mark.parametrize("name", ["MinValue", "Precision", "Targets", "DateTimeBehavior"])
async def test_what_only_some_types_have_cannot_be_selected_without_a_cast(
    dataverse: httpx.AsyncClient, name: str
) -> None:
    place = "EntityDefinitions(LogicalName='contact')/Attributes"
    answer = await dataverse.get(f"{place}?$select=LogicalName,{name}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "0x80060888")


async def test_relationships_tell_the_navigation_property_of_a_lookup_for_each_target(
    dataverse: httpx.AsyncClient,
) -> None:
    names = "ReferencingAttribute,ReferencedEntity,ReferencingEntityNavigationPropertyName"
    answer = await dataverse.get(
        f"EntityDefinitions(LogicalName='contact')/ManyToOneRelationships?$select={names}"
    )
    assert answer.status_code == 200, answer.text
    found = {tuple(item[name] for name in names.split(",")) for item in answer.json()["value"]}
    assert ("msemr_generalpractioner", "contact", "msemr_GeneralPractioner") in found
    assert ("parentcustomerid", "account", "parentcustomerid_account") in found
    assert ("parentcustomerid", "contact", "parentcustomerid_contact") in found


async def test_keys_tell_their_columns_and_whether_their_index_is_active(
    dataverse: httpx.AsyncClient,
) -> None:
    answer = await dataverse.get("EntityDefinitions(LogicalName='contact')/Keys")
    (key,) = answer.json()["value"]
    assert (key["KeyAttributes"], key["EntityKeyIndexStatus"]) == (["msemr_azurefhirid"], "Active")


async def test_columns_of_ones_own_are_told_like_the_others() -> None:
    app = create_app(additions=tables.read_additions(prefix="abc"))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://dataverse/api/data/v9.2/"
    ) as client:
        found = await attributes(
            client, "StringAttributeMetadata", "$select=LogicalName,MaxLength,IsCustomAttribute"
        )
    app.close()
    assert (found["abc_fhirid"]["MaxLength"], found["abc_fhirid"]["IsCustomAttribute"]) == (
        64,
        True,
    )
    assert found["address1_city"]["IsCustomAttribute"] is False
