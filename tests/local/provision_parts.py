"""What a virtual table is set up with in the stand-in, and who asks it."""

from __future__ import annotations

from typing import Any

import httpx

from local.dataverse.setup import PROVIDER

CRM = "Microsoft.Dynamics.CRM."

OFF = {"Value": False, "CanBeChanged": False}

FEED = "https://feed.example.org/api/odata"


class Client:
    """Sends to the stand-in; `expect` is the status that is wanted."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def send(
        self, method: str, path: str, body: Any = None, expect: int = 204, **headers: str
    ) -> httpx.Response:
        named = {name.replace("_", "."): value for name, value in headers.items()}
        answer = await self.http.request(method, path, json=body, headers=named)
        assert answer.status_code == expect, answer.text
        return answer

    async def refused(self, method: str, path: str, body: Any = None, **headers: str) -> str:
        named = {name.replace("_", "."): value for name, value in headers.items()}
        answer = await self.http.request(method, path, json=body, headers=named)
        assert answer.status_code in (400, 404, 412), answer.text
        error = answer.json()["error"]
        return f"{error['code']} {error['message']}"

    async def get(self, path: str) -> Any:
        return (await self.send("GET", path, expect=200)).json()


def label(text: str) -> dict[str, Any]:
    return {"LocalizedLabels": [{"Label": text, "LanguageCode": 1033}]}


def column(type_: str, name: str, external: str | None = None, **more: Any) -> dict[str, Any]:
    document = {} if external is None else {"ExternalName": external}
    kind = f"{CRM}{type_}AttributeMetadata"
    return {"@odata.type": kind, "SchemaName": name, "DisplayName": label(name), **document, **more}


def virtual(source: str | None, **more: Any) -> dict[str, Any]:
    name = column("String", "abc_name", "msemr_name", MaxLength=100, IsPrimaryName=True)
    return {
        "@odata.type": f"{CRM}EntityMetadata",
        "SchemaName": "abc_ve_condition",
        "DisplayName": label("Condition"),
        "OwnershipType": "OrganizationOwned",
        "TableType": "Virtual",
        "CanChangeTrackingBeEnabled": OFF,
        "CanCreateCharts": OFF,
        "ExternalName": "msemr_condition",
        "ExternalCollectionName": "msemr_conditions",
        "DataProviderId": PROVIDER,
        "DataSourceId": source,
        "Attributes": [name],
        **more,
    }


def lookup(**more: Any) -> dict[str, Any]:
    return {
        "@odata.type": f"{CRM}OneToManyRelationshipMetadata",
        "SchemaName": "abc_contact_condition",
        "ReferencedEntity": "contact",
        "ReferencingEntity": "abc_ve_condition",
        "Lookup": column("Lookup", "abc_subject", "_msemr_subject_value"),
        **more,
    }


COLUMNS = "EntityDefinitions(LogicalName='abc_ve_condition')/Attributes"


async def published(client: Client) -> str:
    """A publisher and its solution; the publisher's id."""
    body = {"uniquename": "clinic", "friendlyname": "Clinic", "customizationprefix": "abc"}
    await client.send("POST", "publishers", body)
    (found,) = (await client.get("publishers"))["value"]
    owner = f"/publishers({found['publisherid']})"
    solution = {"uniquename": "Relay", "friendlyname": "Relay", "version": "1.0.0.0"}
    await client.send("POST", "solutions", {**solution, "publisherid@odata.bind": owner})
    return str(found["publisherid"])


async def sourced(client: Client) -> str:
    source = {
        "msdyn_name": "feed",
        "msdyn_uri": FEED,
        "msdyn_timeout": 30,
        "msdyn_paginationtype": 0,
        "msdyn_isparameter1header": True,
        "msdyn_parameter1name": "x-functions-key",
        "msdyn_parameter1value": "key",
    }
    await client.send("POST", "msdyn_odatav4ds", source)
    (found,) = (await client.get("msdyn_odatav4ds"))["value"]
    return str(found["msdyn_odatav4dsid"])
