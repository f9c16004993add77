"""The one module that reads the environment. Every setting is in local.settings.sample.json."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from integration.errors import Misconfigured

RELAY_QUEUE = "relay"
MIRROR_QUEUE = "mirror"

_STORAGE = "AzureWebJobsStorage"

# What `UseDevelopmentStorage=true` means; the Python SDK does not know it. The key is the same
# for everybody: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLl"
    "mEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1"
)


@dataclass(frozen=True, slots=True)
class Storage:
    """Where the journal and the queues are: a connection string, or addresses and an identity."""

    connection: str | None
    blob_url: str
    queue_url: str
    table_url: str
    client_id: str | None


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides. Sizes in bytes, times in seconds."""

    storage: Storage
    fhir_url: str
    fhir_scope: str | None
    dataverse_url: str
    dataverse_scope: str | None
    azure_client_id: str | None
    sender_header: str | None
    max_delivery_bytes: int
    validate: bool
    unit_max_entries: int
    unit_max_bytes: int
    over_limit: str
    messages: str
    documents: str
    fhir_concurrency: int
    dataverse_concurrency: int
    neighbour_timeout: int
    max_age: int


def from_env(env: Mapping[str, str] = os.environ) -> Settings:
    """Read everything at once, so that one message names all that is missing or wrong."""
    reader = _Reader(env)
    fhir_url = reader.url("FHIR_URL")
    dataverse_url = reader.url("DATAVERSE_URL")
    settings = Settings(
        storage=_storage(reader),
        fhir_url=fhir_url,
        fhir_scope=reader.scope("FHIR_SCOPE", fhir_url),
        dataverse_url=dataverse_url,
        dataverse_scope=reader.scope("DATAVERSE_SCOPE", dataverse_url),
        azure_client_id=reader.optional("AZURE_CLIENT_ID"),
        sender_header=reader.optional("SENDER_HEADER"),
        max_delivery_bytes=reader.whole("MAX_DELIVERY_BYTES", 50_000_000),
        validate=reader.choice("VALIDATE", ("off", "on")) == "on",
        # https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
        unit_max_entries=reader.whole("UNIT_MAX_ENTRIES", 500),
        unit_max_bytes=reader.whole("UNIT_MAX_BYTES", 28_000_000),
        over_limit=reader.choice("OVER_LIMIT", ("split", "reject")),
        messages=reader.choice("MESSAGES", ("resources", "refuse")),
        documents=reader.choice("DOCUMENTS", ("bundle", "resources", "both")),
        fhir_concurrency=reader.whole("FHIR_CONCURRENCY", 16),
        dataverse_concurrency=reader.whole("DATAVERSE_CONCURRENCY", 16),
        # The FHIR service gives a bundle 100 s before it answers 408 itself.
        neighbour_timeout=reader.whole("NEIGHBOUR_TIMEOUT", 110),
        max_age=reader.whole("MAX_AGE", 3 * 24 * 3600),
    )
    reader.check()
    return settings


def telemetry_destination(env: Mapping[str, str] = os.environ) -> str | None:
    """Read by itself, because it is wanted before anything can be missing."""
    return env.get("APPLICATIONINSIGHTS_CONNECTION_STRING") or None


def _storage(reader: _Reader) -> Storage:
    """https://learn.microsoft.com/azure/azure-functions/functions-reference#connecting-to-host-storage-with-an-identity"""
    connection = reader.optional(_STORAGE)
    if connection and connection.rstrip(";").lower() == "usedevelopmentstorage=true":
        connection = _EMULATOR
    account = reader.optional(f"{_STORAGE}__accountName")

    def address(service: str) -> str:
        explicit = reader.optional(f"{_STORAGE}__{service}ServiceUri")
        return explicit or (f"https://{account}.{service}.core.windows.net" if account else "")

    blob, queue, table = address("blob"), address("queue"), address("table")
    if not connection and not (blob and queue and table):
        reader.missing.append(f"{_STORAGE} (or {_STORAGE}__accountName)")
    return Storage(connection, blob, queue, table, reader.optional(f"{_STORAGE}__clientId"))


class _Reader:
    """Collects what is missing or wrong instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def optional(self, name: str) -> str | None:
        return self.env.get(name, "").strip() or None

    def url(self, name: str) -> str:
        value = self.optional(name)
        if value is None:
            self.missing.append(name)
        elif not value.startswith(("https://", "http://")):
            self.wrong.append(f"{name} (an address that starts with https://)")
        return (value or "").rstrip("/")

    def scope(self, name: str, url: str) -> str | None:
        """The token scope; `none` sends no token, for a neighbour on a laptop."""
        value = self.optional(name) or f"{url}/.default"
        return None if value.lower() == "none" else value

    def whole(self, name: str, default: int) -> int:
        value = self.optional(name)
        if value is None:
            return default
        if not value.isascii() or not value.isdigit() or int(value) < 1:
            self.wrong.append(f"{name} (a whole number above 0)")
            return default
        return int(value)

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice is the default."""
        value = self.optional(name) or choices[0]
        if value not in choices:
            self.wrong.append(f"{name} (one of {', '.join(choices)})")
        return value

    def check(self) -> None:
        parts = []
        if self.missing:
            parts.append(f"set {', '.join(self.missing)}")
        if self.wrong:
            parts.append(f"correct {', '.join(self.wrong)}")
        if parts:
            raise Misconfigured(f"{'; '.join(parts)} (see local.settings.sample.json)")
