"""Send traces and logs to Application Insights, if it is configured."""

from __future__ import annotations

import logging

from integration.app import settings

# A URL can have a search by identifier, so no client's requests are traced. The log events of this
# app are enough: docs/operations.md lists them.
_UNTRACED = ("azure_sdk", "httpx", "requests", "urllib", "urllib3")


def start_telemetry() -> None:
    """Export this app's own log events. Without a destination it does nothing."""
    if settings.get_telemetry_destination() is None:
        return
    from azure.monitor.opentelemetry import configure_azure_monitor

    configure_azure_monitor(
        logger_name="integration",
        instrumentation_options={name: {"enabled": False} for name in _UNTRACED},
    )
    logging.getLogger("integration").setLevel(logging.INFO)
