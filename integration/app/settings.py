"""Read the settings from the environment. Every setting is in local.settings.sample.json."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from integration.app.env_reader import EnvReader
from integration.core.base_addresses import is_base_address
from integration.core.byte_budget import DEFAULT_BUDGET

_EVENTS_QUEUE = "fhir-events"

_SCHEDULE = "HOUSEKEEPING_SCHEDULE"
_EVERY_TEN_MINUTES = "0 */10 * * * *"

# How often people's edits are looked for: one request to Dataverse each time.
_WRITEBACK_SCHEDULE = "WRITEBACK_SCHEDULE"
_EVERY_TEN_SECONDS = "*/10 * * * * *"

_STORAGE = "AzureWebJobsStorage"

# https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
_CONTAINER = re.compile(r"(?=.{3,63})[a-z0-9]+(?:-[a-z0-9]+)*")

# Containers that hold something else: see infra/modules/storage.bicep, and the answers to files.
_TAKEN = ("configuration", "deliveries", "deployments", "event-dead-letters", "results")

# Settings by their names in earlier versions, which are not read: see CHANGELOG.md.
_RENAMED = {
    "NEIGHBOUR_TIMEOUT": "UPSTREAM_TIMEOUT",
    "FEED_BREADTH": "FEED_MAX_SCANNED",
    "ORDER": "WRITE_ORDER",
}

# Headers whose values must not be stored.
_SECRET_HEADERS = frozenset({"authorization", "cookie", "x-functions-key"})

# The folder of function_app.py, to which MAPS is relative.
_ROOT = Path(__file__).parents[2]

# What `UseDevelopmentStorage=true` means, which the Python SDK does not support. The key is no
# secret: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey=Eby8vdM02xNOcqFlqUwJPLl"
    "mEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;"
    "TableEndpoint=http://127.0.0.1:10002/devstoreaccount1"
)


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """The account of the journal and the queues: a connection string, or URLs and an identity."""

    connection: str | None
    blob_url: str
    queue_url: str
    table_url: str


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """How an upstream is reached over HTTP. Without a `scope` no token is sent."""

    url: str
    scope: str | None
    concurrency: int  # requests at the same time, at most
    timeout: int


@dataclass(frozen=True, slots=True)
class DataverseSettings:
    """How Dataverse is reached, for a command that needs nothing else."""

    dataverse: UpstreamSettings
    client_id: str | None


@dataclass(frozen=True, slots=True)
class ProvisionSettings:
    """What Dataverse is set up with: the feed's URL and key, and this app's identity."""

    feed_url: str | None
    feed_key: str | None = field(repr=False)
    client_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """How deliveries are read and planned."""

    max_delivery_bytes: int
    max_delivery_entries: int
    validate: bool
    unit_max_entries: int
    unit_max_bytes: int
    over_limit: str
    messages: str
    documents: str
    dangling: str
    max_bytes_in_flight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """Who may send, and at which addresses the app is reached."""

    senders_file: Path | None
    sender_header: str | None
    site_url: str | None  # what stands before /api; None: the app does not run in Azure
    public_url: str | None  # the same as senders know it, where a gateway stands before the app
    easy_auth: bool  # the platform authenticates callers


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorSettings:
    """How resources are mirrored. `enabled_maps`: maps that are used only if they are named.
    `former_urls`: addresses that the FHIR server had before; `other_urls`: those of other servers
    that mirror to the same organisation. `write_back`: how people's edits of rows are found, off,
    poll or bell; `makes_new`: patients are made of new contacts."""

    target: str
    map_set: str
    map_prefix: str | None
    maps_folder: Path | None
    enabled_maps: tuple[str, ...]
    on_delete: str
    change_headers: Mapping[str, str]  # of every change
    former_urls: tuple[str, ...] = ()
    other_urls: tuple[str, ...] = ()
    write_back: str = "off"
    makes_new: bool = False


@dataclass(frozen=True, slots=True)
class FeedSettings:
    """How virtual tables are read. `event_types`: resource types whose changes become events."""

    page_size: int  # rows of a page, at most
    max_scanned: int  # resources that one request may look at
    timeout: int
    event_types: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """What is recorded of reads. `days` 0: nothing. `user_header` names the person who asks."""

    days: int
    user_header: str | None
    is_required: bool  # whether a read is refused that cannot be recorded


@dataclass(frozen=True, slots=True)
class ReaderHeaders:
    """The headers that name who asks: the sender, and the person in whose name. None: none does."""

    sender: str | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class InboxSettings:
    """The container that files are taken from; None: none is. `url`: of the Blob service of its
    account; None: that of the journal."""

    container: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the app. Sizes in bytes, times in seconds."""

    storage: StorageSettings
    fhir: UpstreamSettings
    dataverse: UpstreamSettings
    client_id: str | None  # of a user-assigned identity
    senders: SenderSettings
    deliveries: DeliverySettings
    mirror: MirrorSettings
    feed: FeedSettings
    inbox: InboxSettings
    write_order: Mapping[str, str]  # by sender; "": of all others
    read_lag: int  # of the FHIR server's reads behind its writes
    max_age: int
    retention_days: int
    activity_days: int  # 0: no activity is recorded
    audit: AuditSettings
    fetch_from: Mapping[str, str | None]  # the token scope of each base address
    fetch_pages: int
    pages_are_open: bool  # to whoever can reach them, without sign-in: on a laptop


def read_settings(env: Mapping[str, str] = os.environ) -> Settings:
    """Read all settings. Raises Misconfigured that names all that is missing or wrong."""
    reader = EnvReader(env)
    timeout = _read_timeout(reader)
    settings = Settings(
        fhir=_read_upstream(reader, "FHIR", timeout),
        dataverse=_read_upstream(reader, "DATAVERSE", timeout),
        storage=_read_storage(reader),
        client_id=_read_client_id(reader),
        senders=_read_senders(reader),
        deliveries=_read_deliveries(reader),
        mirror=_read_mirror(reader),
        feed=_read_feed(reader),
        inbox=_read_inbox(reader),
        write_order=reader.read_by_sender(
            "WRITE_ORDER", ("arrival", "lastUpdated", "version", "off")
        ),
        read_lag=reader.read_number("FHIR_MAX_READ_LAG", 10, minimum=0, maximum=3600),
        max_age=reader.read_number("MAX_AGE", 3 * 24 * 3600),
        retention_days=reader.read_number("RETENTION_DAYS", 30, maximum=3650),
        activity_days=reader.read_number("ACTIVITY_DAYS", 30, minimum=0, maximum=3650),
        audit=_read_audit(reader),
        fetch_from=reader.read_sources("FETCH_FROM", "FETCH_SCOPE"),
        fetch_pages=reader.read_number("FETCH_PAGES", 100),
        pages_are_open=reader.read_choice("PAGES_SIGN_IN", ("required", "off")) == "off",
    )
    if settings.feed.event_types and settings.mirror.map_prefix is None:
        reader.missing.append("MAP_PREFIX (EXTERNAL_EVENTS names virtual tables by it)")
    if settings.pages_are_open and settings.senders.site_url is not None:
        reader.wrong.append("PAGES_SIGN_IN (required: off is for a laptop)")
    reader.check()
    return settings


def read_delivery_settings(env: Mapping[str, str] = os.environ) -> DeliverySettings:
    """Read the settings of deliveries, which need no upstream. Raises Misconfigured."""
    reader = EnvReader(env)
    settings = _read_deliveries(reader)
    reader.check()
    return settings


def read_mirror_settings(env: Mapping[str, str] = os.environ) -> MirrorSettings:
    """Read the settings of the mirror, with the maps in use. Raises Misconfigured."""
    reader = EnvReader(env)
    settings = _read_mirror(reader)
    reader.check()
    return settings


def read_dataverse_settings(env: Mapping[str, str] = os.environ) -> DataverseSettings:
    """Read how Dataverse is reached. Raises Misconfigured."""
    reader = EnvReader(env)
    settings = DataverseSettings(
        _read_upstream(reader, "DATAVERSE", _read_timeout(reader)), _read_client_id(reader)
    )
    reader.check()
    return settings


def read_provision_settings(env: Mapping[str, str] = os.environ) -> ProvisionSettings:
    """Read what Dataverse is set up with."""
    reader = EnvReader(env)
    key = reader.read_optional("FEED_KEY")
    return ProvisionSettings(reader.read_optional("FEED_URL"), key, _read_client_id(reader))


def find_renamed_settings(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the names of earlier versions that are still set, with the names of today."""
    return {old: new for old, new in _RENAMED.items() if env.get(old, "").strip()}


def get_housekeeping_schedule(env: Mapping[str, str] = os.environ) -> str:
    """Return the schedule as a timer trigger states it.

    It is read separately, because triggers are declared before any setting can be reported as
    missing; the host cannot start a timer whose setting does not exist:
    https://learn.microsoft.com/azure/azure-functions/functions-bindings-expressions-patterns
    """
    return f"%{_SCHEDULE}%" if env.get(_SCHEDULE, "").strip() else _EVERY_TEN_MINUTES


def get_housekeeping_schedule_text(env: Mapping[str, str] = os.environ) -> str:
    """Return the schedule itself."""
    return env.get(_SCHEDULE, "").strip() or _EVERY_TEN_MINUTES


def get_edits_schedule(env: Mapping[str, str] = os.environ) -> str | None:
    """Return the schedule of looking for edits as a timer trigger states it; None: nobody looks."""
    if env.get("WRITEBACK", "").strip() in ("", "off"):
        return None
    has_own = env.get(_WRITEBACK_SCHEDULE, "").strip()
    return f"%{_WRITEBACK_SCHEDULE}%" if has_own else _EVERY_TEN_SECONDS


def get_edits_schedule_text(env: Mapping[str, str] = os.environ) -> str:
    """Return the schedule itself."""
    return env.get(_WRITEBACK_SCHEDULE, "").strip() or _EVERY_TEN_SECONDS


def get_events_queue_binding(env: Mapping[str, str] = os.environ) -> str:
    """Return the queue of the FHIR service's events as a trigger states it, for the same reason."""
    return "%FHIR_EVENTS_QUEUE%" if env.get("FHIR_EVENTS_QUEUE", "").strip() else _EVENTS_QUEUE


def get_events_queue(env: Mapping[str, str] = os.environ) -> str:
    """Return the name of the queue of the FHIR service's events."""
    return env.get("FHIR_EVENTS_QUEUE", "").strip() or _EVENTS_QUEUE


def get_telemetry_destination(env: Mapping[str, str] = os.environ) -> str | None:
    """Return where telemetry is sent; read separately, since it is needed first of all."""
    return env.get("APPLICATIONINSIGHTS_CONNECTION_STRING") or None


def get_environment() -> Mapping[str, str]:
    """Return what settings are read from."""
    return os.environ


def read_setting(name: str, env: Mapping[str, str] = os.environ) -> str | None:
    """Return a setting that `senders.toml` names: a secret. None: it is not set."""
    return env.get(name) or None


def find_senders_file(env: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file of senders; None if there is none."""
    stated = env.get("SENDERS", "").strip()
    path = _ROOT / (stated or "senders.toml")
    return path if stated or path.is_file() else None


def read_sender_settings(env: Mapping[str, str] = os.environ) -> SenderSettings:
    """Read who may send, and nothing else. Raises Misconfigured."""
    reader = EnvReader(env)
    settings = _read_senders(reader)
    reader.check()
    return settings


def read_fetch_bases(env: Mapping[str, str] = os.environ) -> list[str]:
    """Read the addresses of FETCH_FROM. Raises Misconfigured."""
    reader = EnvReader(env)
    bases = reader.read_addresses("FETCH_FROM")
    reader.check()
    return bases


def _read_senders(reader: EnvReader) -> SenderSettings:
    # The platform sets it for every app, and Core Tools set it to localhost:
    # https://learn.microsoft.com/azure/app-service/reference-app-settings#app-environment
    host = reader.read_optional("WEBSITE_HOSTNAME") or "localhost"
    is_hosted = host.partition(":")[0] not in ("localhost", "127.0.0.1", "0.0.0.0")  # noqa: S104
    public_url = reader.read_optional("PUBLIC_URL")
    if public_url is not None and not is_base_address(public_url.rstrip("/")):
        reader.wrong.append("PUBLIC_URL (an address that starts with https://, without /api)")
    site_url = f"https://{host}" if is_hosted else None
    return SenderSettings(
        senders_file=find_senders_file(reader.env),
        sender_header=reader.read_optional("SENDER_HEADER"),
        site_url=site_url,
        public_url=public_url.rstrip("/") if public_url else site_url,
        # https://learn.microsoft.com/azure/app-service/reference-app-settings#authentication--authorization
        easy_auth=(reader.read_optional("WEBSITE_AUTH_ENABLED") or "").lower() == "true",
    )


def _read_upstream(reader: EnvReader, name: str, timeout: int) -> UpstreamSettings:
    url, scope = reader.read_url(f"{name}_URL"), f"{name}_SCOPE"
    concurrency = reader.read_number(f"{name}_CONCURRENCY", 16)
    return UpstreamSettings(url, reader.read_scope(scope, url), concurrency, timeout)


def _read_timeout(reader: EnvReader) -> int:
    # The FHIR service spends up to 100 s on a bundle before it responds with 408.
    return reader.read_number("UPSTREAM_TIMEOUT", 110)


def _read_client_id(reader: EnvReader) -> str | None:
    return reader.read_optional("AZURE_CLIENT_ID") or reader.read_optional(f"{_STORAGE}__clientId")


def _read_deliveries(reader: EnvReader) -> DeliverySettings:
    return DeliverySettings(
        max_delivery_bytes=reader.read_number("MAX_DELIVERY_BYTES", 50_000_000),
        max_delivery_entries=reader.read_number("MAX_DELIVERY_ENTRIES", 100_000),
        validate=reader.read_choice("VALIDATE", ("off", "on")) == "on",
        # https://learn.microsoft.com/azure/healthcare-apis/fhir/fhir-features-supported
        unit_max_entries=reader.read_number("UNIT_MAX_ENTRIES", 500),
        unit_max_bytes=reader.read_number("UNIT_MAX_BYTES", 28_000_000),
        over_limit=reader.read_choice("OVER_LIMIT", ("split", "reject")),
        messages=reader.read_choice("MESSAGES", ("resources", "refuse")),
        documents=reader.read_choice("DOCUMENTS", ("bundle", "resources", "both")),
        dangling=reader.read_choice("DANGLING", ("refuse", "note")),
        max_bytes_in_flight=reader.read_number("MAX_BYTES_IN_FLIGHT", DEFAULT_BUDGET),
    )


def _read_audit(reader: EnvReader) -> AuditSettings:
    if (reader.read_optional("AUDIT_USER_HEADER") or "").lower() in _SECRET_HEADERS:
        reader.wrong.append("AUDIT_USER_HEADER (a header with a name, not with a secret)")
    return AuditSettings(
        days=reader.read_number("AUDIT_DAYS", 365, minimum=0, maximum=3650),
        user_header=reader.read_optional("AUDIT_USER_HEADER"),
        is_required=reader.read_choice("AUDIT_FAILURES", ("refuse", "answer")) == "refuse",
    )


def _read_feed(reader: EnvReader) -> FeedSettings:
    return FeedSettings(
        page_size=reader.read_number("FEED_PAGE", 250, maximum=1000),
        max_scanned=reader.read_number("FEED_MAX_SCANNED", 2000, maximum=50_000),
        # The provider waits 30 s: https://learn.microsoft.com/power-apps/maker/data-platform/virtual-entity-odata-provider-requirements
        timeout=reader.read_number("FEED_TIMEOUT", 25, maximum=110),
        event_types=tuple(reader.read_list("EXTERNAL_EVENTS")),
    )


def _read_inbox(reader: EnvReader) -> InboxSettings:
    container, url = reader.read_optional("INBOX"), reader.read_optional("INBOX_URL")
    if container is not None and (container in _TAKEN or not _CONTAINER.fullmatch(container)):
        reader.wrong.append("INBOX (the name of a container of its own: a-z, 0-9 and -)")
    if url is not None and not is_base_address(url.rstrip("/")):
        reader.wrong.append("INBOX_URL (an address that starts with https://)")
    return InboxSettings(container, url.rstrip("/") if url else None)


def _read_mirror(reader: EnvReader) -> MirrorSettings:
    target = reader.read_choice("MIRROR_TO", ("web-api", "healthcare-api", "off"))
    map_set = reader.read_choice("MAP_SET", ("healthcare", "plain"))
    if target == "healthcare-api" and map_set != "healthcare":
        # The rows of deleted resources are found by columns that only the API fills.
        reader.wrong.append("MAP_SET (healthcare, where MIRROR_TO is healthcare-api)")
    write_back = reader.read_choice("WRITEBACK", ("off", "poll", "bell"))
    if write_back != "off" and target != "web-api":
        # Of the toolkit's maps nobody knows which element a column shows.
        reader.wrong.append("WRITEBACK (off, where MIRROR_TO is not web-api)")
    return MirrorSettings(
        target=target,
        map_set=map_set,
        map_prefix=reader.read_optional("MAP_PREFIX"),
        maps_folder=_ROOT / folder if (folder := reader.read_optional("MAPS")) else None,
        enabled_maps=tuple(reader.read_list("MAPS_ENABLED")),
        on_delete=reader.read_choice("ON_DELETE", ("deactivate", "delete", "leave")),
        change_headers=dict(_read_change_headers(reader)),
        former_urls=tuple(reader.read_addresses("FHIR_FORMER_URLS")),
        other_urls=tuple(reader.read_addresses("FHIR_OTHER_URLS")),
        write_back=write_back,
        makes_new=reader.read_choice("WRITEBACK_NEW", ("off", "on")) == "on",
    )


def _read_change_headers(reader: EnvReader) -> Iterator[tuple[str, str]]:
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


def _read_storage(reader: EnvReader) -> StorageSettings:
    """https://learn.microsoft.com/azure/azure-functions/functions-reference#connecting-to-host-storage-with-an-identity"""
    connection = reader.read_optional(_STORAGE)
    if connection and connection.rstrip(";").lower() == "usedevelopmentstorage=true":
        connection = _EMULATOR
    account = reader.read_optional(f"{_STORAGE}__accountName")

    def read_address(service: str) -> str:
        explicit = reader.read_optional(f"{_STORAGE}__{service}ServiceUri")
        return explicit or (f"https://{account}.{service}.core.windows.net" if account else "")

    blob, queue, table = read_address("blob"), read_address("queue"), read_address("table")
    if not connection and not (blob and queue and table):
        reader.missing.append(f"{_STORAGE} (or {_STORAGE}__accountName)")
    return StorageSettings(connection, blob, queue, table)
