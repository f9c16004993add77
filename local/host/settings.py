"""Read the host's configuration: host.json, local.settings.json and the environment."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# https://learn.microsoft.com/azure/azure-functions/functions-app-settings
# #functions_request_body_size_limit -- 104,857,600 bytes when it is not set.
BODY_LIMIT = 104_857_600
# https://learn.microsoft.com/azure/azure-functions/functions-host-json#override-hostjson-values
OVERRIDE = "AzureFunctionsJobHost__"
_TIME_SPAN = re.compile(r"(?:(\d+)\.)?(\d{1,2}):(\d{1,2})(?::(\d{1,2})(\.\d+)?)?")


class CannotStart(Exception):
    """The host cannot start until the app, its settings or the machine are changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueOptions:
    """https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue#hostjson-settings"""

    batch_size: int = 16
    new_batch_threshold: int = 8
    visibility_timeout: float = 0.0
    max_dequeue_count: int = 5
    # One minute in Azure, two seconds in the Development environment that Core Tools sets: https://
    # github.com/Azure/azure-sdk-for-net StorageQueuesWebJobsBuilderExtensions.cs
    max_polling_interval: float = 2.0
    base64: bool = True
    # QueueListener leases each message for ten minutes and renews at half time; no setting for it.
    lease: float = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOptions:
    route_prefix: str = "api"
    function_timeout: float | None = 1800.0
    kill_at_timeout: bool = False  # the whole process, as Azure ends a worker; see kill.py
    body_limit: int = BODY_LIMIT
    threads: int | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    queues: QueueOptions = QueueOptions()


def read_local_settings(folder: Path, env: MutableMapping[str, str]) -> None:
    """Add the Values of local.settings.json to the environment; existing variables stay."""
    settings = _read_json(folder / "local.settings.json")
    if settings.get("IsEncrypted"):
        raise CannotStart("local.settings.json is encrypted: run `func settings decrypt`")
    for name, value in settings.get("Values", {}).items():
        env.setdefault(name, str(value))


def read_options(folder: Path, env: Mapping[str, str]) -> HostOptions:
    """Read host.json. Each value can be overridden as AzureFunctionsJobHost__section__name.

    Raises CannotStart for an invalid value.
    """
    host = _lower_keys(_read_json(folder / "host.json"))
    for name, value in env.items():
        if name.lower().startswith(OVERRIDE.lower()):
            _set_nested(host, name[len(OVERRIDE) :].lower().split("__"), value)
    http = host.get("extensions", {}).get("http", {})
    return HostOptions(
        route_prefix=str(http.get("routeprefix", "api")).strip("/"),
        function_timeout=_parse_timeout(host.get("functiontimeout")),
        kill_at_timeout=env.get("HOST_TIMEOUT_KILLS") == "1",
        body_limit=int(env.get("FUNCTIONS_REQUEST_BODY_SIZE_LIMIT", BODY_LIMIT)),
        threads=_parse_threads(env.get("PYTHON_THREADPOOL_THREAD_COUNT")),
        keys=parse_keys(env.get("HOST_FUNCTION_KEYS", "")),
        queues=_read_queue_options(host.get("extensions", {}).get("queues", {}), env),
    )


def parse_keys(text: str) -> dict[str, str]:
    """Parse `name=key;name=key`. Keys may contain an equals sign: real ones are base64-like."""
    pairs = [part.strip().partition("=") for part in text.split(";") if part.strip()]
    if broken := [name for name, _, key in pairs if not name or not key]:
        raise CannotStart(f"HOST_FUNCTION_KEYS: {broken[0] or 'a part'} is not name=key")
    return {name: key for name, _, key in pairs}


def parse_time_span(text: object, where: str) -> float:
    """Parse a .NET time span, `[d.]hh:mm:ss[.f]`, to seconds."""
    match = _TIME_SPAN.fullmatch(str(text).strip())
    if match is None:
        raise CannotStart(f"{where}: expected a time span like 00:00:30")
    days, hours, minutes, secs, fraction = match.groups()
    # .NET reads 24:00:00 as twenty-four days, which is hardly meant:
    # https://learn.microsoft.com/dotnet/api/system.timespan.parse
    if int(hours) > 23 or int(minutes) > 59 or int(secs or 0) > 59:
        raise CannotStart(f"{where}: write 1.00:00:00 for a day; hours end at 23")
    whole = int(days or 0) * 86_400 + int(hours) * 3600 + int(minutes) * 60 + int(secs or 0)
    return whole + float(fraction or 0)


def resolve_setting(text: str, env: Mapping[str, str]) -> str:
    """https://learn.microsoft.com/azure/azure-functions/functions-bindings-expressions-patterns"""

    def look_up(match: re.Match[str]) -> str:
        if (found := env.get(match[1])) is None:
            raise CannotStart(f"set {match[1]}: a trigger names it as %{match[1]}%")
        return found

    return re.sub(r"%([^%]+)%", look_up, text)


def is_disabled(function: str, env: Mapping[str, str]) -> bool:
    """https://learn.microsoft.com/azure/azure-functions/disable-function"""
    names = (f"AzureWebJobs.{function}.Disabled", f"AzureWebJobs__{function}__Disabled")
    return any(env.get(name, "").lower() in ("1", "true") for name in names)


def _read_queue_options(queues: Mapping[str, Any], env: Mapping[str, str]) -> QueueOptions:
    batch = int(queues.get("batchsize", 16))
    if not 1 <= batch <= 32:
        raise CannotStart("host.json extensions.queues.batchSize: expected 1 to 32")
    options = QueueOptions(
        batch_size=batch,
        new_batch_threshold=int(queues.get("newbatchthreshold", batch // 2)),
        visibility_timeout=parse_time_span(
            queues.get("visibilitytimeout", "00:00:00"), "host.json visibilityTimeout"
        ),
        max_dequeue_count=int(queues.get("maxdequeuecount", 5)),
        max_polling_interval=parse_time_span(
            queues.get("maxpollinginterval", "00:00:02"), "host.json maxPollingInterval"
        ),
        base64=str(queues.get("messageencoding", "base64")).lower() == "base64",
        lease=float(env.get("HOST_LEASE_SECONDS", "600")),
    )
    if options.max_dequeue_count < 1 or options.lease < 1:
        raise CannotStart("maxDequeueCount and HOST_LEASE_SECONDS: expected 1 or more")
    return options


def _parse_timeout(value: object) -> float | None:
    # https://learn.microsoft.com/azure/azure-functions/functions-host-json#functiontimeout
    # -1 means no limit; without a value the plans other than Consumption allow 30 minutes.
    if value is None:
        return 1800.0
    return None if str(value) == "-1" else parse_time_span(value, "host.json functionTimeout")


def _parse_threads(value: str | None) -> int | None:
    return int(value) if value else None


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise CannotStart(f"{path.name} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CannotStart(f"{path.name}: expected an object")
    return content


def _lower_keys(value: Any) -> Any:
    """.NET configuration keys are case-insensitive."""
    if isinstance(value, dict):
        return {name.lower(): _lower_keys(inner) for name, inner in value.items()}
    return value


def _set_nested(host: dict[str, Any], path: list[str], value: str) -> None:
    for name in path[:-1]:
        inner = host.get(name)
        host[name] = inner if isinstance(inner, dict) else {}
        host = host[name]
    host[path[-1]] = value
