"""For each failure, the command or the page that mends it. Pure."""

from __future__ import annotations

_ROLES = {
    "container": "Storage Blob Data Owner",
    "queue": "Storage Queue Data Contributor",
    "table": "Storage Table Data Contributor",
}

SETTINGS = "docs/operations.md tells every setting"
IDENTITY = "az login, or run where the identity of AZURE_CLIENT_ID is: docs/deploying.md"
STORAGE_UNREACHABLE = (
    "look at AzureWebJobsStorage__accountName; a private account is reached from its network alone"
)
FHIR_UNREACHABLE = "look at FHIR_URL; a private service is reached from its network alone"
DATAVERSE_UNREACHABLE = "look at DATAVERSE_URL: https://<organisation>.crm<region>.dynamics.com"
PROVISION = "python -m integration provision, as an admin: docs/provision.md"
PROVISION_DRY_RUN = "an admin sees it by python -m integration provision --dry-run"
CLOCK = "set the clock of this machine by a time server (w32tm /resync, chronyc makestep)"
VERSIONS = "name a FHIR R4 server in FHIR_URL"
CONDITIONS = "a server must heed it: docs/decisions/0006-the-order-of-deliveries.md"
FEED = "look at FEED_URL, and that the app is published: func azure functionapp publish <app>"
FEED_KEY = "set FEED_KEY to a key of the function odata, then python -m integration provision"
SOURCE = "look at FETCH_FROM and FETCH_SCOPE: docs/operations.md"
ROUTES = "name their maps in MAPS_ENABLED: docs/mapping.md"


def suggest_create(kind: str, name: str, account: str) -> str:
    """A container, queue or table that is not there."""
    return f"az storage {kind} create --auth-mode login --account-name {account} --name {name}"


def suggest_storage_role(kind: str, account: str, client_id: str | None) -> str:
    scope = f'"$(az storage account show --name {account} --query id --output tsv)"'
    return _suggest_role(_ROLES[kind], client_id, scope)


def suggest_fhir_role(client_id: str | None) -> str:
    return _suggest_role("FHIR Data Contributor", client_id, "<resource id of the FHIR service>")


def suggest_columns(prefix: str | None) -> str:
    """Columns of the publisher's own are made; others belong to a solution of somebody else's."""
    prefixed = f"those that begin with {prefix}_: {PROVISION}; " if prefix else ""
    return f"{prefixed}others: choose MAP_SET, or change the map: docs/mapping.md"


def _suggest_role(role: str, client_id: str | None, scope: str) -> str:
    who = client_id or "<client id of the app's identity>"
    return f'az role assignment create --role "{role}" --assignee {who} --scope {scope}'
