"""The one module that reads the environment. Every setting is in local.settings.sample.json."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from integration.core.errors import Misconfigured

_EVENTS = "fhir-events"

_STORAGE = "AzureWebJobsStorage"

# The folder of function_app.py, to which MAPS is relative.
_ROOT = Path(__file__).parents[2]

# What `UseDevelopmentStorage=true` means; the Python SDK does not know it. The key is the same
# for everybody: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLl"
    "mEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1"
)

# A neighbour beyond this machine is asked over TLS only. No user, no query, no folder tricks:
# what is fetched is compared with it character by character.
_SOURCE = re.compile(
    r"(?:https://[A-Za-z0-9.\-]+|http://(?:127\.0\.0\.1|localhost))(?::\d{1,5})?"
    r"(?:/(?!\.\.?(?:/|\Z))[A-Za-z0-9._~\-]+)*"
)


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Where the journal and the queues are: a connection string, or addresses and an identity."""

    connection: str | None
    blob_url: str
    queue_url: str
    table_url: str


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """How a neighbour that speaks HTTP is reached; without a `scope` no token is sent."""

    url: str
    scope: str | None
    concurrency: int  # the most requests under way
    timeout: int


@dataclass(frozen=True, slots=True)
class DataverseSettings:
    """Dataverse alone, for a command that needs nothing else."""

    dataverse: UpstreamSettings
    client_id: str | None


@dataclass(frozen=True, slots=True)
class ProvisionSettings:
    """What Dataverse is to know of this app: where the feed is, its key, and the app's identity."""

    feed_url: str | None
    feed_key: str | None = field(repr=False)
    client_id: str | None


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How a delivery is read and planned, whatever the neighbours are."""

    max_delivery_bytes: int
    validate: bool
    unit_max_entries: int
    unit_max_bytes: int
    over_limit: str
    messages: str
    documents: str
    dangling: str


@dataclass(frozen=True, slots=True)
class MirrorSettings:
    """How resources become rows. `enabled` names maps that are used only where they are named."""

    target: str
    map_set: str
    map_prefix: str | None
    maps_folder: Path | None
    enabled_maps: tuple[str, ...]
    on_delete: str
    change_headers: Mapping[str, str]  # headers of every change


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """How virtual tables are read. `told`: the resource types of whose changes flows hear."""

    page_size: int  # rows, at most
    max_scanned: int  # resources that one request may look at
    timeout: int
    event_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """What an operator decides. Sizes in bytes, times in seconds."""

    storage: StorageSettings
    fhir: UpstreamSettings
    dataverse: UpstreamSettings
    client_id: str | None  # of a user-assigned identity
    sender_header: str | None
    deliveries: DeliverySettings
    mirror: MirrorSettings
    feed: FeedSettings
    write_order: Mapping[str, str]  # by sender; "" for all others
    max_age: int
    retention_days: int
    activity_days: int  # 0: no activity is noted
    fetch_from: Mapping[str, str | None]  # the token scope of each base address
    fetch_pages: int


class EnvReader:
    """Collects what is missing or wrong instead of stopping at the first."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = env
        self.missing: list[str] = []
        self.wrong: list[str] = []

    def read_optional(self, name: str) -> str | None:
        return self.env.get(name, "").strip() or None

    def read_url(self, name: str) -> str:
        value = self.read_optional(name)
        if value is None:
            self.missing.append(name)
        elif not value.startswith(("https://", "http://")):
            self.wrong.append(f"{name} (an address that starts with https://)")
        return (value or "").rstrip("/")

    def read_scope(self, name: str, url: str) -> str | None:
        """The token scope; `none` sends no token, for a neighbour on a laptop."""
        value = self.read_optional(name) or f"{url}/.default"
        return None if value.lower() == "none" else value

    def read_sources(self, name: str, scope: str) -> dict[str, str | None]:
        """Base addresses, and the token scope of each, in their order; `none` is for all."""
        bases = self.read_list(name)
        if not all(_SOURCE.fullmatch(base) for base in bases):
            self.wrong.append(f"{name} (addresses that start with https://, by commas)")
        stated = self.read_list(scope) or ["none"]
        scopes = [None if each.lower() == "none" else each for each in stated]
        scopes = scopes * len(bases) if scopes == [None] else scopes
        if len(scopes) != len(bases):
            self.wrong.append(f"{scope} (none, or one for each address of {name}, by commas)")
        return dict(zip(bases, scopes, strict=False))

    def read_list(self, name: str) -> list[str]:
        parts = (self.read_optional(name) or "").split(",")
        return [part.strip().rstrip("/") for part in parts if part.strip()]

    def read_number(self, name: str, default: int, most: int | None = None, least: int = 1) -> int:
        value = self.read_optional(name)
        if value is None:
            return default
        number = int(value) if value.isascii() and value.isdigit() else -1
        if number < least or (most is not None and number > most):
            wanted = f"from {least} to {most}" if most else "above 0"
            self.wrong.append(f"{name} (a whole number {wanted})")
            return default
        return number

    def read_choice(self, name: str, choices: tuple[str, ...]) -> str:
        """The first choice is the default."""
        value = self.read_optional(name) or choices[0]
        if value not in choices:
            self.wrong.append(f"{name} (one of {', '.join(choices)})")
        return value

    def read_by_sender(self, name: str, choices: tuple[str, ...]) -> dict[str, str]:
        """`arrival, lab=version`: a choice for everybody, and others for senders by name."""
        chosen = {"": choices[0]}
        for part in (self.read_optional(name) or choices[0]).split(","):
            sender, _, value = part.strip().rpartition("=")
            chosen[sender.strip()] = value.strip()
        if set(chosen.values()) - set(choices):
            self.wrong.append(f"{name} (one of {', '.join(choices)}; sender=… for one sender)")
        return chosen

    def check(self) -> None:
        parts = []
        if self.missing:
            parts.append(f"set {', '.join(self.missing)}")
        if self.wrong:
            parts.append(f"correct {', '.join(self.wrong)}")
        if parts:
            raise Misconfigured(f"{'; '.join(parts)} (see local.settings.sample.json)")


def read_settings(env: Mapping[str, str] = os.environ) -> Settings:
    """Read everything at once, so that one message names all that is missing or wrong."""
    reader = EnvReader(env)
    timeout = _timeout(reader)
    settings = Settings(
        fhir=_service(reader, "FHIR", timeout),
        dataverse=_service(reader, "DATAVERSE", timeout),
        storage=_storage(reader),
        client_id=_client_id(reader),
        sender_header=reader.read_optional("SENDER_HEADER"),
        deliveries=_reading(reader),
        mirror=_mirroring(reader),
        feed=_feed(reader),
        write_order=reader.read_by_sender(
            "WRITE_ORDER", ("arrival", "lastUpdated", "version", "off")
        ),
        max_age=reader.read_number("MAX_AGE", 3 * 24 * 3600),
        retention_days=reader.read_number("RETENTION_DAYS", 30, most=3650),
        activity_days=reader.read_number("ACTIVITY_DAYS", 30, least=0, most=3650),
        fetch_from=reader.read_sources("FETCH_FROM", "FETCH_SCOPE"),
        fetch_pages=reader.read_number("FETCH_PAGES", 100),
    )
    if settings.feed.event_types and settings.mirror.map_prefix is None:
        reader.missing.append("MAP_PREFIX (EXTERNAL_EVENTS names virtual tables by it)")
    reader.check()
    return settings


def read_delivery_settings(env: Mapping[str, str] = os.environ) -> DeliverySettings:
    """The part that needs no neighbour."""
    reader = EnvReader(env)
    reading = _reading(reader)
    reader.check()
    return reading


def read_mirror_settings(env: Mapping[str, str] = os.environ) -> MirrorSettings:
    """The part that says which maps are in use."""
    reader = EnvReader(env)
    mirroring = _mirroring(reader)
    reader.check()
    return mirroring


def read_dataverse_settings(env: Mapping[str, str] = os.environ) -> DataverseSettings:
    """The part that reaches Dataverse."""
    reader = EnvReader(env)
    tenant = DataverseSettings(_service(reader, "DATAVERSE", _timeout(reader)), _client_id(reader))
    reader.check()
    return tenant


def read_provision_settings(env: Mapping[str, str] = os.environ) -> ProvisionSettings:
    """The part that Dataverse is set up with."""
    reader = EnvReader(env)
    key = reader.read_optional("FEED_KEY")
    return ProvisionSettings(reader.read_optional("FEED_URL"), key, _client_id(reader))


def get_housekeeping_schedule(env: Mapping[str, str] = os.environ) -> str:
    """How a timer names its schedule. Read by itself, because triggers are declared before
    anything can be missing; the host cannot start a timer whose setting is not there:
    https://learn.microsoft.com/azure/azure-functions/functions-bindings-expressions-patterns"""
    name = "HOUSEKEEPING_SCHEDULE"
    return f"%{name}%" if env.get(name, "").strip() else "0 */10 * * * *"


def get_events_queue_binding(env: Mapping[str, str] = os.environ) -> str:
    """How a trigger names the queue of the FHIR service's events, for the same reason."""
    return "%FHIR_EVENTS_QUEUE%" if env.get("FHIR_EVENTS_QUEUE", "").strip() else _EVENTS


def get_events_queue(env: Mapping[str, str] = os.environ) -> str:
    """Its name, for who is no trigger."""
    return env.get("FHIR_EVENTS_QUEUE", "").strip() or _EVENTS


def get_telemetry_destination(env: Mapping[str, str] = os.environ) -> str | None:
    """Read by itself, because it is wanted before anything can be missing."""
    return env.get("APPLICATIONINSIGHTS_CONNECTION_STRING") or None


def _service(reader: EnvReader, name: str, timeout: int) -> UpstreamSettings:
    url, scope = reader.read_url(f"{name}_URL"), f"{name}_SCOPE"
    concurrency = reader.read_number(f"{name}_CONCURRENCY", 16)
    return UpstreamSettings(url, reader.read_scope(scope, url), concurrency, timeout)


def _timeout(reader: EnvReader) -> int:
    # The FHIR service gives a bundle 100 s before it answers 408 itself.
    return reader.read_number("UPSTREAM_TIMEOUT", 110)


def _client_id(reader: EnvReader) -> str | None:
    return reader.read_optional("AZURE_CLIENT_ID") or reader.read_optional(f"{_STORAGE}__clientId")


def _reading(reader: EnvReader) -> DeliverySettings:
    return DeliverySettings(
        max_delivery_bytes=reader.read_number("MAX_DELIVERY_BYTES", 50_000_000),
        validate=reader.read_choice("VALIDATE", ("off", "on")) == "on",
        # https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
        unit_max_entries=reader.read_number("UNIT_MAX_ENTRIES", 500),
        unit_max_bytes=reader.read_number("UNIT_MAX_BYTES", 28_000_000),
        over_limit=reader.read_choice("OVER_LIMIT", ("split", "reject")),
        messages=reader.read_choice("MESSAGES", ("resources", "refuse")),
        documents=reader.read_choice("DOCUMENTS", ("bundle", "resources", "both")),
        dangling=reader.read_choice("DANGLING", ("refuse", "note")),
    )


def _feed(reader: EnvReader) -> FeedSettings:
    return FeedSettings(
        page_size=reader.read_number("FEED_PAGE", 250, most=1000),
        max_scanned=reader.read_number("FEED_MAX_SCANNED", 2000, most=50_000),
        # The provider waits 30 s: https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
        timeout=reader.read_number("FEED_TIMEOUT", 25, most=110),
        event_types=tuple(reader.read_list("EXTERNAL_EVENTS")),
    )


def _mirroring(reader: EnvReader) -> MirrorSettings:
    to = reader.read_choice("MIRROR_TO", ("web-api", "healthcare-api", "off"))
    map_set = reader.read_choice("MAP_SET", ("healthcare", "plain"))
    if to == "healthcare-api" and map_set != "healthcare":
        # The rows of deleted resources are found by the columns that the API fills.
        reader.wrong.append("MAP_SET (healthcare, where MIRROR_TO is healthcare-api)")
    return MirrorSettings(
        target=to,
        map_set=map_set,
        map_prefix=reader.read_optional("MAP_PREFIX"),
        maps_folder=_ROOT / own if (own := reader.read_optional("MAPS")) else None,
        enabled_maps=tuple(reader.read_list("MAPS_ENABLED")),
        on_delete=reader.read_choice("ON_DELETE", ("deactivate", "delete", "leave")),
        change_headers=dict(_options(reader)),
    )


def _options(reader: EnvReader) -> Iterator[tuple[str, str]]:
    """https://learn.microsoft.com/power-apps/developer/data-platform/bypass-custom-business-logic
    https://learn.microsoft.com/power-apps/developer/data-platform/impersonate-another-user
    """
    bypassed = reader.read_optional("BYPASS_LOGIC")
    if bypassed is not None:
        yield "mscrm.bypassbusinesslogicexecution", bypassed
    if reader.read_choice("DETECT_DUPLICATES", ("off", "on")) == "on":
        yield "mscrm.suppressduplicatedetection", "false"
    user = reader.read_optional("IMPERSONATE")
    if user is not None:
        yield "callerobjectid", user


def _storage(reader: EnvReader) -> StorageSettings:
    """https://learn.microsoft.com/azure/azure-functions/functions-reference#connecting-to-host-storage-with-an-identity"""
    connection = reader.read_optional(_STORAGE)
    if connection and connection.rstrip(";").lower() == "usedevelopmentstorage=true":
        connection = _EMULATOR
    account = reader.read_optional(f"{_STORAGE}__accountName")

    def address(service: str) -> str:
        explicit = reader.read_optional(f"{_STORAGE}__{service}ServiceUri")
        return explicit or (f"https://{account}.{service}.core.windows.net" if account else "")

    blob, queue, table = address("blob"), address("queue"), address("table")
    if not connection and not (blob and queue and table):
        reader.missing.append(f"{_STORAGE} (or {_STORAGE}__accountName)")
    return StorageSettings(connection, blob, queue, table)
