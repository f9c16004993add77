"""The settings as operators may see them. What is shown is listed here, setting by setting.

A setting that is not listed is not shown, and neither is a value that does not look like what its
setting holds: somebody may have put a key there. So nothing has to be known about secrets.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from integration.app import settings as reading
from integration.app.settings import Settings
from integration.pages.parts import ShownSetting


class Shape(StrEnum):
    """What a value of a setting looks like; what does not is not shown."""

    NUMBER = "number"
    WORDS = "words"  # choices, and lists of names
    PATH = "path"  # of a file or folder
    GUID = "guid"
    SCHEDULE = "schedule"
    ADDRESSES = "addresses"  # shown without user, query and fragment, which may hold secrets
    SECRET = "secret"  # noqa: S105 -- never shown


# Keys are longer than any word that a setting holds.
_WORD = r"[A-Za-z0-9][\w.-]{0,39}(?:=[\w-]{1,40})?"
_SHAPES = {
    Shape.NUMBER: re.compile(r"\d{1,15}"),
    Shape.WORDS: re.compile(rf"{_WORD}(?:, ?{_WORD})*"),
    Shape.PATH: re.compile(r"[\w./\\:~ -]{1,255}"),
    Shape.GUID: re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"),
    Shape.SCHEDULE: re.compile(r"[\d*/,:. -]{1,60}"),
}


@dataclass(frozen=True, slots=True)
class _Listed:
    """A setting that may be shown. `read`: its value in use; None: the value of the environment
    itself is in use, there is no default."""

    name: str
    shape: Shape
    read: Callable[[Settings, Mapping[str, str]], object] | None = None


def _join(values: object) -> str:
    return ", ".join(map(str, values)) if isinstance(values, (tuple, list)) else str(values)


def _format_scopes(scopes: Mapping[str, str | None]) -> str:
    return ", ".join(scope or "none" for scope in scopes.values()) or "none"


def _format_by_sender(chosen: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" if name else value for name, value in chosen.items())


def _get_header(name: str) -> Callable[[Settings, Mapping[str, str]], object]:
    return lambda settings, _: settings.mirror.change_headers.get(name)


_GROUPS: Mapping[str, tuple[_Listed, ...]] = {
    "Storage and upstreams": (
        _Listed("AzureWebJobsStorage", Shape.SECRET),
        _Listed("AzureWebJobsStorage__accountName", Shape.WORDS),
        _Listed("AzureWebJobsStorage__clientId", Shape.GUID),
        _Listed("AzureWebJobsStorage__blobServiceUri", Shape.ADDRESSES),
        _Listed("AzureWebJobsStorage__queueServiceUri", Shape.ADDRESSES),
        _Listed("AzureWebJobsStorage__tableServiceUri", Shape.ADDRESSES),
        _Listed("FHIR_URL", Shape.ADDRESSES, lambda s, _: s.fhir.url),
        _Listed("FHIR_SCOPE", Shape.ADDRESSES, lambda s, _: s.fhir.scope or "none"),
        _Listed("DATAVERSE_URL", Shape.ADDRESSES, lambda s, _: s.dataverse.url),
        _Listed("DATAVERSE_SCOPE", Shape.ADDRESSES, lambda s, _: s.dataverse.scope or "none"),
        _Listed("AZURE_CLIENT_ID", Shape.GUID, lambda s, _: s.client_id),
        _Listed("FHIR_CONCURRENCY", Shape.NUMBER, lambda s, _: s.fhir.concurrency),
        _Listed("DATAVERSE_CONCURRENCY", Shape.NUMBER, lambda s, _: s.dataverse.concurrency),
        _Listed("FHIR_MAX_READ_LAG", Shape.NUMBER, lambda s, _: s.read_lag),
        _Listed("UPSTREAM_TIMEOUT", Shape.NUMBER, lambda s, _: s.fhir.timeout),
    ),
    "Senders and people": (
        _Listed("SENDERS", Shape.PATH, lambda s, _: _name_file(s)),
        _Listed("PUBLIC_URL", Shape.ADDRESSES, lambda s, _: s.senders.public_url),
        _Listed("SENDER_HEADER", Shape.WORDS, lambda s, _: s.senders.sender_header),
        _Listed(
            "PAGES_SIGN_IN", Shape.WORDS, lambda s, _: "off" if s.pages_are_open else "required"
        ),
        _Listed("INBOX", Shape.WORDS, lambda s, _: s.inbox.container),
        _Listed("INBOX_URL", Shape.ADDRESSES, lambda s, _: s.inbox.url),
    ),
    "Deliveries": (
        _Listed("MAX_DELIVERY_BYTES", Shape.NUMBER, lambda s, _: s.deliveries.max_delivery_bytes),
        _Listed("MAX_BYTES_IN_FLIGHT", Shape.NUMBER, lambda s, _: s.deliveries.max_bytes_in_flight),
        _Listed(
            "MAX_DELIVERY_ENTRIES", Shape.NUMBER, lambda s, _: s.deliveries.max_delivery_entries
        ),
        _Listed("VALIDATE", Shape.WORDS, lambda s, _: "on" if s.deliveries.validate else "off"),
        _Listed("UNIT_MAX_ENTRIES", Shape.NUMBER, lambda s, _: s.deliveries.unit_max_entries),
        _Listed("UNIT_MAX_BYTES", Shape.NUMBER, lambda s, _: s.deliveries.unit_max_bytes),
        _Listed("OVER_LIMIT", Shape.WORDS, lambda s, _: s.deliveries.over_limit),
        _Listed("MESSAGES", Shape.WORDS, lambda s, _: s.deliveries.messages),
        _Listed("DOCUMENTS", Shape.WORDS, lambda s, _: s.deliveries.documents),
        _Listed("DANGLING", Shape.WORDS, lambda s, _: s.deliveries.dangling),
        _Listed("WRITE_ORDER", Shape.WORDS, lambda s, _: _format_by_sender(s.write_order)),
        _Listed("MAX_AGE", Shape.NUMBER, lambda s, _: s.max_age),
        _Listed("FETCH_FROM", Shape.ADDRESSES, lambda s, _: _join(tuple(s.fetch_from))),
        _Listed("FETCH_SCOPE", Shape.ADDRESSES, lambda s, _: _format_scopes(s.fetch_from)),
        _Listed("FETCH_PAGES", Shape.NUMBER, lambda s, _: s.fetch_pages),
    ),
    "Mirror and maps": (
        _Listed("MIRROR_TO", Shape.WORDS, lambda s, _: s.mirror.target),
        _Listed("MAP_SET", Shape.WORDS, lambda s, _: s.mirror.map_set),
        _Listed("MAP_PREFIX", Shape.WORDS, lambda s, _: s.mirror.map_prefix),
        _Listed("MAPS", Shape.PATH),
        _Listed("MAPS_ENABLED", Shape.WORDS, lambda s, _: _join(s.mirror.enabled_maps)),
        _Listed("ON_DELETE", Shape.WORDS, lambda s, _: s.mirror.on_delete),
        _Listed("FHIR_FORMER_URLS", Shape.ADDRESSES, lambda s, _: _join(s.mirror.former_urls)),
        _Listed("FHIR_OTHER_URLS", Shape.ADDRESSES, lambda s, _: _join(s.mirror.other_urls)),
        _Listed("WRITEBACK", Shape.WORDS, lambda s, _: s.mirror.write_back),
        _Listed("WRITEBACK_NEW", Shape.WORDS, lambda s, _: "on" if s.mirror.makes_new else "off"),
        _Listed(
            "WRITEBACK_SCHEDULE",
            Shape.SCHEDULE,
            lambda _, env: reading.get_edits_schedule_text(env),
        ),
        _Listed("BYPASS_LOGIC", Shape.WORDS, _get_header("mscrm.bypassbusinesslogicexecution")),
        _Listed(
            "DETECT_DUPLICATES",
            Shape.WORDS,
            lambda s, _: (
                "on" if "mscrm.suppressduplicatedetection" in s.mirror.change_headers else "off"
            ),
        ),
        _Listed("IMPERSONATE", Shape.GUID, _get_header("callerobjectid")),
    ),
    "Virtual tables and events": (
        _Listed("FEED_PAGE", Shape.NUMBER, lambda s, _: s.feed.page_size),
        _Listed("FEED_MAX_SCANNED", Shape.NUMBER, lambda s, _: s.feed.max_scanned),
        _Listed("FEED_TIMEOUT", Shape.NUMBER, lambda s, _: s.feed.timeout),
        _Listed("EXTERNAL_EVENTS", Shape.WORDS, lambda s, _: _join(s.feed.event_types)),
        _Listed("FHIR_EVENTS_QUEUE", Shape.WORDS, lambda _, env: reading.get_events_queue(env)),
    ),
    "What is kept": (
        _Listed("RETENTION_DAYS", Shape.NUMBER, lambda s, _: s.retention_days),
        _Listed("ACTIVITY_DAYS", Shape.NUMBER, lambda s, _: s.activity_days),
        _Listed("AUDIT_DAYS", Shape.NUMBER, lambda s, _: s.audit.days),
        _Listed("AUDIT_USER_HEADER", Shape.WORDS, lambda s, _: s.audit.user_header),
        _Listed(
            "AUDIT_FAILURES",
            Shape.WORDS,
            lambda s, _: "refuse" if s.audit.is_required else "answer",
        ),
        _Listed(
            "HOUSEKEEPING_SCHEDULE",
            Shape.SCHEDULE,
            lambda _, env: reading.get_housekeeping_schedule_text(env),
        ),
        _Listed("APPLICATIONINSIGHTS_CONNECTION_STRING", Shape.SECRET),
        _Listed("FUNCTIONS_WORKER_RUNTIME", Shape.WORDS),
    ),
}


def list_settings(settings: Settings, env: Mapping[str, str]) -> tuple[ShownSetting, ...]:
    """Return every listed setting, with its value in use where that may be seen. `env`: what the
    settings were read from."""
    return tuple(_list_settings(settings, env))


def _list_settings(settings: Settings, env: Mapping[str, str]) -> Iterator[ShownSetting]:
    for group, listed in _GROUPS.items():
        for item in listed:
            stated = env.get(item.name, "").strip()
            value = stated if item.read is None else item.read(settings, env)
            text = "" if value is None else str(value)
            shown = show_value(item.shape, text)
            yield ShownSetting(
                group=group,
                name=item.name,
                value=shown,
                is_set=bool(stated),
                is_secret=shown is None and bool(text),
            )


def show_value(shape: Shape, value: str) -> str | None:
    """Return the value as it may be seen; None: there is none, or nobody may see it."""
    if not value or shape is Shape.SECRET:
        return None
    if shape is Shape.ADDRESSES:
        shown = [_show_address(part.strip()) for part in value.split(",")]
        return ", ".join(part for part in shown if part) if all(shown) else None
    return value if _SHAPES[shape].fullmatch(value) else None


def _show_address(value: str) -> str | None:
    if value == "none":
        return value
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if parts.scheme not in ("https", "http", "api") or not host:
        return None
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{parts.path}"


def _name_file(settings: Settings) -> str | None:
    path = settings.senders.senders_file
    return None if path is None else path.name
