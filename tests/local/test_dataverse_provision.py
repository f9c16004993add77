"""The stand-in can be set up as Dataverse is, and refuses what Dataverse refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from local.dataverse.app import create_app
from local.dataverse.setup import PROVIDER
from tests.local.provision_parts import (
    COLUMNS,
    CRM,
    Client,
    column,
    label,
    lookup,
    published,
    sourced,
    virtual,
)

IDENTITY = "5f1c2f0e-7a4b-4c0e-9d55-0a1b2c3d4e77"

CONTACT = "EntityDefinitions(LogicalName='contact')"


@pytest.fixture
async def dataverse() -> AsyncIterator[Client]:
    app = create_app()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://dataverse/api/data/v9.2/"
    ) as http:
        yield Client(http)
    app.close()


@pytest.fixture
async def prepared(dataverse: Client) -> Client:
    """With a publisher, a solution, and the virtual table of conditions."""
    await published(dataverse)
    source = await sourced(dataverse)
    await dataverse.send(
        "POST", "EntityDefinitions", virtual(source), mscrm_solutionuniquename="Relay"
    )
    return dataverse


# --- definitions --------------------------------------------------------------------------------


async def test_what_is_made_is_what_the_metadata_tells(prepared: Client) -> None:
    options = [{"Value": 1, "Label": label("Active")}, {"Value": 2, "Label": label("Gone")}]
    status = column("Picklist", "abc_Status", "msemr_status", OptionSet={"Options": options})
    await prepared.send("POST", COLUMNS, status)
    await prepared.send("POST", "RelationshipDefinitions", lookup())
    table = await prepared.get("EntityDefinitions(LogicalName='abc_ve_condition')")
    assert (table["TableType"], table["DataProviderId"]) == ("Virtual", PROVIDER)
    assert table["IsOptimisticConcurrencyEnabled"] is False
    cast = f"{COLUMNS}/{CRM}PicklistAttributeMetadata?$select=LogicalName&$expand=OptionSet"
    (found,) = (await prepared.get(cast))["value"]
    assert [item["Value"] for item in found["OptionSet"]["Options"]] == [1, 2]
    path = "EntityDefinitions(LogicalName='abc_ve_condition')/ManyToOneRelationships"
    (leads,) = (await prepared.get(path))["value"]
    assert leads["ReferencingEntityNavigationPropertyName"] == "abc_subject"
    assert leads["ReferencedEntity"] == "contact"


async def test_a_new_column_of_a_table_that_has_rows_can_be_written(dataverse: Client) -> None:
    await published(dataverse)
    text = column("String", "abc_Ward", MaxLength=10)
    await dataverse.send("POST", f"{CONTACT}/Attributes", text)
    await dataverse.send("POST", "contacts", {"lastname": "A", "abc_ward": "7"})
    (row,) = (await dataverse.get("contacts?$select=abc_ward"))["value"]
    assert row["abc_ward"] == "7"
    response = await dataverse.refused("POST", "contacts", {"lastname": "B", "abc_ward": "7" * 11})
    assert "exceeded the maximum allowed length" in response


async def test_a_new_key_finds_a_row_and_keeps_others_from_its_value(dataverse: Client) -> None:
    await published(dataverse)
    await dataverse.send("POST", f"{CONTACT}/Attributes", column("String", "abc_no", MaxLength=10))
    await dataverse.send(
        "POST", f"{CONTACT}/Keys", {"SchemaName": "abc_key", "KeyAttributes": ["abc_no"]}
    )
    await dataverse.send("PATCH", "contacts(abc_no='1')", {"lastname": "A"})
    assert (await dataverse.get("contacts(abc_no='1')"))["lastname"] == "A"
    error = await dataverse.refused("POST", "contacts", {"lastname": "B", "abc_no": "1"})
    assert error.startswith("0x80060892")


async def test_a_prefix_without_a_publisher_makes_nothing(dataverse: Client) -> None:
    text = column("String", "abc_ward", MaxLength=10)
    error = await dataverse.refused("POST", f"{CONTACT}/Attributes", text)
    assert "customization prefix" in error


async def test_a_solution_takes_only_pieces_of_its_own_publisher(prepared: Client) -> None:
    other = {"uniquename": "lab", "friendlyname": "Lab", "customizationprefix": "xyz"}
    await prepared.send("POST", "publishers", other)
    text = column("String", "xyz_ward", MaxLength=10)
    path = f"{CONTACT}/Attributes"
    assert "prefix" in await prepared.refused("POST", path, text, mscrm_solutionuniquename="Relay")
    error = await prepared.refused("POST", path, text, mscrm_solutionuniquename="Nowhere")
    assert "does not exist" in error
    await prepared.send("POST", path, text)


async def test_a_table_or_a_column_is_not_made_twice(prepared: Client) -> None:
    (source,) = (await prepared.get("msdyn_odatav4ds"))["value"]
    again = virtual(source["msdyn_odatav4dsid"])
    assert "already exists" in await prepared.refused("POST", "EntityDefinitions", again)
    twice = column("String", "abc_name", "other", MaxLength=5)
    assert (await prepared.refused("POST", COLUMNS, twice)).startswith("0x80047013")
    await prepared.send("POST", "RelationshipDefinitions", lookup())
    error = await prepared.refused("POST", "RelationshipDefinitions", lookup())
    assert error.startswith("0x80047013")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"CanCreateCharts": {"Value": True}}, "CanCreateCharts can not be active"),
        ({"CanChangeTrackingBeEnabled": None}, "CanChangeTrackingBeEnabled can not be active"),
        ({"ChangeTrackingEnabled": True}, "ChangeTrackingEnabled can not be active"),
        ({"IsActivity": True}, "IsActivity can not be active"),
        ({"ExternalName": None}, "External Name property required"),
        ({"ExternalCollectionName": None}, "External Collection Name property required"),
        ({"OwnershipType": "UserOwned"}, "OrganizationOwned"),
        ({"DataProviderId": IDENTITY}, "entitydataprovider"),
        ({"DataSourceId": IDENTITY}, "entitydatasource"),
        ({"Attributes": []}, "primary name column"),
    ],
)
async def test_a_virtual_table_is_refused_that_dataverse_would_refuse(
    dataverse: Client, change: dict[str, Any], words: str
) -> None:
    await published(dataverse)
    body = virtual(await sourced(dataverse)) | change
    assert words in await dataverse.refused("POST", "EntityDefinitions", body)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (column("Vector", "abc_x", "x"), "cannot be used here"),
        (column("Lookup", "abc_x", "x"), "cannot be used here"),
        (column("String", "abc_x", None, MaxLength=5), "External Name property required"),
        (column("String", "abc_x", "x"), "MaxLength"),
        (column("String", "abc_x", "x", MaxLength=4001), "MaxLength"),
        (column("Picklist", "abc_x", "x", OptionSet={"Options": []}), "OptionSet"),
        (column("Decimal", "abc_x", "x", Precision=11), "Precision"),
        (column("DateTime", "abc_x", "x", DateTimeBehavior={"Value": "Local"}), "Behavior"),
        (column("String", "x", "x", MaxLength=5), "customization prefix"),
    ],
)
async def test_a_column_is_refused_that_dataverse_would_refuse(
    prepared: Client, body: dict[str, Any], words: str
) -> None:
    assert words in await prepared.refused("POST", COLUMNS, body)


async def test_a_column_of_a_table_that_has_rows_has_no_external_name(dataverse: Client) -> None:
    await published(dataverse)
    text = column("String", "abc_ward", "ward", MaxLength=10)
    assert "must be null" in await dataverse.refused("POST", f"{CONTACT}/Attributes", text)


async def test_a_virtual_table_has_no_alternate_keys(prepared: Client) -> None:
    path = "EntityDefinitions(LogicalName='abc_ve_condition')/Keys"
    body = {"SchemaName": "abc_key", "KeyAttributes": ["abc_name"]}
    assert "Alternate keys are not supported" in await prepared.refused("POST", path, body)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ReferencedEntity": "patient"}, "Could not find an entity with name patient"),
        ({"ReferencingEntity": "nothing"}, "Could not find an entity with name nothing"),
        ({"ReferencedEntity": "abc_ve_condition"}, "Two virtual tables"),
        ({"Lookup": column("Lookup", "abc_subject")}, "External Name property required"),
    ],
)
async def test_a_lookup_is_refused_that_leads_nowhere(
    prepared: Client, change: dict[str, Any], words: str
) -> None:
    error = await prepared.refused("POST", "RelationshipDefinitions", lookup() | change)
    assert words in error


# --- rows of the set-up -------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["mscrmx", "a", "toolongaprefix", "9ab"])
async def test_a_prefix_has_to_be_one(dataverse: Client, prefix: str) -> None:
    body = {"uniquename": "x", "friendlyname": "X", "customizationprefix": prefix}
    await dataverse.refused("POST", "publishers", body)


async def test_a_publisher_a_solution_and_an_application_are_there_once(dataverse: Client) -> None:
    await published(dataverse)
    again = {"uniquename": "clinic", "friendlyname": "C", "customizationprefix": "abc"}
    assert "same uniquename" in await dataverse.refused("POST", "publishers", again)
    (unit,) = (await dataverse.get("businessunits"))["value"]
    user = {
        "applicationid": IDENTITY,
        "businessunitid@odata.bind": f"/businessunits({unit['businessunitid']})",
    }
    await dataverse.send("POST", "systemusers", user)
    assert "same applicationid" in await dataverse.refused("POST", "systemusers", user)


async def test_external_events_are_for_a_virtual_table_and_switched_on_once(
    prepared: Client,
) -> None:
    async def events(table: str) -> dict[str, Any]:
        found = await prepared.get(f"EntityDefinitions(LogicalName='{table}')?$select=MetadataId")
        bound = f"entities({found['MetadataId']})"
        on = {"isonexternalcreatedenabled": True, "isonexternaldeletedenabled": False}
        return {"name": "events", **on, "extensionofrecordid@odata.bind": bound}

    path = "virtualentitymetadatas"
    await prepared.refused("POST", path, await events("contact"))
    nowhere = {"name": "x", "extensionofrecordid@odata.bind": f"entities({IDENTITY})"}
    await prepared.refused("POST", path, nowhere)
    await prepared.send("POST", path, await events("abc_ve_condition"))
    await prepared.refused("POST", path, await events("abc_ve_condition"))


async def test_an_event_is_heard_where_it_is_switched_on(prepared: Client) -> None:
    target = {"@odata.type": f"{CRM}abc_ve_condition", "abc_ve_conditionid": IDENTITY}
    created = f"abc_ve_conditions/{CRM}OnExternalCreated"
    assert "segment" in await prepared.refused("POST", created, {"Target": target})
    path = "EntityDefinitions(LogicalName='abc_ve_condition')?$select=MetadataId"
    bound = f"entities({(await prepared.get(path))['MetadataId']})"
    on = {"isonexternalcreatedenabled": True, "isonexternalupdatedenabled": False}
    await prepared.send(
        "POST",
        "virtualentitymetadatas",
        {"name": "events", **on, "extensionofrecordid@odata.bind": bound},
    )
    await prepared.send("POST", created, {"Target": {**target, "abc_name": "Cough"}})
    await prepared.refused("POST", f"abc_ve_conditions/{CRM}OnExternalUpdated", {"Target": target})
    await prepared.refused("POST", created, {"Target": {"abc_ve_conditionid": IDENTITY}})
    await prepared.refused("POST", created, {"Target": {**target, "abc_nothing": 1}})
    await prepared.refused("POST", created, {"Target": {"@odata.type": f"{CRM}abc_ve_condition"}})
    events = (await prepared.http.get("http://dataverse/control/events")).json()
    error = {"action": "OnExternalCreated", "table": "abc_ve_condition", "id": IDENTITY}
    assert events == [{**error, "columns": ["abc_name"]}]


async def test_a_role_grants_and_a_user_holds_it(dataverse: Client) -> None:
    (unit,) = (await dataverse.get("businessunits"))["value"]
    bound = {"businessunitid@odata.bind": f"/businessunits({unit['businessunitid']})"}
    await dataverse.send("POST", "roles", {"name": "Relay", **bound})
    await dataverse.send("POST", "systemusers", {"applicationid": IDENTITY, **bound})
    (role,) = (await dataverse.get("roles"))["value"]
    (user,) = (await dataverse.get("systemusers"))["value"]
    named = "privileges?$filter=name eq 'prvreadcontact'"
    (privilege,) = (await dataverse.get(named))["value"]
    granted = f"RetrieveRolePrivilegesRole(RoleId={role['roleid']})"
    assert (await dataverse.get(granted))["RolePrivileges"] == []
    item = {"PrivilegeId": privilege["privilegeid"], "Depth": "3"}
    path = f"roles({role['roleid']})/{CRM}AddPrivilegesRole"
    await dataverse.send("POST", path, {"Privileges": [item]})
    await dataverse.refused("POST", path, {"Privileges": [{**item, "PrivilegeId": IDENTITY}]})
    (found,) = (await dataverse.get(granted))["RolePrivileges"]
    assert found == {"PrivilegeId": privilege["privilegeid"], "Depth": "Global"}
    held = f"systemusers({user['systemuserid']})/systemuserroles_association"
    body = {"@odata.id": f"http://dataverse/api/data/v9.2/roles({role['roleid']})"}
    await dataverse.send("POST", f"{held}/$ref", body)
    assert [item["roleid"] for item in (await dataverse.get(held))["value"]] == [role["roleid"]]


async def test_changes_are_published(dataverse: Client) -> None:
    xml = "<importexportxml><entities><entity>contact</entity></entities></importexportxml>"
    await dataverse.send("POST", "PublishXml", {"ParameterXml": xml})
    await dataverse.send("POST", "PublishAllXml")
    await dataverse.refused("POST", "PublishXml", {"ParameterXml": "contact"})


async def test_definitions_outlive_the_stand_in_with_its_rows_and_go_with_a_reset(
    tmp_path: Path,
) -> None:
    file = str(tmp_path / "rows.db")
    for turn in ("made", "kept", "gone"):
        app = create_app(file)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://dataverse/api/data/v9.2/"
        ) as http:
            client = Client(http)
            if turn == "made":
                await published(client)
                text = column("String", "abc_ward", MaxLength=10)
                await client.send("POST", f"{CONTACT}/Attributes", text)
            names = [
                item["LogicalName"] for item in (await client.get(f"{CONTACT}/Attributes"))["value"]
            ]
            assert ("abc_ward" in names) is (turn != "gone")
            if turn == "kept":
                await http.post("http://dataverse/control/reset")
                again = (await client.get(f"{CONTACT}/Attributes"))["value"]
                assert "abc_ward" not in [item["LogicalName"] for item in again]
        app.close()
