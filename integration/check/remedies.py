"""For each failure, the command or the page that helps. Pure."""

from __future__ import annotations

_ROLES = {
    "container": "Storage Blob Data Owner",
    "queue": "Storage Queue Data Contributor",
    "table": "Storage Table Data Contributor",
}

SETTINGS = "docs/operations.md lists every setting"
RENAMED = "set them by the new names, and remove the old ones: CHANGELOG.md"
IDENTITY = (
    "run az login, or run this where the identity of AZURE_CLIENT_ID is available: "
    "docs/deploying.md"
)
STORAGE_UNREACHABLE = (
    "check AzureWebJobsStorage__accountName; a private account is reached only from its network"
)
FHIR_UNREACHABLE = "check FHIR_URL; a private service is reached only from its network"
DATAVERSE_UNREACHABLE = "check DATAVERSE_URL: https://<organisation>.crm<region>.dynamics.com"
PROVISION = "run python -m integration provision as an admin: docs/provision.md"
PROVISION_DRY_RUN = "an admin can see it with python -m integration provision --dry-run"
TOOLKIT_WRITE_BACK = (
    "let one of the two write to FHIR: set Enable Write Back to FHIR to No in these entity maps"
)
CLOCK = "set this machine's clock by a time server (w32tm /resync, chronyc makestep)"
VERSIONS = "set FHIR_URL to a FHIR R4 server"
CONDITIONS = (
    "the relay needs a server that honours it: docs/decisions/0006-the-order-of-deliveries.md"
)
FEED = "check FEED_URL, and publish the app: func azure functionapp publish <app>"
FEED_KEY = "set FEED_KEY to a key of the function odata, and run python -m integration provision"
SOURCE = "check FETCH_FROM and FETCH_SCOPE: docs/operations.md"
SENDERS = "copy a table of senders.sample.toml, or mend the lines named: docs/senders.md"
SENDER = "set the app setting, as a Key Vault reference: docs/senders.md"
MAP_DIGEST = (
    "run provision with map_digest in MAPS_ENABLED, and set it for the app: docs/writeback.md"
)
STAMP = "run provision with map_digest in MAPS_ENABLED; widen a column of 12 characters to 50"
ROUTES = "add their maps to MAPS_ENABLED: docs/mapping.md"


def suggest_create(kind: str, name: str, account: str) -> str:
    """Return the command that creates a container, queue or table."""
    return f"az storage {kind} create --auth-mode login --account-name {account} --name {name}"


def suggest_storage_role(kind: str, account: str, client_id: str | None) -> str:
    scope = f'"$(az storage account show --name {account} --query id --output tsv)"'
    return _suggest_role(_ROLES[kind], client_id, scope)


def suggest_fhir_role(client_id: str | None) -> str:
    return _suggest_role("FHIR Data Contributor", client_id, "<resource id of the FHIR service>")


def suggest_columns(prefix: str | None) -> str:
    """Provisioning adds columns with the publisher's prefix. Others belong to other solutions."""
    prefixed = f"those that start with {prefix}_: {PROVISION}; " if prefix else ""
    return f"{prefixed}others: choose MAP_SET, or change the map: docs/mapping.md"


def _suggest_role(role: str, client_id: str | None, scope: str) -> str:
    who = client_id or "<client id of the app's identity>"
    return f'az role assignment create --role "{role}" --assignee {who} --scope {scope}'
